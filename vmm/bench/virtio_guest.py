# SPDX-License-Identifier: GPL-2.0-or-later
"""What guests of the bench that drive a virtio device have in common: the way of its interrupt. Text alone, no host."""

from __future__ import annotations

from vmm.machine.memory.layout import REGIONS

_INTERRUPTS = """
    ; x2APIC on; whatever pin of the IOAPIC the device has, it is this vector
    mov   ecx, {apicbase}
    rdmsr
    or    eax, 0xc00
    wrmsr
    mov   ecx, {spiv}
    mov   eax, 0x1ff
    xor   edx, edx
    wrmsr
    mov   edi, {ioapic} >> 12
    shl   rdi, 12
    mov   eax, 0x10
pins:
    mov   dword ptr [rdi], eax
    mov   dword ptr [rdi + 0x10], {vector}
    inc   eax
    mov   dword ptr [rdi], eax
    mov   dword ptr [rdi + 0x10], 0
    inc   eax
    cmp   eax, 0x10 + 2 * 24
    jb    pins
"""

_HANDLER = """
handler:
    push  rax
    push  rcx
    push  rdx
    mov   eax, dword ptr [r12 + VIRTIO_MMIO_INTERRUPT_STATUS]
    mov   dword ptr [r12 + VIRTIO_MMIO_INTERRUPT_ACK], eax
    mov   ecx, {eoi}
    xor   eax, eax
    xor   edx, edx
    wrmsr
    pop   rdx
    pop   rcx
    pop   rax
    iretq
"""


def interrupts(vector: int) -> str:
    """Assembly that switches the LAPIC on, in x2APIC mode, and makes every pin of the IOAPIC this vector of this vCPU.
    Changes RAX, RCX, RDX and RDI.
    """
    from vmm.bench.guests import number

    return _INTERRUPTS.format(
        apicbase=number("MSR_IA32_APICBASE"), spiv=number("X2APIC_SPIV"), vector=vector, ioapic=REGIONS["ioapic"].base
    )


def handler() -> str:
    """Assembly of `handler:`, which takes the interrupt of the device whose registers are at R12, and ends it."""
    from vmm.bench.guests import number

    return _HANDLER.format(eoi=number("X2APIC_EOI"))

# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that writes whatever it may, and after a reset one that reads whatever it may: no bit has come over."""

from __future__ import annotations

import os
import random
import struct
from typing import Any

import pytest

from vmm import Machine
from vmm.abi import apic, irq, pc, ports
from vmm.abi.msrs import MSRS, msr
from vmm.machine.memory.layout import CPU_BLOCK_SIZE, REGIONS

pytestmark = pytest.mark.kvm

OUT, IN, STORE, LOAD, WRMSR, RDMSR = range(1, 7)
Op = tuple[int, int, int]  # kind, address, value
OPS = REGIONS["cpus"].base + 2 * CPU_BLOCK_SIZE
FAULTS, UNREAD = 0xBAD0_BAD0_BAD0_BAD0, 0xBAD1_BAD1_BAD1_BAD1
"""What is read of an MSR that cannot be, and of what the guest did not come to."""

# Rows of kind, address, value, 8 bytes each, until a kind of 0; what is read takes the place of the value.
GUEST = f"""
start:  lea rax, [rip + fault]
        mov edi, {REGIONS["idt"].base + 16 * 13:#x}     ; the gate of #GP: code segment 8, interrupt gate, present
        mov [rdi], ax
        mov dword ptr [rdi + 2], 0x8e000008 & 0xffff
        mov word ptr [rdi + 4], 0x8e00
        shr rax, 16
        mov [rdi + 6], eax
        mov esi, {OPS:#x}
next:   mov eax, [rsi]
        mov rdx, [rsi + 8]
        mov ecx, edx
        mov rdi, rdx
        mov rbx, [rsi + 16]
        cmp eax, {OUT}
        je  to_port
        cmp eax, {IN}
        je  of_port
        cmp eax, {STORE}
        je  store
        cmp eax, {LOAD}
        je  load
        cmp eax, {WRMSR}
        je  to_msr
        cmp eax, {RDMSR}
        je  of_msr
        mov al, 0
        out {ports.EXIT:#x}, al
to_port: mov eax, ebx
        out dx, al
        jmp behind
of_port: xor eax, eax
        in  al, dx
        jmp keep
store:  mov [rdi], ebx
        jmp behind
load:   mov eax, [rdi]
        jmp keep
to_msr: mov eax, ebx
        mov rdx, rbx
        shr rdx, 32
        wrmsr
        jmp behind
of_msr: rdmsr
        shl rdx, 32
        or  rax, rdx
keep:   mov [rsi + 16], rax
behind: add rsi, 24
        jmp next
fault:  mov rax, {FAULTS:#x}
        cmp dword ptr [rsi], {RDMSR}
        jne .over
        mov [rsi + 16], rax
.over:  lea rax, [rip + behind]
        mov [rsp + 8], rax                              ; behind the error code: where it goes on
        add rsp, 8
        iretq
"""

# All that could be one, by hand on a host that nobody has looked at; else those that pyvmm has a name for.
EVERY = [*range(0x1000), *range(0x4B564D00, 0x4B564D10), *range(0xC0000000, 0xC0000400), *range(0xC0010000, 0xC0012000)]
KNOWN = [row.number for row in MSRS if row.number < 0x40000000 or row.number >= 0x4B564D00]
NUMBERS = EVERY if os.environ.get("PYVMM_SMUGGLE") == "all" else KNOWN
ICR = (0x300, 0x310, 0x3F0)
"""Registers of the LAPIC by which a guest would interrupt itself, and end."""
NOT_WRITTEN = {msr(name).number for name in ("MSR_IA32_TSC", "MSR_EFER", "MSR_IA32_APICBASE")} | {
    apic.X2APIC_BASE_MSR + (offset >> 4) for offset in ICR
}
VALUES = (0, 1, 3, 6, 0xFF, 0x800, 0x1000, 0x55AA5001, 0x8000_0006, 0x7040600070406, (1 << 64) - 1)
ENDS = {
    *range(ports.EXIT, ports.BIOS + 1),
    pc.PORT_92,
    pc.RESET_CONTROL,
    pc.I8042_COMMAND,
    pc.PM1_CONTROL,
    pc.PM1_CONTROL + 1,
}
"""Ports by which a guest ends, or asks the host for something."""
TIME = {
    *((RDMSR, msr(name).number) for name in ("MSR_IA32_TSC", "MSR_KVM_SYSTEM_TIME_NEW")),
    *((IN, each) for each in (pc.PORT_61, pc.RTC_DATA, pc.PM1_EVENT, *range(pc.PM_TIMER, pc.PM_TIMER + 4))),
    *((IN, irq.PIT_CH0 + each) for each in range(4)),
    (LOAD, REGIONS["lapic"].base + 0x390),
}
"""What runs on by itself, and is another value each time: the TSC, the clock's seconds, counters, a counter's carry."""
LAPIC = [REGIONS["lapic"].base + offset for offset in range(0, 0x400, 0x10)]
IOAPIC = [REGIONS["ioapic"].base + offset for offset in (0, 0x10)]
DEVICES = [REGIONS["virtio_mmio"].base + page + 4 * at for page in (0, 0x1000) for at in range(0x50)]


def done(machine: Machine, ops: list[Op]) -> dict[tuple[int, int], list[int]]:
    """What was read, by kind and address, in order. The guest may end before all is done."""
    machine.memory.write(OPS, b"".join(struct.pack("<QQQ", *op) for op in ops) + bytes(24))
    machine.run(60)
    found: dict[tuple[int, int], list[int]] = {}
    for kind, address, value in struct.iter_unpack("<QQQ", machine.memory.read(OPS, 24 * len(ops))):
        if kind in (IN, LOAD, RDMSR) and value != UNREAD:
            found.setdefault((kind, address), []).append(value)
    return found


def of_msrs(rng: random.Random) -> tuple[list[Op], list[Op]]:
    writes = [(WRMSR, each, rng.choice(VALUES)) for each in NUMBERS if each not in NOT_WRITTEN]
    return writes, [(RDMSR, each, UNREAD) for each in NUMBERS]


def of_ports(rng: random.Random) -> tuple[list[Op], list[Op]]:
    numbers = [each for each in range(0x700) if each not in ENDS]
    writes = [(OUT, each, rng.getrandbits(8)) for each in numbers for _ in range(2)]
    return writes, [(IN, each, UNREAD) for each in numbers]


def of_devices(rng: random.Random) -> tuple[list[Op], list[Op]]:
    """LAPIC, IOAPIC with each of its registers, virtio."""
    pins = [
        row
        for number in range(0x40)
        for row in ((STORE, IOAPIC[0], number), (STORE, IOAPIC[1], rng.getrandbits(32) | 1 << 16))
    ]
    writes = [(STORE, each, rng.getrandbits(32)) for each in (*LAPIC, *DEVICES) if each & 0xFFF not in ICR]
    reads = [row for number in range(0x40) for row in ((STORE, IOAPIC[0], number), (LOAD, IOAPIC[1], UNREAD))]
    return [*pins, *writes], [(LOAD, each, UNREAD) for each in (*LAPIC, *IOAPIC, *DEVICES)] + reads


BOARDS = {
    "kernel": {"irqchip": "kernel"},
    "split": {"irqchip": "split"},
    "pc": {"board": "pc"},
}
CASES = [(of_msrs, "kernel"), (of_ports, "pc"), (of_ports, "kernel"), (of_devices, "kernel"), (of_devices, "split")]


# One lets ticks of the PIT come that it does not take; one counts what comes with a line that the host pulses.
PULSE = 0x2F0
TICKS = f"""
start:  cmp r12, 1
        je  counts
        mov al, {irq.PIT_CH0_RATE:#x}                   ; a tick each 84 us
        out {irq.PIT_MODE:#x}, al
        mov al, 100
        out {irq.PIT_CH0:#x}, al
        mov al, 0
        out {irq.PIT_CH0:#x}, al
        mov ecx, 20000
spin:   pause
        dec ecx
        jnz spin
        jmp ends
counts: lea rax, [rip + irq0]
        mov edi, {REGIONS["idt"].base + 16 * 32:#x}
        mov [rdi], ax
        mov word ptr [rdi + 2], 8
        mov word ptr [rdi + 4], 0x8e00
        shr rax, 16
        mov [rdi + 6], eax
        mov al, {irq.PIC_ICW1:#x}
        out {irq.PIC_MASTER_CMD:#x}, al
        mov al, 32
        out {irq.PIC_MASTER_IMR:#x}, al
        mov al, 4
        out {irq.PIC_MASTER_IMR:#x}, al
        mov al, {irq.PIC_ICW4:#x}
        out {irq.PIC_MASTER_IMR:#x}, al
        mov al, 0xfe
        out {irq.PIC_MASTER_IMR:#x}, al
        xor r15d, r15d
        mov dx, {PULSE:#x}
        out dx, al
        sti
        mov ecx, 10000
wait:   pause
        dec ecx
        jnz wait
        cli
ends:   mov al, 0
        out {ports.EXIT:#x}, al
irq0:   inc r15
        push rax
        mov al, {irq.PIC_EOI:#x}
        out {irq.PIC_MASTER_CMD:#x}, al
        pop rax
        iretq
"""


def test_no_tick_comes_over_a_reset():
    """KVM keeps them where no state shows them, and sends one with each end of interrupt."""
    with Machine("4M", board="pc") as machine:
        if not machine.vm.has_pit:
            pytest.skip("this board has no PIT of KVM's")

        def pulse(*_: object) -> None:
            machine.irq_line(0, True)
            machine.irq_line(0, False)

        def interrupts(r12: int) -> int:
            regs = machine.cpus[0].vcpu.get_regs()
            regs.r12 = r12
            machine.cpus[0].vcpu.set_regs(regs)
            assert machine.run(60).stop.code is not None
            return int(machine.regs.r15)

        machine.on_port_write(PULSE, pulse)
        machine.load(TICKS)
        with machine.snapshot() as snap:
            for who in (1, 0, 1, 1):
                assert interrupts(who) == who
                machine.reset(snap)


@pytest.mark.parametrize(("what", "board"), CASES, ids=[f"{each[0].__name__}-{each[1]}" for each in CASES])
def test_no_bit_comes_over_a_reset(what: Any, board: str):
    with Machine("4M", **BOARDS[board]) as machine:  # type: ignore[arg-type]
        if what is of_devices:
            machine.add_virtio_rng()
            machine.add_virtio_console()
        machine.load(GUEST)
        with machine.snapshot() as snap:
            rng = random.Random(board)
            reads = what(rng)[1]
            before = done(machine, reads)
            assert {row[:2] for row in reads if row[0] != STORE} == before.keys()
            machine.reset(snap)
            changed = set()
            for _ in range(2):
                writes = what(rng)[0]
                seen = done(machine, writes + reads)
                changed |= {each for each in seen if seen[each] != before.get(each)} - TIME
                machine.reset(snap)
                after = done(machine, reads)
                machine.reset(snap)
                left = {each: (before[each], after.get(each)) for each in before if each not in TIME}
                assert {each: both for each, both in left.items() if both[0] != both[1]} == {}
            assert len(changed) >= 2, "the guest has changed what it reads, until it was put back"

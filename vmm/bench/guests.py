# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests that are timed, as raw code with its assembly beside it. They know ports and vectors; no clock, no host.

Each repeats one operation, unrolled, and then writes the stamp port: where ring 0 is emulated a loop's own
instructions would cost as much as what is measured.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vmm.abi import msrs, pv
from vmm.abi.ports import COM1, DEBUG_CONSOLE, DELAY
from vmm.abi.serial_reg import UART_IER, UART_IER_THRI, UART_IIR, UART_LSR, UART_MCR, UART_MCR_OUT2, UART_TX
from vmm.abi.x86 import HYPERCALL_INSTRUCTIONS
from vmm.machine.memory.layout import REGIONS

STAMP = 0x81  # its writer looks at the clock
DONE = 0x82  # an ioeventfd's: who waits for a round's end
DEVICE = 0xD001_0000  # MMIO that nobody else claims
VECTOR = 0x61
TOUCHED = 64  # pages
TOUCH_BASE = REGIONS["data"].base + 0x1_0000
COUNTER = REGIONS["data"].base  # u32: interrupts that vCPU 1 took, or doorbells; the next u32: vCPU 1 is ready


def number(msr: str) -> int:
    """The number of an MSR that the table has."""
    return msrs.msr(msr).number


@dataclass(frozen=True)
class Guest:
    """`code` does `count` operations between two stamps, endlessly. `handler` is the offset of VECTOR's handler,
    `second` of the code of vCPU 1; None where there is none.
    """

    code: bytes
    count: int
    handler: int | None = None
    second: int | None = None


def _mov_dx(port: int) -> bytes:
    return b"\x66\xba" + struct.pack("<H", port)


def _out_dx(port: int, value: int) -> bytes:
    """mov dx, port; mov al, value; out dx, al"""
    return _mov_dx(port) + bytes((0xB0, value, 0xEE))


def _out(port: int) -> bytes:
    """out port, al"""
    return bytes((0xE6, port))


def _jump(to: int, at: int) -> bytes:
    """jmp to, from `at`"""
    return b"\xe9" + struct.pack("<i", to - at - 5)


def _mov_edi(value: int) -> bytes:
    return b"\xbf" + struct.pack("<I", value)


def _mov_ecx(value: int) -> bytes:
    return b"\xb9" + struct.pack("<I", value)


def _mov_eax(value: int) -> bytes:
    return b"\xb8" + struct.pack("<I", value)


XOR_EDX = b"\x31\xd2"  # xor edx, edx
WRMSR = b"\x0f\x30"
RDMSR = b"\x0f\x32"
HLT = b"\xf4"


def repeated(
    operation: bytes, count: int, setup: bytes = b"", each: bytes = b"", handler: bytes | None = None
) -> Guest:
    """setup; L: each; operation * count; out STAMP, al; jmp L. The handler, where there is one, follows."""
    body = each + operation * count + _out(STAMP)
    code = setup + body
    code += _jump(len(setup), len(code))
    return Guest(code + (handler or b""), count, len(code) if handler is not None else None)


def port_out(count: int) -> Guest:
    return repeated(_out(DELAY), count)


def port_out_by_two(count: int) -> Guest:
    """The same by vCPU 0, while vCPU 1 does nothing else."""
    first, second = port_out(count), _out(DELAY) * count
    return Guest(first.code + second + _jump(0, len(second)), count, second=len(first.code))


def port_in(count: int) -> Guest:
    return repeated(bytes((0xE4, DELAY)), count)  # in al, DELAY


def mmio_write(count: int) -> Guest:
    return repeated(b"\x89\x07", count, _mov_edi(DEVICE))  # mov [rdi], eax


def mmio_read(count: int) -> Guest:
    return repeated(b"\x8b\x07", count, _mov_edi(DEVICE))  # mov eax, [rdi]


def console_bytes(count: int) -> Guest:
    return repeated(_out(DEBUG_CONSOLE), count, b"\xb0\x41")  # mov al, 'A'


def console_string(count: int) -> Guest:
    """mov esi, data; mov ecx, count; mov dx, 0xe9; rep outsb; then the stamp"""
    source = b"\xbe" + struct.pack("<I", REGIONS["data"].base)
    whole = source + _mov_ecx(count) + b"\x66\xba" + struct.pack("<H", DEBUG_CONSOLE) + b"\xf3\x6e"
    return Guest(repeated(whole, 1).code, count)


def serial(bursts: int) -> Guest:
    """A driver's transmitter: IIR and LSR read, then as many characters as the FIFO holds; interrupts stay pending.

    Before that OUT2 and THRE's interrupt are switched on. The count is of characters.
    """
    fifo = 16
    on = _out_dx(COM1 + UART_MCR, UART_MCR_OUT2) + _out_dx(COM1 + UART_IER, UART_IER_THRI)
    look = b"".join(_mov_dx(COM1 + register) + b"\xec" for register in (UART_IIR, UART_LSR))  # in al, dx
    burst = look + _mov_dx(COM1 + UART_TX) + b"\xb0\x41" + b"\xee" * fifo  # mov al, 'A'; out dx, al
    return Guest(repeated(burst, bursts, on).code, fifo * bursts)


def cpuid(count: int) -> Guest:
    return repeated(b"\x0f\xa2", count)  # each answer is the next question


def instruction(count: int) -> Guest:
    return repeated(b"\x90", count)  # nop: what ring 0 itself costs


POLL_CONTROL = number("MSR_KVM_POLL_CONTROL")


def rdmsr(count: int) -> Guest:
    return repeated(RDMSR, count, _mov_ecx(POLL_CONTROL))


def wrmsr(count: int) -> Guest:
    return repeated(WRMSR, count, _mov_ecx(POLL_CONTROL) + _mov_eax(1) + XOR_EDX)


def hypercall(count: int, instruction: str) -> Guest:
    """KVM_HC_VAPIC_POLL_IRQ, which does nothing: RAX is 1 before, and 0 after the first."""
    return repeated(_mov_eax(1) + HYPERCALL_INSTRUCTIONS[instruction], count)


def doorbell(count: int) -> Guest:
    """OUT, and then wait until who waits for it has counted it."""
    counter = struct.pack("<I", COUNTER)
    look = b"\x8b\x1c\x25" + counter  # mov ebx, [COUNTER]
    return repeated(look + _out(DELAY) + _until_counted(counter), count)


def _until_counted(counter: bytes) -> bytes:
    """L: pause; cmp ebx, [COUNTER]; je L"""
    wait = b"\xf3\x90" + b"\x3b\x1c\x25" + counter
    return wait + b"\x74" + struct.pack("<b", -len(wait) - 2)


def map_gpa_range(count: int, instruction: str) -> Guest:
    """KVM_HC_MAP_GPA_RANGE of one page: RBX its address, RCX how many, RDX what they are; RAX is answered."""
    call = pv.hypercall("MAP_GPA_RANGE")
    setup = b"\xbb" + struct.pack("<I", TOUCH_BASE) + _mov_ecx(1) + XOR_EDX  # mov ebx, TOUCH_BASE
    return repeated(_mov_eax(call.nr) + HYPERCALL_INSTRUCTIONS[instruction], count, setup)


def touch(count: int = TOUCHED) -> Guest:
    """mov [rdi], al; add edi, 4096"""
    return repeated(b"\x88\x07" + b"\x81\xc7\x00\x10\x00\x00", count, each=_mov_edi(TOUCH_BASE))


# -- interrupts: x2APIC mode, so that everything is an MSR

_APIC_ON = (
    _mov_ecx(number("MSR_IA32_APICBASE")) + RDMSR + b"\x0d\x00\x0c\x00\x00" + WRMSR  # or eax, 0xc00
    + _mov_ecx(number("X2APIC_SPIV")) + _mov_eax(0x1FF) + XOR_EDX + WRMSR
)  # fmt: skip
_END = _mov_ecx(number("X2APIC_EOI")) + b"\x31\xc0" + XOR_EDX + WRMSR  # xor eax, eax
_SAVED_END = b"\x50\x51\x52" + _END + b"\x5a\x59\x58"  # push rax, rcx, rdx ... pop
IRETQ = b"\x48\xcf"
STI, CLI = b"\xfb", b"\xfa"


def woken() -> Guest:
    """Says with DONE that it is ready, and then halts; each interrupt's handler writes the stamp, and then DONE."""
    code = _APIC_ON + _out(DONE) + STI + HLT + b"\xeb\xfd"  # L: hlt; jmp L
    return Guest(code + _out(STAMP) + _out(DONE) + _END + IRETQ, 1, handler=len(code))


def self_ipi(count: int) -> Guest:
    send = _mov_ecx(number("X2APIC_SELF_IPI")) + _mov_eax(VECTOR) + XOR_EDX + WRMSR
    return repeated(send, count, _APIC_ON + STI, handler=_SAVED_END + IRETQ)


def tsc_deadline(count: int) -> Guest:
    """A deadline that has passed: arm, sti, hlt, the handler, cli."""
    lvt = _mov_ecx(number("X2APIC_LVTT")) + _mov_eax(1 << 18 | VECTOR) + XOR_EDX + WRMSR
    arm = b"\x0f\x31" + _mov_ecx(number("MSR_IA32_TSC_DEADLINE")) + WRMSR + STI + HLT + CLI  # rdtsc
    return repeated(arm, count, _APIC_ON + lvt, handler=_SAVED_END + IRETQ)


def ipi(count: int) -> Guest:
    """vCPU 0 sends to APIC id 1, once that is ready, and waits for its handler to count it."""
    counter = struct.pack("<I", COUNTER)
    look = b"\x8b\x1c\x25" + counter  # mov ebx, [COUNTER]
    send = _mov_ecx(number("X2APIC_ICR")) + b"\xba\x01\x00\x00\x00" + _mov_eax(VECTOR) + WRMSR  # mov edx, 1
    ready = struct.pack("<I", COUNTER + 4)
    until_ready = b"\xf3\x90" + b"\x83\x3c\x25" + ready + b"\x00"  # L: pause; cmp dword [COUNTER + 4], 0
    until_ready += b"\x74" + struct.pack("<b", -len(until_ready) - 2)  # je L
    first = repeated(look + send + _until_counted(counter), count, _APIC_ON + until_ready)
    second = _APIC_ON + b"\xc7\x04\x25" + ready + b"\x01\0\0\0"  # mov dword [COUNTER + 4], 1
    second += STI + HLT + b"\xeb\xfd"
    handler = b"\xf0\xff\x04\x25" + counter + _SAVED_END + IRETQ  # lock inc dword [COUNTER]
    code = first.code + second + handler
    return Guest(code, count, handler=len(first.code + second), second=len(first.code))


def work(steps: int) -> bytes:
    """Ring 3: mov ecx, steps; L: dec ecx; jnz L; out STAMP, al; jmp start"""
    code = _mov_ecx(steps) + b"\xff\xc9\x75\xfc" + _out(STAMP)
    return code + _jump(0, len(code))


def writes(pages: int) -> bytes:
    """Writes a word to each of `pages` pages, and halts."""
    stores = b"".join(b"\xc6\x04\x25" + struct.pack("<I", TOUCH_BASE + 4096 * page) + b"\x01" for page in range(pages))
    return stores + b"\xf4"  # mov byte ptr [page], 1; hlt

# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a guest can have failed, by what its registers, tables and memory say now. It looks at a stopped machine.

reasons.py knows the ways a run ends; here is what only the guest's state tells. A sentence says what was seen.
"""

from __future__ import annotations

from vmm.abi.x86 import PF, PTE_ADDRESS_MASK, VECTOR_OF
from vmm.errors import GuestMemoryError
from vmm.kvm.state import Regs, Sregs
from vmm.machine.ends import Stop, Why
from vmm.machine.machine import Machine
from vmm.machine.memory import layout
from vmm.machine.x86.virtual import read_virtual, translate

DOUBLE_FAULT, PAGE_FAULT, UNDEFINED = VECTOR_OF["DF"], VECTOR_OF["PF"], VECTOR_OF["UD"]
INT, SYSCALL = 0xCD, b"\x0f\x05"
LOADS_SEGMENT = (0x8E, 0xCB, 0xCF, 0xEA, 0xFF)  # MOV to Sreg, RETF, IRET, JMP FAR and their like
FRAME = 6 * 8  # bytes that an exception pushes, from the next lower multiple of 16: SDM 6.14.2
PUSH = 64  # bytes below RSP that a fault there can be a push of
ROOM = f" Region data, from {layout.REGIONS['data'].base:#x}, has room for a stack."
HOST = "Where ring 0 is emulated (`pyvmm doctor`), "


def cause(machine: Machine, stop: Stop, regs: Regs, sregs: Sregs, vector: int | None, error_code: int) -> str:
    """A sentence, or nothing. `regs` and the selectors in `sregs` are those at the fault, where there was one."""
    if stop.why not in (Why.GUEST_FAULT, Why.SHUTDOWN, Why.TIME_LIMIT, Why.INTERNAL_ERROR):
        return ""
    return (
        _tables(machine, sregs)
        or _descriptors(machine, stop, regs, sregs)
        or (_stack(machine, regs, sregs, vector) if vector in (DOUBLE_FAULT, PAGE_FAULT) else "")
        or (_ring3(machine, regs, sregs, vector, error_code) if sregs.cs.selector & 3 == 3 else "")
        or _ran_out(machine, regs, stop)
    )


def _tables(machine: Machine, sregs: Sregs) -> str:
    table = sregs.cr3 & PTE_ADDRESS_MASK
    if not sregs.cr0 >> 31 or machine.memory.slot_at(table) is not None:
        return ""
    return f"CR3 is {sregs.cr3:#x}, and there is no RAM at {table:#x}: no address can be translated any more."


def _descriptors(machine: Machine, stop: Stop, regs: Regs, sregs: Sregs) -> str:
    """A table of descriptors in a hole; of the IDT only where a fault could not be delivered."""
    code = _bytes(machine, sregs, regs.rip, 3)
    loads = any(byte in LOADS_SEGMENT for byte in code[:2])
    for name, table, counts in (
        ("GDT", sregs.gdt, loads or stop.why is Why.SHUTDOWN),
        ("IDT", sregs.idt, stop.why is Why.SHUTDOWN),
    ):
        found = translate(machine.memory, sregs, table.base)
        if counts and (found.gpa is None or machine.memory.slot_at(found.gpa) is None):
            return f"{name}R says {table.base:#x}, and no memory is there: no descriptor can be read."
    return ""


def _stack(machine: Machine, regs: Regs, sregs: Sregs, vector: int | None) -> str:
    """CR2 tells; where ring 0 is emulated it may not, and then what an exception would have pushed does."""
    pushed = range((regs.rsp & ~0xF) - 8, (regs.rsp & ~0xF) - FRAME - 1, -8) if vector == DOUBLE_FAULT else ()
    places = [sregs.cr2] if regs.rsp - PUSH <= sregs.cr2 < regs.rsp else pushed
    at = next((place for place in places if translate(machine.memory, sregs, place).gpa is None), None)
    if at is None:
        return _grown(machine, regs, sregs) if vector == PAGE_FAULT else ""
    place = layout.describe(at) if _own_map(machine) else ""
    below = f"{at:#x} below it ({place})" if place else f"{at:#x} below it"
    text = f"The stack is at its end: RSP is {regs.rsp:#x}, and {below} has no page, so a push faults."
    return text + (ROOM if _own_map(machine) else "")


def _grown(machine: Machine, regs: Regs, sregs: Sregs) -> str:
    """A local variable larger than the stack: what faults is an access to it, and RSP is far below."""
    place = layout.describe(sregs.cr2) if _own_map(machine) else ""
    if not place.partition("+")[0].endswith("guard") or translate(machine.memory, sregs, sregs.cr2).gpa is not None:
        return ""
    size = next(part.size for part in layout.CPU_BLOCK if part.name == "boot_stack")
    return (
        f"{sregs.cr2:#x} ({place}) is below a boot stack, which has {size} bytes: RSP is {regs.rsp:#x}, so more was "
        f"pushed, or a local variable is larger (`static` has it elsewhere).{ROOM}"
    )


def _ring3(machine: Machine, regs: Regs, sregs: Sregs, vector: int | None, error_code: int) -> str:
    if vector == UNDEFINED and _bytes(machine, sregs, regs.rip, 1)[:1] == bytes((INT,)):
        return (
            f"{HOST}ring 3 cannot call a gate by INT n: the CPU that runs ring 3 knows no gate of the guest's. "
            "Leave it by an exception (ud2, with a handler by `set_gate`), or by a port. On other hosts INT n works."
        )
    called = vector == PAGE_FAULT and error_code & PF.INSTR and _bytes(machine, sregs, regs.rcx - 2, 2) == SYSCALL
    if called:
        return (
            f"RIP came here by the SYSCALL at {regs.rcx - 2:#x}, and is still in ring 3. {HOST}SYSCALL can come to "
            "MSR_LSTAR without a change to ring 0. Leave it by an exception (ud2, with a handler by `set_gate`), or by "
            "a port. On other hosts: see that MSR_STAR's bits 47:32 are the selector of ring 0."
        )
    return ""


def _ran_out(machine: Machine, regs: Regs, stop: Stop) -> str:
    program = machine.program
    region = layout.region_at(program.base) if program and _own_map(machine) else None
    if program is None or region is None or not program.end <= regs.rip < region.end or stop.why is Why.TIME_LIMIT:
        return ""
    return (
        f"RIP is past the last byte of the program, which ends at {program.end:#x}: it ran on into what follows. "
        "Let it end by HLT, by PASS of results.inc, or in a loop."
    )


def _own_map(machine: Machine) -> bool:
    """Do the names of pyvmm's guest map mean anything to this guest?"""
    return machine.program is None or machine.program.place_at(0) is None


def _bytes(machine: Machine, sregs: Sregs, rip: int, count: int) -> bytes:
    try:
        return read_virtual(machine.memory, sregs, rip if sregs.cs.l else sregs.cs.base + rip, count)
    except GuestMemoryError:
        return b""

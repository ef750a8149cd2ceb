# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run that went wrong leaves behind: reason, registers, code, page walks and last exits, as plain values.

`examine` reads a stopped machine and changes nothing but the completion of a pending exit. Rendering is in
vmm/report; this module formats only addresses.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, field
from typing import Any

from vmm.abi.x86 import CR0, KERNEL_CS, PAGE, page_fault_words, vector_name
from vmm.errors import GuestMemoryError, VmmError
from vmm.kvm.state import Regs, Sregs
from vmm.machine.ends import Result, Why
from vmm.machine.machine import Machine
from vmm.machine.memory import layout
from vmm.machine.run.cpu import Cpu
from vmm.machine.x86 import page_walk as walk
from vmm.machine.x86.faulted import unwind
from vmm.machine.x86.virtual import read_virtual, translate
from vmm.observe.causes import cause
from vmm.observe.exit_text import describe, named
from vmm.observe.reasons import hint
from vmm.observe.standing import Standing

PAGE_FAULT = 14


@dataclass(frozen=True, slots=True)
class CodeLine:
    """One instruction near RIP; `here` marks RIP itself."""

    address: int
    bytes: str
    text: str
    here: bool


@dataclass(frozen=True, slots=True)
class FaultInfo:
    """An exception that a default gate caught."""

    vector: int
    name: str
    error_code: int
    detail: str
    cr2: int | None


@dataclass(frozen=True)
class VcpuState:
    """One vCPU as it stopped. `where` is where the instruction at RIP lies, the base of CS counted: symbol+offset, or
    the name of its region. `source` is the line that was written for it, `file:line  text`, where it is known;
    `odd` says what is wrong with standing there.
    """

    index: int
    apic_id: int
    rip: int
    where: str
    mode: str
    mp_state: int | None
    registers: dict[str, int]
    control: dict[str, int]
    segments: dict[str, str]
    code: tuple[CodeLine, ...]
    walks: tuple[tuple[str, ...], ...]
    last_exits: tuple[str, ...]
    source: str = ""
    odd: str = ""


@dataclass(frozen=True)
class PostMortem:
    """The whole. `vcpus` holds first the one that ended the run."""

    reason: str
    hint: str
    fault: FaultInfo | None
    vcpus: tuple[VcpuState, ...]
    notes: tuple[str, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """Plain dicts and lists."""
        return asdict(self)


def examine(machine: Machine, result: Result) -> PostMortem:
    """Look at the machine after `result`. Never raises for what a guest did to itself: it is said in a note."""
    first = result.vcpu or 0
    order = [first, *(r.index for r in machine.cpus if r.index != first)]
    notes: list[str] = []
    fault: FaultInfo | None = None
    states = []
    why_hint = ""
    for index in order:
        cpu = machine.cpus[index]
        try:
            cpu.vcpu.complete()
            regs, sregs = cpu.vcpu.get_regs(), cpu.vcpu.get_sregs()
        except VmmError as error:
            notes.append(f"vCPU {index}: {error}")
            continue
        if result.stop.why is Why.GUEST_FAULT and index == first:
            fault, regs = _fault(machine, regs, sregs, notes)
        mp_state = _mp_state(machine, cpu)
        if index == first:
            instruction = readable(machine, sregs, linear(sregs, regs.rip), 3)
            vector, code = (fault.vector, fault.error_code) if fault else (None, 0)
            why_hint = cause(machine, result.stop, regs, sregs, vector, code)
            why_hint = why_hint or hint(result.stop, instruction, mp_state=mp_state, rflags=regs.rflags)
        states.append(_state(machine, cpu, regs, sregs, mp_state, result, fault if index == first else None))
    return PostMortem(result.stop.text, why_hint, fault, tuple(states), tuple(notes))


def _fault(machine: Machine, regs: Regs, sregs: Sregs, notes: list[str]) -> tuple[FaultInfo | None, Regs]:
    """The exception behind a default gate, and the registers as they were when it struck."""
    if not sregs.cr0 & CR0.PE:
        return _real_mode_call(machine, regs, sregs, notes)
    try:
        frame = unwind(machine.memory, regs, sregs)
    except GuestMemoryError as error:
        notes.append(f"the fault frame could not be read: {error}")
        return None, regs
    detail, cr2 = "", None
    if frame.vector == PAGE_FAULT:
        cr2 = sregs.cr2
        detail = f"{page_fault_words(frame.error_code)} at {cr2:#x}"
    return FaultInfo(frame.vector, vector_name(frame.vector), frame.error_code, detail, cr2), regs


def _real_mode_call(machine: Machine, regs: Regs, sregs: Sregs, notes: list[str]) -> tuple[None, Regs]:
    """Registers as they were at the INT or the fault that a vector of the BIOS ended: IP, CS and FLAGS are pushed."""
    try:
        ip, cs, flags = machine.memory.unpack("HHH", sregs.ss.base + (regs.rsp & 0xFFFF))
    except GuestMemoryError as error:
        notes.append(f"the stack of a real-mode interrupt could not be read: {error}")
        return None, regs
    regs.rip, regs.rsp, regs.rflags = ip, regs.rsp + 6, flags
    sregs.cs.selector, sregs.cs.base = cs, cs << 4
    return None, regs


def _mp_state(machine: Machine, cpu: Cpu) -> int | None:
    try:
        return cpu.vcpu.get_mp_state() if machine.irqchip != "none" else None
    except VmmError:
        return None


def _state(machine: Machine, cpu: Cpu, regs: Regs, sregs: Sregs, mp_state: int | None, result: Result,
           fault: FaultInfo | None) -> VcpuState:  # fmt: skip
    here = linear(sregs, regs.rip)
    addresses = [here] + ([fault.cr2] if fault and fault.cr2 not in (None, here) else [])
    return VcpuState(
        index=cpu.index,
        apic_id=cpu.vcpu.id,
        rip=regs.rip,
        where=where(machine, here),
        mode=mode_name(sregs),
        mp_state=mp_state,
        registers={name: getattr(regs, name) for name in Regs.__match_args__},
        control={name: getattr(sregs, name) for name in ("cr0", "cr2", "cr3", "cr4", "efer", "apic_base")},
        segments={name: _segment(getattr(sregs, name)) for name in ("cs", "ss", "ds", "es", "fs", "gs", "tr")},
        code=code_around(machine, sregs, regs.rip),
        walks=tuple(
            tuple(walk.render(translate(machine.memory, sregs, va), lambda gpa: place(machine, gpa)))
            for va in addresses
        ),
        last_exits=tuple(named(exit, describe(exit)) for exit in result.recent.get(cpu.index, ())),
        source=source(machine, here),
        odd=Standing().odd(machine.program, here),
    )


def _segment(segment: Any) -> str:
    return f"{segment.selector:#06x} base {segment.base:#x} limit {segment.limit:#x} dpl {segment.dpl}"


def place(machine: Machine, gpa: int) -> str:
    """What lies at a guest-physical address: a part of the image, a region of pyvmm's map, or nothing known."""
    named = machine.program.place_at(gpa) if machine.program else None
    return layout.describe(gpa) if named is None else named


def where(machine: Machine, address: int) -> str:
    """`symbol+0x4`, else the name of the place, else nothing."""
    program = machine.program
    return (program.symbolize(address) if program else None) or place(machine, address)


def source(machine: Machine, address: int) -> str:
    """`file.asm:7  mov al, 42`, what was written for this address; else nothing."""
    line = machine.program.source(address) if machine.program else None
    if line is None or not line.line:
        return ""
    return line.shown


def mode_name(sregs: Sregs) -> str:
    """`64-bit ring 0`, `32-bit ring 3`, `16-bit protected`, `real mode`."""
    if not sregs.cr0 & CR0.PE:
        return "real mode"
    return f"{code_bits(sregs)}-bit ring {sregs.cs.selector & 3 if sregs.cs.selector else KERNEL_CS & 3}"


def code_bits(sregs: Sregs) -> int:
    """16, 32 or 64: how the CPU would decode the bytes at RIP."""
    if sregs.cs.l:
        return 64
    return 32 if sregs.cs.db else 16


def readable(machine: Machine, sregs: Sregs, address: int, size: int) -> bytes:
    """Up to `size` bytes at a linear address; fewer where mapped memory ends."""
    data = b""
    with contextlib.suppress(GuestMemoryError):
        while len(data) < size:
            count = min(size - len(data), PAGE - (address + len(data)) % PAGE)
            data += read_virtual(machine.memory, sregs, address + len(data), count)
    return data


def linear(sregs: Sregs, rip: int) -> int:
    """The linear address of RIP: in 64-bit mode the base of CS does not count."""
    return rip if sregs.cs.l else sregs.cs.base + rip


def code_around(machine: Machine, sregs: Sregs, rip: int) -> tuple[CodeLine, ...]:
    """A few instructions before and after RIP; empty where there is no code to read."""
    from vmm.asm.disassembler import around  # capstone: only a post-mortem pays for it

    here = linear(sregs, rip)
    rows = around(
        lambda address, size: readable(machine, sregs, address, size),
        here,
        program=machine.program,
        bits=code_bits(sregs),
    )
    return tuple(CodeLine(row.address, row.bytes.hex(" "), row.text, row.address == here) for row in rows)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Where in the guest an exit came from: RIP, its symbol, and the instruction. It reads a vCPU and changes nothing.

An exit's RIP is that of the instruction or of the next one: KVM steps over an OUT or a store before it exits, and over
an IN or a load only when it has the answer (arch/x86/kvm/x86.c, x86_emulate_instruction and complete_userspace_io).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from vmm.asm.disassembler import MAX_LENGTH, around, disassemble
from vmm.errors import VmmError
from vmm.kvm.exits import Debug, Exit, MmioWrite, PortIn, PortOut
from vmm.kvm.state import Sregs
from vmm.machine.machine import Machine
from vmm.machine.run.cpu import Cpu
from vmm.observe.postmortem import code_bits, linear, readable, source, where
from vmm.observe.standing import Standing

STEPPED = {
    "PortIn": ("in", "ins"),
    "PortOut": ("out", "outs"),
    "Halt": ("hlt",),
    "ReadMsr": ("rdmsr",),
    "WriteMsr": ("wrmsr",),
    "Hypercall": ("vmcall", "vmmcall"),
}


class Site(NamedTuple):
    """`at` is symbol+offset, `insn` the instruction's text, `source` what was written there (`Sites.source`)."""

    rip: int
    at: str
    insn: str
    source: str


class Sites:
    """Finds the sites of one machine's exits. Where RIP and what stands before it are both, say, an OUT, what earlier
    exits were decides: a host does it always the same way.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._stepped: dict[str, bool] = {}  # kind of exit -> RIP was past the instruction
        self._standing = Standing()

    def of(self, cpu: Cpu, exit: Exit) -> Site:
        """Of the instruction that caused the exit; empty texts where it cannot be told."""
        machine = self._machine
        try:
            rip = exit.pc if isinstance(exit, Debug) else cpu.vcpu.get_regs().rip
            sregs = cpu.vcpu.get_sregs()
            here = linear(sregs, rip)
            start = _statement_before(machine, sregs, here)
            before = readable(machine, sregs, start, here - start) if start < here else b""
            after = readable(machine, sregs, here, MAX_LENGTH)
        except VmmError:
            return Site(0, "", "", "")
        bits = code_bits(sregs)
        text = _text(after, here, bits)
        if before and len(before) == here - start:
            past = _text(before, start, bits)
            if self._is_past(exit, text, past):
                rip, here, text = rip - len(before), start, past
        return Site(rip, where(machine, here), self._with_target(text), self.source(here))

    def at(self, cpu: Cpu, address: int) -> Site:
        """Of the instruction at this linear address."""
        machine = self._machine
        sregs = cpu.vcpu.get_sregs()
        text = _text(readable(machine, sregs, address, MAX_LENGTH), address, code_bits(sregs))
        return Site(address, where(machine, address), self._with_target(text), self.source(address))

    def source(self, address: int) -> str:
        """`add.asm:7  mov al, 42`, or what is odd about executing there; empty where nothing is known."""
        odd = self._standing.odd(self._machine.program, address)
        return f"({odd})" if odd else source(self._machine, address)

    def _is_past(self, exit: Exit, here: str, past: str) -> bool:
        """Is it the instruction before RIP?"""
        kind = type(exit).__name__
        if isinstance(exit, MmioWrite):
            return not here.startswith("rep") and "[" in past
        wanted = STEPPED.get(kind)
        if wanted is None or not _is(past, wanted, exit):
            return False
        if _is(here, wanted, exit):
            return self._stepped.get(kind, False) and not here.startswith("rep")
        self._stepped[kind] = True
        return True

    def _with_target(self, text: str) -> str:
        """`jne 0x20010` with the label that it goes to."""
        name, _, target = text.partition(" ")
        if self._machine.program and (name == "call" or name.startswith("j")) and target.startswith("0x"):
            label = self._machine.program.symbolize(int(target, 16))
            return f"{name} {label}" if label else text
        return text


def _statement_before(machine: Machine, sregs: Sregs, address: int) -> int:
    """Where the statement that ends at `address` begins; the address itself where that cannot be told. Of assembly the
    source says it; of compiled code the nearest decoding that meets the address.
    """
    program = machine.program
    if program is None:
        return address
    line = program.line_at(address - 1)
    if line is not None:
        return line.address if line.address + line.size == address else address
    if program.lines or program.symbolize(address) is None:
        return address
    bits = code_bits(sregs)
    span = min(MAX_LENGTH * 2, address)
    code = readable(machine, sregs, address - span, span)
    return address - _last_size(code, address, bits) if len(code) == span else address


@functools.lru_cache(maxsize=4096)
def _last_size(code: bytes, end: int, bits: int) -> int:
    """Bytes of the instruction that these bytes, before `end`, end with; 0 where none does."""
    rows = around(code, end, before=1, after=0, base=end - len(code), bits=bits)
    rows = [row for row in rows if row.address < end]
    return len(rows[-1].bytes) if rows else 0


@functools.lru_cache(maxsize=4096)
def _text(code: bytes, address: int, bits: int) -> str:
    rows = disassemble(code, address, count=1, bits=bits) if code else []
    return rows[0].text if rows else ""


def _is(text: str, names: tuple[str, ...], exit: Exit) -> bool:
    """Is it one of these instructions, and its port, if it names one, that of the exit?"""
    name, *operands = text.removeprefix("rep ").replace(",", " ").split() or [""]
    if not any(name == each or (each.endswith("s") and name[:-1] == each and name[-1] in "bwd") for each in names):
        return False
    ports = [int(each, 0) for each in operands if each[0].isdigit()]
    return not isinstance(exit, (PortIn, PortOut)) or ports in ([], [exit.port])

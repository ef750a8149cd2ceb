# SPDX-License-Identifier: GPL-2.0-or-later
"""From what a person writes to an address, and from an address to what a person reads. It reads a machine and changes
nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vmm.abi.x86 import vector_name
from vmm.asm.disassembler import MAX_LENGTH, disassemble
from vmm.base.names import unknown
from vmm.debug.values import Place
from vmm.errors import UsageError
from vmm.machine.memory.layout import REGIONS
from vmm.machine.x86.descriptors import STUB_SIZE
from vmm.observe.postmortem import code_bits, linear, mode_name, readable

if TYPE_CHECKING:
    from vmm.asm.disassembler import Insn
    from vmm.asm.program import Line, Program
    from vmm.kvm.state import Sregs
    from vmm.machine.machine import Machine

LINE = re.compile(r"(?:(?P<file>.*):)?(?P<line>\d+)$")
OFFSET = re.compile(r"(?P<symbol>[A-Za-z_.$][\w.$@]*)\s*(?:\+\s*(?P<offset>0[xX][\da-fA-F]+|\d+))?$")
GATES = REGIONS["gates"]
PAST = "past the end of the program"


def address_of(program: Program | None, where: int | str) -> int:
    """The linear address of a number, `0x20000`, `label`, `label+0x10`, `file.asm:7`, or `:7`, a line of the program's
    own file. A line without code means the next one that has some.

    Raises:
        UsageError: there is no such place.
    """
    if isinstance(where, bool) or not isinstance(where, (int, str)):
        raise UsageError(f"{where!r} is no place: give a label, an address, or FILE:LINE")
    if isinstance(where, int):
        if not 0 <= where < 1 << 64:
            raise UsageError(f"{where:#x} is no address of 64 bits")
        return where
    text = where.strip().removeprefix("*")
    if text[:2].lower() == "0x" or (text.isdigit() and text):
        try:
            return address_of(program, int(text, 0))
        except ValueError:
            raise UsageError(f"{where!r} is no address: write 0x20000") from None
    symbols = program.symbols if program else {}
    found = OFFSET.match(text)
    if found and (found["symbol"] in symbols):
        return symbols[found["symbol"]] + int(found["offset"] or "0", 0)
    at = LINE.match(text)
    if at and ":" in text:
        return _of_line(program, at["file"] or "", int(at["line"]))
    raise UsageError(unknown("label", text, symbols) if symbols else f"{where!r}: this program has no labels",
                     hint="a label, an address as 0x20000, or FILE:LINE")  # fmt: skip


def _rows(program: Program | None) -> tuple[Line, ...]:
    return program.written if program else ()


def _of_line(program: Program | None, file: str, line: int) -> int:
    rows = _rows(program)
    if not file and rows and program:
        file = program.name if any(row.file == program.name for row in rows) else rows[0].file
    mine = [row for row in rows if row.line and _same_file(row.file, file)]
    if not mine:
        files = sorted({row.file.rpartition("/")[2] for row in rows if row.line})
        has = f"it has lines of {', '.join(files[:5])}" if files else "it has no source lines"
        raise UsageError(f"{file}:{line}: the program has no code of that file; {has}")
    after = [row for row in mine if row.line >= line]
    if not after:
        raise UsageError(f"{file}:{line}: the last line with code is {max(row.line for row in mine)}")
    nearest = min(row.line for row in after)
    return min(row.address for row in after if row.line == nearest)


def _same_file(whole: str, given: str) -> bool:
    return whole == given or whole.endswith(f"/{given}")


def instructions(machine: Machine, sregs: Sregs, address: int, count: int) -> list[Insn]:
    """Up to `count` instructions from a linear address, fewer where readable memory ends."""
    code = readable(machine, sregs, address, MAX_LENGTH * count)
    return disassemble(code, address, count=count, bits=code_bits(sregs)) if code else []


def bare(address: int) -> Place:
    """A place of which nothing is told."""
    return Place(address, "", 0, "", 0, "", "", b"", "")


def place(machine: Machine, program: Program | None, sregs: Sregs, rip: int) -> Place:
    """What is at this RIP."""
    address = linear(sregs, rip)
    found = instructions(machine, sregs, address, 1)
    instruction, data = (found[0].text, found[0].bytes) if found else ("", b"")
    name, _, offset = ((program.symbolize(address) if program else None) or "").partition("+")
    source = program.source(address) if program else None
    file, line, text = (source.file, source.line, source.text.strip()) if source else ("", 0, instruction)
    note = ""
    if program and program.code and source is None and program.end <= address < program.end + len(program.code) + 4096:
        note = PAST
    elif not data:
        note = "nothing is mapped here"
    elif sregs.idt.base == REGIONS["idt"].base and GATES.base <= address < GATES.end:
        note = (
            f"pyvmm's own gate of {vector_name((address - GATES.base) // STUB_SIZE)}: no handler of the guest's took it"
        )
    return Place(address, name, int(offset or "0", 0), file, line, text, mode_name(sregs), data, instruction, note)

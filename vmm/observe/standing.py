# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong with where a vCPU stands: past the end of its program, in data, in the middle of an instruction. It
reads the program's text; it reads no vCPU.
"""

from __future__ import annotations

from vmm.asm.code_or_data import DATA, Part, labels, parts
from vmm.asm.disassembler import disassemble
from vmm.asm.program import Line, Program
from vmm.machine.memory import layout

PAST = "past the end of your program"


class Standing:
    """Of one machine's program; what is read of it is kept for the next question."""

    def __init__(self) -> None:
        self._of: Program | None = None
        self._parts: tuple[Part, ...] = ()

    def odd(self, program: Program | None, address: int) -> str:
        """A clause, or nothing: for an address at which code is executed. Of an image nothing is known."""
        if program is None or not (program.lines or program.stretches) or address < program.base:
            return ""
        if address >= program.end:
            return self._past(program, address)
        line = program.line_at(address)
        if line is not None and line.address == address and not line.text.startswith("."):
            return ""  # nearly always
        if program is not self._of:
            self._of, self._parts = program, parts(program)
        part = next((each for each in self._parts if each.begin <= address < each.end), None)
        if part is not None and part.kind == DATA:
            return self._in_data(program, address)
        found = line or program.source(address)
        return "" if found is None else _inside(program, found, address)

    def _past(self, program: Program, address: int) -> str:
        region = layout.region_at(program.base)
        if region is None or program.place_at(0) is not None or not program.end <= address < region.end:
            return ""
        last = (program.lines or program.stretches)[-1]
        return f"{PAST}, which ends with {last.shown}"

    def _in_data(self, program: Program, address: int) -> str:
        for each in labels(program, self._parts):
            if each.kind == DATA and each.address <= address < each.address + each.size:
                offset = f"+{address - each.address:#x}" if address > each.address else ""
                return f"in data, not in code: {each.name}{offset}" + (f", {each.line.shown}" if each.line else "")
        line = program.source(address)
        return "in data, not in code" + (f": {line.shown}" if line else "")


def _inside(program: Program, line: Line, address: int) -> str:
    """In the middle of an instruction of this line?"""
    if line.text.startswith("."):  # filling, or an instruction by hand
        return ""
    code = program.code[line.address - program.base : line.address + line.size - program.base]
    for row in disassemble(code, line.address):
        if row.address < address < row.address + len(row.bytes):
            return f"{address - row.address} bytes into an instruction of {line.shown}"
    return ""

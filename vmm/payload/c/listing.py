# SPDX-License-Identifier: GPL-2.0-or-later
"""A compiled guest as text: its labels, its instructions, and above each stretch of them the line they were made of."""

from __future__ import annotations

from collections.abc import Iterator

from vmm.asm.disassembler import disassemble
from vmm.asm.program import Program


def render_compiled(program: Program) -> str:
    """The listing, ending in a newline. What has no source line is data, and is summed up."""
    return "\n".join(_rows(program)) + "\n"


def _rows(program: Program) -> Iterator[str]:
    labels: dict[int, list[str]] = {}
    for name, address in program.symbols.items():
        labels.setdefault(address, []).append(name)
    yield f"; {program.name}: {len(program.code)} bytes at {program.base:#x}, entry {program.entry:#x}"
    at, last = program.base, ("", 0)
    for each in program.stretches:
        if each.address < at:  # covered by one before it
            continue
        for name in labels.pop(each.address, []):
            yield f"{name}:"
        if (each.file, each.line) != last:
            yield f"; {each.file}:{each.line}  {each.text}".rstrip()
        last, at = (each.file, each.line), each.address + each.size
        code = program.code[each.address - program.base : at - program.base]
        for row in disassemble(code, each.address):
            yield f"{row.address:08x}  {row.bytes.hex(' '):30}  {row.text}"
    for address in sorted(labels):
        for name in labels[address]:
            yield f"{address:08x}  {name}"

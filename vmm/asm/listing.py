# SPDX-License-Identifier: GPL-2.0-or-later
"""A program as text for review: address, bytes, source. Deterministic; it needs neither keystone nor capstone."""

from __future__ import annotations

from vmm.asm.program import Program

PER_ROW = 8  # bytes shown in one row
MAX_DATA_ROWS = 4  # rows of one statement; longer data is summed up


def _short(path: str) -> str:
    """The name without its folders; what is no path stays."""
    return path.rpartition("/")[2]


def render(program: Program, *, files: bool = True) -> str:
    """The listing, ending in a newline. `files` adds `file:line`, without folders, which a review may not want."""
    labels: dict[int, list[str]] = {}
    for name, address in program.symbols.items():
        labels.setdefault(address, []).append(name)
    out = [f"; {program.name}: {len(program.code)} bytes at {program.base:#x}, entry {program.entry:#x}"]
    for line in program.lines:
        out += [f"{'':8}  {'':24}{name}:" for name in labels.pop(line.address, [])]
        data = program.code[line.address - program.base : line.address - program.base + line.size]
        rows = [data[at : at + PER_ROW] for at in range(0, len(data), PER_ROW)]
        note = f"  ; {_short(line.file)}:{line.line}" if files else ""
        if line.origin:
            macros, _, where = line.origin.partition(" (")
            note += f" {macros} ({_short(where)}" if files else f"  ; {macros}"
        out.append(f"{line.address:08x}  {rows[0].hex(' '):24}    {line.text:40}{note}".rstrip())
        for number, row in enumerate(rows[1:MAX_DATA_ROWS], 1):
            out.append(f"{line.address + number * PER_ROW:08x}  {row.hex(' ')}")
        if len(rows) > MAX_DATA_ROWS:
            out.append(f"{'':8}  ... {len(data) - MAX_DATA_ROWS * PER_ROW} bytes more")
    for address in sorted(labels):
        out += [f"{'':8}  {'':24}{name}:" for name in labels[address]]
    return "\n".join(out) + "\n"

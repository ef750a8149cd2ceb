# SPDX-License-Identifier: GPL-2.0-or-later
"""A structure as a drawing of its bytes, eight to a row. Values in, lines out."""

from __future__ import annotations

from collections.abc import Iterator

from vmm.abi.structs import Field, Struct

ROW = 8  # bytes
CELL = 9  # columns of one byte, its border included
UNUSED = "."


def draw(struct: Struct) -> list[str]:
    """Rows of eight bytes with the fields' names in them; rows without any field are one line together.

    at    0        1        2  ...
     0x0 |           steal              ... |
    0x10 |preempt~|            .        ... |
    """
    fields = {field.offset: field for field in struct.fields}
    lines = ["at    " + "".join(f"{byte:<{CELL}}" for byte in range(min(ROW, struct.size))).rstrip()]
    empty: list[int] = []
    for base in range(0, struct.size, ROW):
        end = min(base + ROW, struct.size)
        if not any(base <= offset < end for offset in fields):
            empty.append(base)
            continue
        lines += _unused(empty, base)
        empty.clear()
        lines.append(f"{base:#4x} |{''.join(_cells(fields, base, end))}")
    return lines + _unused(empty, struct.size)


def _unused(rows: list[int], end: int) -> list[str]:
    return [f"{rows[0]:#4x} |unused, {end - rows[0]} bytes"] if rows else []


def _cells(fields: dict[int, Field], base: int, end: int) -> Iterator[str]:
    offset = base
    while offset < end:
        field = fields.get(offset)
        size = field.size if field else _gap(fields, offset, end)
        width = size * CELL - 1
        name = field.name if field else UNUSED
        yield f"{name if len(name) <= width else name[: width - 1] + '~':^{width}}|"
        offset += size


def _gap(fields: dict[int, Field], offset: int, end: int) -> int:
    return min([other for other in fields if offset < other < end], default=end) - offset

# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest in C as a Program: compiled, read back from its ELF file, with the lines that its author wrote.

What comes of it runs as an assembled payload does: in region `code`, by the same tables, with the same results page.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TypeAlias

from vmm.abi.ports import DEBUG_CONSOLE, EXIT
from vmm.asm.program import Line, Program
from vmm.errors import PayloadError
from vmm.machine.images.elf import Elf
from vmm.machine.memory.layout import REGIONS
from vmm.payload.c.compiler import PLACES, SHIPPED, compile_guest
from vmm.payload.c.facts import header_text
from vmm.payload.catalog import MAX_SOURCE, Payload

Row: TypeAlias = tuple[int, int, str, int]
"""(address, bytes, file, line)"""

RING3_PORTS = (DEBUG_CONSOLE, EXIT)
"""Ports of the runtime, which ring 3 needs for the console and for the end."""


def build(payload: Payload, facts: Mapping[str, int], own: Mapping[str, int]) -> Program:
    """The payload's Program. facts: what every text may use; own: of this payload, result slots and parameters.

    Raises:
        HostError: there is no compiler.
        PayloadError: it refuses the source.
    """
    code = REGIONS["code"]
    made = compile_guest(
        payload.file, facts=header_text({**facts, **own}), base=code.base, size=code.size,
        ring=payload.header.ring, more=payload.header.cflags,
    )  # fmt: skip
    elf = Elf(made.elf, payload.file)
    segments = elf.segments
    low, high = min(each.gpa for each in segments), max(each.end for each in segments)
    if low < code.base or high > code.end:
        raise PayloadError(
            f"its segments lie at {low:#x}..{high - 1:#x}, outside of region code, {code.base:#x}..{code.end - 1:#x}",
            file=payload.file,
        )
    image = bytearray(high - code.base)
    for each in segments:
        image[each.gpa - code.base : each.gpa - code.base + len(each.data)] = each.data
    symbols = dict(sorted(_named(elf.symbols), key=lambda row: row[1]))
    return Program(
        payload.file, code.base, bytes(image), symbols, (), dict(own), notes=made.warnings,
        stretches=tuple(_lines(elf)), elf=made.elf,
    )  # fmt: skip


def open_to_ring3(program: Program) -> tuple[tuple[int, int], ...]:
    """Page-aligned address ranges that a guest in C whose main runs in ring 3 may touch."""
    results = REGIONS["results"]
    return ((program.symbols["image_begin"], program.symbols["image_end"]), (results.base, results.end))


def _named(symbols: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Without what only the linker was told."""
    return (row for row in symbols.items() if row[0] not in PLACES)


def _lines(elf: Elf) -> Iterator[Line]:
    """Its source lines by address, with their text; what comes with pyvmm is named by file and line alone."""
    texts: dict[str, list[str]] = {}
    for address, size, file, line in _own_first(elf.rows()):
        if file not in texts:
            texts[file] = _text(file)
        text = texts[file][line - 1].strip() if 0 < line <= len(texts[file]) else ""
        yield Line(address, size, _short(file), line, text)


def _own_first(rows: Iterable[Row]) -> Iterator[Row]:
    """Of the lines that begin at one address the last that the author wrote, rather than one of pyvmm.h in it."""
    code = REGIONS["code"]
    for address, group in groupby(rows, key=itemgetter(0)):
        if address not in code:  # of what the linker left out
            continue
        same = list(group)
        own = [row for row in same if Path(row[2]).parent != SHIPPED]
        size = max(row[1] for row in same)
        if size:
            yield (address, size, *(own or same)[-1][2:])


def _text(file: str) -> list[str]:
    try:
        with Path(file).open(encoding="utf-8", errors="replace") as source:
            return source.read(MAX_SOURCE).splitlines()
    except (OSError, ValueError):
        return []


def _short(file: str) -> str:
    """As a person names it: relative to where they are; what is shipped by its name."""
    if Path(file).parent == SHIPPED:
        return Path(file).name
    near = os.path.relpath(file)
    return near if not near.startswith("..") else file

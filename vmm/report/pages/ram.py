# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's memory for its page: the map with who used which of it, a picture of that, page tables and page walks. A
Left and the devices' counts in, values for a template out; it writes no markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from vmm.abi.x86 import PAGE
from vmm.machine.memory.layout import format_size
from vmm.machine.x86.page_walk import Translation
from vmm.observe.left import Area, Left, Used, Walked
from vmm.report.pages.story import Story

BY = ("guest", "host half", "pyvmm")
CELLS, ACROSS = 512, 64  # of the picture
GAP = 64 << 10  # bytes between two areas that are drawn all the same


def memory(left: Left, story: Story) -> dict[str, Any]:
    """One guest. `cells` are (class, the `d` of an SVG path) for the picture, one unit for each cell."""
    cells, cell, rows = _picture(left)
    return {
        "guest": left.guest,
        "notes": left.notes,
        "areas": [_area(each, left.used, story) for each in left.areas],
        "used": [_used(each) for each in left.used],
        "summary": _summary(left),
        "mapped": [
            {"va": _span(each.va, each.size), "gpa": f"{each.gpa:#x}", "size": format_size(each.size),
             "rights": each.rights, "same": each.va == each.gpa}
            for each in left.mapped
        ],
        "walks": [_walk(each) for each in left.walks],
        "cells": cells,
        "cell": format_size(cell),
        "across": ACROSS,
        "rows": rows,
    }  # fmt: skip


def _span(base: int, size: int) -> str:
    return f"{base:#x} to {base + size - 1:#x}"


def _overlap(area: Area, used: Used) -> int:
    return max(0, min(area.base + area.size, used.base + used.size) - max(area.base, used.base))


def _area(area: Area, used: Iterable[Used], story: Story) -> dict[str, Any]:
    cells = {by: _done(area, [each for each in used if each.by == by and _overlap(area, each)]) for by in BY}
    asked = [
        each
        for each in story.devices.values()
        if each.space == "mmio" and area.base <= each.base < area.base + area.size and not area.ram
    ]
    reads, writes = sum(each.reads for each in asked), sum(each.writes for each in asked)
    if reads or writes:
        cells["guest"] = f"{_count(reads, 'read')}, {_count(writes, 'write')} by exits"
    return {
        "span": _span(area.base, area.size),
        "size": format_size(area.size),
        "name": area.name,
        "rights": area.rights,
        "what": area.what,
        "ram": area.ram,
        "by": [cells[by] for by in BY],
        "touched": any(cells.values()),
    }


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _done(area: Area, used: list[Used]) -> str:
    """`2 pages read, 1 written`; where only pages larger than the area are known, that."""
    if not used:
        return ""
    if all(each.page > area.size for each in used):
        wrote = "written" if any(each.wrote for each in used) else "read"
        return f"somewhere in its page of {format_size(used[0].page)}, {wrote}"
    read = sum(_overlap(area, each) for each in used if each.read and not each.wrote)
    wrote_bytes = sum(_overlap(area, each) for each in used if each.wrote)
    parts = [f"{format_size(size)} {word}" for size, word in ((read, "read"), (wrote_bytes, "written")) if size]
    return ", ".join(parts)


def _used(used: Used) -> dict[str, Any]:
    what = " and ".join(word for word, did in (("read", used.read), ("written", used.wrote)) if did)
    return {
        "span": _span(used.base, used.size),
        "size": format_size(used.size),
        "by": used.by,
        "what": what,
        "page": "" if used.page == PAGE else f"known by pages of {format_size(used.page)}",
        "place": used.place,
    }


def _summary(left: Left) -> list[str]:
    """A sentence for each who used memory."""
    found = []
    for by, name in zip(BY, ("The guest", "The host half", "pyvmm itself"), strict=True):
        own = [each for each in left.used if each.by == by]
        if own:
            wrote = sum(each.size for each in own if each.wrote)
            parts = [f"used {format_size(sum(each.size for each in own))}"] if by != "pyvmm" else []
            found.append(f"{name} {', and '.join([*parts, f'wrote {format_size(wrote)}'])} of it.")
    return found


def _picture(left: Left) -> tuple[list[tuple[str, str]], int, int]:
    """(paths, bytes of a cell, rows of cells)."""
    stretches: list[list[int]] = []
    for area in sorted((each for each in left.areas if each.ram), key=lambda each: each.base):
        if stretches and area.base - stretches[-1][1] <= GAP:
            stretches[-1][1] = max(stretches[-1][1], area.base + area.size)
        else:
            stretches.append([area.base, area.base + area.size])
    whole = sum(end - begin for begin, end in stretches)
    cell = PAGE
    while cell * CELLS < whole:
        cell *= 2
    count = -(-whole // cell)
    kinds: dict[str, set[int]] = {}
    for used in left.used:
        kind = f"{used.by.replace(' ', '-')}-{'wrote' if used.wrote else 'read'}"
        kinds.setdefault(kind, set()).update(_cells(used, stretches, cell))
    order = [f"{by.replace(' ', '-')}-{did}" for by in BY for did in ("read", "wrote")]
    inset = {"guest": 0.06, "host-half": 0.25, "pyvmm": 0.38}
    paths = [("ram", "".join(_square(each, 0.06) for each in range(count)))]
    for kind in order:
        if kind in kinds:
            edge = inset[kind.rpartition("-")[0]]
            paths.append((kind, "".join(_square(each, edge) for each in sorted(kinds[kind]))))
    return paths, cell, -(-count // ACROSS)


def _cells(used: Used, stretches: list[list[int]], cell: int) -> Iterator[int]:
    before = 0
    for begin, end in stretches:
        first, last = max(begin, used.base), min(end, used.base + used.size)
        if first < last:
            yield from range((before + first - begin) // cell, (before + last - begin - 1) // cell + 1)
        before += end - begin


def _square(number: int, edge: float) -> str:
    side = 1 - 2 * edge
    return f"M{number % ACROSS + edge:g} {number // ACROSS + edge:g}h{side:g}v{side:g}h{-side:g}z"


def _walk(walked: Walked) -> dict[str, Any]:
    walk = walked.walk
    return {
        "what": walked.what,
        "va": f"{walk.va:#x}",
        "mode": walk.mode,
        "end": _end(walk, walked.place),
        "failed": walk.gpa is None,
        "levels": [
            (level.name, f"{level.address:#x}", "could not be read" if level.raw is None else f"{level.raw:#018x}",
             level.flags)
            for level in walk.levels
        ],
    }  # fmt: skip


def _end(walk: Translation, place: str) -> str:
    if walk.gpa is None:
        return f"no page: {walk.failure}"
    rights = (
        f"{'user' if walk.user else 'supervisor'} r{'w' if walk.writable else '-'}{'x' if walk.executable else '-'}"
    )
    named = f" ({place})" if place else ""
    return f"{walk.gpa:#x}{named}, page of {format_size(walk.page_size)}, {rights}"

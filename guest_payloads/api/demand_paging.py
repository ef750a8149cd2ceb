# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of demand_paging: it supplies each page as it is asked for, and nobody asks for one that is not touched."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from vmm.abi.x86 import PAGE
from vmm.machine.memory.layout import REGIONS
from vmm.machine.memory.on_demand import paged
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

PAGES = 16
TOUCHED = (5, 2, 9, 11)  # in this order
EMPTY = 11  # the host has nothing for it


def word(page: int) -> int:
    """What page `page` is full of."""
    return 0xFA00_0000_0000_0000 | page


WANT = {"fifth": word(5), "second": word(2), "again": word(5), "written": 0x9999, "beside": word(9), "zero": 0}


@dataclass(frozen=True)
class Evidence:
    """What the guest `read`, by result; the pages that were `asked` for, in order, and those `supplied`."""

    read: Mapping[str, int]
    asked: tuple[int, ...]
    supplied: tuple[int, ...]


def source(page: int) -> bytes | None:
    """A page of the guest, as the host has it."""
    return None if page == EMPTY else struct.pack("<Q", word(page)) * (PAGE // 8)


def prove(lab: Lab) -> Finding:
    base, size = lab.param("base"), PAGES * PAGE
    with lab.guest() as guest, paged(guest.machine.memory, base, size, source) as slot:
        guest.open_to_ring3(base, size)
        guest.open_to_ring3(REGIONS["results"].base)
        run_to_pass(guest)
        read = {name: guest[name] for name in WANT}
        return judge(Evidence(read, tuple(dict.fromkeys(slot.asked)), tuple(sorted(slot.supplied))))


def judge(seen: Evidence) -> Finding:
    """The guest read what the host has, and the host was asked for the pages that the guest touched, and no others."""
    numbers = {name: f"{value:#x}" for name, value in seen.read.items()} | {
        "pages asked for": ", ".join(map(str, seen.asked)),
        "supplied": ", ".join(map(str, seen.supplied)),
    }
    for name, value in WANT.items():
        if seen.read[name] != value:
            return Finding(Verdict.BROKEN, f"{name}: the guest read {seen.read[name]:#x}, not {value:#x}", numbers)
    if seen.asked != TOUCHED:
        text = f"asked for pages {seen.asked}, and the guest touched {TOUCHED}"
        return Finding(Verdict.BROKEN, text, numbers)
    if set(seen.supplied) != set(TOUCHED):
        return Finding(Verdict.BROKEN, f"pages {seen.supplied} were supplied, and {TOUCHED} asked for", numbers)
    summary = f"{len(TOUCHED)} of {PAGES} pages supplied, each when the guest first touched it"
    return Finding(Verdict.WORKS, "", numbers, summary)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of huge_pages: KVM's count of 2 MiB mappings after the guest has touched either kind of memory."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

from vmm.abi.ports import DELAY
from vmm.abi.x86 import LARGE_PAGE
from vmm.machine.memory.slots import Memslot
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Unproven, Verdict

PAGES = 4  # of 2 MiB
SMAPS = Path("/proc/self/smaps")


@dataclass(frozen=True)
class Evidence:
    """Huge pages that the host gave for the slot; mappings of 2 MiB and of 4 KiB that KVM made for the two slots."""

    given: int
    large: int
    large_4k: int
    small: int
    small_4k: int


def prove(lab: Lab) -> Finding:
    large, small = lab.param("large"), lab.param("small")
    with lab.guest() as guest:
        memory, vm = guest.machine.memory, guest.machine.vm
        slot = memory.add_huge(large, PAGES * LARGE_PAGE)
        plain = memory.add(small, PAGES * LARGE_PAGE)
        plain.mapping.bytes.madvise(mmap.MADV_NOHUGEPAGE)
        for base in (large, small):
            guest.open_to_ring3(base, PAGES * LARGE_PAGE)
        with vm.get_stats() as stats:
            if "pages_2m" not in stats:
                raise Unproven("this KVM does not count pages_2m")

            def count(_which: int = 0) -> None:
                counts.append((stats["pages_2m"], stats["pages_4k"]))

            counts: list[tuple[int, int]] = []
            count()
            guest.machine.on_port_write(DELAY, count)
            run_to_pass(guest)
        (at_first, at_first_4k), (mid, mid_4k), (end, end_4k) = counts
        return judge(Evidence(given(slot), mid - at_first, mid_4k - at_first_4k, end - mid, end_4k - mid_4k))


def given(slot: Memslot) -> int:
    """How many huge pages the host has put behind a slot (AnonHugePages of its mapping)."""
    found, inside = 0, False
    for line in SMAPS.read_text(encoding="ascii", errors="replace").splitlines():
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            begin, end = (int(part, 16) for part in first.split("-"))
            inside = begin < slot.hva + slot.size and slot.hva < end
        elif inside and first == "AnonHugePages:":
            found += int(rest[0]) << 10
    return found // LARGE_PAGE


def judge(seen: Evidence) -> Finding:
    """A mapping of 2 MiB for each huge page, and none for small pages."""
    numbers = {
        "huge pages of the host": seen.given,
        "2 MiB mappings": seen.large,
        "4 KiB mappings": seen.large_4k,
        "2 MiB mappings, small pages": seen.small,
        "4 KiB mappings, small pages": seen.small_4k,
    }
    if seen.small > 0:
        return Finding(Verdict.BROKEN, f"{seen.small} mappings of 2 MiB over pages of 4 KiB", numbers)
    if not seen.given:
        text = "the host gave no huge page (transparent_hugepage is never, or memory is fragmented)"
        return Finding(Verdict.UNPROVEN, text, numbers)
    if seen.large <= 0:
        return Finding(Verdict.INERT, f"the host gave {seen.given} huge pages, and KVM maps them by 4 KiB", numbers)
    summary = f"{seen.large} mappings of 2 MiB for {seen.given} huge pages, none over small ones"
    return Finding(Verdict.WORKS, "", numbers, summary)

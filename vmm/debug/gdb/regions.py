# SPDX-License-Identifier: GPL-2.0-or-later
"""Where memory is mapped for a vCPU, region by region, as lldb asks for it (qMemoryRegionInfo). It reads page tables.

Source: LLDB's document lldb-gdb-remote.txt, "qMemoryRegionInfo:<addr>".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.base.bits import MASK64
from vmm.machine.x86.page_walk import Fault
from vmm.machine.x86.virtual import translate

if TYPE_CHECKING:
    from vmm.kvm.state import Sregs
    from vmm.machine.memory.slots import GuestMemory
    from vmm.machine.x86.page_walk import Translation

SHIFTS = {"PML5E": 48, "PML4E": 39, "PDPTE": 30, "PDE": 21, "PTE": 12}
MOST_PIECES = 512
"""Pages or holes that are looked at for one answer: a region may end before the next begins."""


def region(memory: GuestMemory, sregs: Sregs, address: int) -> tuple[int, int, str]:
    """(start, bytes, rights) of what an address lies in, as far as it was looked at; no rights, nothing mapped."""
    begin, end, rights = _piece(memory, translate(memory, sregs, address))
    for _ in range(MOST_PIECES):
        if end > MASK64:
            break
        _, further, same = _piece(memory, translate(memory, sregs, end))
        if same != rights:
            break
        end = further
    return begin, end - begin, rights


def _piece(memory: GuestMemory, walk: Translation) -> tuple[int, int, str]:
    """(first address, the one behind, rights) of a page, or of the hole that an entry which is not there makes."""
    va = walk.va
    if walk.gpa is None:
        if walk.fault is Fault.TOO_WIDE:
            return 1 << 32, MASK64 + 1, ""
        if walk.fault is Fault.NOT_CANONICAL:
            half = 1 << (56 if walk.mode == "5-level" else 47)
            return half, MASK64 + 1 - half, ""
        shift = 22 if walk.mode == "32-bit" and walk.levels[-1].name == "PDE" else SHIFTS[walk.levels[-1].name]
        begin = va >> shift << shift
        return begin, begin + (1 << shift), ""
    begin, end = va - va % walk.page_size, va - va % walk.page_size + walk.page_size
    slot = memory.slot_at(walk.gpa)
    if slot is None:  # mapped, and nothing there: up to the next slot
        before = max((each.end for each in memory.slots if each.end <= walk.gpa), default=0)
        behind = min((each.gpa for each in memory.slots if each.gpa > walk.gpa), default=MASK64 + 1)
        return max(begin, va - (walk.gpa - before)), min(end, va + behind - walk.gpa), ""
    first = va - (walk.gpa - slot.gpa)  # where the slot would begin and end, if all of it was mapped like this
    begin, end = max(begin, first), min(end, first + slot.size)
    writable = walk.writable and not slot.readonly
    return begin, end, "r" + "w" * writable + "x" * walk.executable

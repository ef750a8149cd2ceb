# SPDX-License-Identifier: GPL-2.0-or-later
"""Lesson 7: the page tables that the guest made lead from VIRTUAL to FRAME, for reading and writing."""

from __future__ import annotations

from collections.abc import Mapping

from vmm.abi.x86 import PAGE, PTE, PTE_ADDRESS_MASK
from vmm.learn.checks import Checks, Wrong
from vmm.learn.seen import Seen
from vmm.machine.ends import Why
from vmm.payload.guest import Guest

ENTRY, STORED = 5, 0x600D


def before(guest: Guest, run: Mapping[str, int]) -> None:
    guest.machine.memory.write_u64(guest.constant("FRAME"), run["number"])


def check(seen: Seen) -> str:
    frame, found = seen.guest.constant("FRAME"), seen.guest["found"]
    if found != seen.params["number"] or seen.u32(frame + 8) != STORED:
        raise Wrong(
            f"your guest read {found:#x} at VIRTUAL, and FRAME holds {seen.params['number']:#x}: {_entry(seen)}"
        )
    return f"VIRTUAL leads to {frame:#x}: read {found:#x} there, and the store came to the same page"


def why(seen: Seen) -> str:
    fault = seen.postmortem.fault
    if seen.stop.why is Why.GUEST_FAULT and fault is not None and fault.cr2 is not None:
        return f"The CPU looked at the tables: {_entry(seen)}"
    return ""


def _entry(seen: Seen) -> str:
    """What entry 5 of TABLE says, against what it should."""
    table, frame = seen.guest.constant("TABLE"), seen.guest.constant("FRAME")
    entry = seen.u64(table + ENTRY * 8)
    if not entry:
        other = next((at for at in range(PAGE - 7) if seen.u64(table + at) & PTE_ADDRESS_MASK == frame), None)
        if other is not None:
            return (
                f"entry {ENTRY} of TABLE, at offset {ENTRY * 8:#x}, is 0; what you wrote stands at offset {other:#x}. "
                "An entry has 8 bytes"
            )
        said = f"entry {ENTRY} of TABLE, at offset {ENTRY * 8:#x}, is 0: not present"
        for name in ("PDPT", "DIRECTORY"):
            for at in range(0, PAGE, 8):
                if seen.u64(seen.guest.constant(name) + at) & PTE_ADDRESS_MASK == frame:
                    return f"{said}. What you wrote stands in {name}, at offset {at:#x}"
        return said
    said = f"entry {ENTRY} of TABLE is {entry:#x}"
    leads = entry & PTE_ADDRESS_MASK
    if not entry & PTE.PRESENT:
        return f"{said}: bit 0 (present) is clear, so for the CPU there is no page"
    if leads != frame:
        return f"{said}: its bits 51:12 lead to {leads:#x}, and FRAME is {frame:#x} (an entry holds the address itself)"
    if not entry & PTE.RW:
        return f"{said}: bit 1 (writable) is clear, so it can be read and not be written"
    return f"{said}, as it should be"


CHECKS = Checks(check, why, runs=({"number": 0x1234_5678}, {"number": 0xFACE}), before=before)

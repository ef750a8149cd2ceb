# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of dirty_log: the log of each step, with KVM protecting pages as it is read, and with pages protected by
hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vmm.abi.ports import DELAY
from vmm.abi.x86 import PAGE
from vmm.machine.extra.dirty_pages import DirtyLog, protect_manually
from vmm.machine.machine import Machine
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

PAGES = 96
STEPS = {1: {0, 3, 64, 95}, 2: {3, 5}, 3: set[int]()}  # what the guest writes before it tells
CLEARED = {0, 3}  # of the first step, by hand; 64 and 95 stay
MANUAL = "MANUAL_DIRTY_LOG_PROTECT2"
INITIALLY_SET = 2  # of that capability's flags
Log = tuple[str, tuple[int, ...]]  # when it was read, and the pages in it

# With KVM's protection every reading begins anew; by hand a page stays until it is cleared.
AUTOMATIC: tuple[Log, ...] = (("step 1", (0, 3, 64, 95)), ("step 2", (3, 5)), ("step 3", ()))
BY_HAND: tuple[Log, ...] = (
    ("step 1", (0, 3, 64, 95)),
    ("read again", (0, 3, 64, 95)),
    ("0 and 3 cleared", (64, 95)),
    ("step 2", (3, 5, 64, 95)),
    ("step 3", (3, 5, 64, 95)),
    ("all cleared", ()),
)
AT_FIRST: Log = ("at first", tuple(range(PAGES)))  # KVM_DIRTY_LOG_INITIALLY_SET


@dataclass(frozen=True)
class Evidence:
    """The logs that were read in each way; `manual` are the flags of the capability, 0 where it is not offered."""

    automatic: tuple[Log, ...]
    by_hand: tuple[Log, ...]
    manual: int


def prove(lab: Lab) -> dict[str, Finding]:
    automatic = watch(lab, lambda machine: None, read_step)
    with lab.guest() as guest:
        flags = guest.machine.vm.check_extension(MANUAL)
    by_hand: tuple[Log, ...] = ()
    if flags:
        at_first = bool(flags & INITIALLY_SET)
        by_hand = watch(
            lab, lambda machine: protect_manually(machine.vm, initially_set=at_first), read_and_clear, at_first=at_first
        )
    return judge(Evidence(automatic, by_hand, flags))


def read_step(log: DirtyLog, step: int) -> list[Log]:
    """One reading for each step."""
    return [(f"step {step}", tuple(sorted(log.read())))]


def read_and_clear(log: DirtyLog, step: int) -> list[Log]:
    """Readings before and after pages are protected again."""
    found = read_step(log, step)
    if step == 1:
        found.append(("read again", tuple(sorted(log.read()))))
        log.clear(CLEARED)
        found.append(("0 and 3 cleared", tuple(sorted(log.read()))))
    elif step == 3:
        log.clear(set(range(PAGES)))
        found.append(("all cleared", tuple(sorted(log.read()))))
    return found


def watch(
    lab: Lab,
    prepare: Callable[[Machine], object],
    look: Callable[[DirtyLog, int], list[Log]],
    *,
    at_first: bool = False,
) -> tuple[Log, ...]:
    """Run the guest, and read the log of its slot by `look` at every step."""
    found: list[Log] = []
    with lab.guest() as guest:
        machine, base = guest.machine, lab.param("base")
        prepare(machine)
        slot = machine.memory.log_dirty(machine.memory.add(base, PAGES * PAGE), True)
        guest.open_to_ring3(base)
        log = DirtyLog(machine.vm, slot)
        if at_first:
            found.append(("at first", tuple(sorted(log.read()))))
            log.clear(set(range(PAGES)))
        machine.on_port_write(DELAY, lambda step: found.extend(look(log, step)))
        run_to_pass(guest)
    return tuple(found)


def judge(seen: Evidence) -> dict[str, Finding]:
    """Both rows from the evidence alone."""
    rows = {
        "dirty_log": _judge(seen.automatic, AUTOMATIC, "4, 2 and 0 pages in three steps, each the guest's own writes")
    }
    if not seen.manual:
        rows["dirty_log_manual"] = Finding(Verdict.ABSENT, f"KVM lacks KVM_CAP_{MANUAL} (168)")
        return rows
    at_first = (AT_FIRST,) if seen.manual & INITIALLY_SET else ()
    rows["dirty_log_manual"] = _judge(
        seen.by_hand, (*at_first, *BY_HAND), "pages stay in the log until KVM_CLEAR_DIRTY_LOG names them"
    )
    return rows


def _judge(logs: tuple[Log, ...], want: tuple[Log, ...], summary: str) -> Finding:
    numbers = {when: _shown(pages) for when, pages in logs}
    for (when, pages), got in zip(want, logs, strict=False):
        if got != (when, pages):
            return Finding(Verdict.BROKEN, f"{when}: the log has {_shown(got[1])}, not {_shown(pages)}", numbers)
    if len(logs) != len(want):
        return Finding(Verdict.BROKEN, f"{len(logs)} logs were read, and should be {len(want)}", numbers)
    return Finding(Verdict.WORKS, "", numbers, summary)


def _shown(pages: tuple[int, ...]) -> str:
    """Page numbers, or how many there are."""
    if len(pages) > 8:
        return f"{len(pages)} pages"
    return "pages " + ", ".join(map(str, pages)) if pages else "no page"

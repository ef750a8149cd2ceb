# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of dirty_ring: collects the ring whenever it is full, and the guest goes on; every page must be in it."""

from __future__ import annotations

from dataclasses import dataclass

from vmm.abi.ports import DELAY
from vmm.abi.x86 import PAGE
from vmm.kvm.dirty import DirtyGfn
from vmm.machine.extra.dirty_pages import DirtyRings
from vmm.machine.machine import Machine
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

ROUNDS = 2


@dataclass(frozen=True)
class Evidence:
    """`rounds` are the pages of the slot that came in each round, in the ring's order; `others` are not of it.

    `full` is how often the ring was, `exits` how many exits said so, `resets` the pages that KVM protected again.
    """

    pages: int
    entries: int
    rounds: tuple[tuple[int, ...], ...]
    others: int
    full: int
    exits: int
    resets: int


def prove(lab: Lab) -> Finding:
    made: list[DirtyRings] = []

    def enable(machine: Machine) -> None:
        made.append(DirtyRings.enable(machine.vm))

    base, pages = lab.param("base"), lab.param("pages")
    with lab.guest(before_vcpus=enable) as guest:
        machine, rings = guest.machine, made[0]
        slot = machine.memory.add(base, pages * PAGE, log_dirty=True)
        guest.open_to_ring3(base, slot.size)
        rings.attach(machine)
        rounds: list[list[DirtyGfn]] = []

        def collect(_round: int) -> None:
            rings.collect()
            rounds.append(rings.written.copy())
            rings.written.clear()

        machine.on_port_write(DELAY, collect)
        try:
            result = run_to_pass(guest)
        finally:
            rings.close()
        ours = tuple(tuple(gfn.offset for gfn in each if gfn.slot == slot.slot) for each in rounds)
        others = sum(map(len, rounds)) - sum(map(len, ours))
        return judge(Evidence(pages, rings.entries, ours, others, rings.full, result.exits["Simple"], rings.resets))


def judge(seen: Evidence) -> Finding:
    """Every page came in both rounds, and the ring, which is too small for them, stopped the guest.

    KVM notes a page before the write: where the ring is full in between, the page is protected again and comes twice.
    """
    numbers = {
        "pages written, each round": seen.pages,
        "places in the ring": seen.entries,
        "entries": ", ".join(str(len(each)) for each in seen.rounds),
        "KVM_EXIT_DIRTY_RING_FULL": seen.exits,
        "pages protected again": seen.resets,
    }
    if len(seen.rounds) != ROUNDS:
        return Finding(Verdict.BROKEN, f"{len(seen.rounds)} rounds, and there should be {ROUNDS}", numbers)
    for number, pages in enumerate(seen.rounds, 1):
        missing = set(range(seen.pages)) - set(pages)
        if missing:
            text = f"round {number}: {len(missing)} of {seen.pages} pages that were written are not in the ring"
            return Finding(Verdict.BROKEN, text, numbers)
        if len(pages) > seen.pages + seen.exits:
            text = f"round {number}: {len(pages)} entries for {seen.pages} pages and {seen.exits} full rings"
            return Finding(Verdict.BROKEN, text, numbers)
    if seen.others:
        return Finding(Verdict.BROKEN, f"{seen.others} entries for pages that keep no log", numbers)
    if not seen.exits or seen.full != seen.exits:
        text = f"the ring was full {seen.exits} times, with {seen.entries} places for {seen.pages} pages"
        return Finding(Verdict.BROKEN, text, numbers)
    taken = sum(map(len, seen.rounds))
    if seen.resets != taken:
        text = f"KVM protected {seen.resets} pages again, and {taken} were taken from the ring"
        return Finding(Verdict.BROKEN, text, numbers)
    summary = f"{ROUNDS} x {seen.pages} pages through a ring of {seen.entries}, full {seen.exits} times, none lost"
    return Finding(Verdict.WORKS, "", numbers, summary)

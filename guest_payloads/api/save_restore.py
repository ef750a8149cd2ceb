# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of save_restore: one guest undisturbed, one that changes machines every few steps, one that is put back."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from vmm.abi import ports
from vmm.machine.context import Context
from vmm.machine.ends import Why
from vmm.machine.machine import Machine
from vmm.machine.memory.layout import REGIONS
from vmm.payload.guest import Guest
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, GuestBroke, Verdict

EVERY = 5  # steps from one move to the next
EXPECTED = {
    "dr0": 0x12345678,
    "lstar": 0x123489ABCDEF,
    "lvt": 0x10077,
    "xmm": 0xFEEDFACE12345678,
    "fs": REGIONS["data"].base,
}
Results = Mapping[str, int]


@dataclass(frozen=True)
class Evidence:
    """Results of the guest left alone, of the one that moved `moves` times, and of the one put back to the middle."""

    steps: int
    alone: Results
    moved: Results
    moves: int
    again: Results


def prove(lab: Lab) -> Finding:
    with lab.guest() as guest:
        steps = guest.params["steps"]
        guest.machine.on_port_write(ports.DELAY, lambda value: None)
        run_to_pass(guest)
        alone = _results(guest)
    moved, moves, again = _move(lab)
    return judge(Evidence(steps, alone, moved, moves, again))


def _results(guest: Guest) -> Results:
    return {name: guest[name] for name in guest.header.results}


def _move(lab: Lab) -> tuple[Results, int, Results]:
    """Run to a step, save, go on in another machine; two machines take turns. At last, back to the first state.

    The run ends in the second machine, whose own start never ran: nothing there can stand in for what was not moved.
    """
    with ExitStack() as stack:
        pair = [stack.enter_context(lab.guest()) for _ in range(2)]
        steps = itertools.count(1)
        moving = True

        def step(machine: Machine, value: int) -> None:
            if next(steps) % EVERY == 0 and moving:
                machine.stop("to be moved")

        for guest in pair:
            guest.machine.on_port_write(ports.DELAY, partial(step, guest.machine))
        moves, first = 0, None
        while True:
            guest = pair[moves % 2]
            result = guest.run()
            if result.stop.why is not Why.STOPPED:
                break
            saved = guest.machine.save()
            first = first or saved
            moves += 1
            restore(pair[moves % 2], saved)
        if result.stop.why is not Why.EXIT_PORT:
            raise GuestBroke(f"after {moves} moves: {result.stop.text}")
        moved = _results(guest)
        moving = False
        guest.clear_results()
        if first is not None:
            restore(guest, first)
            run_to_pass(guest)
        return moved, moves, _results(guest)


def restore(guest: Guest, saved: Context) -> None:
    """Put the state into this machine."""
    guest.machine.restore(saved)


def judge(evidence: Evidence) -> Finding:
    """All three came to the same results, interrupts included, and the machines did change."""
    numbers: dict[str, object] = {"steps": evidence.steps, "moves": evidence.moves}
    for name in evidence.alone:
        values = [results[name] for results in (evidence.alone, evidence.moved, evidence.again)]
        numbers[f"{name}: alone, moved, put back"] = [f"{value:#x}" for value in values]
    for name, wanted in {**EXPECTED, "ticks": evidence.steps}.items():
        if evidence.alone[name] != wanted:
            text = f"left alone, the guest has {name} {evidence.alone[name]:#x}, and should have {wanted:#x}"
            return Finding(Verdict.BROKEN, text, numbers)
    wanted_moves = evidence.steps // EVERY
    if evidence.moves != wanted_moves:
        text = f"the guest came to {evidence.moves} moves, and there is one at every {EVERY} of {evidence.steps} steps"
        return Finding(Verdict.BROKEN, text, numbers)
    for what, results in (("moved", evidence.moved), ("put back", evidence.again)):
        for name, value in results.items():
            if value != evidence.alone[name]:
                text = f"{what}, the guest has {name} {value:#x}, and left alone {evidence.alone[name]:#x}"
                return Finding(Verdict.BROKEN, text, numbers)
    summary = f"{evidence.moves} moves between two machines, each with an interrupt pending: the same results"
    return Finding(Verdict.WORKS, "", numbers, summary)

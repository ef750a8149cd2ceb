# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdicts on ioeventfd, on made-up evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.ioeventfd import AFTERWARDS, ANY_LENGTH, BINDINGS, MISSES, Evidence, judge
from vmm.payload.proof.verdict import Verdict

COUNTS = {name: want for name, (*_, want) in (BINDINGS | ANY_LENGTH).items()}
GOOD = Evidence(COUNTS, MISSES, AFTERWARDS, len(MISSES) + len(AFTERWARDS), any_length=True)


def verdicts(seen: Evidence) -> tuple[Verdict, Verdict]:
    rows = judge(seen)
    return rows["ioeventfd"].verdict, rows["ioeventfd_any_length"].verdict


def test_works():
    assert verdicts(GOOD) == (Verdict.WORKS, Verdict.WORKS)


@pytest.mark.parametrize("name", BINDINGS)
@pytest.mark.parametrize("more", [-1, 1])
def test_a_wrong_count_is_broken(name, more):
    seen = replace(GOOD, counts=COUNTS | {name: COUNTS[name] + more})
    assert verdicts(seen) == (Verdict.BROKEN, Verdict.WORKS)


@pytest.mark.parametrize("name", ANY_LENGTH)
def test_a_length_that_is_missed_is_broken(name):
    assert verdicts(replace(GOOD, counts=COUNTS | {name: COUNTS[name] - 1})) == (Verdict.WORKS, Verdict.BROKEN)


def test_without_the_capability_any_length_is_absent():
    counts = {name: COUNTS[name] for name in BINDINGS}
    exits = tuple((pio, offset, 1, 0) for pio, offset, *_ in ANY_LENGTH.values())
    before = (*MISSES, *exits)
    seen = Evidence(counts, before, AFTERWARDS, len(before) + len(AFTERWARDS), any_length=False)
    assert verdicts(seen) == (Verdict.WORKS, Verdict.ABSENT)


def test_a_write_that_signals_and_exits_is_broken():
    before = (*MISSES, (False, 0x20, 4, 0))
    seen = replace(GOOD, before=before, exits=len(before) + len(AFTERWARDS))
    assert verdicts(seen)[1] is Verdict.BROKEN


@pytest.mark.parametrize(
    "change",
    [{"before": MISSES[1:], "exits": 7}, {"after": (), "exits": len(MISSES)}, {"exits": 7}, {"exits": 9}],
)
def test_broken(change):
    assert verdicts(replace(GOOD, **change))[0] is Verdict.BROKEN

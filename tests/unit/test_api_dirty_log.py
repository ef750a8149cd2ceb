# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdicts on the dirty log, on made-up evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.dirty_log import AT_FIRST, AUTOMATIC, BY_HAND, Evidence, judge
from vmm.payload.proof.verdict import Verdict

GOOD = Evidence(AUTOMATIC, (AT_FIRST, *BY_HAND), 3)


def verdicts(seen: Evidence) -> tuple[Verdict, Verdict]:
    rows = judge(seen)
    return rows["dirty_log"].verdict, rows["dirty_log_manual"].verdict


def test_works():
    assert verdicts(GOOD) == (Verdict.WORKS, Verdict.WORKS)


def test_works_without_initially_set():
    assert verdicts(Evidence(AUTOMATIC, BY_HAND, 1)) == (Verdict.WORKS, Verdict.WORKS)


def test_absent_without_the_capability():
    assert verdicts(Evidence(AUTOMATIC, (), 0)) == (Verdict.WORKS, Verdict.ABSENT)


@pytest.mark.parametrize("step", range(len(AUTOMATIC)))
@pytest.mark.parametrize("pages", [(7,), (0, 3, 7, 64, 95), tuple(range(96))])
def test_another_log_is_broken(step, pages):
    logs = list(AUTOMATIC)
    logs[step] = (logs[step][0], pages)
    assert verdicts(replace(GOOD, automatic=tuple(logs))) == (Verdict.BROKEN, Verdict.WORKS)


@pytest.mark.parametrize("step", range(1 + len(BY_HAND)))
def test_another_log_by_hand_is_broken(step):
    logs = list(GOOD.by_hand)
    logs[step] = (logs[step][0], (1,))
    assert verdicts(replace(GOOD, by_hand=tuple(logs))) == (Verdict.WORKS, Verdict.BROKEN)


def test_a_log_that_was_not_read_is_broken():
    assert verdicts(replace(GOOD, automatic=AUTOMATIC[:-1]))[0] is Verdict.BROKEN
    assert verdicts(replace(GOOD, by_hand=GOOD.by_hand[:-1]))[1] is Verdict.BROKEN

# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on clocks, from evidence made up by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from guest_payloads.api.timekeeping import (
    PAST,
    SET_TO,
    Evidence,
    judge_adjust,
    judge_clock,
    judge_frequency,
    judge_offset,
    judge_writes,
)
from vmm.payload.verdict import Finding, Verdict

JUMP = 1 << 44
STEP = 0x20000
NUMBERS = {
    "wall_before": 1000, "wall_after": 3000, "clock": 5000, "later": 6000, "has_realtime": 1, "realtime": 2000,
    "host_tsc": 100, "host_tsc_later": 200, "set_past": SET_TO + PAST + 10, "past_took": 20, "set": SET_TO + 5,
    "set_took": 10, "page": SET_TO + 50, "clock_at_page": SET_TO + 90, "offset_before": 7, "offset_after": 7 + JUMP,
    "tsc_control": 1, "khz": 2_000_000, "khz_after": 1_000_000,
}  # fmt: skip
RESULTS = {"adjust_before": 1, "adjust_after": 1 + JUMP, "gp": 0, "done": 1}


def tsc(*jumps: int) -> dict[int, int]:
    """Stages 1 to 10, with a jump on the way to each of `jumps`."""
    values, now = {}, 10 * JUMP
    for stage in range(1, 11):
        now += STEP + JUMP * (stage in jumps)
        values[stage] = now
    return values


GOOD = Evidence(tsc(4, 5, 6, 7), NUMBERS, RESULTS, JUMP, (0.45, 0.52))
STILL = replace(GOOD, tsc=tsc())
Judge = Callable[[Evidence], Finding]


def numbers(evidence: Evidence = GOOD, **changed: int) -> Evidence:
    return replace(evidence, numbers=NUMBERS | changed)


def test_works() -> None:
    for judge in (judge_clock, judge_offset, judge_adjust, judge_writes, judge_frequency):
        assert judge(GOOD).verdict is Verdict.WORKS, judge(GOOD)


def test_a_clock_without_realtime_is_one_too() -> None:
    assert "without realtime" in judge_clock(numbers(has_realtime=0)).summary


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"later": 4000}, "back to 4000"),
        ({"set": 5000}, "set to"),
        ({"set": SET_TO + 10_000_000}, "set to"),
        ({"page": 5000}, "the guest's page"),
        ({"page": SET_TO + 100}, "the guest's page"),
        ({"realtime": 999}, "realtime is"),
        ({"realtime": 3001}, "realtime is"),
        ({"host_tsc_later": 100}, "the host's TSC"),
        ({"set_past": SET_TO + 10}, "with a realtime"),
        ({"set_past": SET_TO + 2 * PAST}, "with a realtime"),
    ],
)
def test_clock_broken(changed: dict[str, int], text: str) -> None:
    finding = judge_clock(numbers(**changed))
    assert finding.verdict is Verdict.BROKEN
    assert text in finding.reason


def test_inert_where_the_tsc_stays_the_hosts() -> None:
    for judge, evidence in (
        (judge_offset, numbers(STILL, offset_after=7)),
        (judge_adjust, STILL),
        (judge_adjust, replace(STILL, results=RESULTS | {"adjust_after": 1})),
        (judge_writes, STILL),
    ):
        assert judge(evidence).verdict is Verdict.INERT, judge(evidence)


@pytest.mark.parametrize(
    ("judge", "evidence"),
    [
        (judge_offset, STILL),  # reads back, and does nothing
        (judge_offset, numbers(offset_after=7)),  # does it, and reads back nothing
        (judge_offset, replace(GOOD, tsc=tsc(5))),
        (judge_offset, replace(GOOD, tsc=GOOD.tsc | {4: GOOD.tsc[3] + 3 * JUMP})),
        (judge_offset, replace(GOOD, tsc=GOOD.tsc | {4: GOOD.tsc[3] - 1})),
        (judge_adjust, replace(GOOD, results=RESULTS | {"adjust_after": 1})),
        (judge_adjust, replace(STILL, results=RESULTS | {"adjust_after": 99})),
        (judge_adjust, replace(GOOD, results=RESULTS | {"gp": 1})),
        (judge_adjust, replace(GOOD, tsc=GOOD.tsc | {5: GOOD.tsc[4] - JUMP})),
        (judge_writes, replace(GOOD, tsc=tsc(6))),
        (judge_writes, replace(GOOD, tsc=tsc(7))),
    ],
)
def test_tsc_broken(judge: Judge, evidence: Evidence) -> None:
    assert judge(evidence).verdict is Verdict.BROKEN


def test_adjust_absent() -> None:
    assert judge_adjust(replace(GOOD, adjust_offered=False, results=RESULTS | {"gp": 3})).verdict is Verdict.ABSENT


REFUSED = replace(numbers(tsc_control=0, khz_after=2_000_000), rate=(0.99, 1.01), refused="EINVAL")


@pytest.mark.parametrize(
    ("evidence", "verdict"),
    [
        (REFUSED, Verdict.ABSENT),
        (replace(REFUSED, rate=(0.2, 3.0)), Verdict.ABSENT),
        (replace(REFUSED, rate=(0.4, 0.6)), Verdict.BROKEN),
        (replace(REFUSED, numbers=NUMBERS), Verdict.BROKEN),
        (replace(GOOD, rate=(0.2, 3.0)), Verdict.UNPROVEN),
        (replace(GOOD, rate=(0.99, 1.01)), Verdict.BROKEN),
        (replace(numbers(tsc_control=0), rate=(0.99, 1.01)), Verdict.INERT),
        (replace(GOOD, rate=(0.6, 0.7)), Verdict.BROKEN),
        (numbers(khz_after=2_000_000), Verdict.BROKEN),
    ],
)
def test_frequency(evidence: Evidence, verdict: Verdict) -> None:
    assert judge_frequency(evidence).verdict is verdict


def test_a_refusal_that_leaves_a_trace_says_so() -> None:
    assert "says 1000000 all the same" in judge_frequency(replace(REFUSED, numbers=NUMBERS | {"tsc_control": 0})).reason

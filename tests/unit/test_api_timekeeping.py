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
from vmm.payload.proof.verdict import Finding, Verdict

JUMP = 1 << 44
STEP = 0x20000
NUMBERS = {
    "wall_before": 1000, "wall_after": 3000, "clock": 5000, "later": 6000, "has_realtime": 1, "realtime": 2000,
    "host_tsc": 100, "host_tsc_later": 200, "set_past": SET_TO + PAST + 10, "past_took": 20, "set": SET_TO + 5,
    "set_took": 10, "page": SET_TO + 50, "clock_at_page": SET_TO + 90, "offset_first": 7, "offset_before": 7,
    "offset_after": 7 + JUMP, "offset_took": 1000,
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


def test_what_passes_between_the_clocks_reference_and_the_realtime_counts_twice() -> None:
    """Recorded on SVM, Linux 6.12, under load."""
    late = {"set_past": SET_TO + PAST + 1_499_301}
    assert judge_clock(numbers(**late, past_took=1_207_293)).verdict is Verdict.WORKS
    assert judge_clock(numbers(**late, past_took=700_000)).verdict is Verdict.BROKEN


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


DRIFT = {"offset_first": 90, "offset_took": 1000}  # KVM takes ticks away by itself; 1000 ns are 2000 ticks


def test_an_offset_that_shrinks_by_itself_may_have_shrunk_since_it_was_set() -> None:
    found = judge_offset(numbers(**DRIFT, offset_after=7 + JUMP - 1500))
    assert found.verdict is Verdict.WORKS
    assert "not stable" in found.summary
    assert found.evidence["lost since it was set"] == hex(1500)


@pytest.mark.parametrize(
    "changed",
    [
        {**DRIFT, "offset_after": 7 + JUMP - 5000},  # more than the time explains
        {**DRIFT, "offset_after": 8 + JUMP},  # the wrong way
        {"offset_after": 7 + JUMP - 1500},  # and it does not move by itself
        {**DRIFT, "offset_after": 7},
    ],
)
def test_an_offset_that_is_another_is_broken(changed: dict[str, int]) -> None:
    assert judge_offset(numbers(**changed)).verdict is Verdict.BROKEN


def test_a_refused_frequency_that_is_taken_all_the_same() -> None:
    refused = replace(
        GOOD, refused="EINVAL", rate=(0.46, 0.56), numbers=NUMBERS | {"tsc_control": 0, "offset_first": 90}
    )
    found = judge_frequency(refused)
    assert found.verdict is Verdict.ABSENT
    assert "at half of it all the same" in found.reason
    for spoiled in ({"offset_first": 7}, {"khz_after": 2_000_000}, {"tsc_control": 1}):
        assert judge_frequency(replace(refused, numbers=refused.numbers | spoiled)).verdict is Verdict.BROKEN
    assert judge_frequency(replace(refused, rate=(0.2, 0.3))).verdict is Verdict.BROKEN


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
    assert "says 1000000)" in judge_frequency(replace(REFUSED, numbers=NUMBERS | {"tsc_control": 0})).reason

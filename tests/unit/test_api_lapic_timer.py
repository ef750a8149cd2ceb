# SPDX-License-Identifier: GPL-2.0-or-later
"""The judgement of lapic_timer on made-up evidence: late is no fault, early is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.lapic_timer import Evidence, judge
from vmm.payload.catalog import find
from vmm.payload.proof.verdict import Verdict

RESULTS = {
    "once": 1,
    "once_ticks": 420_000,
    "once_left": 0,
    "counting": 0xFFFF_0000,
    "periodic": 5,
    "period_ticks": 2_100_000,
    "stopped": 0,
    "has_deadline": 1,
    "armed": 0,
    "deadline": 1,
    "late": 40_000,
    "disarmed": 0,
    "past": 1,
}
GOOD = Evidence(RESULTS, ticks=200_000, tsc_khz=2_000_000, long=0xFFFFFFFF)


def verdicts(**changes: int) -> list[str]:
    found = judge(replace(GOOD, results=RESULTS | changes))
    assert tuple(found) == find("lapic_timer").header.proves
    return [str(each.verdict) for each in found.values()]


def test_works() -> None:
    assert verdicts() == ["works"] * 3


@pytest.mark.parametrize(
    ("change", "row"),
    [
        ({"once": 0}, 0),
        ({"once": 2}, 0),
        ({"once_ticks": 370_000}, 0),
        ({"once_left": 1}, 0),
        ({"counting": 0}, 0),
        ({"counting": 1 << 32}, 0),
        ({"periodic": 4}, 1),
        ({"period_ticks": 1_800_000}, 1),
        ({"stopped": 1}, 1),
        ({"armed": -5}, 2),
        ({"deadline": 2}, 2),
        ({"late": -20_000}, 2),
        ({"disarmed": 5}, 2),
        ({"past": 0}, 2),
    ],
)
def test_one_wrong_result_breaks_its_row(change: dict[str, int], row: int) -> None:
    wanted = ["works"] * 3
    wanted[row] = "broken"
    assert verdicts(**change) == wanted


def test_late_and_a_tick_pending_at_the_stop_are_no_fault() -> None:
    assert verdicts(once_ticks=10**9, period_ticks=10**10, late=10**9, periodic=6) == ["works"] * 3


def test_kvm_may_begin_a_little_before_the_deadline() -> None:
    assert verdicts(late=-9_000) == ["works"] * 3


def test_without_the_mode_the_deadline_is_absent() -> None:
    found = judge(replace(GOOD, results=RESULTS | {"has_deadline": 0, "armed": 0, "deadline": 0, "past": 0}))
    assert found["lapic_timer_deadline"].verdict is Verdict.ABSENT
    assert found["lapic_timer_oneshot"].verdict is Verdict.WORKS

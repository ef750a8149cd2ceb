# SPDX-License-Identifier: GPL-2.0-or-later
"""The judgement of pit on made-up evidence: late is no fault, early is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.pit import Evidence, judge
from vmm.payload.proof.verdict import Verdict

RESULTS = {"reading": 1190, "rate": 5, "rate_ticks": 8_100_000, "single": 1, "single_ticks": 2_050_000}
GOOD = Evidence(RESULTS, count=1193, tsc_khz=2_000_000, state=1193)


def test_works_however_late() -> None:
    assert judge(GOOD).verdict is Verdict.WORKS
    assert judge(replace(GOOD, results=RESULTS | {"rate_ticks": 10**10, "rate": 9})).verdict is Verdict.WORKS


@pytest.mark.parametrize(
    "change",
    [{"reading": 0}, {"reading": 1194}, {"rate": 3}, {"rate_ticks": 7_000_000}, {"single": 0}, {"single": 2}],
)
def test_one_wrong_result_is_broken(change: dict[str, int]) -> None:
    finding = judge(replace(GOOD, results=RESULTS | change))
    assert finding.verdict is Verdict.BROKEN
    assert finding.reason.startswith(next(iter(change)))


def test_kvms_own_view_counts() -> None:
    assert "KVM_GET_PIT2" in judge(replace(GOOD, state=0)).reason

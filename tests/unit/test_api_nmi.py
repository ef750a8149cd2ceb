# SPDX-License-Identifier: GPL-2.0-or-later
"""The judgement of nmi on made-up evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.nmi import Evidence, judge
from vmm.payload.proof.verdict import Verdict

RESULTS = {"inside": 0, "after": 2, "message": 3}
GOOD = Evidence(RESULTS, (0, 1, 0))


def test_works() -> None:
    assert judge(GOOD).verdict is Verdict.WORKS


@pytest.mark.parametrize("change", [{"inside": 1}, {"after": 1}, {"message": 2}, {"after": 0}])
def test_one_wrong_result_is_broken(change: dict[str, int]) -> None:
    assert judge(replace(GOOD, results=RESULTS | change)).verdict is Verdict.BROKEN


@pytest.mark.parametrize("masked", [(0, 0, 0), (0, 1, 1), (1, 1, 0)])
def test_kvms_own_view_counts(masked: tuple[int, ...]) -> None:
    assert "nmi.masked" in judge(replace(GOOD, masked=masked)).reason

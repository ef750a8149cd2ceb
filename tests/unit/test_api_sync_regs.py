# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on synchronised registers, from evidence made up by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.sync_regs import Evidence, expected, judge
from vmm.base.bits import MASK64
from vmm.payload.proof.verdict import Verdict

GOOD = Evidence(300, 0, 7, 7, 9000.0, 3000.0)


def test_works() -> None:
    finding = judge(GOOD)
    assert finding.verdict is Verdict.WORKS
    assert "1/3.0 of KVM_GET_REGS" in finding.summary


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (replace(GOOD, exits=0), "0 of 0"),
        (replace(GOOD, different=1), "differ at 1 of 300"),
        (replace(GOOD, total=8), "the guest summed 0x8"),
    ],
)
def test_broken(evidence: Evidence, text: str) -> None:
    finding = judge(evidence)
    assert finding.verdict is Verdict.BROKEN
    assert text in finding.reason


def test_what_the_guest_should_sum() -> None:
    first = 0x123 ^ MASK64
    second = first * 13 + 2 & MASK64 ^ 0
    assert expected(1, 0x123, 13) == first
    assert expected(2, 0x123, 13) == first + (second ^ MASK64) & MASK64

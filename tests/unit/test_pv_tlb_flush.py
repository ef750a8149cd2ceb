# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on the TLB flush by shared memory, from evidence made up by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.tlb_flush import Evidence, judge
from vmm.payload.proof.verdict import Verdict

GOOD = Evidence(
    rises={0: [0, 0, 0], 1: [0, 0, 0], 2: [1, 1, 1], 3: [1, 1, 1]},
    seen=0x01007EFB,
    requests=6,
    left=0,
    stale=2,
    fresh=6,
)


def with_rises(**rises: list[int]) -> Evidence:
    return replace(GOOD, rises={**GOOD.rises, **{int(name[1:]): values for name, values in rises.items()}})


def test_works_with_the_numbers_beside_it() -> None:
    finding = judge(GOOD)
    assert finding.verdict is Verdict.WORKS
    assert [finding.evidence[f"tlb_flush_rise_for_{value}"] for value in range(4)] == [0, 0, 1, 1]
    assert "6 of 6 requests" in finding.summary
    assert "the old one 2 times before" in finding.summary


def test_flushes_for_other_reasons_do_not_count() -> None:
    assert judge(with_rises(v0=[0, 3, 0], v1=[2, 0, 0], v2=[5, 1, 1], v3=[1, 1, 9])).verdict is Verdict.WORKS
    assert judge(with_rises(v0=[1, 1, 1], v1=[1, 1, 2], v2=[2, 2, 2], v3=[2, 3, 2])).verdict is Verdict.WORKS


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (replace(GOOD, seen=0x01007EFB & ~(1 << 9)), "PV_TLB_FLUSH"),
        (replace(GOOD, seen=0x01007EFB & ~(1 << 5)), "STEAL_TIME"),
        (replace(GOOD, left=2), "held 0x2"),
        (with_rises(v2=[1, 0, 1]), "preempted = 2 asks for a flush"),
        (with_rises(v3=[0, 0, 0]), "preempted = 3 asks for a flush"),
        (with_rises(v0=[1, 1, 1], v1=[1, 1, 1]), "preempted = 2 asks for a flush"),  # a flush at every entry is none
        (with_rises(v1=[1, 1, 1]), "preempted = 1 asks for no flush"),
        (replace(GOOD, fresh=5), "read 5 times"),
        (replace(GOOD, requests=0, fresh=0), "read 0 times"),
    ],
)
def test_broken(evidence: Evidence, text: str) -> None:
    finding = judge(evidence)
    assert finding.verdict is Verdict.BROKEN
    assert text in finding.reason

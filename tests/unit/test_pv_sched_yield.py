# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on the directed yield, from evidence made up by hand: KVM's own path and pyvmm's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.sched_yield import Calls, Evidence, judge
from vmm.payload.proof.verdict import Verdict

SEEN = 0x01007EFB
KERNEL = Evidence(target=Calls(8, 0, 8, 5), nobody=Calls(8, 0, 8, 0), seen=SEEN, kind=1, served=0)
SERVED = Evidence(target=Calls(8, 0, 0, 0), nobody=Calls(8, 0, 0, 0), seen=SEEN, kind=2, served=17)


def test_works_on_kvms_path() -> None:
    finding = judge(KERNEL)
    assert finding.verdict is Verdict.WORKS
    assert finding.summary == "8 calls, 8 attempted, 5 successful; of 8 to itself or nobody, 0"
    assert finding.evidence["successful"] == 5
    assert judge(replace(KERNEL, kind=0)).verdict is Verdict.WORKS


def test_serviced_where_the_call_is_handed_over() -> None:
    finding = judge(SERVED)
    assert finding.verdict is Verdict.SERVICED
    assert "16 calls" in finding.reason
    assert (finding.evidence["transport"], finding.evidence["served"]) == (2, 17)


def test_a_call_that_pyvmm_answered_is_never_works() -> None:
    """Whatever the statistics say."""
    mixed = replace(KERNEL, served=17)
    assert judge(mixed).verdict is Verdict.SERVICED
    assert judge(replace(KERNEL, kind=2, served=17)).verdict is Verdict.SERVICED


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (replace(KERNEL, seen=SEEN & ~(1 << 13)), "does not see"),
        (replace(KERNEL, target=Calls(8, 1, 8, 5)), "1 of 16 calls"),
        (replace(KERNEL, nobody=Calls(8, 8, 8, 0)), "8 of 16 calls"),
        (replace(KERNEL, target=Calls(8, 0, 7, 5)), "rose by 7 over 8"),
        (replace(KERNEL, nobody=Calls(8, 0, 0, 0)), "rose by 0 over 8"),
        (replace(KERNEL, nobody=Calls(8, 0, 8, 1)), "named nobody else"),
        (replace(SERVED, target=Calls(8, 8, 0, 0)), "8 of 16 calls"),
        (replace(SERVED, served=3), "served 3 of 16"),
        (replace(SERVED, served=0), "served 0 of 16"),
    ],
)
def test_broken(evidence: Evidence, text: str) -> None:
    finding = judge(evidence)
    assert finding.verdict is Verdict.BROKEN
    assert text in finding.reason


def test_unproven_without_contention() -> None:
    finding = judge(replace(KERNEL, target=Calls(8, 0, 8, 0)))
    assert finding.verdict is Verdict.UNPROVEN
    assert "none of 8 yields gave the CPU away" in finding.reason


def test_unproven_without_statistics() -> None:
    finding = judge(replace(KERNEL, target=Calls(8, 0), nobody=Calls(8, 0)))
    assert finding.verdict is Verdict.UNPROVEN
    assert "no statistic" in finding.reason

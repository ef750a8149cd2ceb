# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on flag 0 of the clock's page, on made-up evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.stable_bit import Evidence, judge
from vmm.payload.proof.verdict import Verdict

GOOD = Evidence(exposed=True, version=2, flags=(1, 0, 1), kvm=(True, False, True), host_clock="tsc")


def test_set_lost_and_set_again_works():
    finding = judge(GOOD)
    assert finding.verdict is Verdict.WORKS
    assert finding.evidence["flags_old_msr"] == 0
    assert finding.evidence["kvm_tsc_stable_new_msr"] is True


def test_other_flags_do_not_matter():
    assert judge(replace(GOOD, flags=(3, 2, 3))).verdict is Verdict.WORKS


def test_without_a_stable_clock_there_is_nothing_to_lose():
    finding = judge(replace(GOOD, flags=(0, 0, 0), kvm=(False, False, False), host_clock="hpet"))
    assert finding.verdict is Verdict.INERT
    assert "the host counts time by hpet" in finding.reason
    assert "(" not in judge(replace(GOOD, flags=(0, 0, 0), kvm=(False,) * 3, host_clock="")).reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exposed": False}, "lacks bit 24"),
        ({"version": 0}, "never written"),
        ({"version": 3}, "never written"),
        ({"flags": (0, 0, 1)}, "flag 0 is 0 at first, and KVM_GET_CLOCK says 1"),
        ({"flags": (1, 1, 1)}, "flag 0 is 1 by MSR 0x12, and KVM_GET_CLOCK says 0"),
        ({"flags": (1, 0, 0)}, "flag 0 is 0 by the new MSR again"),
        ({"flags": (1, 1, 1), "kvm": (True, True, True)}, "still stable, though vCPU 0 uses MSR 0x12"),
        ({"flags": (1, 0, 0), "kvm": (True, False, False)}, "went back to the new MSR"),
        ({"flags": (1, 0, 0), "kvm": (False, False, False)}, "flag 0 is 1 at first, and KVM_GET_CLOCK says 0"),
    ],
)
def test_what_contradicts_the_abi_is_broken(changes, reason):
    finding = judge(replace(GOOD, **changes))
    assert finding.verdict is Verdict.BROKEN
    assert reason in finding.reason

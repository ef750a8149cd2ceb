# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on the removed paravirtual MMU, on made-up evidence of both paths: KVM's own, and pyvmm's service."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.mmu_op import Evidence, judge
from vmm.payload.proof.verdict import Verdict

GONE = Evidence(offered=False, seen=False, poll=0, result=-1000, served=False)


@pytest.mark.parametrize(("served", "who"), [(False, "KVM"), (True, "pyvmm")])
def test_neither_offered_nor_answered_is_absent(served, who):
    finding = judge(replace(GONE, served=served))
    assert finding.verdict is Verdict.ABSENT
    assert f"and {who} answers hypercall 2 with -KVM_ENOSYS" in finding.reason


def test_a_kvm_that_has_it_is_unproven():
    assert judge(replace(GONE, offered=True, seen=True, result=0)).verdict is Verdict.UNPROVEN


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seen": True}, "the guest sees it"),
        ({"result": 0}, "hypercall 2 gives 0"),
        ({"result": -1}, "hypercall 2 gives -KVM_EPERM (-1)"),
        ({"poll": -1000}, "VAPIC_POLL_IRQ gives -KVM_ENOSYS"),
        ({"poll": -1, "result": -1}, "VAPIC_POLL_IRQ gives -KVM_EPERM"),
    ],
)
def test_what_contradicts_the_abi_is_broken(changes, reason):
    finding = judge(replace(GONE, **changes))
    assert finding.verdict is Verdict.BROKEN
    assert reason in finding.reason

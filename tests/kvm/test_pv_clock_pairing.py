# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM_HC_CLOCK_PAIRING on this host, by KVM or by pyvmm, and the same proof with another hypercall."""

from __future__ import annotations

import pytest

from guest_payloads.pv.clock_pairing import judge, measure
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict


def test_time_of_day_and_tsc_are_one_pair():
    (row,) = prove(find("clock_pairing"))
    evidence = row.finding.evidence
    if evidence["result"] == -95:
        assert row.verdict is Verdict.UNPROVEN, row.finding.reason  # this host does not count time by the TSC
        return
    assert row.verdict is (Verdict.SERVICED if evidence["served_by_pyvmm"] else Verdict.WORKS), row.finding.reason
    assert evidence["tsc_before"] <= evidence["pair_tsc"] <= evidence["tsc_after"]
    assert [(refusal.kind, refusal.observed) for refusal in row.refusals] == [
        ("control", "0"),
        ("argument", "-KVM_EOPNOTSUPP (-95)"),
        ("address", "-KVM_EFAULT (-14)"),
    ]


def test_who_answered_is_measured_and_not_guessed():
    with Lab(find("clock_pairing")).guest() as guest:
        evidence = measure(guest)
        assert evidence.served is (guest["kind"] == 2)
        assert judge(evidence).verdict in (Verdict.SERVICED if evidence.served else Verdict.WORKS, Verdict.UNPROVEN)


@pytest.mark.sabotage
@pytest.mark.parametrize("number", [1, 99])
def test_another_hypercall_pairs_nothing(number):
    """VAPIC_POLL_IRQ gives 0 and writes nothing; 99 is unknown."""
    (row,) = prove(find("clock_pairing"), Options(params={"number": number}))
    assert row.verdict is Verdict.BROKEN

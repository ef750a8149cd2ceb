# SPDX-License-Identifier: GPL-2.0-or-later
"""Flag 0 of the clock's page against KVM_GET_CLOCK on this host, and the same proof taken away or spoiled."""

from __future__ import annotations

import pytest

from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict


def proven(*, enforce: bool = False, **options) -> Row:
    (row,) = prove(find("stable_bit"), Options(**options), enforce=enforce)
    return row


def test_it_works_where_kvm_has_a_stable_clock():
    row = proven()
    stable = row.finding.evidence["kvm_tsc_stable_new_msr"]
    assert row.verdict is (Verdict.WORKS if stable else Verdict.INERT), row.finding.reason
    assert [(refusal.kind, refusal.holds) for refusal in row.refusals] == [
        ("control", True),
        ("masked", True),
        ("enforced", True),
    ]


@pytest.mark.parametrize("enforce", [False, True])
def test_hidden_it_is_absent(enforce):
    row = proven(mask=("CLOCKSOURCE_STABLE_BIT",), enforce=enforce)
    assert (row.verdict, row.finding.reason) == (Verdict.ABSENT, "masked")


@pytest.mark.parametrize("needed", ["CLOCKSOURCE", "CLOCKSOURCE2"])
def test_without_the_msrs_that_it_needs_it_is_unproven(needed):
    row = proven(mask=(needed,), enforce=True)
    assert row.verdict is Verdict.UNPROVEN
    assert needed in row.finding.reason


@pytest.mark.sabotage
def test_an_msr_that_is_no_clock_does_not_work():
    row = proven(params={"system_msr": 0x175})  # MSR_IA32_SYSENTER_ESP takes any value
    assert row.verdict is Verdict.BROKEN
    assert "never written" in row.finding.reason


@pytest.mark.sabotage
def test_a_clock_that_is_never_lost_does_not_work():
    row = proven(params={"old_msr": 0x4B564D01})
    assert row.verdict is (Verdict.BROKEN if row.finding.evidence["kvm_tsc_stable_new_msr"] else Verdict.INERT)

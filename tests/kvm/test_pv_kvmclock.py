# SPDX-License-Identifier: GPL-2.0-or-later
"""Both pairs of clock MSRs, proven on this host, and the same proof with the feature taken away or spoiled."""

from __future__ import annotations

import pytest

from guest_payloads.pv import kvmclock
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.accesses import perform
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict

SYSENTER_ESP = 0x175  # takes any value and does nothing with it


def proven(*, enforce: bool = False, **options) -> dict[str, Row]:
    rows = prove(find("kvmclock"), Options(**options), enforce=enforce)
    return {row.name: row for row in rows}


def test_both_clocks_work_and_every_refusal_holds():
    rows = proven()
    for name, row in rows.items():
        assert row.verdict is Verdict.WORKS, f"{name}: {row.finding.reason}"
        assert row.offered
        assert not [refusal for refusal in row.refusals if not refusal.holds]
        kinds = [refusal.kind for refusal in row.refusals]
        assert {kind: kinds.count(kind) for kind in set(kinds)} == {
            "masked": 4,
            "enforced": 4,
            "control": 9,
            "address": 5,
            "argument": 1,
        }
    old, new = rows["CLOCKSOURCE"].finding.evidence, rows["CLOCKSOURCE2"].finding.evidence
    assert old["stable"] is False  # vCPU 0 uses MSR 0x12
    assert (new["flags"] & 1) == new["stable"]


@pytest.mark.parametrize("hidden", ["CLOCKSOURCE", "CLOCKSOURCE2"])
def test_hidden_and_enforced_it_is_absent_and_the_other_works(hidden):
    rows = proven(mask=(hidden,), enforce=True)
    other = ({"CLOCKSOURCE", "CLOCKSOURCE2"} - {hidden}).pop()
    assert (rows[hidden].verdict, rows[hidden].finding.reason) == (Verdict.ABSENT, "masked")
    assert rows[other].verdict is Verdict.WORKS, rows[other].finding.reason
    assert not [refusal for refusal in rows[other].refusals if not refusal.holds]


@pytest.mark.sabotage
def test_msrs_that_do_not_exist_are_no_clock():
    for row in proven(params={"spoil": 0x20}).values():
        assert row.verdict is Verdict.BROKEN
        assert "#GP" in row.finding.reason


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"system_msr": SYSENTER_ESP}, "the clock's page: it was never written"),
        ({"wall_msr": SYSENTER_ESP}, "versions of the wall clock are 0 and 0"),
    ],
)
def test_another_msr_is_no_clock(params, reason):
    row = proven(params=params)["CLOCKSOURCE2"]
    assert row.verdict is Verdict.BROKEN
    assert reason in row.finding.reason


def test_a_clock_that_kvm_writes_at_every_entry_is_switched_off_all_the_same(monkeypatch):
    """As without a stable clock: the entry that leads to the WRMSR still writes the page of before."""

    def with_an_update_pending(guest, accesses):
        guest.machine.vm.set_clock(1)
        return perform(guest, accesses)

    monkeypatch.setattr(kvmclock, "perform", with_an_update_pending)
    for row in proven().values():
        assert row.verdict is Verdict.WORKS, row.finding.reason
        assert not row.deviations


@pytest.mark.sabotage
def test_a_clock_that_is_not_switched_off_deviates(monkeypatch):
    wrmsr = kvmclock.wrmsr
    monkeypatch.setattr(kvmclock, "wrmsr", lambda msr, value: wrmsr(msr, value | (value == kvmclock.PAGE)))
    for row in proven().values():
        assert row.verdict is Verdict.WORKS, row.finding.reason
        (found,) = row.deviations
        assert found.what.endswith("with bit 0 clear")
        assert found.observed == kvmclock.WRITTEN

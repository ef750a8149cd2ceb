# SPDX-License-Identifier: GPL-2.0-or-later
"""PV_EOI on this host: `works`, or `inert` with the reason that the numbers give; and the same proof spoiled."""

from __future__ import annotations

import pytest

from guest_payloads.pv import pv_eoi
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import Lab, supported
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict


@pytest.fixture(autouse=True)
def _offered() -> None:
    if not supported().has("PV_EOI"):
        pytest.skip("this KVM does not offer PV_EOI")


def run(*, enforce: bool = False, refusals: bool = False, **options) -> Row:
    (row,) = prove(find("pv_eoi"), Options(**options), enforce=enforce, refusals=refusals)
    return row


@pytest.mark.parametrize("enforce", [False, True])
def test_the_bit_is_taken_or_the_reason_is_known(enforce):
    row = run(enforce=enforce, refusals=True)
    numbers = row.finding.evidence
    assert numbers["delivered"] == numbers["interrupts sent"] >= 100
    held = numbers["ISR in a handler, feature off (guest, KVM_GET_LAPIC)"] == "1, 1"
    if held:
        assert row.verdict is Verdict.WORKS or "APICv" in row.finding.reason, row.finding.reason
    else:
        assert numbers["deliveries with no EOI, then after EOI"] == "2, 2"
        assert row.verdict is Verdict.INERT, row.finding.reason
        assert "never holds an interrupt in service" in row.finding.reason
    assert all(each.holds for each in row.refusals)
    assert {each.kind for each in row.refusals} == {"control", "masked", "enforced", "reserved", "address"}


def test_with_another_apic_id_too():
    run = pv_eoi._run(Lab(find("pv_eoi")), apic_id=pv_eoi.INHIBITING_ID)
    assert (run.delivered, run.ended, run.bit_off) == (run.sent, 2, 0)


def test_masked_it_is_absent():
    for enforce in (False, True):
        row = run(mask=("PV_EOI",), enforce=enforce)
        assert (row.verdict, row.finding.reason) == (Verdict.ABSENT, "masked")


@pytest.mark.sabotage
@pytest.mark.parametrize("msr", [0x4B564D05, 0x4B564D09])
def test_another_msr_is_broken(msr):
    row = run(params={"msr": msr})
    assert row.verdict is Verdict.BROKEN


def test_masked_and_enforced_the_msr_is_refused(monkeypatch):
    """The same, without looking at what is offered first."""
    monkeypatch.setattr(pv_eoi.Lab, "absent", lambda lab, feature: None)
    row = run(mask=("PV_EOI",), enforce=True)
    assert row.verdict is Verdict.BROKEN
    assert "#GP" in row.finding.reason

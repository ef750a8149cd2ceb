# SPDX-License-Identifier: GPL-2.0-or-later
"""The TLB flush by shared memory on this host, and the ways in which it must not be called `works`."""

from __future__ import annotations

import pytest

from guest_payloads.pv import tlb_flush
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import supported
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict

PAYLOAD = find("tlb_flush")


def run(*, refusals: bool = False, enforce: bool = False, mask: tuple[str, ...] = (), **params: int) -> Row:
    (row,) = prove(PAYLOAD, Options(mask=mask, params=params), enforce=enforce, refusals=refusals)
    return row


@pytest.fixture(autouse=True)
def _offered() -> None:
    if not supported().has("PV_TLB_FLUSH"):
        pytest.skip("this KVM does not offer PV_TLB_FLUSH")


def test_works() -> None:
    row = run(refusals=True)
    assert row.verdict is Verdict.WORKS, row.finding
    numbers = row.finding.evidence
    base = numbers["tlb_flush_rise_for_0"]
    assert [numbers[f"tlb_flush_rise_for_{value}"] - base for value in range(4)] == [0, 0, 1, 1]
    assert numbers["fresh_after"] == numbers["requests"] == 16
    assert len(row.refusals) == 9
    assert all(each.holds for each in row.refusals)


@pytest.mark.parametrize("feature", ["PV_TLB_FLUSH", "STEAL_TIME"])
def test_masked_it_is_absent(feature: str) -> None:
    for enforce in (False, True):
        assert run(mask=(feature,), enforce=enforce, refusals=True).verdict is Verdict.ABSENT


def test_masked_and_enforced_nothing_is_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, without looking at what is offered first, and with a guest that believes it is."""
    monkeypatch.setattr(tlb_flush.Lab, "absent", lambda lab, feature: None)
    row = run(mask=("PV_TLB_FLUSH",), enforce=True)
    assert row.verdict is Verdict.BROKEN
    numbers = row.finding.evidence
    assert [numbers[f"tlb_flush_rise_for_{value}"] for value in (2, 3)] == [numbers["tlb_flush_rise_for_0"]] * 2
    assert numbers["byte_left"] == 0  # consumed all the same


@pytest.mark.sabotage
@pytest.mark.parametrize(("msr", "text"), [(0x4B564D02, "#GP"), (0x4B564D04, "held 0x3"), (0x4B564DFF, "#GP")])
def test_a_wrong_msr_is_broken(msr: int, text: str) -> None:
    row = run(msr=msr)
    assert row.verdict is Verdict.BROKEN
    assert text in row.finding.reason


def test_a_kvm_without_the_statistic_leaves_it_unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tlb_flush, "STATISTIC", "no_such_statistic")
    row = run()
    assert row.verdict is Verdict.UNPROVEN
    assert "no_such_statistic" in row.finding.reason

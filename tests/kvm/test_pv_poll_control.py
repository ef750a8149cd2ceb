# SPDX-License-Identifier: GPL-2.0-or-later
"""Halt polling under the guest's control on this host, and the ways in which it must not be called `works`."""

from __future__ import annotations

import pytest

from guest_payloads.pv import poll_control
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import supported
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict

PAYLOAD = find("poll_control")


def run(*, refusals: bool = False, enforce: bool = False, mask: tuple[str, ...] = (), **params: int) -> Row:
    (row,) = prove(PAYLOAD, Options(mask=mask, params=params), enforce=enforce, refusals=refusals)
    return row


@pytest.fixture(autouse=True)
def _offered() -> None:
    if not supported().has("POLL_CONTROL"):
        pytest.skip("this KVM does not offer POLL_CONTROL")


def test_works() -> None:
    row = run(refusals=True)
    assert row.verdict is Verdict.WORKS, row.finding
    numbers = row.finding.evidence
    assert numbers["reset"] == 1
    assert numbers["halt_attempted_poll_with_0"] == 0
    assert numbers["halt_attempted_poll_at_reset"] > 0
    assert numbers["halt_attempted_poll_with_1"] > 0
    assert {each.kind for each in row.refusals} == {"masked", "enforced", "control", "reserved"}
    assert all(each.holds for each in row.refusals)


def test_a_vm_that_may_not_poll_is_inert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poll_control, "LONGEST_POLL", 0)
    row = run()
    assert row.verdict is Verdict.INERT
    assert row.finding.evidence["halt_attempted_poll_at_reset"] == 0


def test_masked_it_is_absent() -> None:
    for enforce in (False, True):
        assert run(mask=("POLL_CONTROL",), enforce=enforce, refusals=True).verdict is Verdict.ABSENT


def test_masked_and_enforced_the_guest_takes_gp(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, without looking at what is offered first."""
    monkeypatch.setattr(poll_control.Lab, "absent", lambda lab, feature: None)
    row = run(mask=("POLL_CONTROL",), enforce=True)
    assert row.verdict is Verdict.BROKEN
    assert "#GP" in row.finding.reason


@pytest.mark.sabotage
@pytest.mark.parametrize("msr", [0x4B564D02, 0x4B564D03, 0x4B564D04, 0x4B564DFF])
def test_a_wrong_msr_is_broken(msr: int) -> None:
    assert run(msr=msr).verdict is Verdict.BROKEN


def test_a_kvm_without_the_statistics_leaves_it_unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poll_control, "STATISTICS", ("halt_exits", "no_such_statistic"))
    row = run()
    assert row.verdict is Verdict.UNPROVEN
    assert "no_such_statistic" in row.finding.reason

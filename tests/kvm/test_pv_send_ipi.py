# SPDX-License-Identifier: GPL-2.0-or-later
"""PV_SEND_IPI on this host, and the same proof with another hypercall, and refused."""

from __future__ import annotations

import pytest

from guest_payloads.pv import send_ipi
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import supported
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict


@pytest.fixture(autouse=True)
def _offered() -> None:
    if not supported().has("PV_SEND_IPI"):
        pytest.skip("this KVM does not offer PV_SEND_IPI")


def run(*, enforce: bool = False, refusals: bool = False, **options) -> Row:
    (row,) = prove(find("send_ipi"), Options(**options), enforce=enforce, refusals=refusals)
    return row


@pytest.mark.parametrize("enforce", [False, True])
def test_exactly_the_named_vcpus(enforce):
    row = run(enforce=enforce, refusals=True)
    served = int(row.finding.evidence["served by pyvmm"])
    assert row.verdict is (Verdict.SERVICED if served else Verdict.WORKS), row.finding.reason
    assert served in (0, len(send_ipi.CALLS))
    assert all(each.holds for each in row.refusals)
    assert {each.kind for each in row.refusals} == {"control", "masked", "enforced", "argument"}


def test_masked_it_is_absent():
    for enforce in (False, True):
        row = run(mask=("PV_SEND_IPI",), enforce=enforce)
        assert (row.verdict, row.finding.reason) == (Verdict.ABSENT, "masked")


@pytest.mark.sabotage
@pytest.mark.parametrize("nr", [1, 11, 99])
def test_another_hypercall_is_broken(nr):
    assert run(params={"nr": nr}).verdict is Verdict.BROKEN


def test_masked_and_enforced_nothing_arrives(monkeypatch):
    """The same, without looking at what is offered first."""
    monkeypatch.setattr(send_ipi.Lab, "absent", lambda lab, feature: None)
    row = run(mask=("PV_SEND_IPI",), enforce=True)
    assert row.verdict is Verdict.BROKEN
    assert "-KVM_ENOSYS" in row.finding.reason

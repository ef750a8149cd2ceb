# SPDX-License-Identifier: GPL-2.0-or-later
"""The directed yield on this host: `works` where the hypercall reaches KVM, `serviced` where it does not."""

from __future__ import annotations

import os

import pytest

from guest_payloads.pv import sched_yield
from vmm.host.hog import any_cpu, pinned
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import supported
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict

PAYLOAD = find("sched_yield")


def run(*, refusals: bool = False, enforce: bool = False, mask: tuple[str, ...] = (), **params: int) -> Row:
    (row,) = prove(PAYLOAD, Options(mask=mask, params=params), enforce=enforce, refusals=refusals)
    return row


def expected(row: Row) -> Verdict:
    """By what the guest measured."""
    return Verdict.SERVICED if row.finding.evidence["transport"] == 2 else Verdict.WORKS


@pytest.fixture(autouse=True)
def _offered() -> None:
    if not supported().has("PV_SCHED_YIELD"):
        pytest.skip("this KVM does not offer PV_SCHED_YIELD")


def test_every_call_returns_0() -> None:
    before = os.sched_getaffinity(0)
    row = run(refusals=True)
    assert os.sched_getaffinity(0) == before
    assert row.verdict is expected(row), row.finding
    numbers = row.finding.evidence
    assert (numbers["calls"], numbers["refused"], numbers["refused_to_nobody"]) == (8, 0, 0)
    if row.verdict is Verdict.SERVICED:
        assert numbers["served"] == numbers["calls"] + numbers["calls_to_nobody"] + 1
    assert [each.kind for each in row.refusals[::2]] == ["masked", "enforced", "control"]
    assert all(each.holds for each in row.refusals)


def test_on_one_cpu_too() -> None:
    with pinned(any_cpu()):
        row = run()
    assert row.verdict is expected(row), row.finding


def test_masked_it_is_absent() -> None:
    for enforce in (False, True):
        assert run(mask=("PV_SCHED_YIELD",), enforce=enforce, refusals=True).verdict is Verdict.ABSENT


def test_masked_and_enforced_the_calls_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, without looking at what is offered first, and with bit 13 in the guest's reading."""
    monkeypatch.setattr(sched_yield.Lab, "absent", lambda lab, feature: None)
    row = run(mask=("PV_SCHED_YIELD",), enforce=True)
    assert row.verdict is Verdict.BROKEN
    assert row.finding.evidence["refused"] == row.finding.evidence["calls"]


@pytest.mark.sabotage
@pytest.mark.parametrize("nr", [1, 2, 99])
def test_another_hypercall_is_broken(nr: int) -> None:
    """Also one that returns 0."""
    assert run(nr=nr).verdict is Verdict.BROKEN


@pytest.mark.parametrize("target", [0, 0xDD])
def test_a_call_that_names_another_is_no_success(target: int) -> None:
    """The caller itself, or nobody: answered with 0, and no CPU is given away."""
    row = run(target=target)
    if row.finding.evidence["transport"] == 2:
        assert row.verdict is Verdict.SERVICED
    else:
        assert row.verdict is Verdict.UNPROVEN
        assert row.finding.evidence["successful"] == 0

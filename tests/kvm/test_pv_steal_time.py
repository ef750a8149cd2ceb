# SPDX-License-Identifier: GPL-2.0-or-later
"""Stolen time on this host, and the ways in which it must not be called `works`."""

from __future__ import annotations

import os
import threading

import pytest

from guest_payloads.pv import steal_time
from vmm.host import hog
from vmm.host.hog import any_cpu, pinned
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import supported
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict

PAYLOAD = find("steal_time")


def run(*, refusals: bool = False, enforce: bool = False, mask: tuple[str, ...] = (), **params: int) -> Row:
    (row,) = prove(PAYLOAD, Options(mask=mask, params=params), enforce=enforce, refusals=refusals)
    return row


@pytest.fixture(autouse=True)
def _offered() -> None:
    if not supported().has("STEAL_TIME"):
        pytest.skip("this KVM does not offer STEAL_TIME")


def test_works_with_a_hog() -> None:
    row = run(refusals=True)
    assert row.verdict is Verdict.WORKS, row.finding
    numbers = row.finding.evidence
    assert numbers["stolen_ns"] >= 8_000_000
    assert numbers["hog_ns"] > 0
    assert numbers["halt_stolen_ns"] < numbers["halt_ns"]
    assert numbers["version_first"] % 2 == 0
    low, high = (int(word) for word in numbers["run_delay_ns"].split(" to "))
    assert low <= numbers["stolen_ns"] <= high
    kinds = {each.kind for each in row.refusals}
    assert kinds == {"masked", "enforced", "control", "reserved", "argument", "address"}
    assert all(each.holds for each in row.refusals)


def test_works_on_one_cpu_and_leaves_the_thread_as_it_was() -> None:
    before = os.sched_getaffinity(0)
    with pinned(any_cpu()):
        one = os.sched_getaffinity(0)
        row = run()
        assert os.sched_getaffinity(0) == one
    assert row.verdict is Verdict.WORKS, row.finding
    assert os.sched_getaffinity(0) == before


def test_works_on_a_thread_of_its_own() -> None:
    """KVM counts by thread; the vCPU's is whichever calls."""
    rows = []
    thread = threading.Thread(target=lambda: rows.append(run()))
    thread.start()
    thread.join()
    assert rows[0].verdict is Verdict.WORKS, rows[0].finding


def test_preempted_is_seen_set_where_kvm_reports_losses_and_clear_by_the_vcpu_itself() -> None:
    row = run()
    assert row.verdict is Verdict.WORKS, row.finding
    numbers = row.finding.evidence
    assert (numbers["own_reads"] > 0, numbers["own_preempted"]) == (True, 0)
    if not numbers.get("preemption_reported"):
        assert numbers["preempted_seen"] > 0 or numbers["watched"] >= 16
    else:
        assert 0 < numbers["preempted_seen"] <= numbers["watched"]


@pytest.mark.sabotage
@pytest.mark.parametrize("offset", [0x11, 0x20])
def test_a_byte_that_is_never_set_is_noticed(offset: int) -> None:
    """vCPU 1 looks at padding. KVM's own count of reports says that it should have seen something."""
    row = run(sampled=offset)
    numbers = row.finding.evidence
    assert numbers["preempted_seen"] == 0
    if numbers.get("preemption_reported"):
        assert row.verdict in (Verdict.BROKEN, Verdict.UNPROVEN)  # by whether some losses had nobody who watched
        assert "preempted was clear in all" in row.finding.reason
    else:
        assert "preempted never seen set" in row.finding.summary


def test_without_a_hog_it_is_unproven() -> None:
    row = run(hog=0)
    assert row.verdict is Verdict.UNPROVEN
    assert row.finding.reason == "no other process competed for the CPU"


def test_without_the_right_to_pin_it_is_unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, cpus: set[int]) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(hog.os, "sched_setaffinity", refuse)
    row = run()
    assert row.verdict is Verdict.UNPROVEN
    assert "sched_setaffinity" in row.finding.reason


@pytest.mark.sabotage
@pytest.mark.parametrize("msr", [0x4B564D02, 0x4B564D04, 0x4B564DFF])
def test_a_wrong_msr_is_broken(msr: int) -> None:
    row = run(msr=msr, hog=0, turns=20)
    assert row.verdict is Verdict.BROKEN


def test_masked_it_is_absent() -> None:
    for enforce in (False, True):
        row = run(mask=("STEAL_TIME",), enforce=enforce, refusals=True)
        assert row.verdict is Verdict.ABSENT
        assert row.finding.reason == "masked"
        assert not row.offered


def test_masked_and_enforced_the_guest_takes_gp(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, without looking at what is offered first."""
    monkeypatch.setattr(steal_time.Lab, "absent", lambda lab, feature: None)
    row = run(mask=("STEAL_TIME",), enforce=True, hog=0)
    assert row.verdict is Verdict.BROKEN
    assert "#GP" in row.finding.reason


def test_masked_it_is_hidden_and_active(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steal_time.Lab, "absent", lambda lab, feature: None)
    row = run(mask=("STEAL_TIME",), hog=0)
    assert "does not see bit 5" in row.finding.reason
    assert row.finding.evidence["version_first"] > 0

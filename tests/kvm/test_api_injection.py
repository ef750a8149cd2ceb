# SPDX-License-Identifier: GPL-2.0-or-later
"""inject_events and machine_check on this host, and each event left out."""

from __future__ import annotations

import pytest

from guest_payloads.api import machine_check
from vmm.errors import KvmCallError, UsageError
from vmm.kvm import inject
from vmm.machine.machine import Machine
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict


def verdicts(name, **options):
    return {row.name: row.verdict for row in prove(find(name), Options(**options))}


@pytest.mark.parametrize("name", ["inject_events", "machine_check"])
def test_works(name):
    rows = prove(find(name))
    assert [row.verdict for row in rows] == [Verdict.WORKS] * len(rows), [row.finding.reason for row in rows]


def test_without_payloads_that_row_alone_is_absent():
    found = verdicts("inject_events", params={"payload": 0})
    assert found.pop("inject_exception_payload") is Verdict.ABSENT
    assert set(found.values()) == {Verdict.WORKS}


@pytest.mark.parametrize(
    ("function", "rows"),
    [
        ("exception", {"inject_exception", "inject_exception_payload"}),
        ("interrupt", {"inject_interrupt"}),
        ("nmi", {"inject_nmi"}),
        ("triple_fault", {"triple_fault_event"}),
    ],
)
def test_an_event_that_is_left_out_is_broken(monkeypatch, function, rows):
    monkeypatch.setattr(inject, function, lambda *args, **more: None)
    found = verdicts("inject_events")
    assert {name for name, verdict in found.items() if verdict is Verdict.BROKEN} == rows


def test_a_payload_that_is_left_out_is_broken(monkeypatch):
    whole = inject.exception
    monkeypatch.setattr(inject, "exception", lambda vcpu, vector, code=None, *, payload=None: whole(vcpu, vector, code))
    found = verdicts("inject_events")
    assert found.pop("inject_exception_payload") is Verdict.BROKEN
    assert set(found.values()) == {Verdict.WORKS}


def test_errors_that_are_not_reported_are_broken(monkeypatch):
    monkeypatch.setattr(machine_check, "set_mce", lambda *args, **more: None)
    assert set(verdicts("machine_check").values()) == {Verdict.BROKEN}


def test_banks_that_are_not_set_up_are_broken(monkeypatch):
    monkeypatch.setattr(machine_check, "setup_mce", lambda vcpu, capability: None)
    assert verdicts("machine_check")["mce_corrected"] is Verdict.BROKEN


@pytest.mark.parametrize("vector", [-1, 2, 32, 0x71])
def test_what_is_no_exception_is_refused(vector):
    with Machine() as machine, pytest.raises(UsageError, match="no exception"):
        inject.exception(machine.cpus[0].vcpu, vector)


@pytest.mark.parametrize(("vector", "code"), [(6, 0), (13, None), (14, None), (3, 1)])
def test_an_error_code_exactly_where_the_cpu_has_one(vector, code):
    with Machine() as machine, pytest.raises(UsageError, match="error code"):
        inject.exception(machine.cpus[0].vcpu, vector, code)


def test_a_payload_needs_its_capability():
    """It would be ignored else."""
    with Machine() as machine, pytest.raises(KvmCallError, match="KVM_SET_VCPU_EVENTS"):
        inject.exception(machine.cpus[0].vcpu, 14, 2, payload=0x1000)


def test_what_is_injected_can_be_read_back():
    with Machine() as machine:
        vcpu = machine.cpus[0].vcpu
        inject.exception(vcpu, 13, 0x18)
        events = vcpu.get_vcpu_events()
        assert (events.exception_injected, events.exception_nr, events.exception_error_code) == (1, 13, 0x18)
        inject.nmi(vcpu)
        assert vcpu.get_vcpu_events().nmi_pending == 1

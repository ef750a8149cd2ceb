# SPDX-License-Identifier: GPL-2.0-or-later
"""Rewriting of hypercall instructions on this host, and what is left of the proof where the quirk is never on."""

from __future__ import annotations

import time

import pytest

from guest_payloads.pv import wrong_opcode
from vmm.host import hypercall_insn as hypercall_probe
from vmm.kvm import Kvm
from vmm.payload.catalog import find
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict


@pytest.fixture
def arrives() -> bool:
    with Kvm.open() as kvm:
        return hypercall_probe.measure(kvm).transport != "none"


def run() -> Row:
    (row,) = prove(find("wrong_opcode"))
    return row


def test_it_works_or_the_reason_is_known(arrives):
    row = run()
    assert row.verdict is (Verdict.WORKS if arrives else Verdict.INERT), row.finding.reason
    numbers = row.finding.evidence
    assert len(numbers) == 8
    if not arrives:
        assert numbers["vmcall, writable, quirk off"] == "#UD, bytes 0f01c1"
        assert numbers["vmmcall, read-only, quirk off"] == "#UD, bytes 0f01d9"


@pytest.mark.parametrize("patching", [False, True])
def test_the_quirk_is_off_in_every_lab_that_does_not_ask_for_it(patching):
    with wrong_opcode.Lab(find("wrong_opcode")).guest(patching=patching) as guest:
        assert ("DISABLE_QUIRKS2" in guest.machine.vm.enabled) is not patching


def test_no_guest_outlives_its_limit(monkeypatch):
    """However little KVM tells: without the statistic the time alone decides."""
    monkeypatch.setattr(wrong_opcode, "STATISTIC", "no such statistic")
    monkeypatch.setattr(wrong_opcode, "LIMIT", 0.3)
    begin = time.monotonic()
    row = run()
    assert time.monotonic() - begin < 5
    assert row.verdict in (Verdict.WORKS, Verdict.INERT), row.finding.reason


@pytest.mark.sabotage
def test_a_quirk_that_is_never_on_is_not_works(monkeypatch, arrives):
    guest = wrong_opcode.Lab.guest
    monkeypatch.setattr(wrong_opcode.Lab, "guest", lambda lab, *, patching: guest(lab, patching=False))
    row = run()
    assert row.verdict is (Verdict.BROKEN if arrives else Verdict.INERT), row.finding.reason
    if not arrives:
        assert "does not change that" in row.finding.reason

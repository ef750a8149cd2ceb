# SPDX-License-Identifier: GPL-2.0-or-later
"""SYSCALL on this host, and with its registers not set."""

from __future__ import annotations

import pytest

from guest_payloads.api import syscall
from vmm.payload.catalog import find
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict

PAYLOAD = find("syscall")


def test_it_works_or_the_cpu_is_seen_to_stay_in_ring_3() -> None:
    rows = prove(PAYLOAD)
    assert [row.name for row in rows] == list(find("syscall").header.proves)
    for row in rows:
        stuck = row.finding.evidence["fault_cs"] == "0x23"
        assert row.verdict is (Verdict.INERT if stuck else Verdict.WORKS), row.finding


def test_both_ways_agree() -> None:
    by_guest, by_host = prove(PAYLOAD)
    assert by_guest.verdict is by_host.verdict


def test_not_set_it_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscall, "_set_msrs", lambda guest: None)
    by_guest, by_host = prove(PAYLOAD)
    assert by_guest.verdict in (Verdict.WORKS, Verdict.INERT)
    assert by_host.verdict is Verdict.BROKEN


def test_an_msr_that_kvm_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscall, "_number", lambda name: 0x4B564DFF)
    row = prove(PAYLOAD)[1]
    assert row.verdict is Verdict.BROKEN
    assert "KVM_SET_MSRS took 0" in row.finding.reason

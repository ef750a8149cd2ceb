# SPDX-License-Identifier: GPL-2.0-or-later
"""Debugging on this host, and nothing set."""

from __future__ import annotations

import pytest

from guest_payloads.api import guest_debug
from vmm.errors import UsageError
from vmm.kvm.vcpu import Watchpoint
from vmm.payload.catalog import find
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict

PAYLOAD = find("guest_debug")


def test_what_this_host_can() -> None:
    rows = {row.name: row for row in prove(PAYLOAD)}
    assert list(rows) == list(find("guest_debug").header.proves)
    for name in ("singlestep_ring0", "hw_breakpoints_ring0"):
        assert rows[name].verdict is Verdict.WORKS, rows[name].finding
    for row in rows.values():
        assert row.verdict in (Verdict.WORKS, Verdict.INERT), row.finding
        assert row.finding.reason or row.verdict is Verdict.WORKS


def test_nothing_set_is_never_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_debug, "set_debug", lambda vcpu, **traps: None)
    assert Verdict.WORKS not in {row.verdict for row in prove(PAYLOAD)}


def test_a_trap_elsewhere_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(guest_debug._SETTERS, "hw_breakpoints", (guest_debug._at("three"),))
    rows = {row.name: row for row in prove(PAYLOAD)}
    assert rows["hw_breakpoints_ring0"].verdict is Verdict.BROKEN


def test_four_in_all(booted) -> None:
    vcpu = booted(b"\xf4").cpus[0].vcpu
    vcpu.set_guest_debug(breakpoints=[1, 2], watchpoints=[Watchpoint(0), Watchpoint(8)])
    with pytest.raises(UsageError, match="5 breakpoints"):
        vcpu.set_guest_debug(breakpoints=[1, 2, 3], watchpoints=[Watchpoint(0), Watchpoint(8)])
    vcpu.set_guest_debug()

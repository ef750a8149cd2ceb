# SPDX-License-Identifier: GPL-2.0-or-later
"""Clocks on this host, and nothing set."""

from __future__ import annotations

import pytest

from guest_payloads.api import timekeeping
from vmm.payload.catalog import find
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict

PAYLOAD = find("timekeeping")
SETTERS = ("set_clock", "set_offset", "set_tsc", "set_khz")


def verdicts() -> dict[str, Verdict]:
    return {row.name: row.verdict for row in prove(PAYLOAD)}


def test_clocks() -> None:
    rows = {row.name: row for row in prove(PAYLOAD)}
    assert list(rows) == list(find("timekeeping").header.proves)
    assert rows["kvm_clock"].verdict is Verdict.WORKS, rows["kvm_clock"].finding
    for name in ("tsc_offset", "tsc_adjust", "tsc_writes"):
        assert rows[name].verdict in (Verdict.WORKS, Verdict.INERT), rows[name].finding
    frequency = rows["tsc_khz"]
    offered = frequency.finding.evidence["KVM_CAP_TSC_CONTROL"]
    assert frequency.verdict is not Verdict.BROKEN, frequency.finding
    assert offered or frequency.verdict in (Verdict.ABSENT, Verdict.INERT)


def test_nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTERS:
        monkeypatch.setattr(timekeeping, name, lambda *arguments: None)
    found = verdicts()
    assert found["kvm_clock"] is Verdict.BROKEN
    for name in ("tsc_offset", "tsc_writes", "tsc_khz"):
        assert found[name] is not Verdict.WORKS

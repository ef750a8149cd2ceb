# SPDX-License-Identifier: GPL-2.0-or-later
"""A vCPU's state on this host, and each part of it left alone."""

from __future__ import annotations

import pytest

from guest_payloads.api import vcpu_state
from vmm.kvm.vcpu import Vcpu
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict

PAYLOAD = find("vcpu_state")
SETTERS = {
    "xsave": "set_xsave",
    "xcrs": "set_xcrs",
    "debugregs": "set_debugregs",
    "vcpu_events": "set_vcpu_events",
    "lapic_state": "set_lapic",
}


def test_works() -> None:
    rows = prove(PAYLOAD)
    assert [row.name for row in rows] == list(vcpu_state.ROWS)
    for row in rows:
        assert row.verdict is Verdict.WORKS, row.finding


@pytest.mark.parametrize("name", SETTERS)
def test_what_is_not_set_is_not_seen(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(Vcpu, SETTERS[name], lambda self, value: None)
    assert [row.name for row in prove(PAYLOAD) if row.verdict is Verdict.BROKEN] == [name]


def test_a_vcpu_that_is_not_halted_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vcpu_state, "HALTED", vcpu_state.RUNNABLE)
    assert {row.name: row.verdict for row in prove(PAYLOAD, Options(timeout=0.5))}["mp_state"] is Verdict.BROKEN

# SPDX-License-Identifier: GPL-2.0-or-later
"""Disabled HLT exits on this host: works on hardware, inert where ring 0 is emulated; never works when not enabled."""

from __future__ import annotations

import pytest

from guest_payloads.api import disable_exits
from vmm.payload.catalog import find
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict


def run() -> Row:
    (row,) = prove(find("disable_exits"))
    return row


def test_the_verdict_is_that_of_the_counts():
    row = run()
    if row.verdict is Verdict.ABSENT:
        pytest.skip(row.finding.reason)
    halts = row.finding.evidence["halt_exits, HLT disabled"]
    assert row.verdict is (Verdict.INERT if halts else Verdict.WORKS)
    assert row.finding.evidence["halt_exits"] > 0
    assert all(refusal.holds for refusal in row.refusals)


def test_when_nothing_is_disabled_it_does_not_work(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(disable_exits, "disable", lambda machine, bits: None)
    assert run().verdict is not Verdict.WORKS

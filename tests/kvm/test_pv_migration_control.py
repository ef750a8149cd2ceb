# SPDX-License-Identifier: GPL-2.0-or-later
"""MIGRATION_CONTROL on this host, and the same proof with the bit hidden, another MSR, or nobody who serves it."""

from __future__ import annotations

import pytest

from guest_payloads.pv import migration_control
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict


def run(*, enforce: bool = False, **options) -> Row:
    (row,) = prove(find("migration_control"), Options(**options), enforce=enforce)
    return row


@pytest.mark.parametrize("enforce", [False, True])
def test_the_msr_is_served_both_ways(enforce):
    row = run(enforce=enforce)
    assert row.verdict is Verdict.WORKS, row.finding.reason
    assert not row.offered, "the VMM offers it, not KVM"
    assert row.finding.evidence["filter: exits"] == "4 reads, 4 writes, reasons [4]"
    assert row.finding.evidence["unknown: exits"] == "4 reads, 4 writes, reasons [2]"
    assert [each.observed for each in row.refusals] == ["#GP", "#GP", "accepted", "accepted", "#GP"]


def test_masked_and_enforced_it_is_absent():
    row = run(mask=("MIGRATION_CONTROL",), enforce=True)
    assert (row.verdict, row.finding.reason) == (Verdict.ABSENT, "masked")


@pytest.mark.sabotage
@pytest.mark.parametrize("msr", [0x4B564D09, 0x4B564D05])
def test_another_msr_is_broken(msr):
    """One that nobody has, and one that KVM serves itself."""
    assert run(params={"msr": msr}).verdict is Verdict.BROKEN


@pytest.mark.sabotage
def test_an_msr_that_nobody_serves_is_broken(monkeypatch):
    class Nobody:
        ready = True

        def __init__(self, platform):
            pass

    monkeypatch.setattr(migration_control, "MigrationControl", Nobody)
    assert run().verdict is Verdict.BROKEN


@pytest.mark.sabotage
def test_an_msr_that_takes_everything_is_broken(monkeypatch):
    monkeypatch.setattr(migration_control.MigrationControl, "write", lambda self, value: True)
    row = run()
    assert row.verdict is Verdict.BROKEN


@pytest.mark.sabotage
def test_without_the_exits_it_is_broken(monkeypatch):
    ways = tuple((name, reason, lambda vm: None) for name, reason, _ in migration_control.WAYS)
    monkeypatch.setattr(migration_control, "WAYS", ways)
    assert run().verdict is Verdict.BROKEN

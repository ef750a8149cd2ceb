# SPDX-License-Identifier: GPL-2.0-or-later
"""lapic_timer, pit and nmi on this host, and each with its mechanism taken away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api import lapic_timer
from vmm.kvm.vcpu import Vcpu
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict


def verdicts(name, **options):
    return [row.verdict for row in prove(find(name), Options(**options))]


@pytest.mark.parametrize("name", ["lapic_timer", "pit", "nmi"])
def test_works(name):
    rows = prove(find(name))
    assert [row.verdict for row in rows] == [Verdict.WORKS] * len(rows), [row.finding.reason for row in rows]


@pytest.mark.parametrize("name", ["lapic_timer", "pit"])
def test_masked_nothing_comes(name):
    assert set(verdicts(name, params={"masked": 1}, timeout=0.3)) == {Verdict.BROKEN}


def test_another_count_than_the_one_measured_is_early(monkeypatch):
    """A host half that asked for twice the time finds the interrupts early."""
    seen = lapic_timer.observe(Lab(find("lapic_timer")))
    slow = replace(seen, ticks=seen.ticks * 1000)
    found = lapic_timer.judge(slow)
    assert found["lapic_timer_oneshot"].verdict is found["lapic_timer_periodic"].verdict is Verdict.BROKEN


def test_without_the_deadline_mode_that_row_is_absent():
    found = verdicts("lapic_timer", mask=("tsc_deadline_timer",))
    assert found == [Verdict.WORKS, Verdict.WORKS, Verdict.ABSENT]


def test_an_nmi_that_is_not_sent_is_broken(monkeypatch):
    monkeypatch.setattr(Vcpu, "nmi", lambda vcpu: None)
    assert verdicts("nmi") == [Verdict.BROKEN]

# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on disabled HLT exits, on made-up evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.disable_exits import HLT, Evidence, Slept, judge
from vmm.payload.proof.verdict import Verdict

GOOD = Evidence(20, Slept(20, 20, 3), Slept(20, 0, 3), HLT)
EMULATED = replace(GOOD, disabled=Slept(20, 20, 453))


def test_works():
    assert judge(GOOD).verdict is Verdict.WORKS


def test_some_halts_are_no_sleep_that_failed():
    assert judge(replace(GOOD, normal=Slept(20, 17, 3))).verdict is Verdict.WORKS


def test_inert_where_ring_0_is_emulated():
    finding = judge(EMULATED)
    assert finding.verdict is Verdict.INERT
    assert "emulates ring 0" in finding.reason


def test_inert_without_a_guess_where_it_is_not():
    finding = judge(replace(GOOD, disabled=Slept(20, 20, 3)))
    assert finding.verdict is Verdict.INERT
    assert "emulates" not in finding.reason


def test_unproven_where_nothing_is_counted():
    assert judge(replace(GOOD, normal=Slept(20, 0, 3))).verdict is Verdict.UNPROVEN


@pytest.mark.parametrize("change", [{"normal": Slept(19, 20, 0)}, {"disabled": Slept(21, 0, 0)}])
def test_a_wake_up_too_few_or_too_many_is_broken(change):
    assert judge(replace(GOOD, **change)).verdict is Verdict.BROKEN

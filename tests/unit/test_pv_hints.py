# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on the two hints of KVM's CPUID, on made-up evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.hints import Evidence, judge
from vmm.payload.proof.verdict import Verdict

GOOD = Evidence(features=0x01007EFB, hints=1, loop=160, delay=16_160, turns=16)


def test_a_hint_that_is_seen_is_advertised_with_the_cost_beside_it():
    finding = judge("NOP_IO_DELAY", GOOD)
    assert finding.verdict is Verdict.ADVERTISED
    assert finding.evidence["ratio"] == 100.0
    assert (finding.evidence["ticks_per_turn"], finding.evidence["ticks_per_turn_with_out"]) == (10, 1010)
    assert "costs 100 turns" in finding.summary
    assert judge("HINTS_REALTIME", GOOD).verdict is Verdict.ADVERTISED


@pytest.mark.parametrize(
    ("feature", "changes", "reason"),
    [
        ("NOP_IO_DELAY", {"features": 0x01007EF9}, "does not show it"),
        ("HINTS_REALTIME", {"hints": 0}, "does not show it"),
        ("HINTS_REALTIME", {"hints": 0xFFFFFFFE}, "does not show it"),
    ],
)
def test_what_contradicts_the_abi_is_broken(feature, changes, reason):
    finding = judge(feature, replace(GOOD, **changes))
    assert finding.verdict is Verdict.BROKEN
    assert reason in finding.reason


@pytest.mark.parametrize("changes", [{"loop": 0}, {"delay": 160}, {"delay": 159}])
def test_a_cost_that_was_not_seen_is_no_contradiction(changes):
    finding = judge("NOP_IO_DELAY", replace(GOOD, **changes))
    assert finding.verdict is Verdict.ADVERTISED
    assert "could not be told" in finding.summary


def test_one_hint_says_nothing_of_the_other():
    assert judge("HINTS_REALTIME", replace(GOOD, features=0)).verdict is Verdict.ADVERTISED
    assert judge("NOP_IO_DELAY", replace(GOOD, hints=0)).verdict is Verdict.ADVERTISED

# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM's CPUID leaves as guests of this host see them, and the same search begun in the wrong place."""

from __future__ import annotations

import pytest

from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict


def run(**options) -> Row:
    (row,) = prove(find("signature"), Options(**options))
    return row


def test_guests_see_what_was_set():
    row = run()
    assert row.verdict is Verdict.WORKS, row.finding.reason
    numbers = row.finding.evidence
    assert numbers["features seen"] == numbers["features exposed"]
    assert (numbers["base"], numbers["base when moved"], numbers["base when removed"]) == (
        "0x40000000",
        "0x40000100",
        "0x0",
    )
    assert int(numbers["features seen without NOP_IO_DELAY"], 0) & 2 == 0
    assert numbers["hints seen after HINTS_REALTIME"] == "0x1"
    assert [(each.kind, each.observed) for each in row.refusals] == [
        *[("control", "accepted")] * 2,
        *[("enforced", "#GP")] * 4,
    ]


def test_features_hidden_from_the_whole_lab_are_hidden_from_the_guest():
    row = run(mask=("POLL_CONTROL", "STEAL_TIME"))
    assert row.verdict is Verdict.WORKS, row.finding.reason
    assert int(row.finding.evidence["features seen"], 0) & (1 << 12 | 1 << 5) == 0


@pytest.mark.sabotage
def test_a_search_that_begins_too_late_finds_nothing():
    row = run(params={"first": 0x40000200})
    assert row.verdict is Verdict.BROKEN
    assert "base 0x0 in place of 0x40000000" in row.finding.reason

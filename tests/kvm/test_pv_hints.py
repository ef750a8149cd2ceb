# SPDX-License-Identifier: GPL-2.0-or-later
"""The two hints as a guest on this host reads them, set and hidden."""

from __future__ import annotations

import pytest

from guest_payloads.pv.hints import judge, measure
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict

FEATURES = find("hints").header.proves


def proven(**options) -> dict[str, Row]:
    return {row.name: row for row in prove(find("hints"), Options(**options))}


def test_both_are_advertised_and_an_out_costs_more_than_a_turn():
    rows = proven()
    assert [row.verdict for row in rows.values()] == [Verdict.ADVERTISED] * 2
    assert rows["NOP_IO_DELAY"].offered
    assert not rows["HINTS_REALTIME"].offered  # the VMM sets it, not KVM
    assert rows["NOP_IO_DELAY"].finding.evidence["ratio"] > 1
    assert all(refusal.holds for row in rows.values() for refusal in row.refusals)


@pytest.mark.parametrize("hidden", FEATURES)
def test_hidden_it_is_absent_and_the_other_is_advertised(hidden):
    rows = proven(mask=(hidden,))
    assert {name: row.verdict for name, row in rows.items()} == {
        name: Verdict.ABSENT if name == hidden else Verdict.ADVERTISED for name in FEATURES
    }


def test_both_hidden_are_absent():
    assert [row.verdict for row in proven(mask=FEATURES).values()] == [Verdict.ABSENT] * 2


def test_a_guest_that_does_not_see_it_has_not_got_it():
    with Lab(find("hints")).guest(mask=FEATURES) as guest:
        evidence = measure(guest)
    assert [judge(name, evidence).verdict for name in FEATURES] == [Verdict.BROKEN] * 2

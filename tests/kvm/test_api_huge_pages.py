# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages behind a slot on this host."""

from __future__ import annotations

import pytest

from vmm.abi.x86 import LARGE_PAGE
from vmm.machine.machine import Machine
from vmm.machine.memory.slots import GuestMemory
from vmm.payload.catalog import find
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict

BASE = 0x40000000


def run() -> Row:
    (row,) = prove(find("huge_pages"))
    return row


def test_works_or_the_host_has_none():
    row = run()
    assert row.verdict in (Verdict.WORKS, Verdict.UNPROVEN)
    assert (row.verdict is Verdict.WORKS) == (row.finding.evidence["huge pages of the host"] > 0)


def test_small_pages_are_not_taken_for_huge_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(GuestMemory, "add_huge", GuestMemory.add)
    assert run().verdict is not Verdict.WORKS


@pytest.mark.parametrize("offset", [0, 0x3000])
def test_host_and_guest_addresses_agree_to_the_huge_page(offset):
    with Machine() as m:
        slot = m.memory.add_huge(BASE + offset, LARGE_PAGE)
        assert (slot.hva - slot.gpa) % LARGE_PAGE == 0
        m.memory.write(slot.end - 4, b"last")
        assert m.memory.read(slot.end - 4, 4) == b"last"

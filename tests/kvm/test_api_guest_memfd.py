# SPDX-License-Identifier: GPL-2.0-or-later
"""guest_memfd on this host, and its binding."""

from __future__ import annotations

import pytest

from guest_payloads.api import guest_memfd
from vmm.errors import UsageError
from vmm.kvm.guest_memfd import GuestMemfd
from vmm.machine.machine import Machine
from vmm.payload.catalog import find
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict


def verdicts() -> dict[str, Verdict]:
    return {row.name: row.verdict for row in prove(find("guest_memfd"))}


@pytest.fixture(autouse=True)
def needs_the_capability(kvm):
    if kvm.check_extension("GUEST_MEMFD_FLAGS") & guest_memfd.SHARED != guest_memfd.SHARED:
        pytest.skip("this KVM has no guest_memfd that the VMM can map")


def test_works():
    assert verdicts()["guest_memfd"] is Verdict.WORKS


def test_a_slot_without_it_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        guest_memfd, "attach", lambda vm, gpa, decoy, memfd: vm.set_user_memory_region(guest_memfd.SLOT, gpa, decoy)
    )
    assert verdicts()["guest_memfd"] is Verdict.INERT


def test_private_memory_names_what_is_missing(kvm):
    (row,) = (row for row in prove(find("guest_memfd")) if row.name == "guest_memfd_private")
    assert row.verdict in (Verdict.ABSENT, Verdict.UNPROVEN)
    assert row.finding.reason


def test_one_that_cannot_be_mapped_is_refused_before_a_touch_kills_us():
    with Machine() as m, GuestMemfd(m.vm, 4096) as memfd, pytest.raises(UsageError, match="GUEST_MEMFD_FLAG_MMAP"):
        memfd.map()


@pytest.mark.parametrize("size", [0, -4096, 100])
def test_parts_of_pages_are_refused(size):
    with Machine() as m, pytest.raises(UsageError, match="whole pages"):
        GuestMemfd(m.vm, size)

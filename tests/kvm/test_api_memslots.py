# SPDX-License-Identifier: GPL-2.0-or-later
"""Memslots on this host, and as a library: GuestMemory.move, resize, remove, log_dirty."""

from __future__ import annotations

import pytest

from guest_payloads.api import memslots
from vmm.errors import GuestMemoryError, UsageError
from vmm.kvm.memory import Mapping
from vmm.kvm.vm import Vm
from vmm.machine.machine import Machine
from vmm.machine.memory.slots import GuestMemory
from vmm.payload.catalog import find
from vmm.payload.guest import Guest
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict

BASE, PAGE = 0x40000000, 0x1000
ALL = set(find("memslots").header.proves)


def broken() -> set[str]:
    rows = prove(find("memslots"))
    assert {row.name for row in rows} == ALL
    return {row.name for row in rows if row.verdict is not Verdict.WORKS}


def test_works():
    assert broken() == set()


def test_a_slot_that_is_not_there_breaks_the_row(monkeypatch: pytest.MonkeyPatch):
    real = memslots.lay_out

    def without(guest: Guest, base: int):
        slot = real(guest, base)
        guest.machine.memory.remove(guest.machine.memory.slot_at(base + 2 * PAGE))
        return slot

    monkeypatch.setattr(memslots, "lay_out", without)
    assert broken() == {"memslots"}


def test_read_only_memory_that_can_be_written_breaks_the_row(monkeypatch: pytest.MonkeyPatch):
    real = Vm.set_user_memory_region
    monkeypatch.setattr(
        Vm, "set_user_memory_region", lambda vm, *given, readonly=False, **options: real(vm, *given, **options)
    )
    assert broken() == {"readonly_slots"}


def test_two_memories_in_place_of_one_break_the_row(monkeypatch: pytest.MonkeyPatch):
    real = GuestMemory.add

    def own(memory, gpa, size, *, mapping=None, **options):
        return real(memory, gpa, size, mapping=Mapping(size) if mapping else None, **options)

    monkeypatch.setattr(GuestMemory, "add", own)
    assert broken() == {"aliased_slots"}


@pytest.mark.parametrize("step", ["move", "resize", "remove"])
def test_a_change_that_is_not_made_breaks_the_row(monkeypatch: pytest.MonkeyPatch, step: str):
    monkeypatch.setattr(GuestMemory, step, lambda memory, slot, *to: slot)
    assert broken() == {"moved_slots"}


@pytest.fixture
def memory():
    with Machine() as m:
        yield m.memory


def test_a_move_keeps_the_bytes(memory):
    slot = memory.add(BASE, 2 * PAGE)
    memory.write(BASE + PAGE, b"here")
    moved = memory.move(slot, BASE + PAGE)  # over its own place is fine
    assert memory.read(BASE + 2 * PAGE, 4) == b"here"
    assert memory.slot_at(BASE + 2 * PAGE) is moved
    with pytest.raises(GuestMemoryError):
        memory.read(BASE, 1)


def test_a_resize_keeps_the_bytes(memory):
    slot = memory.add(BASE, 2 * PAGE)
    memory.write(BASE + PAGE, b"here")
    slot = memory.resize(slot, PAGE)
    with pytest.raises(GuestMemoryError):
        memory.read(BASE + PAGE, 1)
    slot = memory.resize(slot, 2 * PAGE)
    assert memory.read(BASE + PAGE, 4) == b"here"
    with pytest.raises(UsageError, match="mapping"):
        memory.resize(slot, 3 * PAGE)
    assert memory.slot_at(BASE) is slot


def test_a_change_over_another_slot_is_refused_and_changes_nothing(memory):
    slot = memory.add(BASE, PAGE, mapping=Mapping(4 * PAGE))
    other = memory.add(BASE + 2 * PAGE, PAGE)
    before = memory.slots
    with pytest.raises(UsageError, match="overlaps"):
        memory.move(slot, other.gpa)
    with pytest.raises(UsageError, match="overlaps"):
        memory.resize(slot, 3 * PAGE)
    with pytest.raises(UsageError, match="whole pages"):
        memory.move(slot, BASE + 1)
    assert memory.slots == before

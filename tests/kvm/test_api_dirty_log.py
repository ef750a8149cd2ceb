# SPDX-License-Identifier: GPL-2.0-or-later
"""The dirty log on this host, and as a library: DirtyLog."""

from __future__ import annotations

import pytest

from guest_payloads.api import dirty_log
from vmm.errors import UsageError
from vmm.kvm import dirty
from vmm.machine.extra.dirty_pages import DirtyLog
from vmm.machine.machine import Machine
from vmm.machine.memory.slots import GuestMemory
from vmm.payload.catalog import find
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict

BASE, PAGE = 0x40000000, 0x1000


def verdicts() -> dict[str, Verdict]:
    return {row.name: row.verdict for row in prove(find("dirty_log"))}


def test_works():
    assert set(verdicts().values()) == {Verdict.WORKS}


def test_a_log_that_kvm_does_not_protect_by_itself_is_no_automatic_one(monkeypatch: pytest.MonkeyPatch):
    real = dirty_log.watch
    monkeypatch.setattr(
        dirty_log,
        "watch",
        lambda lab, prepare, look, **options: real(lab, lambda m: dirty_log.protect_manually(m.vm), look, **options),
    )
    assert verdicts()["dirty_log"] is Verdict.BROKEN


def test_pages_that_are_not_cleared_stay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dirty, "clear_dirty_log", lambda *arguments: None)
    assert verdicts() == {"dirty_log": Verdict.WORKS, "dirty_log_manual": Verdict.BROKEN}


def test_without_manual_protection_the_second_row_is_broken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dirty_log, "protect_manually", lambda vm, **options: None)
    monkeypatch.setattr(dirty, "clear_dirty_log", lambda *arguments: None)
    assert verdicts()["dirty_log_manual"] is Verdict.BROKEN


def test_without_a_log_nothing_works(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(GuestMemory, "log_dirty", lambda memory, slot, on: slot)
    with pytest.raises(UsageError, match="keeps no dirty log"):
        verdicts()


def test_a_log_can_begin_and_end_while_the_slot_is_in_use():
    with Machine() as m:
        slot = m.memory.add(BASE, 4 * PAGE)
        m.load("mov ebx, 0x40002000; mov qword ptr [rbx], rbx; hlt")
        m.run()
        slot = m.memory.log_dirty(slot, True)
        log = DirtyLog(m.vm, slot)
        log.read()
        m.start(0, m.program.base)
        m.run()
        assert log.read() == {2}
        with pytest.raises(UsageError, match="keeps no dirty log"):
            DirtyLog(m.vm, m.memory.log_dirty(slot, False))


def test_clearing_begins_at_a_word_of_the_bitmap():
    with Machine() as m:
        slot = m.memory.add(BASE, 128 * PAGE, log_dirty=True)
        with pytest.raises(UsageError, match="multiple of 64"):
            dirty.clear_dirty_log(m.vm, slot.slot, {3}, 3, 64)

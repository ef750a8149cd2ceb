# SPDX-License-Identifier: GPL-2.0-or-later
"""ioeventfd on this host, and as a library: WriteEvent."""

from __future__ import annotations

import errno

import pytest

from vmm.errors import KvmCallError
from vmm.kvm.vm import Vm
from vmm.machine.extra.ioeventfd import WriteEvent
from vmm.machine.machine import Machine
from vmm.payload.catalog import find
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict

MMIO = 0xD0700000


def verdicts() -> dict[str, Verdict]:
    return {row.name: row.verdict for row in prove(find("ioeventfd"))}


def test_works():
    assert set(verdicts().values()) == {Verdict.WORKS}


def test_without_the_ioctl_every_write_exits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Vm, "ioeventfd", lambda vm, *arguments, **options: None)
    assert set(verdicts().values()) == {Verdict.BROKEN}


def test_without_deassign_it_is_broken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(WriteEvent, "deassign", lambda event: None)
    assert verdicts()["ioeventfd"] is Verdict.BROKEN


def test_without_datamatch_it_is_broken(monkeypatch: pytest.MonkeyPatch):
    real = Vm.ioeventfd

    def any_value(vm, *arguments, datamatch=None, **options):
        real(vm, *arguments, **options)

    monkeypatch.setattr(Vm, "ioeventfd", any_value)
    assert verdicts()["ioeventfd"] is Verdict.BROKEN


def test_a_kick_counts_and_gives_back():
    with Machine() as m, WriteEvent(m.vm, MMIO, 4) as event:
        m.load("mov ebx, 0xd0700000; mov dword ptr [rbx], 1; mov dword ptr [rbx], 2; hlt")
        assert not event.wait(0)
        assert m.run().exits["MmioWrite"] == 0
        assert event.wait(1)
        assert (event.count(), event.count()) == (2, 0)
        event.deassign()
        event.deassign()
        m.start(0, "start" if "start" in m.program.symbols else m.program.base)
        assert m.run().exits["MmioWrite"] == 2
        assert event.count() == 0


def test_a_second_kick_at_the_same_place_is_refused_and_leaks_nothing():
    with Machine() as m, WriteEvent(m.vm, MMIO, 4), pytest.raises(KvmCallError, match="KVM_IOEVENTFD") as caught:
        WriteEvent(m.vm, MMIO, 4)
    assert caught.value.errno == errno.EEXIST


def test_a_kick_may_outlive_its_machine():
    with Machine() as m:
        event = WriteEvent(m.vm, MMIO, 4)
    event.close()
    event.close()

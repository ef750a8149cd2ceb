# SPDX-License-Identifier: GPL-2.0-or-later
"""Synchronised registers on this host, and the ways to ask for what is not kept."""

from __future__ import annotations

import pytest

from guest_payloads.api import sync_regs
from vmm.errors import HostError, UsageError
from vmm.kvm.state import Regs, Sregs, VcpuEvents
from vmm.kvm.sync import SyncRegs
from vmm.machine.machine import Machine
from vmm.payload.catalog import find
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict

PAYLOAD = find("sync_regs")
ALL = 7


@pytest.fixture(autouse=True)
def _offered(kvm) -> None:
    if kvm.check_extension("SYNC_REGS") & ALL != ALL:
        pytest.skip("this KVM has no KVM_CAP_SYNC_REGS")


def test_works() -> None:
    (row,) = prove(PAYLOAD)
    assert row.verdict is Verdict.WORKS, row.finding


def test_nothing_set_is_not_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_regs, "set_regs", lambda sync, regs: None)
    (row,) = prove(PAYLOAD)
    assert row.verdict is Verdict.BROKEN
    assert "the guest summed" in row.finding.reason


def test_a_vcpu_that_keeps_nothing_is_not_works(monkeypatch: pytest.MonkeyPatch) -> None:
    make = SyncRegs.__init__

    def off(self, vcpu, offered, *parts):
        make(self, vcpu, offered, *parts)
        self.close()

    monkeypatch.setattr(SyncRegs, "__init__", off)
    (row,) = prove(PAYLOAD)
    assert row.verdict is Verdict.BROKEN


def test_all_parts_read_and_set(booted) -> None:
    machine: Machine = booted(b"\x90\xe6\x80\xf4")  # nop; out 0x80, al; hlt
    vcpu = machine.cpus[0].vcpu
    sync = SyncRegs(vcpu, ALL, "regs", "sregs", "events")
    sregs, regs = vcpu.get_sregs(), vcpu.get_regs()
    sregs.cr2, regs.rbx = 0x1234000, 77
    sync.set_sregs(sregs)
    sync.set_regs(regs)
    sync.set_events(VcpuEvents())
    machine.run(timeout=2)
    assert vcpu.get_sregs().cr2 == sync.sregs().cr2 == 0x1234000
    assert vcpu.get_regs() == sync.regs()
    assert sync.regs().rbx == 77
    assert sync.events() == vcpu.get_vcpu_events()


def test_what_is_not_kept_is_refused(booted) -> None:
    vcpu = booted(b"\xf4").cpus[0].vcpu
    with pytest.raises(UsageError, match="fpu"):
        SyncRegs(vcpu, ALL, "fpu")
    with pytest.raises(UsageError, match="does not keep 'sregs'"):
        SyncRegs(vcpu, 1, "sregs")
    sync = SyncRegs(vcpu, ALL, "regs")
    for act in (sync.sregs, sync.events, lambda: sync.set_sregs(Sregs()), lambda: sync.set_events(VcpuEvents())):
        with pytest.raises(UsageError, match="is not kept"):
            act()
    with pytest.raises(UsageError, match="does not fit"):
        sync.set_regs(Regs(rax=1 << 64))
    vcpu.close()
    with pytest.raises(HostError, match="closed"):
        sync.regs()

# SPDX-License-Identifier: GPL-2.0-or-later
"""The dirty ring on this host, and as a library: DirtyRings."""

from __future__ import annotations

import pytest

from vmm.errors import KvmCallError, UsageError
from vmm.kvm.dirty import DirtyRing
from vmm.machine.ends import Why
from vmm.machine.extra import dirty_pages as dirty
from vmm.machine.extra.dirty_pages import DirtyRings
from vmm.machine.machine import Machine
from vmm.machine.run import all_cpus
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict

BASE, PAGE = 0x40000000, 0x1000


def run(**options) -> Row:
    (row,) = prove(find("dirty_ring"), Options(**options))
    return row


@pytest.fixture(autouse=True)
def needs_a_ring(kvm):
    if not kvm.check_extension(dirty.CAPABILITY):
        pytest.skip(f"this KVM lacks KVM_CAP_{dirty.CAPABILITY}")


def test_works():
    row = run()
    assert row.verdict is Verdict.WORKS, row.finding.reason


def test_a_ring_that_is_large_enough_is_never_full(monkeypatch: pytest.MonkeyPatch):
    real = DirtyRings.enable.__func__
    monkeypatch.setattr(DirtyRings, "enable", classmethod(lambda cls, vm: real(cls, vm, 1 << 16)))
    row = run()
    assert (row.verdict, "full 0 times" in row.finding.reason) == (Verdict.BROKEN, True)


def test_pages_that_are_not_protected_again_come_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(DirtyRings, "enable", classmethod(lambda cls, vm: big(vm)))
    monkeypatch.setattr(dirty.dirty, "reset_dirty_rings", lambda vm: 0)
    assert run(params={"pages": 512}).verdict is Verdict.BROKEN


def big(vm) -> DirtyRings:
    vm.enable_cap(dirty.CAPABILITY, 1 << 16)
    return DirtyRings(vm, 1 << 16)


def test_a_full_ring_that_nobody_collects_ends_in_the_time_limit():
    """The exit loop goes on with DIRTY_RING_FULL: without a hook the guest makes no progress, and the limit ends it."""
    with Machine(before_vcpus=lambda m: DirtyRings.enable(m.vm)) as m:
        m.memory.add(BASE, 1024 * PAGE, log_dirty=True)
        m.load(
            "mov ebx, 0x40000000\nagain:\nmov qword ptr [rbx], rbx\nadd rbx, 0x1000\ncmp ebx, 0x40400000\njb again\nhlt"
        )
        result = m.run(timeout=0.2)
    assert result.stop.why is Why.TIME_LIMIT
    assert result.exits["Simple"] > 1


def test_two_vcpus_have_a_ring_each_and_a_hook_that_was_there_is_kept():
    seen: list[object] = []
    made: list[DirtyRings] = []
    # The OUT lets KVM look at its rings after each page: where ring 0 is emulated, many instructions are done in one
    # go, and their writes can overrun a small ring before anybody looks.
    code = (
        "mov ebx, 0x40000000\nnext:\nmov qword ptr [rbx], rbx\nout 0x80, al\n"
        "add rbx, 0x1000\ncmp ebx, 0x40300000\njb next\nhlt"
    )
    with Machine(cpus=2, before_vcpus=lambda m: made.append(DirtyRings.enable(m.vm))) as m:
        slot = m.memory.add(BASE, 768 * PAGE, log_dirty=True)
        m.load(code)
        m.start(1, m.program.base)
        m.on_exit = lambda runner, exit: seen.append(exit)
        made[0].attach(m)
        assert m.run().stop.why is Why.HALT
        made[0].collect()
        assert {gfn.offset for gfn in made[0].written if gfn.slot == slot.slot} == set(range(768))
        made[0].close()
        made[0].close()
    assert len(seen) > made[0].full > 0


def test_a_size_that_kvm_refuses_is_an_error():
    with Machine() as m, pytest.raises(KvmCallError):
        DirtyRings.enable(m.vm, 100)


def test_without_the_capability_there_is_no_ring_to_map():
    with Machine() as m, pytest.raises(UsageError, match="dirty ring"):
        DirtyRing(m.vm, m.cpus[0].vcpu)


def test_signals_during_a_reset_lose_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pending signal would end KVM_RESET_DIRTY_RINGS half way, and pages that it had freed would stay unprotected."""
    monkeypatch.setattr(all_cpus, "HEARTBEAT", 0.0001)
    for _ in range(40):
        test_works()

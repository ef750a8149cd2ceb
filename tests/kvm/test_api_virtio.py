# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtio devices on this host, by ioeventfd and irqfd and without; and what each proof says when it is spoiled."""

from __future__ import annotations

import os

import pytest

from guest_payloads.api import virtio_hostile
from vmm.kvm.disk_thread import Disk
from vmm.kvm.vm import Vm
from vmm.machine.machine import Machine
from vmm.machine.virtio import chain
from vmm.machine.virtio.attach import VirtioSlots
from vmm.machine.virtio.blk import VirtioBlk
from vmm.machine.virtio.disk import DiskFile
from vmm.machine.virtio.disk_engine import DiskEngine
from vmm.machine.virtio.dma import Dma
from vmm.machine.virtio.queue import SplitQueue
from vmm.machine.virtio.transport import VirtioMmio
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict

DEVICES = ("virtio_rng", "virtio_console", "virtio_blk", "virtio_net")
ALL = (*DEVICES, "virtio_hostile")


@pytest.fixture(autouse=True)
def _offered() -> None:
    with Machine() as machine:
        if not all(machine.vm.check_extension(name) for name in ("IOEVENTFD", "IRQFD")):
            pytest.skip("this KVM has no ioeventfd or no irqfd")


@pytest.fixture
def in_python(monkeypatch) -> None:
    """Disk and card are served by the models: what is spoiled in Python is spoiled."""
    for way in ("_disk_in_c", "_net_in_c"):
        monkeypatch.setattr(VirtioSlots, way, lambda self, device, mmio, interrupt: self._in_python(mmio, interrupt))


def run(name: str, *, refusals: bool = False, timeout: float = 0.3, **params: int) -> Row:
    (row,) = prove(find(name), Options(params=params, timeout=timeout), refusals=refusals)
    return row


@pytest.mark.parametrize("name", ALL)
def test_works(name):
    row = run(name, refusals=True, timeout=10)
    assert row.verdict is Verdict.WORKS, row.finding.reason
    assert all(each.holds for each in row.refusals)
    assert {each.kind for each in row.refusals} == (set() if name == "virtio_hostile" else {"control", "argument"})


def test_a_disk_works_in_python_too(in_python):
    row = run("virtio_blk", refusals=True, timeout=10)
    assert row.verdict is Verdict.WORKS, row.finding.reason


@pytest.mark.usefixtures("in_python")
@pytest.mark.parametrize("name", DEVICES)
def test_an_interrupt_that_is_dropped(name, monkeypatch):
    monkeypatch.setattr(os, "eventfd_write", drop_once(os.eventfd_write))
    assert run(name).verdict is Verdict.BROKEN


def drop_once(real):
    """os.eventfd_write that loses the first signal: nothing but interrupts is signalled while the guest runs."""
    lost = []

    def write(fd: int, value: int) -> None:
        if lost:
            real(fd, value)
        lost.append(fd)

    return write


@pytest.mark.usefixtures("in_python")
@pytest.mark.parametrize("name", ALL)
def test_a_kick_that_is_ignored(name, monkeypatch):
    monkeypatch.setattr(VirtioMmio, "kick", lambda *args: None)
    assert run(name).verdict is Verdict.BROKEN


def test_a_disk_that_c_does_not_begin(monkeypatch):
    monkeypatch.setattr(Disk, "begin", lambda *args, **options: None)
    assert run("virtio_blk").verdict is Verdict.BROKEN


def test_a_disk_whose_flushes_c_does_not_tell(monkeypatch):
    monkeypatch.setattr(DiskEngine, "flushes", 0)
    assert "flushed 0 times" in run("virtio_blk", timeout=10).finding.reason


@pytest.mark.parametrize("name", ALL)
def test_without_ioeventfd_kicks_are_exits(name, monkeypatch):
    """The device serves the driver all the same; but that is not what was to be shown."""
    monkeypatch.setattr(Vm, "ioeventfd", lambda *args, **options: None)
    row = run(name, timeout=10)
    assert row.verdict is Verdict.BROKEN
    assert "by exit" in row.finding.reason


@pytest.mark.parametrize("name", ALL)
def test_without_irqfd_nobody_is_woken(name, monkeypatch):
    monkeypatch.setattr(Vm, "irqfd", lambda *args, **options: None)
    assert run(name).verdict is Verdict.BROKEN


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("features", [0, 1 << 32 | 1 << 34], ids=["none", "not offered"])
def test_features_that_cannot_be(name, features):
    row = run(name, timeout=10, features=features)
    assert row.verdict is Verdict.BROKEN
    assert "FEATURES_OK" in row.finding.reason


def test_random_bytes_that_are_not_the_generators(monkeypatch):
    real = chain.Chain.write
    monkeypatch.setattr(chain.Chain, "write", lambda self, offset, data: real(self, offset, bytes(len(data))))
    assert "other bytes" in run("virtio_rng", timeout=10).finding.reason


def test_a_flush_that_is_a_lie(in_python, monkeypatch):
    monkeypatch.setattr(DiskFile, "flush", lambda self: None)
    row = run("virtio_blk", timeout=10)
    assert row.verdict is Verdict.BROKEN
    assert "flushed 0 times" in row.finding.reason


def test_a_read_only_disk_that_is_written(monkeypatch):
    real = VirtioBlk.__init__
    monkeypatch.setattr(VirtioBlk, "__init__", lambda self, path, **options: real(self, path))
    row = run("virtio_blk", refusals=True, timeout=10)
    assert row.verdict is Verdict.WORKS, "the disk works; that it takes the write is a deviation"
    assert row.deviations
    assert all("read-only" in each.line for each in row.deviations)


def lenient_table(*, inside: bool, **rest: object) -> None:
    """Only a table in itself is refused, which else is a circle without an end."""
    if inside:
        raise chain.DriverError("an indirect descriptor inside an indirect table")


@pytest.mark.parametrize(
    ("where", "name", "lenient", "attack"),
    [
        (SplitQueue, "pending", lambda self: 1, "an index one too far ahead"),
        (Dma, "holds", lambda *args, **options: True, "a length beyond memory"),
        (chain, "_check_indirect", lambda *args, **options: lenient_table(**options), "an indirect table"),
    ],
    ids=["index", "memory", "indirect"],
)
def test_a_device_that_does_not_look(where, name, lenient, attack, monkeypatch):
    monkeypatch.setattr(where, name, lenient)
    row = run("virtio_hostile", timeout=1)
    assert row.verdict is Verdict.BROKEN
    assert attack in row.finding.reason or "time limit" in row.finding.reason


def test_the_attacks_are_those_of_the_table():
    row = run("virtio_hostile", timeout=10, skip=1)
    assert row.verdict is Verdict.BROKEN
    assert f"{virtio_hostile.ALL - len(virtio_hostile.TARGETS)} of {virtio_hostile.ALL}" in row.finding.reason


@pytest.mark.parametrize("name", DEVICES)
def test_by_exits_and_ioctls(name, monkeypatch):
    """A host without ioeventfd: the vCPU's thread serves the device, and the driver cannot tell."""
    monkeypatch.setattr(VirtioSlots, "_has_events", lambda self: False)
    row = run(name, refusals=True, timeout=10)
    assert row.verdict is Verdict.WORKS, row.finding.reason
    assert row.finding.evidence["kicks by ioeventfd"] == 0


@pytest.mark.parametrize("events", [True, False], ids=["events", "ioctls"])
def test_over_a_pin_of_the_ioapic(events):
    with Lab(find("virtio_rng"), Options(timeout=10)).guest(irqchip="kernel", params={"pin": 16}) as guest:
        device = guest.machine.add_virtio_rng(events=events)
        guest.run()
        assert (guest["woken"], guest["quiet"], guest["third"]) == (1, 0, 32)
        assert device.mmio.counts["event" if events else "exit"] == 3

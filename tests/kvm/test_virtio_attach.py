# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtio devices as part of a machine: places and interrupts, what ends a run, and that nothing is left behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.left_behind import files_before, open_files
from vmm.abi import virtio
from vmm.errors import HostError, UsageError
from vmm.kvm.vm import Vm
from vmm.machine.ends import Why
from vmm.machine.machine import Machine
from vmm.machine.memory.layout import REGIONS
from vmm.machine.virtio.interrupts import Irqfd
from vmm.machine.virtio.service import Service
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import Lab

BASE = REGIONS["virtio_mmio"].base


def lab(name: str, **params: int) -> Lab:
    return Lab(find(name), Options(params=params, timeout=10))


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))
    return path


@pytest.mark.parametrize("irqchip", ["split", "kernel"])
def test_several_devices_keep_apart(irqchip, image):
    """The last attached must not take the first one's interrupt route away."""
    with lab("virtio_rng").guest(irqchip=irqchip, params={"pin": 16 if irqchip == "kernel" else 0}) as guest:
        machine = guest.machine
        devices = [machine.add_virtio_rng(), machine.add_virtio_console(), machine.add_virtio_blk(image)]
        assert [each.base for each in devices] == [BASE, BASE + 0x1000, BASE + 0x2000]
        assert [each.vector for each in devices] == [0x40, 0x41, 0x42]
        guest.run()
        assert (guest["woken"], guest["third"]) == (1, 32)
        assert [each.mmio.read(virtio.VIRTIO_MMIO_DEVICE_ID, 4) for each in devices] == [4, 3, 2]


def test_nothing_is_left(image):
    with Machine():  # what is opened once stays open
        pass
    files, threads = files_before(), threading.active_count()
    machine = Machine(irqchip="split")
    machine.add_virtio_rng()
    machine.add_virtio_blk(image)
    machine.add_virtio_console(events=False)
    assert threading.active_count() == threads + 2
    machine.close()
    machine.close()
    assert (open_files(), threading.active_count()) == (files, threads)
    with pytest.raises(HostError, match="closed"):
        machine.add_virtio_blk(image)
    assert open_files() == files


def test_a_machine_that_failed_leaves_nothing(image):
    files, threads = files_before(), threading.active_count()

    def prepare(machine: Machine) -> None:
        machine.add_virtio_blk(image)
        raise UsageError("changed my mind")

    with pytest.raises(UsageError, match="changed my mind"):
        Machine(irqchip="split", before_vcpus=prepare)
    assert (open_files(), threading.active_count()) == (files, threads)


@pytest.mark.parametrize("call", ["ioeventfd", "irqfd", "set_gsi_routing"])
def test_what_kvm_refuses_leaves_nothing(call, image, monkeypatch):
    def refuse(self: Vm, *args: object, **options: object) -> None:
        raise HostError("no")

    files, threads = files_before(), threading.active_count()
    with Machine(irqchip="split") as machine:
        with monkeypatch.context() as patch:
            patch.setattr(Vm, call, refuse)
            with pytest.raises(HostError, match="no"):
                machine.add_virtio_blk(image)
        assert threading.active_count() == threads
        assert machine.add_virtio_blk(image).base == BASE  # its place is free again
    assert (open_files(), threading.active_count()) == (files, threads)


def test_places_pins_and_vectors_have_an_end():
    with Machine() as machine:
        for _ in range(REGIONS["virtio_mmio"].size // 0x1000):
            machine.add_virtio_rng(events=False)
        with pytest.raises(UsageError, match="all 32 places"):
            machine.add_virtio_rng()
    with Machine(irqchip="kernel") as machine:
        for _ in range(8):
            machine.add_virtio_rng(events=False)
        with pytest.raises(UsageError, match="8 pins"):
            machine.add_virtio_rng()
    with Machine(irqchip="split") as machine, pytest.raises(UsageError, match="vector 0x8"):
        machine.add_virtio_rng(vector=8)


def test_without_an_interrupt_controller_a_driver_can_poll():
    with lab("virtio_rng").guest(irqchip="none") as guest:
        device = guest.machine.add_virtio_rng()
        assert device.mmio.counts["interrupts"] == 0
        device.mmio.config_changed()
        assert device.mmio.counts["interrupts"] == 0


@pytest.mark.parametrize("events", [True, False])
def test_too_much_output_ends_the_run(events):
    with lab("virtio_console").guest() as guest:
        guest.machine.sink.limit = 4
        guest.machine.add_virtio_console(events=events)
        result = guest.run()
        assert (result.stop.why, result.console) == (Why.OUTPUT_LIMIT, b"gues")


def test_a_device_that_fails_ends_the_run():
    def broken(count: int) -> bytes:
        raise ValueError("no entropy today")

    with lab("virtio_rng").guest() as guest:
        guest.machine.add_virtio_rng(broken)
        stop = guest.run().stop
        assert stop.why is Why.INTERRUPTED
        assert "no entropy today" in stop.text
    with lab("virtio_rng").guest() as guest:
        guest.machine.add_virtio_rng(broken, events=False)
        with pytest.raises(ValueError, match="no entropy today"):
            guest.run()


def test_a_hook_cannot_take_the_devices_away():
    """Closing from inside is refused, and the device goes on."""
    refused = []

    def close(value: int) -> None:
        with pytest.raises(UsageError) as error:
            machine.close()
        refused.append(str(error.value))

    with lab("virtio_rng").guest() as guest:
        machine = guest.machine
        device = machine.add_virtio_rng(lambda n: close(0) or bytes(n), events=False)
        guest.run()
        assert len(refused) == 3
        assert (guest["third"], device.mmio.trouble) == (32, "")


def test_closing_under_a_running_guest_ends_it():
    with lab("virtio_rng").guest() as guest:
        served = threading.Event()
        machine = guest.machine
        machine.add_virtio_rng(lambda n: served.set() or bytes(n))
        closer = threading.Thread(target=lambda: served.wait(10) and machine.close())
        closer.start()
        machine.run(10)
        closer.join(20)
        assert not closer.is_alive()
        assert machine.vm.closed


def test_a_disk_whose_interrupt_is_no_eventfd_is_served_in_python(image):
    """Its line is a pin of controllers that are ours: what C would write to is not there."""
    with Machine(board="pc", irqchip="split") as machine:
        devices = [machine.add_virtio_blk(image) for _ in range(2)]
        for device in devices:
            line = device.mmio._interrupt
            assert (device.mmio.engine is None) == (not isinstance(line, Irqfd))
    with Machine(board="pc", irqchip="none") as machine:
        device = machine.add_virtio_blk(image)
        assert device.mmio.engine is None
        assert isinstance(device.service, Service)

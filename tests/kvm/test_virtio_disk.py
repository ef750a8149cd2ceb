# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtio disks that C serves, under a guest that reads and reads: no Python for a request, states, ends."""

from __future__ import annotations

import os
import struct
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from vmm.abi import virtio
from vmm.abi.x86 import PAGE
from vmm.bench import disk_guest, guests, microvm
from vmm.bench.sides import Batch
from vmm.machine.ends import Why
from vmm.machine.machine import Machine
from vmm.machine.virtio.attach import VirtioSlots
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import Lab

EVENTS = virtio.feature(virtio.VIRTIO_RING_F_EVENT_IDX)


@pytest.fixture(autouse=True)
def _offered() -> None:
    with Machine() as machine:
        if not all(machine.vm.check_extension(name) for name in ("IOEVENTFD", "IRQFD")):
            pytest.skip("this KVM has no ioeventfd or no irqfd")


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """Page n begins with n."""
    path = tmp_path_factory.mktemp("disk") / "disk"
    path.write_bytes(b"".join(struct.pack("<I", n).ljust(PAGE, b"\xa5") for n in range(disk_guest.PAGES)))
    return path


class Reads(Batch):
    """The guest of the bench, with rounds of `count` requests, `depth` in flight."""

    def __init__(self, path: Path, depth: int, count: int, **options: bool) -> None:
        super().__init__(disk_guest.disk_reads(depth, count), irqchip="split")
        self.disk = self.machine.add_virtio_blk(path, readonly=True, vector=guests.VECTOR, **options)
        self.machine.memory.write(disk_guest.BASE, struct.pack("<2Q", self.disk.base, PAGE))

    def pages(self) -> list[tuple[int, int]]:
        """For each request, the page that it asked for last and the page that it got last."""
        memory = self.machine.memory
        headers, buffers = disk_guest.DATA + 0x1000, disk_guest.DATA + 0x2000
        return [
            (memory.read_u64(headers + 0x20 * head + 8) // 8, memory.read_u32(buffers + PAGE * head))
            for head in range(0, 3 * disk_guest.MOST_DEPTH, 3)
        ]


@pytest.fixture(params=[1, 8], ids=["one in flight", "eight"])
def reads(image, request) -> Iterator[Reads]:
    reads = Reads(image, request.param, 50)
    yield reads
    reads.close()


def virtio_frames(reads: Reads, rounds: int) -> Counter[str]:
    """Which functions of vmm/machine/virtio this thread, which runs the guest, calls during so many rounds."""
    folder, found = str(Path(disk_guest.__file__).parents[1] / "machine" / "virtio"), Counter[str]()

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(folder):
            found[frame.f_code.co_qualname] += 1

    sys.setprofile(profile)
    try:
        reads.measure(rounds)
    finally:
        sys.setprofile(None)
    return found


def test_no_python_runs_for_a_request(reads):
    reads.measure(2)  # the driver has brought the device up
    assert virtio_frames(reads, 20) == {}
    assert reads.disk.mmio.counts["exit"] == 0
    assert (reads.disk.mmio.trouble, reads.disk.mmio.status) == ("", 0xF)


def test_that_would_be_seen_where_python_serves(image):
    reads = Reads(image, 1, 50, events=False)
    reads.measure(2)
    assert virtio_frames(reads, 4)["VirtioMmio.kick"] >= 100
    reads.close()


@pytest.mark.parametrize("depth", [1, 8])
def test_each_request_gets_its_page(image, depth):
    """With the guest still: what was in flight has been served by now."""
    reads = Reads(image, depth, 50)
    reads.measure(3)
    reads.disk.mmio.get_state()
    assert len({asked for asked, _ in reads.pages()[:depth]}) == depth
    assert all(asked == got for asked, got in reads.pages()[:depth])
    reads.close()


@pytest.mark.parametrize("events", [True, False], ids=["irqfd", "ioctl"])
def test_a_guest_goes_on_in_another_machine(image, events):
    """Saved while it reads, restored over the same file; in C and, without events, in Python."""
    one, other = Reads(image, 8, 50, events=events), Reads(image, 8, 50, events=events)
    one.measure(3)
    context = one.machine.save()
    other.machine.restore(context)
    other.measure(3)
    assert (other.disk.mmio.trouble, other.disk.mmio.status) == ("", 0xF)
    one.measure(3)
    one.close()
    other.close()


@pytest.mark.parametrize("name", ["virtio_rng", "virtio_console", "virtio_blk"])
@pytest.mark.parametrize("python", [False, True], ids=["as it is", "in Python"])
def test_a_driver_with_events(name, python, image, monkeypatch):
    """The payloads' driver with EVENT_IDX: woken, quiet and served as with flags; never more kicks than it meant."""
    if python:
        monkeypatch.setattr(
            VirtioSlots, "_disk_in_c", lambda self, device, mmio, interrupt: self._in_python(mmio, interrupt)
        )
    lab = Lab(find(name), Options(timeout=10))
    features = lab.param("features") | EVENTS
    with lab.guest(params={"features": features}) as guest:
        machine = guest.machine
        heard: list[bytes] = []
        if name == "virtio_rng":
            device = machine.add_virtio_rng()
        elif name == "virtio_blk":
            device = machine.add_virtio_blk(image)
        else:
            device = machine.add_virtio_console(lambda data: (heard.append(data), answer(device, data)))
        guest.run()
        assert (guest["woken"], guest["status_end"], device.mmio.trouble) == (1, 0xF, "")
        assert device.mmio.driver_features & EVENTS
        if name != "virtio_console":
            assert guest["quiet"] == 0
        if name == "virtio_blk":
            assert 0 < device.mmio.counts["event"] <= 8
            assert [guest[each] for each in ("read", "write", "flush", "discard", "zeroes")] == [0] * 5


def answer(device, data: bytes) -> None:
    """What the host half of virtio_console does: a line for the first, a window for the echo."""
    if data.startswith(b"echo"):
        device.device.resize(132, 43)
    else:
        device.device.send(b"host: hi\n")


def test_what_the_host_takes_away_ends_the_run(image):
    """The eventfd of kicks becomes a file without an end: the thread says which call it was."""
    reads = Reads(image, 1, 50)
    reads.measure(2)
    (kick,) = reads.disk.service.events
    kept, null = os.dup(kick), os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, kick)
    os.eventfd_write(kept, 1)  # it waits on the old one
    stop = reads.machine.run(20).stop
    os.dup2(kept, kick)
    os.close(kept)
    os.close(null)
    assert stop.why is Why.INTERRUPTED
    assert "a virtio device failed: HostError: waiting for a kick: read of an eventfd: " in stop.text
    reads.close()


def test_closing_under_a_guest_that_reads(image):
    reads = Reads(image, 8, 50)
    threads = threading.active_count()
    running = threading.Event()
    reads.prepare, reads.left = running.set, 1 << 30
    closer = threading.Thread(target=lambda: running.wait(20) and reads.machine.close())
    closer.start()
    reads.machine.run(30)
    closer.join(30)
    assert not closer.is_alive()
    assert reads.machine.vm.closed
    assert threading.active_count() == threads - 1


def test_memory_that_comes_and_goes_under_a_guest_that_reads(image):
    """Each change waits for the request that is under way, and none is lost."""
    reads = Reads(image, 8, 50)
    reads.measure(1)
    memory, ended = reads.machine.memory, threading.Event()

    def change() -> None:
        while not ended.is_set():
            memory.remove(memory.add(1 << 30, 1 << 20))

    other = threading.Thread(target=change)
    other.start()
    try:
        assert len(reads.measure(10)) == 10
    finally:
        ended.set()
        other.join()
    assert reads.disk.mmio.trouble == ""
    reads.close()


def test_the_image_for_qemu_is_whole():
    """Its header's sum is 0, and its table names each page once."""
    data = microvm.multiboot(disk_guest.disk_reads(1, 50), disk_guest.BASE)
    magic, flags, checksum, *_ = struct.unpack_from("<8I", data)
    assert (magic + flags + checksum) & 0xFFFFFFFF == 0
    rows = list(struct.iter_unpack("<2I", data[PAGE : 2 * PAGE]))
    pages = rows[: rows.index((microvm.END, 0))]
    assert len({to for to, _ in pages}) == len(pages) == len(data) // PAGE - 2
    assert [source for _, source in pages] == [microvm.LOAD + (2 + n) * PAGE for n in range(len(pages))]

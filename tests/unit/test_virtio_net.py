# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-net without KVM: packets through rings and real sockets, honest drivers and hostile ones, links that end; each
with the frames carried in Python, and in C.

`python -m tools.sanitize tests/unit/test_virtio_net.py` runs it with a binding that checks every access.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.left_behind import files_before, open_files
from vmm.abi import virtio as v
from vmm.abi import virtio_net as n
from vmm.errors import HostError, UsageError
from vmm.kvm import net_thread
from vmm.kvm.memory import Touched
from vmm.kvm.net_thread import NetThread
from vmm.kvm.words import Acked
from vmm.machine.virtio.filter import BROADCAST, MOST, Filter
from vmm.machine.virtio.links import unix, words
from vmm.machine.virtio.links.link import HDR, MOST_FRAME, NO_HDR, LinkDown, Refused
from vmm.machine.virtio.links.tap import OFFLOADS, TapLink
from vmm.machine.virtio.listener import Listener
from vmm.machine.virtio.net import CONTROL, GUEST_OFFLOADS, OWN, QUEUE_SIZE, RECEIVE, TRANSMIT, VirtioNet
from vmm.machine.virtio.net_engine import NetEngine, setup_of
from vmm.machine.virtio.queue import SplitQueue
from vmm.machine.virtio.transport import COMMON_FEATURES, VirtioMmio

NEXT, WRITE, INDIRECT = v.VRING_DESC_F_NEXT, v.VRING_DESC_F_WRITE, v.VRING_DESC_F_INDIRECT
RUNNING = 0xF
RAM_SIZE = 0x10_0000
QUEUES = (0x1000, 0x4000, 0x7000)  # each: descriptors, and the rings 0x800 and 0x1000 behind them
AVAIL, USED = 0x800, 0x1000
BUFFERS = 0x1_0000
ENTRIES = 8
PAGE = 4096
_libc = ctypes.CDLL(None, use_errno=True)
ACCESSES = 60_000  # of memory that one call can need; a device that loops needs more
MAC = bytes.fromhex("020000000001")
PEER = bytes.fromhex("020000000002")
PATIENCE = 10.0  # seconds
MERGEABLE = 1 << n.VIRTIO_NET_F_MRG_RXBUF


class Ram:
    """Guest memory from 0, a page on both sides that nobody may touch. It counts Python's accesses, and never forgives
    one outside.
    """

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, RAM_SIZE + 2 * PAGE)
        whole = memoryview(self.map)
        self.bytes = whole[PAGE : PAGE + RAM_SIZE]
        self.accesses = 0
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        for guard in (start, start + PAGE + RAM_SIZE):
            assert _libc.mprotect(ctypes.c_void_p(guard), PAGE, 0) == 0
        self.touched = Touched(RAM_SIZE)
        stretch = (0, RAM_SIZE, start + PAGE, False, self.touched.pages, self.touched.marked)
        self.slots = [SimpleNamespace(gpa=0, size=RAM_SIZE, readonly=False, stretch=stretch)]
        self.changed: list[Callable[[], object]] = []

    def holds(self, gpa: int, size: int, *, write: bool = False) -> bool:
        return not size or gpa + size <= RAM_SIZE

    def read(self, gpa: int, size: int) -> bytes:
        self._check(gpa, size)
        return bytes(self.bytes[gpa : gpa + size])

    def write(self, gpa: int, data: bytes) -> None:
        self._check(gpa, len(data))
        self.bytes[gpa : gpa + len(data)] = data

    def _check(self, gpa: int, size: int) -> None:
        self.accesses += 1
        assert self.accesses < ACCESSES, "too much work for one call"
        assert self.holds(gpa, size), f"{size} bytes at {gpa:#x} are outside"


class Driver:
    """An honest driver of a card; `add` makes chains of its own descriptors, from the first."""

    irq = -1
    turns: Callable[[], int]

    def __init__(self, device: VirtioNet, features: int = -1, *, event_idx: bool = False, up: bool = True) -> None:
        self.device, self.ram = device, Ram()
        self.mmio = VirtioMmio(device, self.ram, self._interrupt)
        device.changed = self.mmio.config_changed
        self.features = (device.features | COMMON_FEATURES) & features
        if not event_idx:
            self.features &= ~(1 << v.VIRTIO_RING_F_EVENT_IDX)
        self._causes: list[int] = []
        if up:
            self.up()

    def _interrupt(self) -> None:
        self._causes.append(self.mmio.interrupt_status)
        self.mmio.interrupt_status = 0

    @property
    def causes(self) -> list[int]:
        """What each interrupt was for; several that C has raised since the last look are one."""
        if self.irq >= 0:
            try:
                os.eventfd_read(self.irq)
                self._interrupt()
            except BlockingIOError:
                pass
        return self._causes

    def close(self) -> None:
        if self.irq >= 0:
            os.close(self.irq)

    def set(self, register: int, value: int) -> None:
        self.mmio.write(register, 4, value)

    def up(self) -> None:
        self.set(v.VIRTIO_MMIO_STATUS, 0)
        self.set(v.VIRTIO_MMIO_STATUS, 3)
        for half in (0, 1):
            self.set(v.VIRTIO_MMIO_DRIVER_FEATURES_SEL, half)
            self.set(v.VIRTIO_MMIO_DRIVER_FEATURES, self.features >> 32 * half & 0xFFFFFFFF)
        self.set(v.VIRTIO_MMIO_STATUS, 0xB)
        self.heads, self.free, self.seen = [0, 0, 0], [0, 0, 0], [0, 0, 0]
        for number, base in enumerate(QUEUES):
            self.ram.bytes[base : base + 0x2000] = bytes(0x2000)
            self.set(v.VIRTIO_MMIO_QUEUE_SEL, number)
            self.set(v.VIRTIO_MMIO_QUEUE_NUM, ENTRIES)
            for name, address in (("DESC", base), ("AVAIL", base + AVAIL), ("USED", base + USED)):
                self.set(getattr(v, f"VIRTIO_MMIO_QUEUE_{name}_LOW"), address)
                self.set(getattr(v, f"VIRTIO_MMIO_QUEUE_{name}_HIGH"), 0)
            self.set(v.VIRTIO_MMIO_QUEUE_READY, 1)
        self.set(v.VIRTIO_MMIO_STATUS, RUNNING)

    def add(self, queue: int, *pieces: tuple[int, int, int], kick: bool = True) -> int:
        """A chain of (address, size, flags); its head."""
        base, head = QUEUES[queue], self.free[queue] % ENTRIES
        for i, (address, size, flags) in enumerate(pieces):
            at, following = (self.free[queue] + i) % ENTRIES, (self.free[queue] + i + 1) % ENTRIES
            flags |= NEXT if i + 1 < len(pieces) else 0
            struct.pack_into("<QIHH", self.ram.bytes, base + 16 * at, address, size, flags, following)
        self.free[queue] += len(pieces)
        struct.pack_into("<H", self.ram.bytes, base + AVAIL + 4 + 2 * (self.heads[queue] % ENTRIES), head)
        self.heads[queue] += 1
        struct.pack_into("<H", self.ram.bytes, base + AVAIL + 2, self.heads[queue] & 0xFFFF)
        if kick:
            self.kick(queue)
        return head

    def kick(self, queue: int) -> None:
        self.ram.accesses = 0
        self.set(v.VIRTIO_MMIO_QUEUE_NOTIFY, queue)

    def used(self, queue: int) -> list[tuple[int, int]]:
        """What was used since the last time: heads and bytes."""
        base = QUEUES[queue] + USED
        (count,) = struct.unpack_from("<H", self.ram.bytes, base + 2)
        found = [
            struct.unpack_from("<2I", self.ram.bytes, base + 4 + 8 * (i % ENTRIES))
            for i in range(self.seen[queue], count)
        ]
        self.seen[queue] = count
        return found

    def send(self, frame: bytes, *cuts: int, header: bytes = NO_HDR, kick: bool = True) -> None:
        """A packet in pieces, cut at these offsets."""
        packet = header + frame
        at = BUFFERS + 0x2_0000 * (self.heads[TRANSMIT] % 4 + 1)
        self.ram.write(at, packet)
        edges = [0, *sorted(cuts), len(packet)]
        self.add(TRANSMIT, *((at + a, b - a, 0) for a, b in pairwise(edges)), kick=kick)

    def buffer(self, size: int, *, kick: bool = True) -> int:
        """A buffer to receive into; its address."""
        address = BUFFERS + 0x2000 * (self.heads[RECEIVE] % ENTRIES)
        self.add(RECEIVE, (address, size, WRITE), kick=kick)
        return address

    def command(self, class_: int, cmd: int, data: bytes) -> int:
        """The answer to a command."""
        self.ram.write(BUFFERS, bytes([class_, cmd]) + data + b"\xee")
        end = BUFFERS + 2 + len(data)
        self.add(CONTROL, (BUFFERS, 2, 0), (BUFFERS + 2, len(data), 0), (end, 1, WRITE))
        self.used(CONTROL)
        return self.ram.bytes[end]

    @property
    def link(self) -> int:
        return self.mmio.read(v.VIRTIO_MMIO_CONFIG + 6, 2) & n.VIRTIO_NET_S_LINK_UP

    @property
    def trouble(self) -> str:
        assert bool(self.mmio.status & v.VIRTIO_CONFIG_S_NEEDS_RESET) == bool(self.mmio.trouble)
        return self.mmio.trouble


def until(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.0005)


def frame(size: int = 60, fill: int = 0x55, to: bytes = MAC) -> bytes:
    return to + PEER + b"\x88\xb5" + bytes([fill]) * (size - n.ETH_HLEN)


class Here(NetEngine):
    """A kick is served at once, by who kicks, as the model serves it; the link has its thread."""

    def __init__(self, driver: Driver, thread: NetThread) -> None:
        super().__init__(driver.device, thread, driver.ram)
        self._mmio = driver.mmio

    def kick(self, index: int) -> None:
        self.settle(index, self._mmio.queues[index])


class Wires:
    """`wired(...)` of the tests: frames carried in Python, or in C."""

    def __init__(self, *, in_c: bool) -> None:
        self.in_c = in_c

    @contextmanager
    def __call__(
        self,
        kind: int = socket.SOCK_SEQPACKET,
        features: int = -1,
        *,
        event_idx: bool = False,
        room: int = 0,
        **options,
    ):
        """A driver with a card whose link is one end of a pair of sockets, the other end, and whoever listens."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        theirs.settimeout(PATIENCE)
        if room:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        failed: list[BaseException] = []
        device = VirtioNet(unix.of_socket(ours), MAC, **options)
        driver = Driver(device, features, event_idx=event_idx, up=not self.in_c)
        service = self._in_c(driver, failed) if self.in_c else self._in_python(driver, failed)
        try:
            yield driver, theirs
        finally:
            if not self.in_c:
                service.close()
            driver.mmio.close()
            theirs.close()
            service.close()
            driver.close()
        assert not failed

    def _in_python(self, driver: Driver, failed: list[BaseException]) -> Listener:
        device = driver.device
        listener = Listener("card", device.frames, driver.mmio.wake, failed.append)
        device.frames.poke = listener.poke
        driver.turns = lambda: listener.turns
        listener.poke()
        return listener

    def _in_c(self, driver: Driver, failed: list[BaseException]) -> NetThread:
        driver.irq = os.eventfd(0, os.EFD_NONBLOCK)
        setup = setup_of(driver.device.link, driver.irq)
        assert setup is not None
        thread = NetThread("card", setup, driver.mmio.acked, failed.append)
        driver.mmio.engine = Here(driver, thread)
        thread.changed = driver.mmio.config_changed
        driver.turns = lambda: thread.net.counts()["turns"]
        driver.up()
        return thread


@pytest.fixture(scope="module", params=[False, True], ids=["python", "c"])
def wired(request) -> Wires:
    return Wires(in_c=request.param)


# -- what the driver is told


def test_what_a_socket_cannot_do_is_not_offered(wired):
    with wired(mtu=1400) as (driver, _):
        assert driver.device.features == OWN | 1 << n.VIRTIO_NET_F_MTU
        assert not driver.device.features & OFFLOADS
        config = bytes(driver.mmio.read(v.VIRTIO_MMIO_CONFIG + i, 1) for i in range(12))
        assert config == MAC + b"\1\0" + b"\1\0" + (1400).to_bytes(2, "little")
        assert driver.device.queue_sizes[:2] == (QUEUE_SIZE, QUEUE_SIZE)


def test_without_a_cable_the_link_is_down_and_frames_are_lost():
    driver = Driver(VirtioNet(None, MAC))
    assert driver.link == 0
    driver.send(frame())
    assert driver.used(TRANSMIT) == [(0, 0)]
    assert (driver.device.counts["tx_dropped"], driver.device.drop_reason) == (1, "no cable")
    driver.buffer(100)
    assert (driver.used(RECEIVE), driver.trouble) == ([], "")


# -- sending


@pytest.mark.parametrize("cuts", [(), (12,), (1, 2, 3), (5, 20), (12, 26, 40, 41, 42, 43)])
def test_a_packet_may_be_laid_out_in_any_way(wired, cuts):
    with wired() as (driver, peer):
        driver.send(frame(), *cuts)
        assert peer.recv(2000) == frame()
        assert driver.used(TRANSMIT) == [(0, 0)]
        assert (driver.device.counts["tx_frames"], driver.device.counts["tx_bytes"]) == (1, 60)


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (13, "13 bytes"), (MOST_FRAME + 1, f"{MOST_FRAME + 1} bytes")]
)
def test_what_is_no_frame_is_dropped_and_the_next_one_goes(wired, size, words):
    with wired() as (driver, peer):
        driver.send(bytes(size))
        driver.send(frame())
        assert peer.recv(2000) == frame()
        assert len(driver.used(TRANSMIT)) == 2
        assert driver.device.counts["tx_dropped"] == 1
        assert words in driver.device.drop_reason


@pytest.mark.parametrize("header", [b"\1" + bytes(11), b"\0\1" + bytes(10), b"\0\x81" + bytes(10)])
@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
def test_an_offload_that_was_not_offered_costs_the_frame(wired, header, kind):
    with wired(kind) as (driver, _):
        driver.send(frame(), header=header)
        assert (driver.device.counts["tx_dropped"], driver.trouble) == (1, "")
        assert "not offered" in driver.device.drop_reason


@pytest.mark.parametrize("pieces", [((BUFFERS, 11, 0),), ((BUFFERS, 0, 0),), ((BUFFERS, 60, 0), (BUFFERS, 1, WRITE))])
def test_a_packet_without_its_header_or_with_room_to_write_costs_the_device(wired, pieces):
    with wired() as (driver, _):
        driver.add(TRANSMIT, *pieces)
        assert "a packet of" in driver.trouble
        assert driver.used(TRANSMIT) == []


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_what_the_link_does_not_take_waits_in_the_guests_queue(wired, kind):
    """Nobody reads: the queue fills. Then somebody does, and every frame comes, in order and once."""
    with wired(kind) as (driver, peer):
        sent = 0
        while not driver.device.carrier.wants[1]:
            driver.send(frame(1000, sent % 256), 12)
            sent += 1
            assert sent < 5000
        for _ in range(2):
            driver.send(frame(1000, sent % 256), 12)
            sent += 1
        assert driver.device.counts["tx_waits"] == 1
        assert len(driver.used(TRANSMIT)) < sent
        data, got = b"", []
        while len(got) < sent:
            data += peer.recv(1 << 20)
            if kind == socket.SOCK_STREAM:
                while len(data) >= 4 and len(data) >= 4 + int.from_bytes(data[:4], "big"):
                    size = int.from_bytes(data[:4], "big")
                    got.append(data[4 : 4 + size])
                    data = data[4 + size :]
            else:
                got.append(data)
                data = b""
        assert got == [frame(1000, i % 256) for i in range(sent)]
        until(lambda: driver.device.counts["tx_frames"] == sent)  # the peer may have the last before it is counted
        until(lambda: not driver.device.carrier.wants[1])
        assert driver.device.counts["tx_dropped"] == 0


def test_the_rest_of_the_last_frame_follows_without_anybodys_doing(wired):
    with wired(socket.SOCK_STREAM, room=4096) as (driver, peer):
        driver.send(frame(60000, 1), 12)
        assert driver.used(TRANSMIT) == [(0, 0)]
        assert driver.device.carrier.wants[1]
        data = b""
        while len(data) < 60004:
            data += peer.recv(1 << 20)
        assert data == struct.pack(">I", 60000) + frame(60000, 1)
        until(lambda: not driver.device.carrier.wants[1])


def test_a_frame_that_a_stream_took_in_part_is_finished_when_the_guest_says_nothing_more(wired):
    with wired(socket.SOCK_STREAM) as (driver, peer):
        sent = 0
        while not driver.device.carrier.wants[1]:
            driver.send(frame(60000, 1), 12)
            sent += 1
        taken = driver.device.counts["tx_frames"]
        data = b""
        while len(data) < taken * 60004:
            data += peer.recv(1 << 20)
        assert data[: taken * 60004] == (struct.pack(">I", 60000) + frame(60000, 1)) * taken


# -- receiving


@pytest.mark.parametrize("features", [-1, ~MERGEABLE])
def test_a_frame_comes_with_its_header(wired, features):
    with wired(features=features) as (driver, peer):
        address = driver.buffer(2000)
        peer.send(frame())
        until(lambda: driver.device.counts["rx_frames"])
        assert driver.used(RECEIVE) == [(0, HDR + 60)]
        assert driver.ram.read(address, HDR + 60) == bytes(10) + b"\1\0" + frame()
        until(lambda: driver.causes == [v.VIRTIO_MMIO_INT_VRING])
        assert driver.device.counts["rx_bytes"] == 60


@settings(max_examples=40, deadline=None)
@given(st.integers(n.ETH_HLEN, 6000), st.lists(st.integers(HDR, 2000), min_size=ENTRIES, max_size=ENTRIES))
def test_a_frame_is_spread_over_as_many_buffers_as_it_takes(wired, size, rooms):
    data = MAC + os.urandom(size - 6)
    with wired() as (driver, peer):
        addresses = [driver.buffer(room, kick=False) for room in rooms]
        driver.kick(RECEIVE)
        peer.send(data)
        until(lambda: driver.device.counts["rx_frames"] + driver.device.counts["rx_dropped"])
        used = driver.used(RECEIVE)
        if sum(rooms) < HDR + size:
            assert used == []
            assert "have room for" in driver.device.drop_reason
            return
        packet = b"".join(driver.ram.read(addresses[head], count) for head, count in used)
        assert packet == bytes(10) + len(used).to_bytes(2, "little") + data
        assert [count for _, count in used[:-1]] == rooms[: len(used) - 1]
        until(lambda: driver.causes == [v.VIRTIO_MMIO_INT_VRING])


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_frame_waits_until_the_guest_has_a_buffer(wired, kind):
    with wired(kind) as (driver, peer):
        for i in range(5):
            peer.send((struct.pack(">I", 60) if kind == socket.SOCK_STREAM else b"") + frame(60, i))
        until(lambda: driver.device.counts["rx_waits"])
        addresses = []
        for i in range(5):
            addresses.append(driver.buffer(100))
            until(lambda i=i: driver.device.counts["rx_frames"] > i)
        assert [driver.ram.read(a + HDR, 60) for a in addresses] == [frame(60, i) for i in range(5)]
        until(lambda: driver.device.carrier.wants[0])
        assert driver.device.counts["rx_waits"] == 5
        assert driver.device.counts["rx_dropped"] == 0


def test_buffers_are_to_be_told_of_only_when_one_is_missing(wired):
    """With VIRTIO_RING_F_EVENT_IDX: avail_event stays behind while there are buffers, and else is the index."""
    with wired(event_idx=True) as (driver, peer):
        event = QUEUES[RECEIVE] + USED + v.RING + 8 * ENTRIES
        for _ in range(4):
            driver.buffer(100)
        for i in range(4):
            peer.send(frame())
            until(lambda i=i: driver.device.counts["rx_frames"] > i)
            assert driver.ram.read(event, 2) == b"\0\0"
        peer.send(frame())
        until(lambda: driver.device.counts["rx_waits"])
        assert driver.ram.read(event, 2) == b"\4\0"
        driver.buffer(100)
        assert driver.device.counts["rx_frames"] == 5


def test_a_long_frame_waits_for_all_of_its_buffers(wired):
    with wired() as (driver, peer):
        driver.buffer(300)
        peer.send(frame(700))
        until(lambda: driver.device.counts["rx_waits"])
        driver.buffer(300)
        assert driver.used(RECEIVE) == []
        driver.buffer(300)
        assert driver.used(RECEIVE) == [(0, 300), (1, 300), (2, 112)]


def test_a_driver_that_adds_tiny_buffers_without_end_keeps_nobody(wired, monkeypatch):
    """It is a ring full of them that a frame is given, however many more there are by then."""
    with wired() as (driver, peer):
        for _ in range(ENTRIES):
            driver.buffer(HDR, kick=False)
        driver.kick(RECEIVE)
        monkeypatch.setattr(SplitQueue, "pending", lambda self: 1)
        peer.send(frame(6000))
        until(lambda: driver.device.counts["rx_dropped"])
        assert driver.used(RECEIVE) == []
        assert driver.device.counts["rx_frames"] == 0


def test_without_mergeable_buffers_a_frame_that_is_too_long_is_dropped(wired):
    with wired(features=~MERGEABLE) as (driver, peer):
        driver.buffer(100)
        driver.buffer(100)
        peer.send(frame(200))
        peer.send(frame(60))
        until(lambda: driver.device.counts["rx_frames"])
        assert driver.used(RECEIVE) == [(0, 72)]
        assert driver.device.counts["rx_dropped"] == 1


@pytest.mark.parametrize("size", [1, n.ETH_HLEN - 1, MOST_FRAME + 1])
def test_what_comes_and_is_no_frame_is_dropped(wired, size):
    with wired() as (driver, peer):
        driver.buffer(1000)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        peer.send(bytes(size))
        peer.send(frame())
        until(lambda: driver.device.counts["rx_frames"])
        assert driver.device.counts["rx_dropped"] == 1


@pytest.mark.parametrize(
    "piece", [(BUFFERS, 100, 0), (BUFFERS, 11, WRITE), (BUFFERS, 0, WRITE)], ids=["to read", "too small", "empty"]
)
def test_a_buffer_that_cannot_hold_a_header_costs_the_device(wired, piece):
    with wired() as (driver, peer):
        driver.add(RECEIVE, piece)
        peer.send(frame())
        until(lambda: driver.mmio.trouble)
        assert "to receive into" in driver.trouble
        assert driver.device.counts["rx_frames"] == 0
        time.sleep(0.02)  # and nobody asks again and again
        assert len(driver.mmio.troubles) == 1


def test_buffers_that_were_there_before_the_driver_was_up_need_no_kick(wired):
    with wired() as (driver, peer):
        driver.set(v.VIRTIO_MMIO_STATUS, 0)
        peer.send(frame())
        driver.up()
        driver.buffer(100, kick=False)
        driver.device.started(driver.features)
        until(lambda: driver.device.counts["rx_frames"])


def test_a_flood_leaves_others_their_turn(wired):
    """One call delivers at most a ring full, and the rest follows without anybody's doing."""
    with wired(socket.SOCK_STREAM) as (driver, peer):
        for _ in range(ENTRIES):
            driver.buffer(100, kick=False)
        peer.sendall((struct.pack(">I", 60) + frame(to=PEER)) * 500 + struct.pack(">I", 60) + frame())
        driver.command(n.VIRTIO_NET_CTRL_RX, n.VIRTIO_NET_CTRL_RX_PROMISC, b"\0")
        until(lambda: driver.device.counts["rx_frames"] or driver.device.counts["rx_waits"])
        assert driver.device.counts["rx_filtered"] + driver.device.counts["rx_frames"] >= ENTRIES


# -- the end of a link


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
def test_a_peer_that_goes_takes_the_link_down_and_nobody_spins(wired, kind):
    with wired(kind) as (driver, peer):
        driver.buffer(100)
        generation = driver.mmio.generation
        assert driver.link == 1
        peer.close()
        until(lambda: driver.link == 0)
        assert "the other end has closed it" in driver.device.gone
        until(lambda: driver.causes == [v.VIRTIO_MMIO_INT_CONFIG])
        assert driver.mmio.generation == generation + 1
        driver.send(frame())
        assert (driver.used(TRANSMIT), driver.device.counts["tx_dropped"]) == ([(0, 0)], 1)
        before = driver.turns()
        time.sleep(0.1)
        assert driver.turns() <= before + 1
        driver.device.set_link(False)
        driver.device.set_link(True)
        assert driver.link == 0


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_peer_that_goes_is_noticed_by_who_sends(wired, kind):
    with wired(kind) as (driver, peer):
        if not wired.in_c:
            driver.device.frames.wants_input = False
        peer.close()
        driver.send(frame())
        assert driver.device.counts["tx_dropped"] == 1
        assert driver.link == 0


def test_a_peer_that_goes_with_frames_on_the_way_loses_none_of_them(wired):
    with wired(socket.SOCK_STREAM) as (driver, peer):
        peer.sendall((struct.pack(">I", 60) + frame()) * 3)
        peer.close()
        for _ in range(4):
            driver.buffer(100)
        until(lambda: driver.link == 0)
        assert driver.device.counts["rx_frames"] == 3


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (struct.pack(">I", MOST_FRAME + 1), "is announced"),
        (b"\xff\xff\xff\xff" + bytes(100), "4294967295 bytes is announced"),
        (struct.pack(">I", 60) + bytes(30), "in the middle of a frame (34 bytes of it)"),
        (b"\0\0", "in the middle of a frame (2 bytes"),
    ],
)
def test_a_stream_that_makes_no_sense_is_a_link_that_is_down(wired, data, words):
    with wired(socket.SOCK_STREAM) as (driver, peer):
        driver.buffer(100)
        peer.sendall(struct.pack(">I", 60) + frame() + data)
        if "middle" in words:
            peer.close()
        until(lambda: driver.device.gone)
        assert words in driver.device.gone
        assert driver.device.counts["rx_frames"] == 1


@given(st.lists(st.integers(n.ETH_HLEN, 300), min_size=1, max_size=8), st.lists(st.integers(1, 500), max_size=20))
def test_a_stream_is_cut_into_frames_wherever_it_was_cut_on_the_way(sizes, cuts):
    ours, theirs = socket.socketpair()
    link = unix.of_socket(ours)
    frames = [MAC + os.urandom(size - 6) for size in sizes]
    data = b"".join(struct.pack(">I", len(each)) + each for each in frames)
    got = []
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for a, b in pairwise(edges):
        theirs.sendall(data[a:b])
        while (packet := link.receive()) is not None:
            got.append(packet)
    assert got == [NO_HDR + each for each in frames]
    link.close()
    theirs.close()


def test_a_link_of_which_nothing_is_wanted_is_not_polled(wired):
    """A frame waits for a buffer, and the other end hangs up: that is ready for ever, and nobody looks."""
    with wired() as (driver, peer):
        peer.send(frame())
        until(lambda: driver.device.counts["rx_waits"])
        peer.close()
        time.sleep(0.02)
        before = driver.turns()
        time.sleep(0.1)
        assert driver.turns() <= before + 1
        driver.buffer(100)
        until(lambda: driver.device.counts["rx_frames"] == 1 and driver.link == 0)


@pytest.mark.parametrize("end", ["closed", "pulled"])
def test_what_waits_to_be_sent_is_lost_with_the_link(wired, end):
    """The guest's queue is full of it, so no kick will come any more."""
    with wired() as (driver, peer):
        driver.buffer(100)
        sent = 0
        while not driver.device.carrier.wants[1]:
            driver.send(frame(1000), 12)
            sent += 1
        driver.send(frame(1000), 12)
        if end == "closed":
            peer.close()
        else:
            driver.device.set_link(False)
        until(lambda: not driver.device.carrier.wants[1])
        until(lambda: driver.device.counts["tx_frames"] + driver.device.counts["tx_dropped"] == sent + 1)
        assert driver.device.counts["tx_dropped"] >= 1


def test_a_cable_that_is_pulled_loses_frames_both_ways(wired):
    with wired() as (driver, peer):
        driver.buffer(100)
        driver.device.set_link(False)
        driver.device.set_link(False)
        assert (driver.link, driver.causes) == (0, [v.VIRTIO_MMIO_INT_CONFIG])
        driver.send(frame())
        peer.send(frame(60, 1))
        until(lambda: driver.device.counts["rx_dropped"])
        driver.device.set_link(True)
        assert driver.link == 1
        driver.send(frame(60, 2))
        assert peer.recv(2000) == frame(60, 2)
        assert driver.device.drop_reason == "the cable is pulled"


# -- commands


def test_a_driver_says_what_it_wants_to_hear(wired):
    with wired() as (driver, peer):
        addresses = [driver.buffer(100) for _ in range(3)]
        assert driver.command(n.VIRTIO_NET_CTRL_RX, n.VIRTIO_NET_CTRL_RX_PROMISC, b"\0") == n.VIRTIO_NET_OK
        table = struct.pack("<I", 0) + struct.pack("<I", 1) + b"\1\0^\0\0\1"
        assert driver.command(n.VIRTIO_NET_CTRL_MAC, n.VIRTIO_NET_CTRL_MAC_TABLE_SET, table) == n.VIRTIO_NET_OK
        for to in (PEER, b"\1\0^\0\0\2", b"\1\0^\0\0\1", MAC, BROADCAST):
            peer.send(frame(to=to))
        until(lambda: driver.device.counts["rx_frames"] == 3)
        assert [driver.ram.read(a + HDR, 6) for a in addresses] == [b"\1\0^\0\0\1", MAC, BROADCAST]
        assert driver.device.counts["rx_filtered"] == 2
        assert driver.command(n.VIRTIO_NET_CTRL_MAC, n.VIRTIO_NET_CTRL_MAC_ADDR_SET, PEER) == n.VIRTIO_NET_OK
        assert driver.mmio.read(v.VIRTIO_MMIO_CONFIG, 4) == int.from_bytes(PEER[:4], "little")
        driver.up()  # a reset, and the card has its own address again, and hears everything
        assert driver.mmio.read(v.VIRTIO_MMIO_CONFIG, 4) == int.from_bytes(MAC[:4], "little")
        assert driver.device.filter.all


@pytest.mark.parametrize(
    ("class_", "cmd", "data"),
    [
        (n.VIRTIO_NET_CTRL_RX, 6, b"\1"),
        (n.VIRTIO_NET_CTRL_RX, 0, b"\2"),
        (n.VIRTIO_NET_CTRL_RX, 0, b""),
        (n.VIRTIO_NET_CTRL_RX, 0, b"\0\0"),
        (n.VIRTIO_NET_CTRL_MAC, 0, b""),
        (n.VIRTIO_NET_CTRL_MAC, 0, struct.pack("<II", 0xFFFFFFFF, 0)),
        (n.VIRTIO_NET_CTRL_MAC, 0, struct.pack("<II", 0, 1)),
        (n.VIRTIO_NET_CTRL_MAC, 0, struct.pack("<II", 0, 0) + b"x"),
        (n.VIRTIO_NET_CTRL_MAC, 1, b"\1\0\0\0\0\0"),
        (n.VIRTIO_NET_CTRL_MAC, 1, b"12345"),
        (n.VIRTIO_NET_CTRL_MAC, 2, b"123456"),
        (n.VIRTIO_NET_CTRL_ANNOUNCE, 1, b""),
        (n.VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, bytes(8)),  # not offered over a socket
        (4, 0, b"\1\0"),  # VIRTIO_NET_CTRL_MQ
        (255, 255, b"\1\0"),
    ],
)
def test_a_command_that_makes_no_sense_is_an_error_and_no_more(wired, class_, cmd, data):
    with wired() as (driver, _):
        before = driver.device.filter.get_state()
        assert driver.command(class_, cmd, data) == n.VIRTIO_NET_ERR
        assert (driver.device.filter.get_state(), driver.trouble) == (before, "")


def test_a_command_that_is_too_long_is_not_read(wired):
    with wired() as (driver, _):
        many = struct.pack("<I", 11000) + bytes(6 * 11000) + struct.pack("<I", 0)
        assert driver.command(n.VIRTIO_NET_CTRL_MAC, n.VIRTIO_NET_CTRL_MAC_TABLE_SET, many) == n.VIRTIO_NET_ERR
        assert driver.device.filter.unicast == frozenset()


def test_a_command_without_an_answer_costs_the_device(wired):
    with wired() as (driver, _):
        driver.add(CONTROL, (BUFFERS, 3, 0))
        assert "a command without" in driver.trouble


def test_commands_are_for_drivers_that_said_so(wired):
    with wired(features=~(1 << n.VIRTIO_NET_F_CTRL_VQ)) as (driver, _):
        assert driver.command(n.VIRTIO_NET_CTRL_RX, 0, b"\0") == 0xEE
        assert driver.device.filter.all


def test_a_driver_is_asked_to_say_where_it_is(wired):
    with wired() as (driver, _):
        driver.device.announce()
        assert driver.mmio.read(v.VIRTIO_MMIO_CONFIG + 6, 2) == n.VIRTIO_NET_S_LINK_UP | n.VIRTIO_NET_S_ANNOUNCE
        assert driver.command(n.VIRTIO_NET_CTRL_ANNOUNCE, 0, b"") == n.VIRTIO_NET_OK
        assert driver.mmio.read(v.VIRTIO_MMIO_CONFIG + 6, 2) == n.VIRTIO_NET_S_LINK_UP


def test_a_filter_with_more_addresses_than_it_keeps_lets_all_of_that_kind_pass():
    passing = Filter(MAC)
    passing.set_mode(n.VIRTIO_NET_CTRL_RX_PROMISC, 0)
    many = b"".join(b"\2\1" + i.to_bytes(4, "big") for i in range(MOST + 1))
    assert passing.set_table(struct.pack("<I", MOST + 1) + many + struct.pack("<I", 0))
    assert passing.passes(PEER)
    assert not passing.passes(b"\1\0^\0\0\1")


@pytest.mark.parametrize(
    ("mode", "to", "want"),
    [
        (n.VIRTIO_NET_CTRL_RX_ALLMULTI, b"\1\0^\0\0\1", True),
        (n.VIRTIO_NET_CTRL_RX_ALLUNI, PEER, True),
        (n.VIRTIO_NET_CTRL_RX_NOMULTI, b"\1\0^\0\0\1", False),
        (n.VIRTIO_NET_CTRL_RX_NOUNI, MAC, False),
        (n.VIRTIO_NET_CTRL_RX_NOBCAST, BROADCAST, False),
    ],
)
def test_each_mode_of_the_filter(mode, to, want):
    passing = Filter(MAC)
    assert passing.passes(to)
    passing.set_mode(n.VIRTIO_NET_CTRL_RX_PROMISC, 0)
    passing.set_mode(mode, 1)
    assert passing.passes(to) is want


# -- offloads


class Tap:
    """A link that can do all that a tap can, and keeps what it is told."""

    name = "tap of the test"
    offloads = OFFLOADS

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.told: list[int] = []

    def fileno(self) -> int:
        return -1

    def receive(self) -> bytes | None:
        return None

    def send(self, packet: bytes) -> bool:
        self.sent.append(packet)
        return True

    def flush(self) -> bool:
        return True

    def offload(self, features: int) -> None:
        self.told.append(features)

    def close(self) -> None:
        pass


def test_a_tap_is_told_what_the_driver_takes_and_gets_headers_as_they_are():
    tap = Tap()
    driver = Driver(VirtioNet(tap, MAC))
    assert driver.features & OFFLOADS == OFFLOADS
    assert tap.told == [GUEST_OFFLOADS]
    header = struct.pack("<BBHHHHH", 1, n.VIRTIO_NET_HDR_GSO_TCPV4, 54, 1448, 34, 16, 0)
    driver.send(frame(60000), 12, header=header)
    assert tap.sent == [header + frame(60000)]
    wanted = 1 << n.VIRTIO_NET_F_GUEST_CSUM
    assert driver.command(n.VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, wanted.to_bytes(8, "little")) == n.VIRTIO_NET_OK
    assert driver.command(n.VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, (1 << 10).to_bytes(8, "little")) == n.VIRTIO_NET_ERR
    driver.set(v.VIRTIO_MMIO_STATUS, 0)
    assert tap.told == [GUEST_OFFLOADS, wanted, 0]


def test_a_tap_without_a_header_is_as_a_socket():
    read, write = os.pipe()
    link = TapLink(read, "t", vnet=False)
    assert link.offloads == 0
    with pytest.raises(Refused, match="not offered"):
        link.send(b"\1" + bytes(71))
    os.write(write, frame())
    os.set_blocking(read, False)
    assert link.receive() == NO_HDR + frame()
    assert link.receive() is None
    link.close()
    link.close()
    os.close(write)


# -- its state


def test_what_the_link_did_not_take_goes_over_the_link_that_is_there_after_a_restore(wired):
    with wired() as (driver, _), wired() as (other, peer):
        while not driver.device.carrier.wants[1]:
            driver.send(frame(1000, 1), 12)
        state = driver.mmio.get_state()
        other.ram.bytes[:] = driver.ram.bytes
        other.mmio.set_state(state)
        assert peer.recv(2000) == frame(1000, 1)


def test_what_waits_is_part_of_the_state_and_the_link_is_not(wired):
    with wired() as (driver, peer), wired() as (other, _):
        driver.command(n.VIRTIO_NET_CTRL_RX, n.VIRTIO_NET_CTRL_RX_PROMISC, b"\0")
        peer.send(frame(60, 7))
        until(lambda: driver.device.counts["rx_waits"])
        state = driver.mmio.get_state()
        other.ram.bytes[:] = driver.ram.bytes
        other.mmio.set_state(state)
        other.heads, other.free, other.seen = driver.heads, driver.free, driver.seen
        address = other.buffer(100)
        until(lambda: other.device.counts["rx_frames"])
        assert other.ram.read(address + HDR, 60) == frame(60, 7)
        assert not other.device.filter.all
        assert other.link == 1


# -- hostile drivers

ADDRESSES = st.sampled_from([0, BUFFERS, BUFFERS + 0x800, RAM_SIZE - 8, RAM_SIZE, 2**64 - 1]) | st.integers(
    0, 2**64 - 1
)
SIZES = st.sampled_from([0, 1, 11, 12, 13, 26, 100, 2000, 0xFFFFFFFF])
DESCRIPTORS = st.lists(
    st.tuples(ADDRESSES, SIZES, st.integers(0, 7), st.integers(0, ENTRIES)), min_size=ENTRIES, max_size=ENTRIES
)
HEADS = st.lists(st.integers(0, ENTRIES) | st.just(0xFFFF), min_size=ENTRIES, max_size=ENTRIES)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_driver_gets_past_its_own_memory(wired, data):
    """Random rings in all three queues while frames come: only needs-reset, and after the reset the card works."""
    features = -1 if data.draw(st.booleans()) else ~MERGEABLE
    with wired(features=features) as (driver, peer):
        for base in QUEUES:
            for i, each in enumerate(data.draw(DESCRIPTORS)):
                struct.pack_into("<QIHH", driver.ram.bytes, base + 16 * i, *each)
            heads = data.draw(HEADS)
            idx = data.draw(st.integers(0, ENTRIES) | st.integers(0, 0xFFFF))
            struct.pack_into(f"<HH{ENTRIES}H", driver.ram.bytes, base + AVAIL, 0, idx, *heads)
        driver.ram.bytes[BUFFERS : BUFFERS + 16] = data.draw(st.binary(min_size=16, max_size=16))
        for size in (60, 1000):
            peer.send(frame(size))
        for queue in data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4)):
            driver.kick(queue)
        driver.up()
        driver.ram.accesses = 0
        assert driver.trouble == ""
        address = driver.buffer(2000)
        peer.send(frame(200, 0x77))
        until(lambda: driver.device.counts["rx_frames"] + driver.device.counts["rx_waits"] > 0)
        for _ in range(3):  # those from before may have waited in the socket
            driver.buffer(2000)
        until(lambda: driver.used(RECEIVE) or driver.trouble)
        assert driver.trouble == ""
        assert driver.ram.read(address + HDR, 6) == MAC


@settings(max_examples=80, deadline=None)
@given(
    DESCRIPTORS, DESCRIPTORS, HEADS, st.integers(0, ENTRIES) | st.integers(0, 0xFFFF), st.integers(0, 3),
    st.binary(min_size=2, max_size=2), st.integers(1, 3),
)  # fmt: skip
def test_hostile_rings_to_send_from_come_to_the_same_in_c(direct, table, heads, idx, without, header, kicks):
    """The same words, the same bytes of memory, the same frames at the other end."""
    ends = []
    for in_c in (False, True):
        with Wires(in_c=in_c)(features=~(without << 28), event_idx=bool(idx & 1)) as (driver, peer):
            base = QUEUES[TRANSMIT]
            for at, rows in ((base, direct), (BUFFERS + 0x800, table)):
                for i, row in enumerate(rows):
                    struct.pack_into("<QIHH", driver.ram.bytes, at + 16 * i, *row)
            struct.pack_into(f"<HH{ENTRIES}H", driver.ram.bytes, base + AVAIL, 0, idx, *heads)
            driver.ram.bytes[BUFFERS : BUFFERS + 14] = header + bytes(12)
            for _ in range(kicks):
                driver.kick(TRANSMIT)
            frames = []
            peer.setblocking(False)
            while True:
                try:
                    frames.append(peer.recv(1 << 17))
                except BlockingIOError:
                    break
            counts = {name: n for name, n in driver.device.counts.items() if n}
            ends.append((driver.trouble, bytes(driver.ram.bytes), frames, counts, driver.device.drop_reason))
    assert ends[0] == ends[1]


TABLE = BUFFERS + 0x8000
ROOM = (BUFFERS, 100, WRITE, 0)
DATA = (BUFFERS, 100, 0, 0)


@pytest.mark.parametrize(
    ("queue", "direct", "table", "words"),
    [
        (RECEIVE, [(BUFFERS, 100, WRITE | NEXT, 0)], [], "it goes in a circle"),
        (RECEIVE, [(BUFFERS, 100, WRITE | NEXT, 8)], [], "descriptor 8 of a table that has 8"),
        (
            RECEIVE,
            [DATA],
            [],
            "a buffer to receive into has 100 bytes to read and room for 0; the header alone takes 12",
        ),
        (RECEIVE, [(BUFFERS, 11, WRITE, 0)], [], "has 0 bytes to read and room for 11"),
        (RECEIVE, [(RAM_SIZE - 8, 100, WRITE, 0)], [], f"0x64 bytes at {RAM_SIZE - 8:#x} is not all writable memory"),
        (RECEIVE, [(2**64 - 8, 100, WRITE, 0)], [], "is not all writable memory"),
        (RECEIVE, [(BUFFERS, 0xFFFFFFFF, WRITE, 0)], [], "a buffer of 0xffffffff bytes"),
        (RECEIVE, [(TABLE, 24, INDIRECT, 0)], [], "an indirect table of 0x18 bytes"),
        (RECEIVE, [(TABLE, 16, INDIRECT, 0)], [(TABLE, 16, INDIRECT, 0)], "inside an indirect table"),
        (TRANSMIT, [(BUFFERS, 100, NEXT, 0)], [], "it goes in a circle"),
        (TRANSMIT, [(BUFFERS, 11, 0, 0)], [], "a packet of 11 bytes with room to write 0; the header takes 12"),
        (TRANSMIT, [(BUFFERS, 60, NEXT, 1), ROOM], [], "a packet of 60 bytes with room to write 100"),
        (TRANSMIT, [ROOM, DATA], [], "with room to write 100"),
        (TRANSMIT, [(BUFFERS, 60, WRITE | NEXT, 1), DATA], [], "a buffer to read comes after one to write"),
        (TRANSMIT, [(RAM_SIZE, 1, 0, 0)], [], "is not all guest memory"),
        (TRANSMIT, [(TABLE, 32, INDIRECT | NEXT, 1)], [], "an indirect descriptor with VRING_DESC_F_NEXT"),
        (TRANSMIT, [(TABLE, 32, INDIRECT, 0)], [(BUFFERS, 60, NEXT, 2)], "descriptor 2 of a table that has 2"),
        (TRANSMIT, [(RAM_SIZE - 16, 32, INDIRECT, 0)], [], "an indirect table of 0x20 bytes"),
    ],
)
def test_each_rule_has_its_words(wired, queue, direct, table, words):
    with wired() as (driver, peer):
        base = QUEUES[queue]
        for at, rows in ((base, direct), (TABLE, table)):
            for i, row in enumerate(rows):
                struct.pack_into("<QIHH", driver.ram.bytes, at + 16 * i, *row)
        struct.pack_into("<HHH", driver.ram.bytes, base + AVAIL, 0, 1, 0)
        if queue == RECEIVE:
            peer.send(frame())
        driver.kick(queue)
        until(lambda: driver.mmio.trouble)
        assert driver.trouble.startswith(f"virtio-net: queue {queue}: ")
        assert words in driver.trouble
        until(lambda: v.VIRTIO_MMIO_INT_CONFIG in driver.causes)
        driver.up()
        driver.send(frame(60, 9))
        assert peer.recv(2000) == frame(60, 9), "a reset brings it back"


@pytest.mark.parametrize("queue", [RECEIVE, TRANSMIT])
@pytest.mark.parametrize(
    ("head", "idx", "words"),
    [
        (8, 1, "descriptor 8 of a table that has 8"),
        (0xFFFF, 1, "descriptor 65535"),
        (0, 9, "the available index runs 9 ahead in a queue of 8"),
        (0, 0xFFFF, "the available index runs 65535 ahead"),
    ],
)
def test_rings_that_break_a_rule(wired, queue, head, idx, words):
    with wired() as (driver, peer):
        struct.pack_into("<HHH", driver.ram.bytes, QUEUES[queue] + AVAIL, 0, idx, head)
        if queue == RECEIVE:
            peer.send(frame())
        driver.kick(queue)
        until(lambda: driver.mmio.trouble)
        assert words in driver.trouble


def test_a_packet_in_more_pieces_than_one_call_takes(wired):
    """A table of 1024 buffers."""
    with wired() as (driver, peer):
        packet = NO_HDR + frame(2048 - HDR, 3)
        driver.ram.write(BUFFERS, packet)
        for i in range(1024):
            row = (BUFFERS + 2 * i, 2, NEXT if i < 1023 else 0, i + 1)
            struct.pack_into("<QIHH", driver.ram.bytes, BUFFERS + 0x8000 + 16 * i, *row)
        driver.add(TRANSMIT, (BUFFERS + 0x8000, 16 * 1024, INDIRECT))
        assert peer.recv(4000) == packet[HDR:]
        assert driver.used(TRANSMIT) == [(0, 0)]
        for i in range(1024):  # and one that comes
            struct.pack_into("<H", driver.ram.bytes, BUFFERS + 0x8000 + 16 * i + 12, WRITE | (NEXT if i < 1023 else 0))
        driver.add(RECEIVE, (BUFFERS + 0x8000, 16 * 1024, INDIRECT))
        peer.send(frame(2000, 4))
        until(lambda: driver.device.counts["rx_frames"])
        assert driver.used(RECEIVE) == [(0, HDR + 2000)]
        assert driver.ram.read(BUFFERS + HDR, 2000) == frame(2000, 4)


def test_a_pulled_cable_with_half_a_frame_on_it_keeps_nobody_busy(wired):
    """What a stream has begun it is to end; until its other end reads, there is nothing to do."""
    with wired(socket.SOCK_STREAM, room=4096) as (driver, peer):
        driver.send(frame(60000, 1), 12)
        driver.device.set_link(False)
        time.sleep(0.05)
        before = driver.turns()
        time.sleep(0.1)
        assert driver.turns() <= before + 1
        data = b""
        while len(data) < 60004:
            data += peer.recv(1 << 20)
        assert data == struct.pack(">I", 60000) + frame(60000, 1)


def test_memory_that_was_taken_away_is_not_touched():
    """C hears of it, and from then on the rings are no memory."""
    with Wires(in_c=True)() as (driver, peer):
        driver.buffer(100)
        driver.ram.slots.clear()
        for told in driver.ram.changed:
            told()
        before = bytes(driver.ram.bytes)
        peer.send(frame())
        until(lambda: driver.mmio.trouble)
        assert "queue 0: the available ring is gone" in driver.mmio.trouble
        assert bytes(driver.ram.bytes) == before


@pytest.mark.parametrize("call", ["eventfd", "dup", "start"])
def test_a_host_without_descriptors_or_threads_is_named(call, monkeypatch):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    setup = setup_of(unix.of_socket(ours), -1)
    assert setup is not None
    before = files_before()

    def refuse(*args: object) -> None:
        raise RuntimeError("can't start new thread") if call == "start" else OSError(24, "no")

    monkeypatch.setattr(threading.Thread if call == "start" else os, call, refuse)
    with pytest.raises(HostError, match="starting the service of card"):
        NetThread("card", setup, Acked(), print)
    assert open_files() == before
    ours.close()
    theirs.close()


def test_what_c_cannot_carry_is_not_given_to_it():
    assert setup_of(None, -1) is None
    assert setup_of(Tap(), -1) is None
    assert (net_thread.MODES, net_thread.ADDRESSES) == (n.VIRTIO_NET_CTRL_RX_NOBCAST + 1, MOST)
    assert MOST_FRAME == 65553  # NET_MOST of _net.c


# -- who listens


def test_what_goes_wrong_inside_goes_to_who_is_told():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    device = VirtioNet(unix.of_socket(ours), MAC)
    failed: list[BaseException] = []

    def broken(index: int) -> None:
        raise ValueError("inside")

    listener = Listener(device.name, device.frames, broken, failed.append)
    device.frames.wants_input = True
    listener.poke()
    theirs.send(frame())
    until(lambda: failed)
    assert isinstance(failed[0], ValueError)
    listener.close()
    listener.close()
    listener.poke()
    device.close()
    theirs.close()


def test_a_thread_that_cannot_be_had_leaves_nothing(monkeypatch):
    def refuse(self) -> None:
        raise RuntimeError("can't start new thread")

    before = files_before()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(HostError, match="pthread_create"):
        Listener("card", VirtioNet(None, MAC).frames, print, print)
    assert open_files() == before


# -- words


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("tap:tap0", ("tap", "tap0", None, None)),
        ("passt:/run/p.socket", ("passt", "/run/p.socket", None, None)),
        ("fd:7,mtu=1400", ("fd", "7", None, 1400)),
        ("slirp4netns:x,mac=02:00:00:00:00:0A,mtu=9000", ("slirp4netns", "x", b"\2\0\0\0\0\x0a", 9000)),
        ("none", ("none", "", None, None)),
        ("none,mac=2-0-0-0-0-1", ("none", "", b"\2\0\0\0\0\1", None)),
    ],
)
def test_words(text, want):
    said = words.parse(text)
    assert (said.way, said.where, said.mac, said.mtu) == want


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write tap:NAME"),
        ("tap", "write tap:NAME"),
        ("tap:", "write tap:NAME"),
        ("none:x", "write tap:NAME"),
        ("bridge:br0", "write tap:NAME"),
        ("fd:x", "no number of a descriptor"),
        ("fd:-1", "no number of a descriptor"),
        ("none,mtu=67", "68 to 65535"),
        ("none,mtu=65536", "68 to 65535"),
        ("none,mtu=many", "a number of bytes"),
        ("none,mtu=1500,mtu=1500", "each once"),
        ("none,queues=2", "neither mac=ADDRESS"),
        ("none,mac=01:00:00:00:00:01", "even first byte"),
        ("none,mac=00:00:00:00:00:00", "even first byte"),
        ("none,mac=02:00:00:00:00", "write six bytes"),
        ("none,mac=02:00:00:00:00:01:02", "write six bytes"),
        ("none,mac=02:00:00:00:00:xx", "write six bytes"),
        ("none,mac=", "write six bytes"),
    ],
)
def test_words_that_say_nothing(text, says):
    with pytest.raises(UsageError, match=says):
        words.parse(text)


def test_a_card_has_an_address_of_its_own():
    first, second = words.any_mac(), words.any_mac()
    assert first != second
    assert first[0] & 3 == 2
    assert words.mac(first) == first


def test_a_socket_is_copied_and_a_path_is_connected(tmp_path):
    path = str(tmp_path / "s")
    for kind, number in unix.KINDS.items():
        with socket.socket(socket.AF_UNIX, number) as listening:
            listening.bind(path)
            if kind != "dgram":
                listening.listen()
            link = words.parse(f"{kind}:{path}").open()
            assert link is not None
            assert path in link.name
            assert link.send(NO_HDR + frame())
            peer = listening if kind == "dgram" else listening.accept()[0]
            data, address = peer.recvfrom(2000)
            assert data[-60:] == frame()
            if kind == "dgram":
                peer.sendto(frame(70), address)
                assert link.receive() == NO_HDR + frame(70)
            else:
                peer.close()
            link.close()
        Path(path).unlink()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        link = words.link_of(ours)
        assert link is not None
        assert link.fileno() != ours.fileno()
        link.close()
        link = words.link_of(theirs.fileno())
        assert link is not None
        ours.send(frame())
        assert link.receive() == NO_HDR + frame()
        link.close()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: f"stream:{folder}/none", "No such file.*\n.*passt --socket"),
        (lambda folder: f"stream:{folder}/{'x' * 200}", "path too long"),
        (lambda folder: f"seqpacket:{listening(folder, socket.SOCK_STREAM)}", "another kind"),
        (lambda folder: f"stream:{listening(folder, socket.SOCK_STREAM, close=True)}", "refused.*\n.*nobody listens"),
        (lambda folder: "tap:nosuchtap0", "no such interface.*\n.*ip tuntap add"),
        (lambda folder: "tap:lo", "opening tap lo: "),
        (lambda folder: "tap:" + "x" * 16, "1 to 15 bytes"),
        (lambda folder: 999, "descriptor 999 is not open"),
        (lambda folder: os.open(folder, os.O_RDONLY), "neither a tap device nor a socket"),
        (lambda folder: socket.socket(), "goes over a Unix socket"),
        (lambda folder: socket.socket(socket.AF_UNIX), "a socket that is connected"),
    ],
)
def test_links_that_cannot_be_had(make, says, tmp_path):
    what = make(str(tmp_path))
    before = files_before()
    with pytest.raises(UsageError, match=says):
        words.link_of(what)
    assert open_files() == before
    while KEPT:
        KEPT.pop().close()


KEPT: list[socket.socket] = []


def listening(folder: str, kind: int, *, close: bool = False) -> str:
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(f"{folder}/s")
    sock.listen()
    if close:
        sock.close()
    KEPT.append(sock)
    return f"{folder}/s"


def test_a_socket_that_is_reset_is_a_link_that_is_down():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    link = unix.of_socket(ours)
    link.send(NO_HDR + frame())  # which nobody reads: closing then resets
    theirs.close()
    with pytest.raises(LinkDown, match="ECONNRESET"):
        link.receive()
    link.close()


def test_a_message_that_a_socket_does_not_take_is_dropped_alone():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    link = unix.of_socket(ours)
    with pytest.raises(Refused, match="does not take 60000 bytes"):
        link.send(NO_HDR + frame(60000))
    assert link.send(NO_HDR + frame())
    link.close()
    theirs.close()

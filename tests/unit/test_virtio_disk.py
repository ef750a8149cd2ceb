# SPDX-License-Identifier: GPL-2.0-or-later
"""The C of virtio disks beside its model in Python: the same drivers, good and hostile, and after each kick the same
memory, file, status and words. And its thread: kicks, memory that changes, what ends it. No /dev/kvm is needed.

`python -m tools.sanitize tests/unit/test_virtio_disk.py` runs it with a binding that checks every access.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import itertools
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.abi import virtio as v
from vmm.errors import GuestMemoryError, HostError
from vmm.kvm import dataplane
from vmm.kvm.disk_thread import Disk, DiskThread
from vmm.kvm.memory import Touched
from vmm.machine.virtio import blk
from vmm.machine.virtio.blk import VirtioBlk
from vmm.machine.virtio.chain import MAX_INDIRECT
from vmm.machine.virtio.disk_engine import DiskEngine, setup_of
from vmm.machine.virtio.transport import VirtioMmio

PAGE = 4096
NEXT, WRITE, INDIRECT = v.VRING_DESC_F_NEXT, v.VRING_DESC_F_WRITE, v.VRING_DESC_F_INDIRECT
SECTOR, SECTORS = 512, 32
ENTRIES = 8
# Two slots side by side, whose host memory is not; one more behind a hole; one to read only.
SLOTS = ((0x1_0000, 0x4000, False), (0x1_4000, 0x4000, False), (0x1_A000, 0x1000, False), (0x2_0000, 0x1000, True))
RAM, RAM_SIZE, ISLE, ROM = 0x1_0000, 0x8000, 0x1_A000, 0x2_0000
DESC, AVAIL, USED, TABLE = RAM, RAM + 0x400, RAM + 0x800, RAM + 0x1000
HEADERS, DATA = RAM + 0x2000, RAM + 0x3000  # data goes over the seam of both slots
READ, OUT, FLUSH, NAME = v.VIRTIO_BLK_T_IN, v.VIRTIO_BLK_T_OUT, v.VIRTIO_BLK_T_FLUSH, v.VIRTIO_BLK_T_GET_ID
DISCARD, ZEROES = v.VIRTIO_BLK_T_DISCARD, v.VIRTIO_BLK_T_WRITE_ZEROES
RUNNING = 0xF
_libc = ctypes.CDLL(None, use_errno=True)


class Slot:
    """A memslot with a page on both sides that nobody may touch."""

    def __init__(self, gpa: int, size: int, readonly: bool) -> None:
        self.gpa, self.size, self.readonly = gpa, size, readonly
        self.map = mmap.mmap(-1, size + 2 * PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.hva = start + PAGE
        for guard in (start, self.hva + size):
            assert _libc.mprotect(ctypes.c_void_p(guard), PAGE, 0) == 0
        self.touched = Touched(size)

    @property
    def stretch(self) -> tuple[Any, ...]:
        return (self.gpa, self.size, self.hva, self.readonly, self.touched.pages, self.touched.marked)

    def pages(self) -> list[bytes]:
        return [self.map[PAGE + at : PAGE + at + PAGE] for at in range(0, self.size, PAGE)]

    def unmarked(self, before: list[bytes]) -> list[int]:
        """Pages that are not as they were, and are not marked as written."""
        now = self.pages()
        return [page for page in range(len(now)) if now[page] != before[page] and not self.touched.pages[page]]


class Memory:
    """chain.DmaMemory, and what DiskEngine asks of GuestMemory, over SLOTS."""

    def __init__(self) -> None:
        self.slots = [Slot(*row) for row in SLOTS]
        self.changed: list[Callable[[], object]] = []

    def _slot(self, gpa: int) -> Slot | None:
        return next((slot for slot in self.slots if slot.gpa <= gpa < slot.gpa + slot.size), None)

    def holds(self, gpa: int, size: int, *, write: bool = False) -> bool:
        end = gpa + size
        while gpa < end:
            slot = self._slot(gpa)
            if slot is None or (write and slot.readonly):
                return False
            gpa = slot.gpa + slot.size
        return True

    def _pieces(self, gpa: int, size: int, doing: str) -> Iterator[tuple[Slot, int, int]]:
        while size:
            slot = self._slot(gpa)
            if slot is None:
                raise GuestMemoryError(f"{doing}: no memslot holds guest-physical address {gpa:#x}")
            count = min(size, slot.gpa + slot.size - gpa)
            yield slot, PAGE + gpa - slot.gpa, count
            gpa, size = gpa + count, size - count

    def read(self, gpa: int, size: int) -> bytes:
        found = self._pieces(gpa, size, f"reading {size} bytes at {gpa:#x}")
        return b"".join(slot.map[at : at + count] for slot, at, count in found)

    def write(self, gpa: int, data: bytes) -> None:
        done = 0
        for slot, at, count in list(self._pieces(gpa, len(data), f"writing {len(data)} bytes at {gpa:#x}")):
            slot.map[at : at + count] = data[done : done + count]
            done += count

    def everything(self) -> list[bytes]:
        return [slot.map[PAGE : PAGE + slot.size] for slot in self.slots]


class OnThisThread:
    """A DiskThread without a thread: a kick is served at once, as the model serves it."""

    inherited = False

    def __init__(self, device: VirtioBlk, mmio: VirtioMmio, irq: int) -> None:
        self.disk = Disk(setup_of(device, irq), -1, mmio.acked)
        self._mmio = mmio

    def kick(self) -> None:
        self.disk.settle(self._mmio.queues[0])


class Side:
    """A disk over a copy of the image, its memory, and its registers; served in C or by the model."""

    def __init__(self, path: Path, *, in_c: bool, readonly: bool = False) -> None:
        self.path, self.memory = path, Memory()
        self.device = VirtioBlk(path, readonly=readonly)
        self.irq = os.eventfd(0, os.EFD_NONBLOCK)
        self.mmio = VirtioMmio(self.device, self.memory, lambda: os.eventfd_write(self.irq, 1))
        self.thread: OnThisThread | None = None
        if in_c:
            self.thread = OnThisThread(self.device, self.mmio, self.irq)
            self.mmio.engine = DiskEngine(self.device, self.thread, self.memory)

    def up(self, features: int, index: int = 0, areas: tuple[int, int, int] = (DESC, AVAIL, USED)) -> None:
        """Reset, agree, a queue whose rings stand at `index`."""
        put = self.mmio.write
        put(v.VIRTIO_MMIO_STATUS, 4, 0)
        put(v.VIRTIO_MMIO_STATUS, 4, 3)
        for half in (0, 1):
            put(v.VIRTIO_MMIO_DRIVER_FEATURES_SEL, 4, half)
            put(v.VIRTIO_MMIO_DRIVER_FEATURES, 4, features >> 32 * half & 0xFFFFFFFF)
        put(v.VIRTIO_MMIO_STATUS, 4, 0xB)
        put(v.VIRTIO_MMIO_QUEUE_NUM, 4, ENTRIES)
        for name, address in zip(("DESC", "AVAIL", "USED"), areas, strict=True):
            put(getattr(v, f"VIRTIO_MMIO_QUEUE_{name}_LOW"), 4, address)
        put(v.VIRTIO_MMIO_QUEUE_READY, 4, 1)
        queue = self.mmio.queues[0]
        queue.last_avail = queue.used_idx = queue.told = index
        put(v.VIRTIO_MMIO_STATUS, 4, RUNNING)

    def kick(self) -> None:
        before = [(slot, slot.pages()) for slot in self.memory.slots if self.thread is not None]
        self.mmio.write(v.VIRTIO_MMIO_QUEUE_NOTIFY, 4, 0)
        for slot, pages in before:  # what C wrote it has marked: a snapshot puts back nothing else
            assert slot.unmarked(pages) == []

    def interrupted(self) -> bool:
        """Whether the driver was, since the last question."""
        try:
            return bool(os.eventfd_read(self.irq))
        except BlockingIOError:
            return False

    def seen(self) -> dict[str, object]:
        """All that a driver, or the host, can tell."""
        state = self.mmio.get_state() if not self.mmio.trouble else None
        return {
            "status": self.mmio.status,
            "trouble": self.mmio.trouble,
            "causes": self.mmio.interrupt_status & (0 if self.mmio.trouble else 3),
            "interrupted": self.interrupted(),
            "state": state,
            "flushes": self.device.flushes,
            "memory": self.memory.everything(),
            "file": self.path.read_bytes(),
        }

    def close(self) -> None:
        self.mmio.close()
        if self.thread is not None:
            self.thread.disk.close()
        os.close(self.irq)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("disks")


@contextmanager
def both(folder: Path, **options: bool) -> Iterator[tuple[Side, Side]]:
    """The model, and C."""
    image = os.urandom(16) * (SECTORS * SECTOR // 16) + b"odd"
    paths = folder / "model", folder / "c"
    for path in paths:
        path.write_bytes(image)
    sides = Side(paths[0], in_c=False, **options), Side(paths[1], in_c=True, **options)
    try:
        yield sides
    finally:
        for side in sides:
            side.close()


def same(model: Side, c: Side) -> dict[str, object]:
    """What both have; an assertion names what differs."""
    a, b = model.seen(), c.seen()
    assert {name for name in a if a[name] != b[name]} == set(), [(a[n], b[n]) for n in a if a[n] != b[n]]
    return a


# -- good drivers


@dataclass(frozen=True)
class Request:
    """`data` bytes in buffers cut at `cuts`; what lies there first comes from `fill`."""

    kind: int
    sector: int
    data: int
    cuts: tuple[int, ...]
    indirect: bool
    fill: bytes


def ranges_of(rows: list[tuple[int, int, int]]) -> bytes:
    return b"".join(struct.pack("<QII", *row) for row in rows)


SECTOR_NUMBERS = st.integers(0, SECTORS + 1) | st.sampled_from([2**32, 2**63, 2**64 - 1, 2**55 - 1])
RANGES = st.lists(
    st.tuples(SECTOR_NUMBERS, st.integers(0, SECTORS) | st.just(2**32 - 1), st.sampled_from([0, 0, 0, 1, 2, 2**31])),
    max_size=4,
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    kind = draw(st.sampled_from([READ, READ, OUT, OUT, FLUSH, NAME, DISCARD, ZEROES, 3, 99]))
    fill = draw(RANGES.map(ranges_of)) if kind in (DISCARD, ZEROES) else draw(st.binary(min_size=1, max_size=8))
    size = len(fill) if kind in (DISCARD, ZEROES) else draw(st.sampled_from([0, 20, 512, 1024, 3584, 4096, 513]))
    cuts = tuple(sorted(draw(st.lists(st.integers(0, size), max_size=3))))
    return Request(kind, draw(SECTOR_NUMBERS), size, cuts, draw(st.booleans()), fill)


def offer(side: Side, index: int, place: int, request: Request) -> None:
    """Put a request into descriptors of its own, and its head into the ring at `index`."""
    memory = side.memory
    header, data, table = HEADERS + 0x40 * place, DATA + 0xA00 * place - 0x80, TABLE + 0x100 * place
    memory.write(header, struct.pack("<IIQ", request.kind, 7, request.sector) + b"\xee")
    if request.data:
        memory.write(data, (request.fill * (request.data // len(request.fill) + 1))[: request.data])
    flags = WRITE if request.kind in (READ, NAME) else 0
    rows = [(header, 16, 0)]
    edges = (0, *request.cuts, request.data)
    rows += [(data + a, b - a, flags) for a, b in itertools.pairwise(edges)]
    rows.append((header + 16, 1, WRITE))
    half = ENTRIES // 2 * place  # of the descriptors: two requests at once at most
    indirect = request.indirect or len(rows) > ENTRIES // 2
    at, first = (table, 0) if indirect else (DESC, half)
    for i, (address, size, flag) in enumerate(rows):
        following = first + i + 1
        flag |= NEXT if i + 1 < len(rows) else 0
        memory.write(at + 16 * (first + i), struct.pack("<QIHH", address, size, flag, following))
    if indirect:
        memory.write(DESC + 16 * half, struct.pack("<QIHH", table, 16 * len(rows), INDIRECT, 0))
    memory.write(AVAIL + 4 + 2 * (index % ENTRIES), struct.pack("<H", half))


def features_of(side: Side, events: bool, writeback: bool = True) -> int:
    features = side.mmio.features
    if not events:
        features &= ~v.feature(v.VIRTIO_RING_F_EVENT_IDX)
    return features if writeback else features & ~v.feature(v.VIRTIO_BLK_F_FLUSH)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(requests(), min_size=1, max_size=2), min_size=1, max_size=5),
    st.sampled_from([0, 3, 0xFFFE]), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 3),
)  # fmt: skip
def test_good_drivers_cannot_tell_c_from_its_model(folder, kicks, start, events, writeback, readonly, callbacks):
    with both(folder, readonly=readonly) as (model, c):
        for side in (model, c):
            side.up(features_of(side, events, writeback), start)
        index = start
        for batch in kicks:
            for place, request in enumerate(batch):
                for side in (model, c):
                    offer(side, index, place, request)
                index = (index + 1) % 0x10000
            for side in (model, c):
                # callbacks off by the flag, or by an event that lies behind; on at the first or the second chain
                event = (index - len(batch) + callbacks) % 0x10000
                side.memory.write(AVAIL + 4 + 2 * ENTRIES, struct.pack("<H", event))
                side.memory.write(AVAIL, struct.pack("<HH", callbacks & 1, index))
                side.kick()
            seen = same(model, c)
            assert seen["trouble"] == ""
            assert struct.unpack("<H", model.memory.read(USED + 2, 2)) == (index,)
            if events:
                assert struct.unpack("<H", c.memory.read(USED + 4 + 8 * ENTRIES, 2)) == (index,)


def test_a_chain_of_every_segment_that_there_can_be(folder):
    """A table of many buffers of 4 bytes behind 7 direct ones, over the seam of two slots: one request."""
    for kind in (OUT, READ):
        with both(folder) as (model, c):
            for side in (model, c):
                side.up(features_of(side, events=True))
                memory = side.memory
                memory.write(HEADERS, struct.pack("<IIQ", kind, 0, 2) + b"\xee")
                memory.write(DATA, bytes(range(256)) * 16)
                memory.write(DESC, struct.pack("<QIHH", HEADERS, 16, NEXT, 1))
                flag = WRITE if kind == READ else 0
                for i in range(1, 7):
                    memory.write(DESC + 16 * i, struct.pack("<QIHH", 0, 0, NEXT | flag, i + 1))
                memory.write(DESC + 16 * 7, struct.pack("<QIHH", RAM + 0x4800, 16 * MAX_INDIRECT // 2, INDIRECT, 0))
                table = RAM + 0x4800
                for i in range(MAX_INDIRECT // 2):
                    last = i + 1 == MAX_INDIRECT // 2
                    address, size = (HEADERS + 16, 1) if last else (DATA + 4 * i, 4)
                    if i + 2 == MAX_INDIRECT // 2:
                        size = 4 + (-(4 * (i + 1)) % SECTOR)
                    row = struct.pack("<QIHH", address, size, (WRITE if last else flag) | (0 if last else NEXT), i + 1)
                    memory.write(table + 16 * i, row)
                memory.write(AVAIL, struct.pack("<HHH", 0, 1, 0))
                side.kick()
            assert same(model, c)["trouble"] == ""
            assert c.memory.read(HEADERS + 16, 1) == b"\0"


def test_the_write_cache(folder):
    with both(folder) as (model, c):
        for side in (model, c):
            side.up(features_of(side, events=False))
            side.mmio.write(v.VIRTIO_MMIO_CONFIG + 32, 1, 0)
            offer(side, 0, 0, Request(OUT, 1, SECTOR, (), False, b"w"))
            side.memory.write(AVAIL, struct.pack("<HH", 0, 1))
            side.kick()
        assert same(model, c)["flushes"] == 2


@pytest.mark.parametrize("kind", [READ, OUT])
def test_a_file_that_became_shorter(folder, kind):
    with both(folder) as (model, c):
        for side in (model, c):
            os.truncate(side.path, 3 * SECTOR + 100)
            side.up(features_of(side, events=False))
            offer(side, 0, 0, Request(kind, 2, 2048, (100,), False, b"w"))
            side.memory.write(AVAIL, struct.pack("<HH", 0, 1))
            side.kick()
        same(model, c)
        assert c.memory.read(HEADERS + 16, 1) == bytes([v.VIRTIO_BLK_S_IOERR if kind == READ else 0])
        used = struct.unpack("<2I", c.memory.read(USED + 4, 8))
        assert used == (0, SECTOR + 101 if kind == READ else 1)


@pytest.mark.parametrize("kind", [READ, OUT, FLUSH, DISCARD, ZEROES])
def test_what_the_host_refuses_is_a_status(folder, kind):
    with both(folder) as (model, c):
        pipe, other = os.pipe()
        for side in (model, c):
            os.dup2(pipe if kind != READ else other, side.device.disk.fd)
            side.up(features_of(side, events=False))
            fill = ranges_of([(0, 1, 0)]) if kind in (DISCARD, ZEROES) else b"w"
            size = len(fill) if kind in (DISCARD, ZEROES) else 0 if kind == FLUSH else SECTOR
            offer(side, 0, 0, Request(kind, 0, size, (), False, fill))
            side.memory.write(AVAIL, struct.pack("<HH", 0, 1))
            side.kick()
            assert side.memory.read(HEADERS + 16, 1) == bytes([v.VIRTIO_BLK_S_IOERR])
        same(model, c)
        os.close(pipe)
        os.close(other)


# -- hostile drivers

PLACES = [
    DATA, DATA + 0x800, TABLE, DESC, AVAIL, USED, USED + 2, RAM + 0x3FFC, RAM + RAM_SIZE - 8, ISLE, ISLE + 0xFF8, ROM,
    HEADERS, 0, RAM - 1, 2**32, 2**63, 2**64 - 16, 2**64 - 1,
]  # fmt: skip
SIZES = st.sampled_from([0, 1, 8, 16, 17, 32, 64, 512, 513, 0x1000, 0x8000, 0x8001, 0xFFFFFFFF])
DESCRIPTORS = st.lists(
    st.tuples(st.sampled_from(PLACES), SIZES, st.integers(0, 7) | st.integers(0, 0xFFFF), st.integers(0, ENTRIES + 1)),
    min_size=ENTRIES,
    max_size=ENTRIES,
)
HEADS = st.lists(st.integers(0, ENTRIES) | st.just(0xFFFF), min_size=ENTRIES, max_size=ENTRIES)
AREAS = st.tuples(
    st.sampled_from([DESC, DESC, DESC, RAM + 0x3FC0, TABLE]),
    st.sampled_from([AVAIL, AVAIL, AVAIL, USED, RAM + 0x3FFA, DESC]),
    st.sampled_from([USED, USED, USED, AVAIL, RAM + 0x3FF4, DESC, HEADERS]),
)


HEADER = (HEADERS, 16, NEXT, 1)
STATUS = (HEADERS + 16, 1, WRITE, 0)


@pytest.mark.parametrize(
    ("direct", "table", "words"),
    [
        ([(HEADERS, 16, NEXT, 0)], [], "it goes in a circle"),
        ([HEADER, (DATA, 512, WRITE | NEXT, 8)], [], "descriptor 8 of a table that has 8"),
        ([HEADER, (DATA, 512, WRITE | NEXT, 2), (DATA, 512, NEXT, 3), STATUS], [], "comes after one to write"),
        ([HEADER, (ROM, 512, WRITE | NEXT, 2), STATUS], [], "0x200 bytes at 0x20000 is not all writable memory"),
        ([HEADER, (ISLE + 0xF00, 512, WRITE | NEXT, 2), STATUS], [], "0x200 bytes at 0x1af00 is not all writable"),
        ([HEADER, (RAM + RAM_SIZE - 8, 16, NEXT, 2), STATUS], [], "is not all guest memory"),
        ([HEADER, (RAM - 8, 16, NEXT, 2), STATUS], [], "is not all guest memory"),
        ([HEADER, (2**64 - 8, 16, NEXT, 2), STATUS], [], "0x10 bytes at 0xfffffffffffffff8 is not all guest memory"),
        ([HEADER, (DATA, 0xFFFFFFFF, NEXT, 2), STATUS], [], "a buffer of 0xffffffff bytes"),
        ([(TABLE, 24, INDIRECT, 0)], [], "an indirect table of 0x18 bytes: 1 to 1024 descriptors of 16 bytes"),
        ([(TABLE, 0, INDIRECT, 0)], [], "an indirect table of 0x0 bytes"),
        ([(RAM, 16 * 1025, INDIRECT, 0)], [], "an indirect table of 0x4010 bytes"),
        ([(ISLE + 0xFF8, 32, INDIRECT, 0)], [], "an indirect table of 0x20 bytes at 0x1aff8 is not all guest memory"),
        ([(TABLE, 32, INDIRECT | NEXT, 1)], [], "an indirect descriptor with VRING_DESC_F_NEXT"),
        ([(TABLE, 32, INDIRECT, 0)], [(TABLE, 32, INDIRECT, 0)], "inside an indirect table"),
        ([(TABLE, 32, INDIRECT, 0)], [(HEADERS, 16, NEXT, 2)], "descriptor 2 of a table that has 2"),
        ([(TABLE, 32, INDIRECT, 0)], [(HEADERS, 16, NEXT, 1), (HEADERS, 16, NEXT, 0)], "more than 2 descriptors"),
        ([HEADER, (DATA, 512, 0, 0)], [], "without a header to read, or without a byte for the status"),
        ([(HEADERS, 15, NEXT, 1), STATUS], [], "without a header to read"),
    ],
)  # fmt: skip
def test_each_rule_has_its_words(folder, direct, table, words):
    with both(folder) as (model, c):
        for side in (model, c):
            side.up(features_of(side, events=False))
            side.memory.write(HEADERS, struct.pack("<IIQ", READ, 0, 1))
            for at, rows in ((DESC, direct), (TABLE, table)):
                for i, row in enumerate(rows):
                    side.memory.write(at + 16 * i, struct.pack("<QIHH", *row))
            side.memory.write(AVAIL, struct.pack("<HHH", 0, 1, 0))
            side.kick()
        seen = same(model, c)
        assert words in str(seen["trouble"])
        assert c.mmio.interrupt_status == v.VIRTIO_MMIO_INT_CONFIG
        assert seen["interrupted"]


@pytest.mark.parametrize(
    ("head", "idx", "without", "words"),
    [
        (8, 1, 0, "descriptor 8 of a table that has 8"),
        (0xFFFF, 1, 0, "descriptor 65535"),
        (0, 9, 0, "the available index runs 9 ahead in a queue of 8"),
        (0, 0xFFFF, 0, "the available index runs 65535 ahead"),
        (0, 1, v.VIRTIO_RING_F_INDIRECT_DESC, "VIRTIO_RING_F_INDIRECT_DESC was not negotiated"),
    ],
)
def test_rings_that_break_a_rule(folder, head, idx, without, words):
    with both(folder) as (model, c):
        for side in (model, c):
            side.up(features_of(side, events=True) & ~(1 << without if without else 0))
            side.memory.write(DESC, struct.pack("<QIHH", TABLE, 32, INDIRECT, 0))
            side.memory.write(AVAIL, struct.pack("<HHH", 0, idx, head))
            side.kick()
        assert words in str(same(model, c)["trouble"])


def test_four_gibibytes_are_the_most(folder):
    """A buffer of 16 MiB, 257 times."""
    large, count = (0x100_0000, 16 << 20, False), 257
    with both(folder) as (model, c):
        for side in (model, c):
            side.memory.slots.append(Slot(*large))
            for told in side.memory.changed:
                told()
            side.up(features_of(side, events=False))
            for i in range(count):
                row = struct.pack("<QIHH", *large[:2], NEXT if i + 1 < count else 0, i + 1)
                side.memory.write(TABLE + 16 * i, row)
            side.memory.write(DESC, struct.pack("<QIHH", TABLE, 16 * count, INDIRECT, 0))
            side.memory.write(AVAIL, struct.pack("<HHH", 0, 1, 0))
            side.kick()
        assert c.mmio.trouble == model.mmio.trouble
        assert c.mmio.trouble.endswith("a chain of 0x101000000 bytes; 4 GiB is the most")


@pytest.mark.parametrize(
    ("sector", "size"),
    [(0, 513), (0, 20), (SECTORS, 512), (SECTORS - 1, 1024), (2**64 - 1, 512), (2**64 - 1, 1024), (2**55, 512)],
)
@pytest.mark.parametrize("kind", [READ, OUT])
def test_what_is_not_on_the_disk(folder, kind, sector, size):
    with both(folder) as (model, c):
        for side in (model, c):
            side.up(features_of(side, events=False))
            offer(side, 0, 0, Request(kind, sector, size, (), False, b"?"))
            side.memory.write(AVAIL, struct.pack("<HH", 0, 1))
            side.kick()
        same(model, c)
        assert c.memory.read(HEADERS + 16, 1) == bytes([v.VIRTIO_BLK_S_IOERR])


RANGE_CASES = [
    (DISCARD, [(1, 2, 0)], 0), (DISCARD, [(1, 2, 1)], 2), (ZEROES, [(1, 2, 1)], 0), (ZEROES, [(1, 2, 0)], 0),
    (ZEROES, [(1, 2, 3)], 2), (ZEROES, [(SECTORS, 1, 0)], 1), (ZEROES, [(0, blk.MAX_ZEROES + 1, 0)], 1),
    (DISCARD, [(2**55, 1, 0)], 1), (DISCARD, [(2**64 - 1, 2, 0)], 1), (DISCARD, [(0, 0, 0)], 0), (DISCARD, [], 1),
    (ZEROES, [(0, 1, 0), (SECTORS, 1, 0)], 1), (ZEROES, [(n, 1, 1) for n in range(SECTORS)], 0),
    (ZEROES, [(0, 1, 1)] * (blk.MAX_RANGES + 1), 1),
]  # fmt: skip


@pytest.mark.parametrize("writeback", [True, False])
@pytest.mark.parametrize(("kind", "rows", "status"), RANGE_CASES)
def test_ranges(folder, kind, rows, status, writeback):
    with both(folder) as (model, c):
        for side in (model, c):
            side.up(features_of(side, events=False, writeback=writeback))
            data = ranges_of(rows)
            offer(side, 0, 0, Request(kind, 7, len(data), (3,) if data else (), True, data or b"?"))
            side.memory.write(AVAIL, struct.pack("<HH", 0, 1))
            side.kick()
        assert same(model, c)["trouble"] == ""
        assert c.memory.read(HEADERS + 16, 1) == bytes([status])


@pytest.mark.parametrize(("kind", "most"), [(DISCARD, blk.MAX_DISCARD), (ZEROES, blk.MAX_ZEROES)])
def test_a_range_has_a_most(tmp_path, kind, most):
    """On a disk that has more."""
    for in_c in (False, True):
        path = tmp_path / f"disk{in_c}"
        path.touch()
        os.truncate(path, (most + 8) * SECTOR)
        side = Side(path, in_c=in_c)
        side.up(features_of(side, events=False))
        for n, count in enumerate((most, most + 1)):
            offer(side, n, 0, Request(kind, 0, 16, (), False, ranges_of([(0, count, int(kind == ZEROES))])))
            side.memory.write(AVAIL, struct.pack("<HH", 0, n + 1))
            side.kick()
            assert side.memory.read(HEADERS + 16, 1) == bytes([n])
        side.close()


@pytest.mark.parametrize("size", [15, 17, 24])
def test_ranges_are_whole(folder, size):
    with both(folder) as (model, c):
        for side in (model, c):
            side.up(features_of(side, events=False))
            offer(side, 0, 0, Request(ZEROES, 0, size, (), False, ranges_of([(0, 1, 0), (0, 0, 0)])))
            side.memory.write(AVAIL, struct.pack("<HH", 0, 1))
            side.kick()
        same(model, c)
        assert c.memory.read(HEADERS + 16, 1) == b"\1"


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize("accepted", [0, v.feature(v.VIRTIO_BLK_F_DISCARD), v.feature(v.VIRTIO_BLK_F_WRITE_ZEROES)])
@pytest.mark.parametrize("kind", [READ, OUT, FLUSH, NAME, DISCARD, ZEROES, 99])
def test_each_request_by_what_was_accepted(folder, kind, accepted, readonly):
    with both(folder, readonly=readonly) as (model, c):
        for side in (model, c):
            side.up((accepted & side.mmio.features) | 1 << v.VIRTIO_F_VERSION_1)
            fill = ranges_of([(3, 2, 0)]) if kind in (DISCARD, ZEROES) else b"abcd"
            size = {FLUSH: 0, DISCARD: 16, ZEROES: 16, NAME: 20}.get(kind, 1024)
            offer(side, 0, 0, Request(kind, 1, size, (), False, fill))
            side.memory.write(AVAIL, struct.pack("<HH", 0, 1))
            side.kick()
        assert same(model, c)["trouble"] == ""


@pytest.mark.parametrize("start", [0, 0xFFFD])
@pytest.mark.parametrize("events", [True, False])
def test_rings_go_round(folder, events, start):
    """Twenty requests over eight places; callbacks on for some."""
    with both(folder) as (model, c):
        for side in (model, c):
            side.up(features_of(side, events=events), start)
        for n in range(20):
            index = (start + n) % 0x10000
            for side in (model, c):
                offer(side, index, n % 2, Request(READ, n, SECTOR, (7,), False, b"?"))
                event = (index - n % 3 + 1) % 0x10000
                side.memory.write(AVAIL + 4 + 2 * ENTRIES, struct.pack("<H", event))
                side.memory.write(AVAIL, struct.pack("<HH", n % 3 == 2, (index + 1) % 0x10000))
                side.kick()
            seen = same(model, c)
            assert seen["interrupted"] == (n % 3 == 1 if events else n % 3 != 2)
            for side in (model, c):
                side.mmio.write(v.VIRTIO_MMIO_INTERRUPT_ACK, 4, 3)


@pytest.mark.no_cover  # the same few lines a million times: followed one by one they take thrice as long
@settings(max_examples=300, deadline=None)
@given(
    DESCRIPTORS, DESCRIPTORS, HEADS, AREAS, st.integers(0, ENTRIES) | st.integers(0, 0xFFFF),
    st.sampled_from([0, 0xFFFE]), st.sampled_from([READ, OUT, FLUSH, NAME, DISCARD, ZEROES, 99]), SECTOR_NUMBERS,
    RANGES, st.integers(0, 3), st.integers(1, 3),
)  # fmt: skip
def test_hostile_drivers_get_as_far_with_c(
    folder, direct, table, heads, areas, idx, start, kind, sector, rows, without, kicks
):
    """Rings that overlap each other and the data, buffers outside memory, circles: the same words, the same bytes."""
    with both(folder) as (model, c):
        for side in (model, c):
            memory = side.memory
            memory.write(HEADERS, struct.pack("<IIQ", kind, 0, sector) + ranges_of(rows))
            memory.write(DATA, struct.pack("<IIQ", kind, 0, sector) + ranges_of(rows))
            for at, descriptors in ((areas[0], direct), (TABLE, table)):
                for i, row in enumerate(descriptors):
                    memory.write(at + 16 * i, struct.pack("<QIHH", *row))
            memory.write(areas[1] + 4, struct.pack(f"<{ENTRIES}H", *heads))
            memory.write(areas[1] + 2, struct.pack("<H", (start + idx) % 0x10000))
            side.up(side.mmio.features & ~(without << 28), start, areas)
        for _ in range(kicks):
            model.kick()
            c.kick()
            same(model, c)
        for side in (model, c):
            side.memory.write(RAM, bytes(RAM_SIZE))
            side.up(features_of(side, events=True))
            offer(side, 0, 0, Request(READ, 1, SECTOR, (), False, b"?"))
            side.memory.write(AVAIL, struct.pack("<HH", 0, 1))
            side.kick()
        assert same(model, c)["status"] == RUNNING, "a reset brings it back"


def test_memory_that_is_gone_has_the_same_words(folder):
    """The slot of the rings is taken away behind the queue's back."""
    for at in ((DESC, AVAIL, ISLE), (DESC, ISLE, USED), (ISLE, AVAIL, USED)):
        with both(folder) as (model, c):
            for side in (model, c):
                side.up(features_of(side, events=False), 0, at)
                offer(side, 0, 0, Request(READ, 1, SECTOR, (), False, b"?"))
                side.memory.write(AVAIL, struct.pack("<HH", 0, 1))
                del side.memory.slots[2]
                for told in side.memory.changed:
                    told()
                side.kick()
            assert "is gone: " in str(same(model, c)["trouble"])


def test_both_know_the_same_limits():
    assert dataplane.ENTRIES == blk.QUEUE_SIZE == VirtioBlk.queue_sizes[0]
    assert MAX_INDIRECT == 1024  # MAX_INDIRECT in _queue.c, whose words say it


# -- the thread


class Threaded:
    """A disk with its thread, and a driver that waits for what it asked."""

    def __init__(self, path: Path, *, events: bool = True, failed: Callable[[BaseException], object] = print) -> None:
        self.side = Side(path, in_c=False)
        side = self.side
        self.thread = DiskThread("test", setup_of(side.device, side.irq), side.mmio.acked, failed)
        side.mmio.engine = self.engine = DiskEngine(side.device, self.thread, side.memory)
        side.up(features_of(side, events=events))
        self.index = 0

    def ask(self, request: Request, *, kick: bool = True) -> None:
        offer(self.side, self.index, 0, request)
        self.index += 1
        self.side.memory.write(AVAIL + 2, struct.pack("<H", self.index))
        if kick:
            os.eventfd_write(self.thread.events[0], 1)

    @property
    def used(self) -> int:
        return int.from_bytes(self.side.memory.read(USED + 2, 2), "little")

    def wait(self) -> int:
        """For the last request; its status."""
        until(lambda: self.used == self.index)
        return self.side.memory.read(HEADERS + 16, 1)[0]

    def close(self) -> None:
        self.side.mmio.close()
        self.thread.close()
        os.close(self.side.irq)


def until(come: Callable[[], object], patience: float = 30) -> None:
    end = time.monotonic() + patience
    while not come():
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.0005)


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(b"".join(bytes([n + 1]) * SECTOR for n in range(SECTORS)))
    return path


@pytest.fixture(params=[True, False], ids=["events", "flags"])
def disk(image, request) -> Iterator[Threaded]:
    disk = Threaded(image, events=request.param)
    yield disk
    disk.close()


def test_a_kick_is_served_and_the_driver_told(disk):
    for n in range(20):
        disk.side.memory.write(AVAIL + 4 + 2 * ENTRIES, struct.pack("<H", n))
        disk.ask(Request(READ, n, SECTOR, (), False, b"?"))
        assert disk.wait() == 0
        assert disk.side.memory.read(DATA - 0x80, SECTOR) == bytes([n + 1]) * SECTOR
        until(lambda n=n: disk.side.mmio.counts["interrupts"] == n + 1)
        if disk.side.mmio.driver_features >> v.VIRTIO_RING_F_EVENT_IDX & 1:  # a driver kicks for no other index
            until(lambda n=n: disk.side.memory.read(USED + 4 + 8 * ENTRIES, 2) == struct.pack("<H", n + 1))
    assert disk.side.interrupted()
    assert disk.side.mmio.interrupt_status == v.VIRTIO_MMIO_INT_VRING
    assert disk.side.mmio.counts["event"] == 20
    disk.side.mmio.write(v.VIRTIO_MMIO_INTERRUPT_ACK, 4, 1)
    assert disk.side.mmio.interrupt_status == 0


def test_a_reset_ends_it_and_a_driver_begins_anew(disk):
    disk.ask(Request(READ, 1, SECTOR, (), False, b"?"))
    assert disk.wait() == 0
    disk.side.mmio.write(v.VIRTIO_MMIO_STATUS, 4, 0)
    disk.ask(Request(READ, 2, SECTOR, (), False, b"?"))
    kicks = disk.side.mmio.counts["event"]
    until(lambda: disk.side.mmio.counts["event"] == kicks or disk.side.mmio.counts["event"] == 2)
    time.sleep(0.01)
    assert disk.used == 1, "nobody is served before DRIVER_OK"
    disk.side.memory.write(USED, bytes(4))
    disk.side.up(features_of(disk.side, events=False))
    disk.index = 0
    disk.ask(Request(READ, 3, SECTOR, (), False, b"?"))
    assert disk.wait() == 0


def test_a_queue_that_is_not_ready_is_left_alone(disk):
    disk.side.mmio.write(v.VIRTIO_MMIO_QUEUE_READY, 4, 0)
    disk.ask(Request(READ, 1, SECTOR, (), False, b"?"))
    until(lambda: disk.side.mmio.counts["event"] == 1)
    time.sleep(0.01)
    assert disk.used == 0


def test_a_kick_by_an_exit_counts_as_one(disk):
    disk.ask(Request(READ, 1, SECTOR, (), False, b"?"), kick=False)
    disk.side.kick()
    assert disk.wait() == 0
    counts = disk.side.mmio.counts
    assert (counts["exit"], counts["event"]) == (1, 0)


def test_a_rule_that_is_broken_is_the_devices_trouble(disk):
    disk.side.memory.write(AVAIL, struct.pack("<HH", 0, 99))
    os.eventfd_write(disk.thread.events[0], 1)
    until(lambda: disk.side.mmio.status & v.VIRTIO_CONFIG_S_NEEDS_RESET)
    assert disk.side.mmio.trouble == "virtio-blk: queue 0: the available index runs 99 ahead in a queue of 8"
    assert disk.side.mmio.interrupt_status == v.VIRTIO_MMIO_INT_CONFIG
    until(disk.side.interrupted)
    disk.side.mmio.write(v.VIRTIO_MMIO_STATUS, 4, 0)
    assert (disk.side.mmio.trouble, len(disk.side.mmio.troubles)) == ("", 1)


def test_a_state_goes_to_another_disk(image, tmp_path):
    """What waits is served first; the other goes on where this one stood."""
    (tmp_path / "other").write_bytes(image.read_bytes())
    one, other = Threaded(image), Threaded(tmp_path / "other")
    for n in range(3):
        one.ask(Request(READ, n, SECTOR, (), False, b"?"), kick=False)
    state = one.side.mmio.get_state()
    assert one.used == 3
    for there, here in zip(other.side.memory.slots, one.side.memory.slots, strict=True):
        there.map[PAGE : PAGE + here.size] = here.map[PAGE : PAGE + here.size]
    other.side.mmio.set_state(state)
    other.index = one.index
    other.ask(Request(READ, 9, SECTOR, (), False, b"?"))
    assert other.wait() == 0
    assert other.side.memory.read(DATA - 0x80, SECTOR) == bytes([10]) * SECTOR
    one.close()
    other.close()


def test_many_kicks_while_everything_changes(disk):
    """Memory is told anew, the write cache turned, states are looked at, while a driver asks on: nothing is lost."""
    ended = threading.Event()

    def disturb() -> None:
        while not ended.is_set():
            disk.engine._memory_changed()
            disk.engine.mode_changed()
            disk.side.mmio.get_state()

    other = threading.Thread(target=disturb)
    other.start()
    try:
        for n in range(300):
            disk.ask(Request(OUT, n % SECTORS, SECTOR, (), False, bytes([n & 0xFF])))
            assert disk.wait() == 0
    finally:
        ended.set()
        other.join()
    want = b"".join(bytes([max(n for n in range(300) if n % SECTORS == i) & 0xFF]) * SECTOR for i in range(SECTORS))
    assert disk.side.path.read_bytes() == want


def test_memory_that_was_taken_away_is_not_touched(disk):
    """After the change is told the bytes stay as they are, and the driver has broken a rule."""
    gone = disk.side.memory.slots.pop(1)
    disk.engine._memory_changed()
    before = bytes(gone.map[PAGE : PAGE + gone.size])
    disk.ask(Request(READ, 1, SECTOR, (), False, b"?"))
    offer_far = struct.pack("<QIHH", 0x1_4000, SECTOR, WRITE | NEXT, 2)
    disk.side.memory.write(DESC + 16, offer_far)
    until(lambda: disk.side.mmio.trouble or disk.used)
    assert gone.map[PAGE : PAGE + gone.size] == before


def test_what_the_host_takes_from_the_thread_ends_it_with_a_reason(image):
    told: list[BaseException] = []
    disk = Threaded(image, failed=told.append)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, disk.side.irq)  # not for writing: EBADF
    os.close(null)
    disk.ask(Request(READ, 1, SECTOR, (), False, b"?"))
    until(lambda: told)
    assert isinstance(told[0], HostError)
    assert "raising an interrupt: write to an eventfd: Bad file descriptor (EBADF)" in str(told[0])
    disk.close()


def test_nothing_is_left(image):
    descriptors, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    disk = Threaded(image)
    assert threading.active_count() == threads + 1
    counts = disk.side.mmio.counts
    disk.close()
    disk.thread.close()
    assert disk.side.mmio.counts == counts, "what was counted can be asked for after the end"
    assert disk.side.device.flushes == 0
    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == (descriptors, threads)


def test_a_thread_that_is_dropped_ends(image):
    threads = threading.active_count()
    side = Side(image, in_c=False)
    thread = DiskThread("test", setup_of(side.device, side.irq), side.mmio.acked, print)
    assert threading.active_count() == threads + 1
    del thread
    gc.collect()
    assert threading.active_count() == threads
    side.close()


@pytest.mark.parametrize("call", ["eventfd", "start"])
def test_a_host_without_descriptors_or_threads_is_named(image, call, monkeypatch):
    side = Side(image, in_c=False)
    files = len(list(Path("/proc/self/fd").iterdir()))

    def refuse(*args: object) -> None:
        raise OSError(errno.EMFILE, "no") if call == "eventfd" else RuntimeError("can't start new thread")

    monkeypatch.setattr(*((os, "eventfd") if call == "eventfd" else (threading.Thread, "start")), refuse)
    with pytest.raises(HostError, match="starting the service of test"):
        DiskThread("test", setup_of(side.device, side.irq), side.mmio.acked, print)
    assert len(list(Path("/proc/self/fd").iterdir())) == files
    side.close()


def test_a_queue_that_is_too_long_for_c_is_refused(image):
    side = Side(image, in_c=True)
    assert side.thread is not None
    wrong = SimpleNamespace(**dict.fromkeys(dataplane.QUEUE, 0) | {"size": 512})
    with pytest.raises(HostError, match="256 at most"):
        side.thread.disk.begin(wrong, writeback=True, discard=True, zeroes=True)
    side.close()

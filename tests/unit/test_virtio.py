# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtio without a device: chains, rings, registers and the three devices, by honest drivers and by hostile ones."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.abi import virtio as v
from vmm.errors import GuestMemoryError, UsageError
from vmm.machine.virtio import blk as blk_module
from vmm.machine.virtio import disk as disk_module
from vmm.machine.virtio.blk import VirtioBlk
from vmm.machine.virtio.chain import MAX_INDIRECT, DriverError, walk
from vmm.machine.virtio.console import MOST, PENDING, VirtioConsole
from vmm.machine.virtio.queue import SplitQueue, passed
from vmm.machine.virtio.rng import VirtioRng
from vmm.machine.virtio.transport import COMMON_FEATURES, VirtioMmio

NEXT, WRITE, INDIRECT = v.VRING_DESC_F_NEXT, v.VRING_DESC_F_WRITE, v.VRING_DESC_F_INDIRECT
ACK, DRIVER, DRIVER_OK, FEATURES_OK = 1, 2, 4, 8
RAM, RAM_SIZE = 0x1_0000, 0x8000
ROM, ROM_SIZE = 0x2_0000, 0x1000
DESC, AVAIL, USED = RAM, RAM + 0x400, RAM + 0x800
TABLE, BUFFER = RAM + 0x1000, RAM + 0x2000
ENTRIES = 8
PLAIN = COMMON_FEATURES & ~v.feature(v.VIRTIO_RING_F_EVENT_IDX)  # callbacks on and off by flags
PATIENCE = 20_000  # accesses to memory that one kick of a queue of 8 can need; a device that loops needs more


class Ram:
    """Guest memory with a hole around it and a read-only part; it counts accesses, and never forgives one outside."""

    def __init__(self) -> None:
        self.bytes = bytearray(RAM_SIZE)
        self.accesses = 0
        self.gone = False

    def holds(self, gpa: int, size: int, *, write: bool = False) -> bool:
        in_ram = RAM <= gpa and gpa + size <= RAM + RAM_SIZE
        in_rom = ROM <= gpa and gpa + size <= ROM + ROM_SIZE and not write
        return not size or in_ram or in_rom

    def _at(self, gpa: int, size: int, *, write: bool) -> int:
        self.accesses += 1
        assert self.accesses < PATIENCE, "too much work for one kick"
        if self.gone:
            raise GuestMemoryError(f"no memslot holds {gpa:#x}")
        assert self.holds(gpa, size, write=write), f"{size} bytes at {gpa:#x} are outside"
        return gpa - RAM

    def read(self, gpa: int, size: int) -> bytes:
        start = self._at(gpa, size, write=False)
        return bytes(self.bytes[start : start + size]) if gpa < ROM else bytes(size)

    def write(self, gpa: int, data: bytes) -> None:
        start = self._at(gpa, len(data), write=True)
        self.bytes[start : start + len(data)] = data

    def desc(self, index: int, address: int, size: int, flags: int = 0, following: int = 0, table: int = DESC) -> None:
        struct.pack_into("<QIHH", self.bytes, table - RAM + 16 * index, address, size, flags, following)

    def offer(self, *heads: int, idx: int | None = None) -> None:
        """Put heads into the available ring, from its beginning."""
        struct.pack_into(f"<{len(heads)}H", self.bytes, AVAIL - RAM + 4, *heads)
        struct.pack_into("<H", self.bytes, AVAIL - RAM + 2, len(heads) if idx is None else idx)

    def used(self) -> list[tuple[int, int]]:
        count = struct.unpack_from("<H", self.bytes, USED - RAM + 2)[0]
        return [struct.unpack_from("<2I", self.bytes, USED - RAM + 4 + 8 * (i % ENTRIES)) for i in range(count)]


@pytest.fixture
def ram() -> Ram:
    return Ram()


# -- chains


def test_a_chain_is_what_can_be_read_then_what_can_be_written(ram):
    ram.desc(3, BUFFER, 4, NEXT, 1)
    ram.desc(1, BUFFER + 0x100, 3, NEXT, 0)
    ram.desc(0, BUFFER + 0x200, 2, WRITE | NEXT, 7)
    ram.desc(7, BUFFER + 0x300, 5, WRITE)
    ram.write(BUFFER, b"abcd")
    ram.write(BUFFER + 0x100, b"efg")
    chain = walk(ram, DESC, ENTRIES, 3)
    assert (chain.head, chain.read_size, chain.write_size) == (3, 7, 7)
    assert chain.read(0, 100) == b"abcdefg"
    assert chain.read(3, 2) == b"de"
    assert chain.read(7, 1) == b""
    chain.write(1, b"UVWX")
    assert ram.read(BUFFER + 0x200, 2) == b"\0U"
    assert ram.read(BUFFER + 0x300, 5) == b"VWX\0\0"
    with pytest.raises(ValueError, match="of a buffer of 7"):
        chain.write(4, b"1234")


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(0, 330), st.integers(0, 330))
def test_a_chain_reads_as_the_row_of_its_buffers(sizes, offset, size):
    ram, whole = Ram(), os.urandom(sum(sizes))
    start = 0
    for i, each in enumerate(sizes):
        ram.desc(i, BUFFER + 0x100 * i, each, NEXT if i + 1 < len(sizes) else 0, i + 1)
        ram.write(BUFFER + 0x100 * i, whole[start : start + each])
        start += each
    assert walk(ram, DESC, ENTRIES, 0).read(offset, size) == whole[offset : offset + size]


def test_an_indirect_table_stands_for_its_descriptor(ram):
    ram.desc(0, BUFFER, 1, NEXT, 1)
    ram.desc(1, TABLE, 32, INDIRECT | WRITE)  # that flag means nothing here (2.7.5.3.2)
    ram.desc(0, BUFFER + 0x100, 2, NEXT, 1, table=TABLE)
    ram.desc(1, BUFFER + 0x200, 3, WRITE, table=TABLE)
    chain = walk(ram, DESC, ENTRIES, 0, indirect=True)
    assert (chain.read_size, chain.write_size) == (3, 3)


def test_read_only_memory_can_be_read(ram):
    ram.desc(0, ROM, 16)
    assert walk(ram, DESC, ENTRIES, 0).read(0, 16) == bytes(16)


@pytest.mark.parametrize(
    ("descs", "words"),
    [
        ([(BUFFER, 1, NEXT, 0)], "circle"),
        ([(BUFFER, 1, NEXT, 1), (BUFFER, 1, NEXT, 0)], "circle"),
        ([(BUFFER, 1, NEXT, 8)], "descriptor 8 of a table that has 8"),
        ([(BUFFER, 0xFFFFFFFF, 0, 0)], "not all guest memory"),
        ([(RAM + RAM_SIZE - 1, 2, WRITE, 0)], "not all writable memory"),
        ([(2**64 - 1, 2, 0, 0)], "not all guest memory"),
        ([(ROM, 1, WRITE, 0)], "not all writable memory"),
        ([(BUFFER, 1, WRITE | NEXT, 1), (BUFFER, 1, 0, 0)], "comes after one to write"),
        ([(TABLE, 0, INDIRECT, 0)], "indirect table of 0x0 bytes"),
        ([(TABLE, 17, INDIRECT, 0)], "indirect table of 0x11 bytes"),
        ([(TABLE, 16 * (MAX_INDIRECT + 1), INDIRECT, 0)], "indirect table of"),
        ([(0, 16, INDIRECT, 0)], "indirect table of 0x10 bytes at 0x0 is not all"),
        ([(TABLE, 16, INDIRECT | NEXT, 1)], "with VRING_DESC_F_NEXT"),
        ([(DESC, 128, INDIRECT, 0)], "inside an indirect table"),
    ],
)
def test_what_a_chain_must_not_be(ram, descs, words):
    for i, each in enumerate(descs):
        ram.desc(i, *each)
    with pytest.raises(DriverError, match=words):
        walk(ram, DESC, ENTRIES, 0, indirect=True)
    assert ram.accesses <= ENTRIES + 1


def test_indirect_must_have_been_negotiated(ram):
    ram.desc(0, TABLE, 16, INDIRECT)
    with pytest.raises(DriverError, match="was not negotiated"):
        walk(ram, DESC, ENTRIES, 0)


def test_four_gibibytes_are_the_most():
    class Everything(Ram):
        def holds(self, gpa, size, *, write=False):
            return True

    ram = Everything()
    ram.desc(0, 0, 0xFFFFFFFF, NEXT, 1)
    ram.desc(1, 0, 2)
    with pytest.raises(DriverError, match="4 GiB"):
        walk(ram, DESC, ENTRIES, 0)


# -- queues


@pytest.fixture
def queue(ram) -> SplitQueue:
    queue = SplitQueue(ram, 64)
    queue.size, queue.desc, queue.avail, queue.used = ENTRIES, DESC, AVAIL, USED
    queue.start(indirect=False)
    return queue


def test_a_queue_gives_heads_in_order_and_takes_them_back(ram, queue):
    for i in range(3):
        ram.desc(i, BUFFER + 16 * i, 16, WRITE)
    ram.offer(2, 0)
    assert queue.pending() == 2
    chains = list(queue.take())
    assert [chain.head for chain in chains] == [2, 0]
    assert queue.pending() == 0
    queue.push(chains[1], 5)
    queue.push(chains[0], 16)
    assert ram.used() == [(0, 5), (2, 16)]


def test_indices_wrap_around(ram, queue):
    ram.desc(5, BUFFER, 16, WRITE)
    queue.last_avail = queue.used_idx = 0xFFFF
    struct.pack_into("<H", ram.bytes, AVAIL - RAM + 4 + 2 * 7, 5)
    struct.pack_into("<H", ram.bytes, AVAIL - RAM + 2, 0)
    assert queue.pending() == 1
    queue.push(queue.pop(), 1)
    assert (queue.last_avail, queue.used_idx, queue.pending()) == (0, 0, 0)
    assert struct.unpack_from("<2I", ram.bytes, USED - RAM + 4 + 8 * 7) == (5, 1)


@pytest.mark.parametrize("idx", [ENTRIES + 1, 0x8000, 0xFFFF])
def test_an_index_may_not_run_ahead(ram, queue, idx):
    ram.offer(0, idx=idx)
    with pytest.raises(DriverError, match=f"runs {idx} ahead"):
        queue.pending()


def test_what_is_added_meanwhile_waits_for_its_own_kick(ram, queue):
    ram.desc(0, BUFFER, 16, WRITE)
    ram.offer(0)
    for chain in queue.take():
        queue.push(chain, 0)
        ram.offer(0, idx=queue.used_idx + 1)  # a driver that never stops
    assert len(ram.used()) == 1


def test_the_driver_says_whether_it_wants_to_hear(ram, queue):
    ram.desc(0, BUFFER, 16, WRITE)
    ram.offer(0, 0)
    assert not queue.wants_interrupt(), "nothing was given back"
    queue.push(queue.pop(), 0)
    assert queue.wants_interrupt()
    assert not queue.wants_interrupt(), "it was told"
    queue.push(queue.pop(), 0)
    ram.write(AVAIL, b"\1\0")
    assert not queue.wants_interrupt()


@pytest.fixture
def events(ram) -> SplitQueue:
    """A queue with VIRTIO_RING_F_EVENT_IDX."""
    queue = SplitQueue(ram, 64)
    queue.size, queue.desc, queue.avail, queue.used = ENTRIES, DESC, AVAIL, USED
    queue.start(indirect=False, event_idx=True)
    ram.desc(0, BUFFER, 16, WRITE)
    return queue


USED_EVENT, AVAIL_EVENT = AVAIL + 4 + 2 * ENTRIES, USED + 4 + 8 * ENTRIES


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 0x7FFF))
def test_an_index_passes_an_event(event, old, count):
    """By the definition: one of the steps from `old` to `new` begins at `event`."""
    steps = ((old + i) % 0x10000 for i in range(count))
    assert passed(event, (old + count) % 0x10000, old) == (event in steps)


@pytest.mark.parametrize("start", [0, 0x7FFE, 0xFFFE])
@pytest.mark.parametrize(("ahead", "wanted"), [(0, True), (1, True), (2, False), (0xFFFF, False)])
def test_the_driver_names_the_index_it_wants_to_hear_of(ram, events, start, ahead, wanted):
    """Two chains are given back; `ahead` of the first of them is the driver's event. The flag says nothing then."""
    events.last_avail = events.used_idx = events.told = start
    ram.write(AVAIL, struct.pack("<2H", 1, (start + 2) % 0x10000))
    ram.write(USED_EVENT, struct.pack("<H", (start + ahead) % 0x10000))
    for chain in events.take():
        events.push(chain, 0)
    assert events.wants_interrupt() is wanted
    assert not events.wants_interrupt()


@pytest.mark.parametrize("start", [0, 0xFFFF])
def test_the_device_names_the_index_it_wants_to_hear_of(ram, events, start):
    events.last_avail = events.used_idx = start
    ram.write(AVAIL, struct.pack("<2H", 0, (start + 3) % 0x10000))
    assert events.pending() == 3
    assert struct.unpack("<H", ram.read(AVAIL_EVENT, 2)) == ((start + 3) % 0x10000,)


def test_what_comes_while_the_device_says_so_is_seen(ram, events):
    """The driver adds between the device's look and its event, and need not kick for that."""
    real, added = ram.write, []

    def write(gpa: int, data: bytes) -> None:
        real(gpa, data)
        if gpa == AVAIL_EVENT and len(added) < 2:
            added.append(gpa)
            ram.offer(0, idx=2 * len(added))

    ram.write = write
    assert events.pending() == 4
    assert struct.unpack("<H", ram.read(AVAIL_EVENT, 2)) == (4,)


def test_without_the_feature_no_event_is_written(ram, queue):
    ram.write(AVAIL_EVENT, b"\xaa\xbb")
    ram.offer(0)
    queue.pending()
    assert ram.read(AVAIL_EVENT, 2) == b"\xaa\xbb"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("size", 0, "a queue of 0"),
        ("size", 12, "a queue of 12"),
        ("size", 128, "a queue of 128"),
        ("desc", DESC + 8, "aligned to 16"),
        ("avail", AVAIL + 1, "aligned to 2"),
        ("used", USED + 2, "aligned to 4"),
        ("desc", RAM + RAM_SIZE - 16, "descriptor table"),
        ("avail", 2**64 - 2, "available ring"),
        ("used", ROM, "used ring"),
    ],
)
def test_a_queue_that_cannot_be_is_refused(ram, field, value, words):
    queue = SplitQueue(ram, 64)
    queue.size, queue.desc, queue.avail, queue.used = ENTRIES, DESC, AVAIL, USED
    setattr(queue, field, value)
    with pytest.raises(DriverError, match=words):
        queue.start(indirect=False)
    assert not queue.ready


@pytest.mark.parametrize(
    ("field", "size", "words"), [("avail", 4 + 2 * ENTRIES, "available ring"), ("used", 4 + 8 * ENTRIES, "used ring")]
)
def test_an_event_has_its_place_behind_the_ring(ram, field, size, words):
    queue = SplitQueue(ram, 64)
    queue.size, queue.desc, queue.avail, queue.used = ENTRIES, DESC, AVAIL, USED
    setattr(queue, field, RAM + RAM_SIZE - size)
    queue.start(indirect=False)
    with pytest.raises(DriverError, match=words):
        queue.start(indirect=False, event_idx=True)


def test_memory_may_go_away(ram, queue):
    ram.desc(0, BUFFER, 16, WRITE)
    ram.offer(0, 0)
    chain = queue.pop()
    queue.push(chain, 0)
    ram.gone = True
    for use in (queue.wants_interrupt, queue.pending, queue.pop, lambda: queue.push(chain, 0)):
        with pytest.raises(DriverError, match="is gone"):
            use()


# -- the transport


class Driver:
    """An honest driver: brings a device up as 3.1.1 says, and leaves rings to the test."""

    def __init__(self, backend, *, queues: int = 1, features: int | None = None) -> None:
        self.ram = Ram()
        self.interrupts = 0
        self.mmio = VirtioMmio(backend, self.ram, self._interrupt)
        self.features = backend.features | PLAIN if features is None else features
        self.up(queues)

    def _interrupt(self) -> None:
        self.interrupts += 1

    def set(self, register: int, value: int) -> None:
        self.mmio.write(register, 4, value)

    def get(self, register: int) -> int:
        return self.mmio.read(register, 4)

    def up(self, queues: int = 1) -> None:
        self.set(v.VIRTIO_MMIO_STATUS, 0)
        self.set(v.VIRTIO_MMIO_STATUS, ACK | DRIVER)
        for half in (0, 1):
            self.set(v.VIRTIO_MMIO_DRIVER_FEATURES_SEL, half)
            self.set(v.VIRTIO_MMIO_DRIVER_FEATURES, self.features >> 32 * half & 0xFFFFFFFF)
        self.set(v.VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK)
        for number in range(queues):
            self.queue(number)
        self.set(v.VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK)

    def queue(self, number: int = 0) -> None:
        """All queues share one place: a test uses one of them at a time."""
        self.set(v.VIRTIO_MMIO_QUEUE_SEL, number)
        self.set(v.VIRTIO_MMIO_QUEUE_NUM, ENTRIES)
        for name, address in (("DESC", DESC), ("AVAIL", AVAIL), ("USED", USED)):
            self.set(getattr(v, f"VIRTIO_MMIO_QUEUE_{name}_LOW"), address & 0xFFFFFFFF)
            self.set(getattr(v, f"VIRTIO_MMIO_QUEUE_{name}_HIGH"), address >> 32)
        self.set(v.VIRTIO_MMIO_QUEUE_READY, 1)

    def kick(self, queue: int = 0) -> None:
        self.ram.accesses = 0
        self.set(v.VIRTIO_MMIO_QUEUE_NOTIFY, queue)

    @property
    def needs_reset(self) -> bool:
        return bool(self.get(v.VIRTIO_MMIO_STATUS) & v.VIRTIO_CONFIG_S_NEEDS_RESET)


@pytest.fixture
def rng() -> Driver:
    return Driver(VirtioRng(lambda n: b"\xa5" * n))


def test_a_device_says_what_it_is(rng):
    assert rng.get(v.VIRTIO_MMIO_MAGIC_VALUE).to_bytes(4, "little") == b"virt"
    assert rng.get(v.VIRTIO_MMIO_VERSION) == 2
    assert rng.get(v.VIRTIO_MMIO_DEVICE_ID) == v.VIRTIO_ID_RNG
    assert rng.get(v.VIRTIO_MMIO_VENDOR_ID)
    assert rng.get(v.VIRTIO_MMIO_SHM_LEN_LOW) == rng.get(v.VIRTIO_MMIO_SHM_BASE_HIGH) == 0xFFFFFFFF
    halves = []
    for half in (0, 1, 2):
        rng.set(v.VIRTIO_MMIO_DEVICE_FEATURES_SEL, half)
        halves.append(rng.get(v.VIRTIO_MMIO_DEVICE_FEATURES))
    assert halves == [1 << 28 | 1 << 29, 1, 0]
    assert rng.get(v.VIRTIO_MMIO_STATUS) == 0xF
    rng.set(v.VIRTIO_MMIO_QUEUE_SEL, 0)
    assert (rng.get(v.VIRTIO_MMIO_QUEUE_NUM_MAX), rng.get(v.VIRTIO_MMIO_QUEUE_READY)) == (64, 1)
    rng.set(v.VIRTIO_MMIO_QUEUE_SEL, 1)
    assert (rng.get(v.VIRTIO_MMIO_QUEUE_NUM_MAX), rng.get(v.VIRTIO_MMIO_QUEUE_READY)) == (0, 0)
    assert rng.get(0x500) == 0  # behind the configuration
    assert rng.get(0x0F0) == 0  # no register


def test_registers_are_32_bits_wide(rng):
    assert rng.mmio.read(v.VIRTIO_MMIO_MAGIC_VALUE, 2) == 0
    rng.mmio.write(v.VIRTIO_MMIO_STATUS, 1, 0)
    assert rng.get(v.VIRTIO_MMIO_STATUS) == 0xF


def test_a_buffer_is_filled_and_the_driver_told(rng):
    rng.ram.desc(0, BUFFER, 32, WRITE)
    rng.ram.offer(0)
    rng.kick()
    assert rng.ram.used() == [(0, 32)]
    assert rng.ram.read(BUFFER, 33) == b"\xa5" * 32 + b"\0"
    assert (rng.interrupts, rng.get(v.VIRTIO_MMIO_INTERRUPT_STATUS)) == (1, v.VIRTIO_MMIO_INT_VRING)
    rng.set(v.VIRTIO_MMIO_INTERRUPT_ACK, 1)
    assert rng.get(v.VIRTIO_MMIO_INTERRUPT_STATUS) == 0
    assert rng.mmio.counts == {"exit": 1, "interrupts": 1, "resets": 1}


def test_with_events_the_driver_is_told_at_its_index():
    """EVENT_IDX through the registers: three buffers, and an interrupt for the second alone."""
    rng = Driver(VirtioRng(lambda n: bytes(n)), features=COMMON_FEATURES)
    rng.ram.desc(0, BUFFER, 32, WRITE)
    rng.ram.write(USED_EVENT, b"\1\0")
    told = []
    for idx in (1, 2, 3):
        rng.ram.offer(0, 0, 0, idx=idx)
        rng.kick()
        told.append(rng.interrupts)
        assert struct.unpack("<H", rng.ram.read(AVAIL_EVENT, 2)) == (idx,)
    assert told == [0, 1, 1]


def test_with_callbacks_off_nobody_is_told(rng):
    rng.ram.desc(0, BUFFER, 32, WRITE)
    rng.ram.offer(0)
    rng.ram.write(AVAIL, b"\1\0")
    rng.kick()
    assert (len(rng.ram.used()), rng.interrupts) == (1, 0)


def test_a_kick_with_nothing_new_is_no_news(rng):
    rng.kick()
    rng.kick(5)  # no such queue
    rng.kick(0xFFFFFFFF)
    assert (rng.interrupts, rng.needs_reset) == (0, False)


@pytest.mark.parametrize("features", [0, 1 << 28, COMMON_FEATURES | 1 << 34, COMMON_FEATURES | 1 << 40])
def test_features_must_be_modern_and_offered(features):
    driver = Driver(VirtioRng(), features=features)
    assert driver.get(v.VIRTIO_MMIO_STATUS) == ACK | DRIVER
    driver.set(v.VIRTIO_MMIO_QUEUE_SEL, 0)
    assert driver.get(v.VIRTIO_MMIO_QUEUE_READY) == 0
    driver.ram.desc(0, BUFFER, 32, WRITE)
    driver.ram.offer(0)
    driver.kick()
    assert driver.ram.used() == []


def test_what_was_agreed_stays(rng):
    rng.set(v.VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0)
    rng.set(v.VIRTIO_MMIO_DRIVER_FEATURES, 0)
    assert rng.mmio.driver_features == PLAIN
    rng.set(v.VIRTIO_MMIO_QUEUE_SEL, 0)
    rng.set(v.VIRTIO_MMIO_QUEUE_NUM, 4)
    rng.set(v.VIRTIO_MMIO_QUEUE_DESC_LOW, 0)
    assert (rng.mmio.queues[0].size, rng.mmio.queues[0].desc) == (ENTRIES, DESC)


def test_before_driver_ok_nothing_is_used():
    driver = Driver(VirtioRng())
    driver.set(v.VIRTIO_MMIO_STATUS, 0)
    driver.ram.desc(0, BUFFER, 32, WRITE)
    driver.ram.offer(0)
    driver.kick()
    assert driver.ram.used() == []


def test_a_queue_can_be_taken_back(rng):
    rng.set(v.VIRTIO_MMIO_QUEUE_SEL, 0)
    rng.set(v.VIRTIO_MMIO_QUEUE_READY, 0)
    rng.ram.desc(0, BUFFER, 32, WRITE)
    rng.ram.offer(0)
    rng.kick()
    assert rng.ram.used() == []


def test_a_broken_ring_costs_the_device_until_its_reset(rng):
    rng.ram.desc(0, BUFFER, 32, WRITE | NEXT, 0)
    rng.ram.offer(0)
    rng.kick()
    assert rng.needs_reset
    assert "circle" in rng.mmio.trouble
    assert (rng.interrupts, rng.get(v.VIRTIO_MMIO_INTERRUPT_STATUS)) == (1, v.VIRTIO_MMIO_INT_CONFIG)
    rng.ram.desc(0, BUFFER, 32, WRITE)
    rng.kick()
    rng.set(v.VIRTIO_MMIO_STATUS, 0xF)  # bits are only ever added
    assert rng.ram.used() == []
    assert rng.needs_reset
    rng.up()
    assert not rng.needs_reset
    assert (rng.mmio.trouble, len(rng.mmio.troubles)) == ("", 1)
    rng.kick()
    assert rng.ram.used() == [(0, 32)]


def test_a_bad_queue_is_seen_before_the_device_runs():
    driver = Driver(VirtioRng(), queues=0)
    driver.set(v.VIRTIO_MMIO_QUEUE_SEL, 0)
    driver.set(v.VIRTIO_MMIO_QUEUE_READY, 1)  # at address 0
    assert driver.needs_reset


def test_memory_that_goes_away_costs_the_device(rng):
    rng.ram.gone = True
    rng.kick()
    assert rng.needs_reset


def test_a_closed_device_serves_nobody(rng):
    rng.mmio.close()
    rng.mmio.close()
    rng.ram.desc(0, BUFFER, 32, WRITE)
    rng.ram.offer(0)
    rng.kick()
    rng.mmio.wake(0)
    assert rng.ram.used() == []


# -- devices


@pytest.mark.parametrize("flags", [0, NEXT])
def test_a_buffer_for_random_bytes_is_only_for_writing(rng, flags):
    rng.ram.desc(0, BUFFER, 32, flags, 1)
    rng.ram.desc(1, BUFFER, 32, WRITE)
    rng.ram.offer(0)
    rng.kick()
    assert rng.needs_reset


def console(**options) -> tuple[Driver, VirtioConsole, list[bytes]]:
    heard: list[bytes] = []
    backend = VirtioConsole(heard.append, **options)
    driver = Driver(backend, queues=2)
    backend.wake, backend.changed = driver.mmio.wake, driver.mmio.config_changed
    return driver, backend, heard


def test_console_output():
    driver, _, heard = console()
    driver.ram.write(BUFFER, b"hello")
    driver.ram.desc(0, BUFFER, 2, NEXT, 1)
    driver.ram.desc(1, BUFFER + 2, 3)
    driver.ram.offer(0)
    driver.kick(1)
    assert heard == [b"hello"]
    assert driver.ram.used() == [(0, 0)]


def test_console_input_waits_for_buffers_and_buffers_for_input():
    driver, backend, _ = console()
    backend.send(b"abcdef")
    assert backend.waiting == 6
    driver.ram.desc(0, BUFFER, 4, WRITE)
    driver.ram.desc(1, BUFFER + 0x10, 4, WRITE)
    driver.ram.desc(2, BUFFER + 0x20, 4, WRITE)
    driver.ram.offer(0, 1, 2)
    driver.kick(0)
    assert driver.ram.used() == [(0, 4), (1, 2)]
    assert driver.ram.read(BUFFER, 4) + driver.ram.read(BUFFER + 0x10, 2) == b"abcdef"
    backend.send(b"g")  # the third buffer is still with the device
    assert driver.ram.used()[2] == (2, 1)
    assert (driver.interrupts, backend.waiting) == (2, 0)


def test_console_input_has_an_end():
    _, backend, _ = console()
    backend.send(bytes(PENDING))
    with pytest.raises(UsageError, match="wait"):
        backend.send(b"x")


def test_console_size():
    driver, backend, _ = console(cols=100, rows=30)
    assert (driver.mmio.read(0x100, 2), driver.mmio.read(0x102, 2), driver.mmio.read(0x104, 4)) == (100, 30, 0)
    generation = driver.get(v.VIRTIO_MMIO_CONFIG_GENERATION)
    backend.resize(132, 43)
    assert driver.mmio.read(0x100, 4) == 43 << 16 | 132
    assert driver.get(v.VIRTIO_MMIO_CONFIG_GENERATION) == generation + 1
    assert (driver.interrupts, driver.get(v.VIRTIO_MMIO_INTERRUPT_STATUS)) == (1, v.VIRTIO_MMIO_INT_CONFIG)
    with pytest.raises(UsageError, match="16 bits"):
        backend.resize(1 << 16, 1)


@pytest.mark.parametrize(("queue", "flags", "size"), [(1, WRITE, 8), (0, 0, 8), (0, WRITE, 0)])
def test_a_console_buffer_has_one_direction(queue, flags, size):
    driver, backend, heard = console()
    backend.send(b"x")
    driver.ram.desc(0, BUFFER, size, flags)
    driver.ram.offer(0)
    driver.kick(queue)
    assert driver.needs_reset
    assert heard == []


def test_a_flood_is_no_output():
    driver, _, heard = console()
    table = [(RAM, RAM_SIZE)] * (MOST // RAM_SIZE + 1)
    for i, (address, size) in enumerate(table):
        driver.ram.desc(i, address, size, NEXT if i + 1 < len(table) else 0, i + 1, table=TABLE)
    driver.ram.desc(0, TABLE, 16 * len(table), INDIRECT)
    driver.ram.offer(0)
    driver.kick(1)
    assert driver.needs_reset
    assert heard == []


# -- blk

SECTOR = 512


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(b"".join(bytes([n]) * SECTOR for n in range(4)) + b"odd")
    return path


class Disk(Driver):
    """A driver that makes one request at a time."""

    def __init__(self, path: Path, *, features: int | None = None, **options) -> None:
        self.backend = VirtioBlk(path, **options)
        super().__init__(self.backend, features=features)

    def request(self, kind: int, sector: int = 0, size: int = SECTOR, *, data: bytes | None = None) -> int:
        """The status; what was read is at BUFFER + 0x100."""
        self.ram.write(BUFFER, struct.pack("<IIQ", kind, 0, sector) + b"\xff")
        self.ram.desc(0, BUFFER, 16, NEXT, 1)
        self.ram.desc(1, BUFFER + 0x100, size, (0 if data is not None else WRITE) | NEXT, 2)
        self.ram.desc(2, BUFFER + 16, 1, WRITE)
        if data is not None:
            self.ram.write(BUFFER + 0x100, data)
        slot = self.mmio.queues[0].last_avail
        self.ram.offer(*[0] * ENTRIES, idx=slot + 1)
        self.kick()
        return self.ram.read(BUFFER + 16, 1)[0]

    def close(self) -> None:
        self.mmio.close()


@pytest.fixture
def disk(image):
    disk = Disk(image)
    yield disk
    disk.close()


def test_an_odd_file_is_its_whole_sectors(disk):
    assert disk.mmio.read(0x100, 8) == 4
    assert disk.mmio.read(0x100, 4) == 4
    assert (disk.mmio.read(0x108, 4), disk.mmio.read(0x10C, 4)) == (blk_module.SIZE_MAX, blk_module.SEG_MAX)
    assert disk.request(v.VIRTIO_BLK_T_IN, 3) == 0
    assert disk.ram.read(BUFFER + 0x100, SECTOR) == b"\3" * SECTOR
    assert disk.ram.used()[0] == (0, SECTOR + 1)
    assert disk.request(v.VIRTIO_BLK_T_IN, 4) == v.VIRTIO_BLK_S_IOERR
    assert disk.request(v.VIRTIO_BLK_T_IN, 3, 2 * SECTOR) == v.VIRTIO_BLK_S_IOERR
    assert disk.request(v.VIRTIO_BLK_T_IN, 2**64 - 1) == v.VIRTIO_BLK_S_IOERR
    assert disk.request(v.VIRTIO_BLK_T_IN, 0, 100) == v.VIRTIO_BLK_S_IOERR


def test_a_write_goes_to_the_file_and_nowhere_else(disk, image):
    before = image.read_bytes()
    assert disk.request(v.VIRTIO_BLK_T_OUT, 1, 2 * SECTOR, data=b"w" * 2 * SECTOR) == 0
    assert disk.ram.used()[0] == (0, 1)
    assert image.read_bytes() == before[:SECTOR] + b"w" * 2 * SECTOR + before[3 * SECTOR :]
    assert disk.request(v.VIRTIO_BLK_T_OUT, 4, data=b"w" * SECTOR) == v.VIRTIO_BLK_S_IOERR
    assert disk.request(v.VIRTIO_BLK_T_OUT, 0, 3, data=b"www") == v.VIRTIO_BLK_S_IOERR
    assert image.stat().st_size == len(before)


def test_flush_is_fsync(disk, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    assert disk.request(v.VIRTIO_BLK_T_OUT, 0, data=bytes(SECTOR)) == 0
    assert synced == []
    assert disk.request(v.VIRTIO_BLK_T_FLUSH, 0, 0) == 0
    assert len(synced) == disk.backend.flushes == 1


def test_who_does_not_know_flush_has_writes_that_stay(image, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    disk = Disk(image, features=PLAIN)
    assert disk.request(v.VIRTIO_BLK_T_OUT, 0, data=bytes(SECTOR)) == 0
    assert len(synced) == 1
    disk.close()


def ranges(*rows: tuple[int, int, int]) -> bytes:
    return b"".join(struct.pack("<QII", *row) for row in rows)


DISCARD, ZEROES = v.VIRTIO_BLK_T_DISCARD, v.VIRTIO_BLK_T_WRITE_ZEROES
UNMAP = v.VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP


@pytest.fixture
def big(tmp_path) -> Path:
    """64 sectors, none of them zero."""
    path = tmp_path / "big"
    path.write_bytes(b"".join(bytes([n + 1]) * SECTOR for n in range(64)))
    return path


@pytest.mark.parametrize(("kind", "flags"), [(DISCARD, 0), (ZEROES, 0), (ZEROES, UNMAP)])
def test_ranges_read_as_zeroes_afterwards(big, kind, flags):
    before = big.read_bytes()
    disk = Disk(big)
    data = ranges((1, 2, flags), (60, 4, flags), (9, 0, flags))
    assert disk.request(kind, 99, len(data), data=data) == 0
    want = before[:SECTOR] + bytes(2 * SECTOR) + before[3 * SECTOR : 60 * SECTOR] + bytes(4 * SECTOR)
    assert big.read_bytes() == want
    disk.close()


def test_space_is_given_back_only_where_it_may_be(big):
    disk = Disk(big)

    def blocks() -> int:
        os.fsync(disk.backend.disk.fd)
        return big.stat().st_blocks

    before = blocks()
    assert disk.request(ZEROES, 0, 16, data=ranges((0, 64, 0))) == 0
    kept = blocks()
    assert disk.request(ZEROES, 0, 16, data=ranges((0, 32, UNMAP))) == 0
    unmapped = blocks()
    assert disk.request(DISCARD, 0, 16, data=ranges((32, 32, 0))) == 0
    assert (kept, unmapped, blocks()) == (before, before - 32, before - 64)
    disk.close()


@pytest.mark.parametrize(
    ("kind", "data", "status"),
    [
        (DISCARD, ranges((0, 1, UNMAP)), v.VIRTIO_BLK_S_UNSUPP),
        (DISCARD, ranges((0, 1, 0), (0, 1, 2)), v.VIRTIO_BLK_S_UNSUPP),
        (ZEROES, ranges((0, 1, UNMAP | 0x8000_0000)), v.VIRTIO_BLK_S_UNSUPP),
        (DISCARD, ranges((0, 1, 0), (64, 1, 0)), v.VIRTIO_BLK_S_IOERR),
        (ZEROES, ranges((0, 65, 0)), v.VIRTIO_BLK_S_IOERR),
        (ZEROES, ranges((2**64 - 1, 1, 0)), v.VIRTIO_BLK_S_IOERR),
        (DISCARD, ranges((0, 0xFFFFFFFF, 0)), v.VIRTIO_BLK_S_IOERR),
        (DISCARD, ranges((0, 1, 0))[:15], v.VIRTIO_BLK_S_IOERR),
        (DISCARD, b"", v.VIRTIO_BLK_S_IOERR),
        (DISCARD, ranges(*[(0, 1, 0)] * 33), v.VIRTIO_BLK_S_IOERR),
        (v.VIRTIO_BLK_T_DISCARD + 3, ranges((0, 1, 0)), v.VIRTIO_BLK_S_UNSUPP),
    ],
)
def test_ranges_that_cannot_be_change_nothing(big, kind, data, status):
    before = big.read_bytes()
    disk = Disk(big)
    assert disk.request(kind, 0, len(data), data=data) == status
    assert big.read_bytes() == before
    assert not disk.needs_reset
    disk.close()


@pytest.mark.parametrize("kind", [DISCARD, ZEROES])
def test_ranges_are_only_for_who_accepted_them(big, kind):
    disk = Disk(big, features=PLAIN)
    assert disk.request(kind, 0, 16, data=ranges((0, 1, 0))) == v.VIRTIO_BLK_S_UNSUPP
    disk.close()
    disk = Disk(big, readonly=True)
    assert not disk.mmio.features & (1 << v.VIRTIO_BLK_F_DISCARD | 1 << v.VIRTIO_BLK_F_WRITE_ZEROES)
    assert disk.request(kind, 0, 16, data=ranges((0, 1, 0))) == v.VIRTIO_BLK_S_UNSUPP
    disk.close()


@pytest.mark.parametrize("lacking", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO])
@pytest.mark.parametrize(("kind", "flags"), [(DISCARD, 0), (ZEROES, 0), (ZEROES, UNMAP)])
def test_a_file_system_that_cannot(big, kind, flags, lacking, monkeypatch):
    def refuse(*args: object) -> None:
        raise OSError(lacking, "no")

    monkeypatch.setattr(disk_module, "fallocate", refuse)
    before = big.read_bytes()
    disk = Disk(big)
    status = disk.request(kind, 0, 16, data=ranges((8, 8, flags)))
    if lacking == errno.EIO:
        assert (status, big.read_bytes()) == (v.VIRTIO_BLK_S_IOERR, before)
    elif kind == DISCARD:
        assert (status, big.read_bytes()) == (0, before)
    else:
        assert (status, big.read_bytes()) == (0, before[: 8 * SECTOR] + bytes(8 * SECTOR) + before[16 * SECTOR :])
    disk.close()


def test_a_driver_is_told_the_limits(disk, image):
    config = v.BLK_CONFIG.unpack(bytes(disk.mmio.read(0x100 + i, 1) for i in range(v.BLK_CONFIG.size)))
    assert config["blk_size"] == SECTOR
    assert config["blk_size"] << config["physical_block_exp"] == config["blk_size"] * config["min_io_size"] == 4096
    assert (config["max_discard_seg"], config["max_write_zeroes_seg"], config["write_zeroes_may_unmap"]) == (32, 32, 1)
    assert config["max_discard_sectors"] > config["max_write_zeroes_sectors"] > 0
    assert config["wce"] == 1
    readonly = Disk(image, readonly=True)
    assert readonly.mmio.read(0x100 + 36, 4) == readonly.mmio.read(0x100 + 32, 1) == 0
    readonly.close()


def test_a_driver_turns_the_write_cache_off(disk, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    assert disk.request(v.VIRTIO_BLK_T_OUT, 0, data=bytes(SECTOR)) == 0
    assert synced == []
    disk.mmio.write(0x120, 1, 0)
    assert (disk.mmio.read(0x120, 1), len(synced)) == (0, 1), "what waited is durable first"
    assert disk.request(v.VIRTIO_BLK_T_OUT, 0, data=bytes(SECTOR)) == 0
    assert disk.request(ZEROES, 0, 16, data=ranges((0, 1, 0))) == 0
    assert len(synced) == 3
    disk.mmio.write(0x120, 1, 1)
    assert disk.request(v.VIRTIO_BLK_T_OUT, 0, data=bytes(SECTOR)) == 0
    assert (disk.mmio.read(0x120, 1), len(synced)) == (1, 3)
    disk.mmio.write(0x120, 1, 0)
    disk.up()
    assert disk.mmio.read(0x120, 1) == 1, "a reset forgets it"
    disk.mmio.write(0x100, 8, 0)
    assert disk.mmio.read(0x100, 8) == 4, "nothing else can be written"


def test_the_write_cache_stays_on_where_it_cannot_be_emptied(disk, monkeypatch):
    def refuse(fd: int) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "fdatasync", refuse)
    disk.mmio.write(0x120, 1, 0)
    assert disk.mmio.read(0x120, 1) == 1


@pytest.mark.parametrize("accepted", [v.VIRTIO_BLK_F_CONFIG_WCE, v.VIRTIO_BLK_F_FLUSH])
def test_the_write_cache_is_not_for_every_driver(image, accepted):
    """Without FLUSH it is off at first (5.2.5.2), without CONFIG_WCE it cannot be turned."""
    disk = Disk(image, features=PLAIN | v.feature(accepted))
    first = int(accepted == v.VIRTIO_BLK_F_FLUSH)
    assert disk.mmio.read(0x120, 1) == first
    disk.mmio.write(0x120, 1, 0)
    assert disk.mmio.read(0x120, 1) == first
    disk.close()


def test_a_driver_that_knows_no_limits_may_ask_for_more(tmp_path):
    """As firmware does: one buffer of 3 MiB, and no SIZE_MAX."""
    path, size = tmp_path / "large", 3 << 20
    path.write_bytes(os.urandom(size))
    backend = VirtioBlk(path)
    chain = Large(struct.pack("<IIQ", v.VIRTIO_BLK_T_IN, 0, 0), size)
    assert backend._request(chain, 0) == (size, 0)
    assert bytes(chain.taken) == path.read_bytes()
    backend.close()


class Large:
    """A chain with much room."""

    def __init__(self, header: bytes, size: int) -> None:
        self.header, self.taken = header, bytearray(size)
        self.read_size, self.write_size = len(header), size + 1

    def read(self, offset: int, size: int) -> bytes:
        return self.header[offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        self.taken[offset : offset + len(data)] = data


def test_a_read_only_disk(image):
    before = image.read_bytes()
    image.chmod(0o400)
    disk = Disk(image, readonly=True)
    assert disk.mmio.features >> v.VIRTIO_BLK_F_RO & 1
    assert not disk.mmio.features >> v.VIRTIO_BLK_F_FLUSH & 1
    assert disk.request(v.VIRTIO_BLK_T_OUT, 0, data=bytes(SECTOR)) == v.VIRTIO_BLK_S_IOERR
    assert disk.request(v.VIRTIO_BLK_T_FLUSH, 0, 0) == v.VIRTIO_BLK_S_UNSUPP
    assert disk.request(v.VIRTIO_BLK_T_IN, 1) == 0
    assert image.read_bytes() == before
    disk.close()


def test_a_file_that_became_shorter_is_an_io_error(disk, image):
    os.truncate(image, SECTOR + 10)
    assert disk.request(v.VIRTIO_BLK_T_IN, 1) == v.VIRTIO_BLK_S_IOERR
    assert disk.request(v.VIRTIO_BLK_T_IN, 0) == 0


@pytest.mark.parametrize(("call", "kind"), [("pread", 0), ("pwrite", 1), ("fdatasync", 4)])
def test_what_the_host_refuses_is_a_status(disk, monkeypatch, call, kind):
    def refuse(*args):
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, call, refuse)
    data = bytes(SECTOR) if kind == v.VIRTIO_BLK_T_OUT else None
    assert disk.request(kind, 0, data=data) == v.VIRTIO_BLK_S_IOERR
    assert not disk.needs_reset


def test_short_writes_go_on(disk, image, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:100], offset))
    assert disk.request(v.VIRTIO_BLK_T_OUT, 0, data=b"w" * SECTOR) == 0
    assert image.read_bytes()[:SECTOR] == b"w" * SECTOR


def test_the_name_and_the_unknown(disk):
    assert disk.request(v.VIRTIO_BLK_T_GET_ID, 0, 20) == 0
    assert disk.ram.read(BUFFER + 0x100, 20) == b"pyvmm".ljust(20, b"\0")
    assert disk.request(v.VIRTIO_BLK_T_GET_ID, 0, 3) == 0
    assert disk.request(0x77) == v.VIRTIO_BLK_S_UNSUPP


@pytest.mark.parametrize(("header", "status"), [(15, 1), (16, 0)])
def test_a_request_without_header_or_status_is_none(disk, header, status):
    disk.ram.desc(0, BUFFER, header, NEXT, 1)
    disk.ram.desc(1, BUFFER + 16, status, WRITE)
    disk.ram.offer(0)
    disk.kick()
    assert disk.needs_reset


def test_an_empty_file_is_a_disk_without_sectors(tmp_path):
    (tmp_path / "none").write_bytes(b"x" * 511)
    disk = Disk(tmp_path / "none")
    assert disk.backend.capacity == 0
    assert disk.request(v.VIRTIO_BLK_T_IN, 0) == v.VIRTIO_BLK_S_IOERR
    disk.close()


def test_only_a_regular_file_is_a_disk(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path, "directory"), (tmp_path / "pipe", "no regular file"), (tmp_path / "no", "No such")):
        with pytest.raises(UsageError, match=words):
            VirtioBlk(path)
    with pytest.raises(UsageError, match="no regular file"):
        VirtioBlk(tmp_path, readonly=True)


# -- hostile drivers

ADDRESSES = st.sampled_from(
    [BUFFER, BUFFER + 0x800, TABLE, DESC, AVAIL, USED, RAM + RAM_SIZE - 8, ROM, 0, RAM - 1, 2**32, 2**63, 2**64 - 16]
)
SIZES = st.sampled_from([0, 1, 8, 16, 17, 32, 64, 513, 0x1000, 0x8000, 0xFFFFFFFF])
DESCRIPTORS = st.lists(
    st.tuples(ADDRESSES, SIZES, st.integers(0, 7) | st.integers(0, 0xFFFF), st.integers(0, ENTRIES + 1)),
    min_size=ENTRIES,
    max_size=ENTRIES,
)
HEADS = st.lists(st.integers(0, ENTRIES) | st.just(0xFFFF), min_size=ENTRIES, max_size=ENTRIES)


@pytest.fixture(scope="module")
def fuzzed_image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "disk"
    path.write_bytes(os.urandom(4 * SECTOR))
    return path


@pytest.mark.no_cover  # the same few lines a million times: followed one by one they take thrice as long
@pytest.mark.parametrize("kind", ["rng", "console", "blk"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_driver_gets_past_its_own_memory(kind, fuzzed_image, data):
    """Random rings, random kicks: only needs-reset may come of it, and after the reset the device works."""
    output: list[bytes] = []
    backend = {
        "rng": lambda: VirtioRng(lambda n: bytes(n)),
        "console": lambda: VirtioConsole(output.append),
        "blk": lambda: VirtioBlk(fuzzed_image),
    }[kind]()
    if isinstance(backend, VirtioConsole):
        backend.send(bytes(1000))
    features = backend.features | COMMON_FEATURES
    driver = Driver(backend, queues=2, features=features & ~(data.draw(st.integers(0, 3)) << 28))
    ram = driver.ram
    for table in (DESC, TABLE):
        for i, each in enumerate(data.draw(DESCRIPTORS)):
            ram.desc(i, *each, table=table)
    ram.bytes[BUFFER - RAM : BUFFER - RAM + 16] = struct.pack(
        "<IIQ", data.draw(st.sampled_from([0, 1, 4, 8, 99])), 0, data.draw(st.sampled_from([0, 3, 4, 2**64 - 1]))
    )
    ram.offer(*data.draw(HEADS), idx=data.draw(st.integers(0, ENTRIES) | st.integers(0, 0xFFFF)))
    for queue in data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=3)):
        driver.kick(queue)
        assert driver.needs_reset == bool(driver.mmio.trouble)
    ram.bytes[:] = bytes(RAM_SIZE)
    driver.up()
    assert not driver.needs_reset
    driver.kick()
    assert not driver.needs_reset
    driver.mmio.close()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(value for name, value in v.constants().items() if name.startswith("VIRTIO_MMIO_")))
            | st.integers(0, 0xFFF),
            st.sampled_from([1, 2, 4, 8]),
            st.sampled_from([0, 1, 2, 3, 4, 8, 0xB, 0xF, 64, RAM, 0x80000000, 0xFFFFFFFF]),
        ),
        max_size=60,
    )
)
def test_no_write_to_a_register_breaks_the_device(writes):
    driver = Driver(VirtioRng())
    for offset, size, value in writes:
        driver.mmio.write(offset, size, value & (1 << 8 * size) - 1)
        assert 0 <= driver.mmio.read(offset, size) < 1 << 8 * size
    driver.ram.bytes[:] = bytes(RAM_SIZE)
    driver.up()
    driver.ram.desc(0, BUFFER, 32, WRITE)
    driver.ram.offer(0)
    driver.kick()
    assert driver.ram.used() == [(0, 32)]

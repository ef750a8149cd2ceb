# SPDX-License-Identifier: GPL-2.0-or-later
"""A split virtqueue, the device's side: what is available, what was used, does the driver want to hear of it.

It knows the three areas of VIRTIO 1.2, 2.7 in a memory that it is given; it knows no device, no interrupt and no KVM.
With VIRTIO_RING_F_EVENT_IDX each side says at which index it wants to hear of the other (2.7.7, 2.7.10).
The driver is not trusted and runs meanwhile: every index is read once and checked, and what breaks a rule is a
DriverError. Not thread-safe; the transport holds a lock.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Sequence

from vmm.abi import virtio
from vmm.errors import GuestMemoryError
from vmm.machine.virtio.chain import Chain, DmaMemory, DriverError, walk

_IDX = virtio.VRING_AVAIL.field("idx").offset
_WRAP = 1 << 16
_USED_ELEM = struct.Struct("<II")  # id, len
_STATE = ("size", "desc", "avail", "used", "ready", "indirect", "event_idx", "last_avail", "used_idx", "told")


def passed(event: int, new: int, old: int) -> bool:
    """Has an index that went from `old` to `new`, modulo 2^16, gone past `event`? (2.7.7.2, 2.7.10.1)"""
    return (new - event - 1) % _WRAP < (new - old) % _WRAP


class SplitQueue:
    """One queue of at most `max_size` entries. The driver sets `size` and the three addresses, then makes it ready."""

    def __init__(self, memory: DmaMemory, max_size: int) -> None:
        self._memory, self.max_size = memory, max_size
        self._barrier = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """As after power-on."""
        self.size = self.max_size
        self.desc = self.avail = self.used = 0
        self.ready = self.indirect = self.event_idx = False
        self.last_avail = self.used_idx = self.told = 0

    def get_state(self) -> tuple[int, ...]:
        """What the driver said and how far the rings are used, for `set_state`."""
        return tuple(getattr(self, name) for name in _STATE)

    def set_state(self, state: tuple[int, ...]) -> None:
        """Be as `get_state` found it."""
        for name, value in zip(_STATE, state, strict=True):
            setattr(self, name, value)

    def start(self, *, indirect: bool, event_idx: bool = False) -> None:
        """The driver says that the queue is ready: check it, and begin with empty rings. `indirect` and `event_idx`
        are whether these features were negotiated.

        Raises:
            DriverError: the size or an area cannot be.
        """
        if not 0 < self.size <= self.max_size or self.size & (self.size - 1):
            raise DriverError(f"a queue of {self.size} entries: a power of 2 up to {self.max_size}")
        event = virtio.EVENT * event_idx
        areas = (
            ("descriptor table", self.desc, virtio.VRING_DESC.size * self.size, virtio.VRING_DESC_ALIGN_SIZE, False),
            ("available ring", self.avail, virtio.RING + 2 * self.size + event, virtio.VRING_AVAIL_ALIGN_SIZE, False),
            ("used ring", self.used, virtio.RING + 8 * self.size + event, virtio.VRING_USED_ALIGN_SIZE, True),
        )
        for name, address, size, align, write in areas:
            if address % align:
                raise DriverError(f"the {name} at {address:#x} is not aligned to {align} bytes")
            if not self._memory.holds(address, size, write=write):
                raise DriverError(f"the {name}, {size:#x} bytes at {address:#x}, is not all guest memory")
        self.indirect, self.event_idx = indirect, event_idx
        self.last_avail = self.used_idx = self.told = 0
        self.ready = True

    def pending(self) -> int:
        """How many chains wait. Whatever the driver adds to them it will say, with a kick.

        Raises:
            DriverError: the available index is further ahead than the ring is long.
        """
        index = self._available()
        while self.event_idx:  # ends: the index grows, and may be no more than the size ahead
            self._write(self.used + virtio.RING + 8 * self.size, index.to_bytes(2, "little"))
            self._fence()  # the event is out before the index is read again: either we see it, or the driver the event
            newer = self._available()
            if newer == index:
                break
            index = newer
        return (index - self.last_avail) % _WRAP

    def waiting(self) -> int:
        """How many chains wait, for a device that is content with what it has: the driver need not say what it adds.

        Raises:
            DriverError: as `pending`.
        """
        return (self._available() - self.last_avail) % _WRAP

    def _available(self) -> int:
        index = self._read_u16(self.avail + _IDX)
        count = (index - self.last_avail) % _WRAP
        if count > self.size:
            raise DriverError(f"the available index runs {count} ahead in a queue of {self.size}")
        return index

    def take(self) -> Iterator[Chain]:
        """The chains that wait now, each to be given back with `push`. What is added meanwhile has a kick of its own,
        so a driver that never stops adding keeps nobody here.
        """
        for _ in range(self.pending()):
            yield self.pop()

    def pop(self) -> Chain:
        """The next chain; `pending` must say that there is one."""
        slot = self.last_avail % self.size
        head = self._read_u16(self.avail + virtio.RING + 2 * slot)
        try:
            chain = walk(self._memory, self.desc, self.size, head, indirect=self.indirect)
        except GuestMemoryError as error:
            raise DriverError(f"the descriptor table is gone: {error}") from error
        self.last_avail = (self.last_avail + 1) % _WRAP
        return chain

    def put_back(self, count: int) -> None:
        """Let the last `count` chains that were popped be the next ones again."""
        self.last_avail = (self.last_avail - count) % _WRAP

    def push(self, chain: Chain, written: int) -> None:
        """Give a chain back; `written` bytes of its writable part hold data."""
        self.push_all(((chain, written),))

    def push_all(self, used: Sequence[tuple[Chain, int]]) -> None:
        """Give chains back that go together, each with the bytes that were written: the driver sees all or none."""
        for chain, written in used:
            element = _USED_ELEM.pack(chain.head, written)
            self._write(self.used + virtio.RING + len(element) * (self.used_idx % self.size), element)
            self.used_idx = (self.used_idx + 1) % _WRAP
        # x86 keeps stores in order: the driver sees the elements before the index that announces them.
        self._write(self.used + _IDX, self.used_idx.to_bytes(2, "little"))

    def wants_interrupt(self) -> bool:
        """Were chains given back since the last time, and does the driver want to hear of them?"""
        before, self.told = self.told, self.used_idx
        if before == self.used_idx:
            return False
        self._fence()
        if self.event_idx:
            event = self._read_u16(self.avail + virtio.RING + 2 * self.size)
            return passed(event, self.used_idx, before)
        return not self._read_u16(self.avail) & virtio.VRING_AVAIL_F_NO_INTERRUPT

    def _fence(self) -> None:
        """A load may overtake the store before it, and the driver, which does the reverse, would miss a buffer. A lock
        is taken with a locked instruction, which on x86 is a full barrier.
        """
        with self._barrier:
            pass

    def _read_u16(self, gpa: int) -> int:
        try:
            return int.from_bytes(self._memory.read(gpa, 2), "little")
        except GuestMemoryError as error:
            raise DriverError(f"the available ring is gone: {error}") from error

    def _write(self, gpa: int, data: bytes) -> None:
        try:
            self._memory.write(gpa, data)
        except GuestMemoryError as error:
            raise DriverError(f"the used ring is gone: {error}") from error

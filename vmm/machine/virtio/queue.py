# SPDX-License-Identifier: GPL-2.0-or-later
"""A split virtqueue, the device's side: what is available, what was used, does the driver want to hear of it.

It knows the three areas of VIRTIO 1.2, 2.7 in a memory that it is given; it knows no device, no interrupt and no KVM.
The driver is not trusted and runs meanwhile: every index is read once and checked, and what breaks a rule is a
DriverError. Not thread-safe; the transport holds a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from vmm.abi import virtio
from vmm.errors import GuestMemoryError
from vmm.machine.virtio.chain import Chain, DmaMemory, DriverError, walk

_IDX = virtio.VRING_AVAIL.field("idx").offset
_WRAP = 1 << 16
_STATE = ("size", "desc", "avail", "used", "ready", "indirect", "last_avail", "used_idx")


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
        self.ready = self.indirect = False
        self.last_avail = self.used_idx = 0

    def get_state(self) -> tuple[int, ...]:
        """What the driver said and how far the rings are used, for `set_state`."""
        return tuple(getattr(self, name) for name in _STATE)

    def set_state(self, state: tuple[int, ...]) -> None:
        """Be as `get_state` found it."""
        for name, value in zip(_STATE, state, strict=True):
            setattr(self, name, value)

    def start(self, *, indirect: bool) -> None:
        """The driver says that the queue is ready: check it, and begin with empty rings.

        Raises:
            DriverError: the size or an area cannot be.
        """
        if not 0 < self.size <= self.max_size or self.size & (self.size - 1):
            raise DriverError(f"a queue of {self.size} entries: a power of 2 up to {self.max_size}")
        areas = (
            ("descriptor table", self.desc, virtio.VRING_DESC.size * self.size, virtio.VRING_DESC_ALIGN_SIZE, False),
            ("available ring", self.avail, virtio.RING + 2 * self.size, virtio.VRING_AVAIL_ALIGN_SIZE, False),
            ("used ring", self.used, virtio.RING + 8 * self.size, virtio.VRING_USED_ALIGN_SIZE, True),
        )
        for name, address, size, align, write in areas:
            if address % align:
                raise DriverError(f"the {name} at {address:#x} is not aligned to {align} bytes")
            if not self._memory.holds(address, size, write=write):
                raise DriverError(f"the {name}, {size:#x} bytes at {address:#x}, is not all guest memory")
        self.indirect = indirect
        self.last_avail = self.used_idx = 0
        self.ready = True

    def pending(self) -> int:
        """How many chains wait.

        Raises:
            DriverError: the available index is further ahead than the ring is long.
        """
        count = (self._read_u16(self.avail + _IDX) - self.last_avail) % _WRAP
        if count > self.size:
            raise DriverError(f"the available index runs {count} ahead in a queue of {self.size}")
        return count

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

    def push(self, chain: Chain, written: int) -> None:
        """Give a chain back; `written` bytes of its writable part hold data."""
        element = virtio.VRING_USED_ELEM.pack(id=chain.head, len=written)
        self._write(self.used + virtio.RING + len(element) * (self.used_idx % self.size), element)
        self.used_idx = (self.used_idx + 1) % _WRAP
        # x86 keeps stores in order: the driver sees the element before the index that announces it.
        self._write(self.used + _IDX, self.used_idx.to_bytes(2, "little"))

    def wants_interrupt(self) -> bool:
        """Has the driver its callbacks on? To be asked after `push`."""
        # A load may overtake the store of the index, and the driver, which does the reverse, would miss the last
        # buffer. A lock is taken with a locked instruction, which on x86 is a full barrier.
        with self._barrier:
            pass
        return not self._read_u16(self.avail) & virtio.VRING_AVAIL_F_NO_INTERRUPT

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

# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptor chains: from a head to the buffers that a driver means, every number checked before it is used.

It knows memory by its interface and the rules of VIRTIO 1.2, 2.7.5; it knows no ring, no device and no KVM. A driver is
not trusted: what breaks a rule is a DriverError, the work for a chain is bounded by the table it lies in, and no buffer
is handed on that is not, whole, guest memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from vmm.abi import virtio
from vmm.errors import EXIT_FAIL, VmmError

MAX_INDIRECT = 1024
"""Entries of an indirect table. The standard says no more than the queue's size; Linux makes longer ones."""

MAX_CHAIN_BYTES = 1 << 32  # 2.7.5.2

_DESC = struct.Struct("<QIHH")


class DriverError(VmmError):
    """A driver did what VIRTIO forbids; the device can only be reset. The message says what it did."""

    exit_code = EXIT_FAIL


class DmaMemory(Protocol):
    """Guest memory as a device reaches it, by guest-physical address. An access outside raises GuestMemoryError."""

    def holds(self, gpa: int, size: int, *, write: bool = False) -> bool:
        """Are all of these bytes guest memory (that may be written)? Copies nothing, whatever the size."""

    def read(self, gpa: int, size: int) -> bytes:
        """`size` bytes."""

    def write(self, gpa: int, data: bytes) -> None:
        """All of `data`."""


class Segment(NamedTuple):
    """`size` bytes from guest-physical `address`: one descriptor's buffer."""

    address: int
    size: int


class Chain:
    """One request: what the device may read, then what it may write, each as one row of bytes."""

    def __init__(
        self, memory: DmaMemory, head: int, readable: tuple[Segment, ...], writable: tuple[Segment, ...]
    ) -> None:
        self._memory = memory
        self.head, self.readable, self.writable = head, readable, writable
        self.read_size = sum(segment.size for segment in readable)
        self.write_size = sum(segment.size for segment in writable)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes of the readable part, fewer at its end."""
        return b"".join(self._memory.read(*piece) for piece in _pieces(self.readable, offset, size))

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` into the writable part; what does not fit is a mistake of the device (ValueError)."""
        if offset + len(data) > self.write_size:
            raise ValueError(f"{len(data)} bytes at {offset} of a buffer of {self.write_size}")
        done = 0
        for address, size in _pieces(self.writable, offset, len(data)):
            self._memory.write(address, data[done : done + size])
            done += size


def _pieces(segments: tuple[Segment, ...], offset: int, size: int) -> Iterator[Segment]:
    """Where bytes offset..offset+size-1 of the row of segments lie."""
    for segment in segments:
        if size <= 0:
            return
        if offset < segment.size:
            count = min(segment.size - offset, size)
            yield Segment(segment.address + offset, count)
            offset, size = 0, size - count
        else:
            offset -= segment.size


def walk(memory: DmaMemory, table: int, entries: int, head: int, *, indirect: bool = False) -> Chain:
    """Follow the chain from `head` in the descriptor table at `table`; `indirect` if that feature was negotiated.

    Raises:
        DriverError: the chain breaks a rule.
        GuestMemoryError: the table is no longer memory.
    """
    readable: list[Segment] = []
    writable: list[Segment] = []
    for address, size, flags in _descriptors(memory, table, entries, head, indirect=indirect):
        write = bool(flags & virtio.VRING_DESC_F_WRITE)
        if not memory.holds(address, size, write=write):
            kind = "writable" if write else "guest"
            raise DriverError(f"a buffer of {size:#x} bytes at {address:#x} is not all {kind} memory")
        if writable and not write:
            raise DriverError("a buffer to read comes after one to write")
        if size:
            (writable if write else readable).append(Segment(address, size))
    chain = Chain(memory, head, tuple(readable), tuple(writable))
    if chain.read_size + chain.write_size > MAX_CHAIN_BYTES:
        raise DriverError(f"a chain of {chain.read_size + chain.write_size:#x} bytes; 4 GiB is the most")
    return chain


def _descriptors(
    memory: DmaMemory, table: int, entries: int, head: int, *, indirect: bool
) -> Iterator[tuple[int, int, int]]:
    """(address, size, flags) of each descriptor of a chain, an indirect table's in place of the one that names it."""
    index, left, inside = head, entries, False
    while True:
        if index >= entries:
            raise DriverError(f"descriptor {index} of a table that has {entries}")
        if not left:
            raise DriverError(f"a chain of more than {entries} descriptors: it goes in a circle")
        left -= 1
        address, size, flags, following = _DESC.unpack(memory.read(table + index * _DESC.size, _DESC.size))
        if flags & virtio.VRING_DESC_F_INDIRECT:
            _check_indirect(memory, address, size, flags, negotiated=indirect, inside=inside)
            table, entries, inside = address, size // _DESC.size, True
            index, left = 0, entries
            continue
        yield address, size, flags
        if not flags & virtio.VRING_DESC_F_NEXT:
            return
        index = following


def _check_indirect(memory: DmaMemory, address: int, size: int, flags: int, *, negotiated: bool, inside: bool) -> None:
    """May this descriptor name a table? (2.7.5.3)"""
    if not negotiated:
        raise DriverError("an indirect descriptor, and VIRTIO_RING_F_INDIRECT_DESC was not negotiated")
    if inside:
        raise DriverError("an indirect descriptor inside an indirect table")
    if flags & virtio.VRING_DESC_F_NEXT:
        raise DriverError("an indirect descriptor with VRING_DESC_F_NEXT")
    if not size or size % _DESC.size or size > MAX_INDIRECT * _DESC.size:
        raise DriverError(
            f"an indirect table of {size:#x} bytes: 1 to {MAX_INDIRECT} descriptors of {_DESC.size} bytes"
        )
    if not memory.holds(address, size):
        raise DriverError(f"an indirect table of {size:#x} bytes at {address:#x} is not all guest memory")

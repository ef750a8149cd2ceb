# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-blk over a file: read, write, flush, discard, write zeroes, name (VIRTIO 1.2, 5.2). It knows queues and one
disk; no registers. vmm/kvm/_disk.c does the same in C, and a test compares the two.

What the host refuses (a full disk, a file that became shorter, a read-only one) is the request's status, never an
exception. A driver that does not accept VIRTIO_BLK_F_FLUSH, or turns the write cache off, gets a disk whose writes are
durable when they are done.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from vmm.abi import virtio
from vmm.abi.virtio import SECTOR
from vmm.machine.virtio.chain import Chain, DriverError
from vmm.machine.virtio.disk import PIECE, DiskFile
from vmm.machine.virtio.queue import SplitQueue

QUEUE_SIZE = 256
SEG_MAX = QUEUE_SIZE - 2  # beside header and status
SIZE_MAX = 1 << 20
PHYSICAL_EXP = 3  # a page of the host's cache is 8 sectors: less is read before it is written
MIN_IO = 1 << PHYSICAL_EXP
MAX_RANGES = 32  # of a discard, or of a request for zeroes
MAX_DISCARD = 1 << 22  # sectors in one range
MAX_ZEROES = 1 << 17  # as many as may have to be written
_HEADER = virtio.BLK_OUTHDR.size
_RANGE = virtio.BLK_DISCARD.size
_WCE = virtio.BLK_CONFIG.field("wce").offset
_FLUSH = virtio.feature(virtio.VIRTIO_BLK_F_FLUSH)
_CONFIG_WCE = virtio.feature(virtio.VIRTIO_BLK_F_CONFIG_WCE)
_DISCARD = virtio.feature(virtio.VIRTIO_BLK_F_DISCARD)
_ZEROES = virtio.feature(virtio.VIRTIO_BLK_F_WRITE_ZEROES)
_UNMAP = virtio.VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
OK, IOERR, UNSUPP = virtio.VIRTIO_BLK_S_OK, virtio.VIRTIO_BLK_S_IOERR, virtio.VIRTIO_BLK_S_UNSUPP


class Engine(Protocol):
    """Who serves requests in place of `VirtioBlk.serve` (disk_engine.py)."""

    @property
    def flushes(self) -> int:
        """How often it made the file durable."""

    def mode_changed(self) -> None:
        """The write cache is on or off now."""


class VirtioBlk:
    """A disk of as many whole sectors of 512 bytes as the file has. `writeback`: data may wait for a flush.

    Raises:
        UsageError: no such file, no permission, or it is no regular file.
    """

    name = "virtio-blk"
    device_id = virtio.VIRTIO_ID_BLOCK
    queue_sizes = (QUEUE_SIZE,)
    engine: Engine | None = None

    def __init__(self, path: str | Path, *, readonly: bool = False, serial: str = "pyvmm") -> None:
        self.readonly = readonly
        self.serial = serial.encode()[: virtio.VIRTIO_BLK_ID_BYTES].ljust(virtio.VIRTIO_BLK_ID_BYTES, b"\0")
        self.features = virtio.feature(
            virtio.VIRTIO_BLK_F_SIZE_MAX,
            virtio.VIRTIO_BLK_F_SEG_MAX,
            virtio.VIRTIO_BLK_F_BLK_SIZE,
            virtio.VIRTIO_BLK_F_TOPOLOGY,
        )
        if readonly:
            self.features |= virtio.feature(virtio.VIRTIO_BLK_F_RO)
        else:
            self.features |= _FLUSH | _CONFIG_WCE | _DISCARD | _ZEROES
        self.disk = DiskFile(path, readonly=readonly)
        self.agreed(0)

    @property
    def capacity(self) -> int:
        """Sectors."""
        return self.disk.capacity

    @property
    def flushes(self) -> int:
        """How often the file was made durable."""
        return self.disk.flushes + (self.engine.flushes if self.engine is not None else 0)

    def config(self) -> bytes:
        writable = {} if self.readonly else {
            "wce": self.writeback,
            "max_discard_sectors": MAX_DISCARD, "max_discard_seg": MAX_RANGES, "discard_sector_alignment": MIN_IO,
            "max_write_zeroes_sectors": MAX_ZEROES, "max_write_zeroes_seg": MAX_RANGES, "write_zeroes_may_unmap": 1,
        }  # fmt: skip
        return virtio.BLK_CONFIG.pack(
            capacity=self.capacity, size_max=SIZE_MAX, seg_max=SEG_MAX, blk_size=SECTOR,
            physical_block_exp=PHYSICAL_EXP, min_io_size=MIN_IO, **writable,
        )  # fmt: skip

    def agreed(self, features: int) -> None:
        """What the driver accepted: without FLUSH it could not say when data must be durable."""
        self._features = features
        self.writeback = bool(features & _FLUSH)

    def set_config(self, offset: int, data: bytes) -> None:
        """The write cache on or off; nothing else may be written (5.2.4)."""
        if self._features & _CONFIG_WCE and offset <= _WCE < offset + len(data):
            before, self.writeback = self.writeback, bool(data[_WCE - offset])
            self._mode_changed()
            if before and not self.writeback:
                try:
                    self.disk.flush()  # what waits will have no other
                except OSError:
                    self.writeback = True  # as the driver can read
                    self._mode_changed()

    def _mode_changed(self) -> None:
        if self.engine is not None:
            self.engine.mode_changed()

    def serve(self, index: int, queue: SplitQueue, features: int) -> None:
        for chain in queue.take():
            if chain.read_size < _HEADER or not chain.write_size:
                raise DriverError("a request without a header to read, or without a byte for the status")
            written, status = self._request(chain, features)
            chain.write(chain.write_size - 1, bytes([status]))
            queue.push(chain, written + 1)

    def _request(self, chain: Chain, features: int) -> tuple[int, int]:
        """Bytes of data written into the chain, and the status."""
        header = virtio.BLK_OUTHDR.unpack(chain.read(0, _HEADER))
        sector = header["sector"]
        try:
            match header["type"]:
                case virtio.VIRTIO_BLK_T_IN:
                    return self._read(chain, sector)
                case virtio.VIRTIO_BLK_T_OUT:
                    return 0, self._write(chain, sector)
                case virtio.VIRTIO_BLK_T_FLUSH if not self.readonly:
                    self.disk.flush()
                    return 0, OK
                case virtio.VIRTIO_BLK_T_DISCARD if features & _DISCARD:
                    return 0, self._discard(chain)
                case virtio.VIRTIO_BLK_T_WRITE_ZEROES if features & _ZEROES:
                    return 0, self._write_zeroes(chain)
                case virtio.VIRTIO_BLK_T_GET_ID:
                    name = self.serial[: chain.write_size - 1]
                    chain.write(0, name)
                    return len(name), OK
                case _:
                    return 0, UNSUPP
        except OSError:
            return 0, IOERR

    def _read(self, chain: Chain, sector: int) -> tuple[int, int]:
        size = chain.write_size - 1
        if not self.disk.holds(sector, size):
            return 0, IOERR
        done = 0
        while done < size:
            data = self.disk.read(sector * SECTOR + done, size - done)
            if not data:  # the file became shorter
                return done, IOERR
            chain.write(done, data)
            done += len(data)
        return done, OK

    def _write(self, chain: Chain, sector: int) -> int:
        size = chain.read_size - _HEADER
        if self.readonly or not self.disk.holds(sector, size):
            return IOERR
        for done in range(0, size, PIECE):
            self.disk.write(sector * SECTOR + done, chain.read(_HEADER + done, min(PIECE, size - done)))
        return self._written()

    def _written(self) -> int:
        if not self.writeback:
            self.disk.flush()
        return OK

    def _discard(self, chain: Chain) -> int:
        status, ranges = self._ranges(chain, MAX_DISCARD, flags=0)
        for sector, count, _ in ranges:
            self.disk.discard(sector * SECTOR, count * SECTOR)
        return status

    def _write_zeroes(self, chain: Chain) -> int:
        status, ranges = self._ranges(chain, MAX_ZEROES, flags=_UNMAP)
        for sector, count, flags in ranges:
            self.disk.zero(sector * SECTOR, count * SECTOR, unmap=bool(flags & _UNMAP))
        return status or self._written()

    def _ranges(self, chain: Chain, most: int, *, flags: int) -> tuple[int, list[tuple[int, int, int]]]:
        """OK and (sector, sectors, flags) of each range that has any; or the status of a request that cannot be, and
        none. A flag that is unknown, or not for this request, is UNSUPP (5.2.6.2).
        """
        size = chain.read_size - _HEADER
        if not size or size % _RANGE or size > MAX_RANGES * _RANGE:
            return IOERR, []
        data, found = chain.read(_HEADER, size), []
        for at in range(0, size, _RANGE):
            row = virtio.BLK_DISCARD.unpack(data[at : at + _RANGE])
            if row["flags"] & ~flags:
                return UNSUPP, []
            if row["num_sectors"] > most or row["sector"] + row["num_sectors"] > self.capacity:
                return IOERR, []
            if row["num_sectors"]:
                found.append((row["sector"], row["num_sectors"], row["flags"]))
        return OK, found

    def get_state(self) -> tuple[int, bool]:
        """What the driver accepted, and whether the write cache is on."""
        return self._features, self.writeback

    def set_state(self, state: tuple[int, bool]) -> None:
        """Be as `get_state` found it."""
        self._features, self.writeback = state

    def reset(self) -> None:
        """Every request is done when it is given back; the next driver agrees anew."""
        self.agreed(0)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self.disk.close()

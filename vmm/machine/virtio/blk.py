# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-blk over a file: read, write, flush, name (VIRTIO 1.2, 5.2). It knows queues and one descriptor; no registers.

What the host refuses (a full disk, a file that became shorter, a read-only one) is the request's status, never an
exception. A driver that does not accept VIRTIO_BLK_F_FLUSH gets a disk whose writes are durable when they are done.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vmm.abi import virtio
from vmm.abi.virtio import SECTOR
from vmm.errors import UsageError
from vmm.machine.virtio.chain import Chain, DriverError
from vmm.machine.virtio.queue import SplitQueue

QUEUE_SIZE = 128
SEG_MAX = QUEUE_SIZE - 2  # beside header and status
SIZE_MAX = 1 << 16
MOST = SEG_MAX * SIZE_MAX  # bytes in one request
_HEADER = virtio.BLK_OUTHDR.size
_FLUSH = virtio.feature(virtio.VIRTIO_BLK_F_FLUSH)


class VirtioBlk:
    """A disk of as many whole sectors of 512 bytes as the file has; bytes after the last one are not part of it.

    Raises:
        UsageError: no such file, no permission, or it is no regular file.
    """

    name = "virtio-blk"
    device_id = virtio.VIRTIO_ID_BLOCK
    queue_sizes = (QUEUE_SIZE,)

    def __init__(self, path: str | Path, *, readonly: bool = False, serial: str = "pyvmm") -> None:
        self.path, self.readonly = Path(path), readonly
        self.flushes = 0  # how often the file was made durable
        self._serial = serial.encode()[: virtio.VIRTIO_BLK_ID_BYTES].ljust(virtio.VIRTIO_BLK_ID_BYTES, b"\0")
        self.features = virtio.feature(
            virtio.VIRTIO_BLK_F_SIZE_MAX,
            virtio.VIRTIO_BLK_F_SEG_MAX,
            virtio.VIRTIO_BLK_F_RO if readonly else virtio.VIRTIO_BLK_F_FLUSH,
        )
        self._fd = _open(self.path, readonly)
        self.capacity = os.fstat(self._fd).st_size // SECTOR

    def config(self) -> bytes:
        return virtio.BLK_CONFIG.pack(capacity=self.capacity, size_max=SIZE_MAX, seg_max=SEG_MAX)

    def serve(self, index: int, queue: SplitQueue, features: int) -> None:
        for chain in queue.take():
            if chain.read_size < _HEADER or not chain.write_size:
                raise DriverError("a request without a header to read, or without a byte for the status")
            written, status = self._request(chain, writeback=bool(features & _FLUSH))
            chain.write(chain.write_size - 1, bytes([status]))
            queue.push(chain, written + 1)

    def _request(self, chain: Chain, *, writeback: bool) -> tuple[int, int]:
        """Bytes of data written into the chain, and the status."""
        header = virtio.BLK_OUTHDR.unpack(chain.read(0, _HEADER))
        sector = header["sector"]
        try:
            match header["type"]:
                case virtio.VIRTIO_BLK_T_IN:
                    return self._read(chain, sector)
                case virtio.VIRTIO_BLK_T_OUT:
                    return 0, self._write(chain, sector, writeback=writeback)
                case virtio.VIRTIO_BLK_T_FLUSH if not self.readonly:
                    self._flush()
                    return 0, virtio.VIRTIO_BLK_S_OK
                case virtio.VIRTIO_BLK_T_GET_ID:
                    name = self._serial[: chain.write_size - 1]
                    chain.write(0, name)
                    return len(name), virtio.VIRTIO_BLK_S_OK
                case _:
                    return 0, virtio.VIRTIO_BLK_S_UNSUPP
        except OSError:
            return 0, virtio.VIRTIO_BLK_S_IOERR

    def _fits(self, sector: int, size: int) -> bool:
        return not size % SECTOR and size <= MOST and sector + size // SECTOR <= self.capacity

    def _read(self, chain: Chain, sector: int) -> tuple[int, int]:
        size = chain.write_size - 1
        if not self._fits(sector, size):
            return 0, virtio.VIRTIO_BLK_S_IOERR
        done = 0
        while done < size:
            data = os.pread(self._fd, size - done, sector * SECTOR + done)
            if not data:  # the file became shorter
                return done, virtio.VIRTIO_BLK_S_IOERR
            chain.write(done, data)
            done += len(data)
        return done, virtio.VIRTIO_BLK_S_OK

    def _write(self, chain: Chain, sector: int, *, writeback: bool) -> int:
        size = chain.read_size - _HEADER
        if self.readonly or not self._fits(sector, size):
            return virtio.VIRTIO_BLK_S_IOERR
        data = memoryview(chain.read(_HEADER, size))
        done = 0
        while done < size:
            done += os.pwrite(self._fd, data[done:], sector * SECTOR + done)
        if not writeback:
            self._flush()
        return virtio.VIRTIO_BLK_S_OK

    def _flush(self) -> None:
        os.fsync(self._fd)
        self.flushes += 1

    def reset(self) -> None:
        """Nothing to forget: every request is done when it is given back."""

    def close(self) -> None:
        """Close the file; it is not flushed, for no driver asked for it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open(path: Path, readonly: bool) -> int:
    doing = f"opening {path} as a {'read-only ' * readonly}disk"
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to would wait without end.
        fd = os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise UsageError(f"{doing}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UsageError(f"{doing}: it is no regular file")
    return fd

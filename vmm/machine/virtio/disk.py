# SPDX-License-Identifier: GPL-2.0-or-later
"""A regular file as a disk: whole sectors read, written, zeroed, given back, made durable. It knows no virtio.

What the host refuses is an OSError. A file system that cannot give space back keeps it; where it cannot zero a range,
zeroes are written.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from vmm.abi.virtio import SECTOR
from vmm.base.nearby import to_try
from vmm.errors import UsageError, os_reason
from vmm.kvm.disk_thread import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fallocate

PIECE = 1 << 20
"""Bytes of a request that are in our own memory at once."""


class DiskFile:
    """As many whole sectors of 512 bytes as the file has; bytes after the last one are not part of it.

    Raises:
        UsageError: no such file, no permission, or it is no regular file.
    """

    def __init__(self, path: str | Path, *, readonly: bool) -> None:
        self.path, self.readonly = Path(path), readonly
        self.flushes = 0  # how often the file was made durable
        self.fd = _open(self.path, readonly)
        self.capacity = os.fstat(self.fd).st_size // SECTOR

    def holds(self, sector: int, size: int) -> bool:
        """Are these bytes whole sectors of the disk?"""
        return not size % SECTOR and sector + size // SECTOR <= self.capacity

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes; none where the file became shorter."""
        return os.pread(self.fd, min(size, PIECE), offset)

    def write(self, offset: int, data: bytes) -> None:
        """All of them."""
        left = memoryview(data)
        while left:
            done = os.pwrite(self.fd, left, offset)
            offset, left = offset + done, left[done:]

    def flush(self) -> None:
        """What was written is on the medium from here on."""
        os.fdatasync(self.fd)
        self.flushes += 1

    def discard(self, offset: int, size: int) -> None:
        """Nobody needs these bytes any more."""
        self._allocate(PUNCH_HOLE, offset, size)

    def zero(self, offset: int, size: int, *, unmap: bool) -> None:
        """Let these bytes read as zeroes. With `unmap` their space may be given back, else it stays the file's."""
        if unmap and self._allocate(PUNCH_HOLE, offset, size):
            return
        if self._allocate(ZERO_RANGE, offset, size):
            return
        for start in range(offset, offset + size, PIECE):
            self.write(start, bytes(min(PIECE, offset + size - start)))

    def _allocate(self, mode: int, offset: int, size: int) -> bool:
        """fallocate(2); False where the file system has no such mode."""
        try:
            fallocate(self.fd, mode | KEEP_SIZE, offset, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            return False
        return True

    def close(self) -> None:
        """Close the file; it is not flushed, for no driver asked for it. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _open(path: Path, readonly: bool) -> int:
    doing = f"opening {path} as a {'read-only ' * readonly}disk"
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to would wait without end.
        fd = os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise UsageError(f"{doing}: {os_reason(error)}", to_try(error, path)) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UsageError(f"{doing}: it is no regular file")
    return fd

# SPDX-License-Identifier: GPL-2.0-or-later
"""One folder of the host as a guest may see it: regular files below it, and nothing else, whatever name is asked for.

It knows files; it knows no guest. A path is walked name by name from the folder's own descriptor, and no symlink is
ever followed, so there is no moment in which a path that was looked at could come to mean something else.
Source: open(2), openat2(2) on RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, whose answers are given here too.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from vmm.errors import HostError, os_reason
from vmm.kvm.handle import Closes

MAX_OPEN = 16  # files at a time
MAX_TRANSFER = 1 << 16  # bytes of one read or write
MAX_FILE = 1 << 24  # bytes: a guest does not fill the disk
MAX_PATH = 1024
FIRST = 3  # the guest's descriptors begin here, as after standard input, output and error
ACCESS = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
ALLOWED = ACCESS | os.O_CREAT | os.O_EXCL | os.O_TRUNC
SAFE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
MODE = 0o644


class Refused(OSError):
    """The answer is no; `errno` says which."""


def _refuse(number: int) -> Refused:
    return Refused(number, os.strerror(number))


class Folder(Closes):
    """Files of one folder by small numbers. Every method raises OSError, whose errno a guest may be given.

    `writable` False refuses to open for writing and to create (EROFS). `number` is a file's, as `open` gave it (EBADF
    for another).
    """

    def __init__(self, path: str | Path, *, writable: bool = False) -> None:
        try:
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"opening the folder {path}: {os_reason(error)}", hint="the path of a folder") from error
        self._writable = writable
        self._files: dict[int, int] = {}

    @property
    def _unclosed(self) -> str:
        return "folder" if self._root >= 0 else ""

    def close(self) -> None:
        """Close every file and the folder; idempotent."""
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def open(self, path: bytes, flags: int) -> int:
        """A descriptor for the regular file at `path` below the folder. `flags` as in open(2): how it is accessed,
        O_CREAT, O_EXCL and O_TRUNC. Raises EACCES for a path that leads out, ELOOP for a symlink on its way.
        """
        changing = flags & ACCESS != os.O_RDONLY or flags & (os.O_CREAT | os.O_TRUNC)
        if flags & ~ALLOWED or flags & ACCESS == ACCESS or (flags & os.O_TRUNC and flags & ACCESS == os.O_RDONLY):
            raise _refuse(errno.EINVAL)
        if changing and not self._writable:
            raise _refuse(errno.EROFS)
        if len(self._files) >= MAX_OPEN:
            raise _refuse(errno.EMFILE)
        *folders, name = _names(path)
        parent = os.dup(self._root)
        try:
            for each in folders:
                parent, before = os.open(each, os.O_PATH | os.O_DIRECTORY | SAFE, dir_fd=parent), parent
                os.close(before)
            fd = _open_regular(name, flags, parent)
        finally:
            os.close(parent)
        number = next(n for n in range(FIRST, FIRST + MAX_OPEN) if n not in self._files)
        self._files[number] = fd
        return number

    def _fd(self, number: int) -> int:
        if number not in self._files:
            raise _refuse(errno.EBADF)
        return self._files[number]

    def read(self, number: int, count: int) -> bytes:
        """Up to `count` bytes, at most MAX_TRANSFER (EINVAL beyond)."""
        fd = self._fd(number)
        _check_count(count)
        return os.read(fd, count)

    def write(self, number: int, data: bytes) -> int:
        """How many bytes were written; EFBIG where the file would grow beyond MAX_FILE."""
        fd = self._fd(number)
        _check_count(len(data))
        if os.lseek(fd, 0, os.SEEK_CUR) + len(data) > MAX_FILE:
            raise _refuse(errno.EFBIG)
        return os.write(fd, data)

    def lseek(self, number: int, offset: int, whence: int) -> int:
        """Move by `offset` bytes from `whence` (os.SEEK_SET, SEEK_CUR, SEEK_END); the new position in bytes, from 0 to
        MAX_FILE (EINVAL beyond).
        """
        fd = self._fd(number)
        if whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise _refuse(errno.EINVAL)
        start = {os.SEEK_SET: 0, os.SEEK_CUR: os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_END: os.fstat(fd).st_size}[whence]
        if not 0 <= start + offset <= MAX_FILE:
            raise _refuse(errno.EINVAL)
        return os.lseek(fd, start + offset, os.SEEK_SET)

    def close_file(self, number: int) -> None:
        """Give a descriptor back."""
        os.close(self._fd(number))
        del self._files[number]


def _check_count(count: int) -> None:
    if not 0 <= count <= MAX_TRANSFER:
        raise _refuse(errno.EINVAL)


def _names(path: bytes) -> list[bytes]:
    """The names of a path that stays below where it starts. `.` and empty names are left out."""
    if len(path) > MAX_PATH:
        raise _refuse(errno.ENAMETOOLONG)
    if path.startswith(b"/"):
        raise _refuse(errno.EACCES)
    if b"\0" in path:
        raise _refuse(errno.EINVAL)
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if b".." in names:  # also where it would come back: what it names can change meanwhile
        raise _refuse(errno.EACCES)
    if not names:
        raise _refuse(errno.EISDIR if path else errno.ENOENT)
    return names


def _open_regular(name: bytes, flags: int, parent: int) -> int:
    """Open a regular file in `parent`. Looked at first, for to open a device may already do something; and again when
    it is open, for it may have been another one.
    """
    try:
        _check_regular(os.stat(name, dir_fd=parent, follow_symlinks=False))
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    fd = os.open(name, flags | SAFE, MODE, dir_fd=parent)
    try:
        _check_regular(os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise _refuse(errno.ELOOP)
    if stat.S_ISDIR(status.st_mode):
        raise _refuse(errno.EISDIR)
    if not stat.S_ISREG(status.st_mode):
        raise _refuse(errno.EACCES)

# SPDX-License-Identifier: GPL-2.0-or-later
"""An archive in the format that Linux unpacks its initial file system from, cpio's "newc". It knows bytes alone: no
file is opened, owners are root, and there is no time, so that equal files make an equal archive.

Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat

from vmm.errors import UsageError

MAGIC = b"070701"
TRAILER = "TRAILER!!!"
ALIGN = 4
LARGEST = 0xFFFFFFFF  # a size has eight hexadecimal digits


class Archive:
    """Entries are added in order; a folder that a path names is made before it."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._names: set[str] = set()

    def folder(self, path: str, mode: int = 0o755) -> None:
        """A folder, if it is not there yet."""
        path = path.strip("/")
        if path and path not in self._names:
            self._parents(path)
            self._add(path, stat.S_IFDIR | mode)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """A regular file. UsageError: the path is there already, or the file is too large for the format."""
        self._leaf(path, stat.S_IFREG | mode, data)

    def link(self, path: str, target: str) -> None:
        """A symbolic link. UsageError: the path is there already."""
        self._leaf(path, stat.S_IFLNK | 0o777, target.encode())

    def device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """A character device. UsageError: the path is there already."""
        self._leaf(path, stat.S_IFCHR | mode, device=(major, minor))

    def finish(self) -> bytes:
        """The archive, with its end."""
        return bytes(self._data) + _entry(TRAILER, 0, b"", 0, (0, 0))

    def _parents(self, path: str) -> None:
        self.folder(path.rpartition("/")[0])

    def _leaf(self, path: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        path = path.strip("/")
        if not path or path in self._names or "\0" in path:
            raise UsageError(f"initial file system: /{path} is there already" if path else "a file without a name")
        if len(data) > LARGEST:
            raise UsageError(f"initial file system: /{path} has {len(data)} bytes, and cpio has room for {LARGEST}")
        self._parents(path)
        self._add(path, mode, data, device)

    def _add(self, path: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._names.add(path)
        self._data += _entry(path, mode, data, len(self._names), device)


def _entry(name: str, mode: int, data: bytes, inode: int, device: tuple[int, int]) -> bytes:
    """Header, name, contents. Fields: inode, mode, uid, gid, links, time, size, the file system's device, the node's
    device, the name's size with its NUL, and a checksum that this format does not have.
    """
    raw = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(raw), 0)
    head = MAGIC + b"".join(b"%08x" % field for field in fields) + raw
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGN)

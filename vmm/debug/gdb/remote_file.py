# SPDX-License-Identifier: GPL-2.0-or-later
"""vFile: the one file that a client may read here, the guest's program as ELF. No file of the host is opened.

Source: the gdb manual, E.8 (Host I/O packets) and E.8.1 (struct stat).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

FD = 1
ENOENT, EBADF, EACCES, EINVAL = 2, 9, 13, 22
MOST = 0x1000
REGULAR = 0o100444


class RemoteFile:
    """Which data is open."""

    def __init__(self) -> None:
        self._data: bytes | None = None

    def serve(self, text: str, data: Callable[[], bytes]) -> bytes:
        """The answer to `vFile:...`. ValueError, IndexError: it is malformed."""
        _, name, rest = [*text.split(":", 2), ""][:3]
        match name:
            case "setfs":
                return b"F0"
            case "open":
                path, flags, _mode = rest.split(",")
                if int(flags, 16) & 3:
                    return _error(EACCES)
                found = data() if bytes.fromhex(path).startswith(b"/pyvmm/") else b""
                if not found:
                    return _error(ENOENT)
                self._data = found
                return b"F%x" % FD
            case "pread":
                _fd, size, offset = (int(each, 16) for each in rest.split(","))
                if self._data is None or size < 0 or offset < 0:
                    return _error(EBADF)
                piece = self._data[offset : offset + min(size, MOST)]
                return b"F%x;" % len(piece) + piece
            case "fstat":
                if self._data is None:
                    return _error(EBADF)
                size = len(self._data)
                stat = struct.pack(">IIIIIIIQQQIII", 0, 1, REGULAR, 1, 0, 0, 0, size, 512, (size + 511) // 512, 0, 0, 0)
                return b"F%x;" % len(stat) + stat
            case "close":
                self._data = None
                return b"F0"
            case _:
                return b""


def _error(number: int) -> bytes:
    return b"F-1,%x" % number

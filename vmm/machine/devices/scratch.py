# SPDX-License-Identifier: GPL-2.0-or-later
"""Plain bytes behind MMIO, with a count of the widths that arrived. It knows neither its address nor any register."""

from __future__ import annotations

import threading
from collections import Counter


class ScratchMmio:
    """`size` bytes, zero at first, to be claimed with that size. `reads[n]` and `writes[n]` count accesses of n bytes,
    so that a test can tell one access of 8 bytes from two of 4. Bytes past the end read all ones and are not kept.
    """

    name = "scratch MMIO"

    def __init__(self, size: int = 4096) -> None:
        self.size = size
        self.reads: Counter[int] = Counter()
        self.writes: Counter[int] = Counter()
        self._bytes = bytearray(size)
        self._lock = threading.Lock()

    @property
    def data(self) -> bytes:
        """A copy of the bytes."""
        with self._lock:
            return bytes(self._bytes)

    def get_state(self) -> tuple[bytes, dict[int, int], dict[int, int]]:
        """The bytes and both counts, for `set_state`."""
        with self._lock:
            return bytes(self._bytes), dict(self.reads), dict(self.writes)

    def set_state(self, state: tuple[bytes, dict[int, int], dict[int, int]]) -> None:
        """Be as `get_state` found it."""
        with self._lock:
            self._bytes[:], reads, writes = state
            if self.reads or self.writes or reads or writes:  # nearly never: row reset
                self.reads, self.writes = Counter(reads), Counter(writes)

    def read(self, offset: int, size: int) -> int:
        """Little-endian."""
        with self._lock:
            self.reads[size] += 1
            return int.from_bytes(self._bytes[offset : offset + size].ljust(size, b"\xff"), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Little-endian."""
        with self._lock:
            self.writes[size] += 1
            end = min(offset + size, self.size)  # a longer slice would grow the array
            self._bytes[offset:end] = value.to_bytes(size, "little")[: max(end - offset, 0)]

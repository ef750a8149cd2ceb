# SPDX-License-Identifier: GPL-2.0-or-later
"""An input taken apart: numbers and bytes from its beginning on, zeros behind its end. Pure."""

from __future__ import annotations


class Taker:
    """Of one input, or of one row of it."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, size: int = 1) -> int:
        """The next `size` bytes, little-endian."""
        return int.from_bytes(self.piece(size), "little")

    def piece(self, size: int) -> bytes:
        """The next `size` bytes."""
        found = self._data[self._at : self._at + size]
        self._at += size
        return found.ljust(size, b"\0")

    def rest(self, size: int) -> bytes:
        """`size` bytes of what is left, again and again."""
        left = self._data[self._at :] or b"\0"
        return (left * (size // len(left) + 1))[:size]


def rows(data: bytes, size: int, most: int) -> list[Taker]:
    """The first `most` rows of `size` bytes."""
    return [Taker(data[at : at + size]) for at in range(0, min(len(data), size * most), size)]

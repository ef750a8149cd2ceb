# SPDX-License-Identifier: GPL-2.0-or-later
"""New inputs out of old ones: bits, numbers, blocks, words of the target's own, and two inputs as one. It runs nothing.

Twelve small changes, several at a time, in the manner that AFL made known. They are few on purpose: what finds bugs is
the coverage that chooses among the inputs, and the words that a target knows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from vmm.base.bits import MASK64

INTERESTING = (0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 100, 127, 128, 255, 256, 511, 512, 1000, 1024, 4095, 4096,
               32767, 32768, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63,
               MASK64 - 1, MASK64)  # fmt: skip
WIDTHS = (1, 2, 4, 8)
BLOCKS = (4, 8, 16, 64)
"""A block is shorter than one of these, in bytes."""
ROWS = (1, 1, 1, 2, 4)
"""A block of whole rows has so many."""
AT_ONCE = (1, 1, 1, 2, 2, 4, 8)
SMALL = 35
"""The most that a number is changed by when it is changed by little."""


class Mutator:
    """`words` are byte strings that mean something to the target; no input gets longer than `most` bytes. An input of
    rows of `row` bytes each is often changed by whole rows.
    """

    def __init__(self, rng: random.Random, words: Sequence[bytes], most: int, row: int = 1) -> None:
        self._rng, self._words, self._most, self._row = rng, [each for each in words if each], most, row
        self._changes: list[Callable[[bytearray], object]] = [
            self._flip, self._byte, self._add, self._number, self._insert, self._remove, self._repeat, self._copy
        ]  # fmt: skip
        if self._words:
            self._changes += [self._put_word, self._put_word, self._insert_word, self._insert_word]

    def made(self, data: bytes, other: bytes) -> bytes:
        """An input made of `data`, sometimes with the end of `other`."""
        rng, out = self._rng, bytearray(data)
        if other and rng.random() < 0.15:
            out = out[: self._boundary(out)] + other[self._boundary(bytearray(other)) :]
        for _ in range(rng.choice(AT_ONCE)):
            rng.choice(self._changes)(out)
        return bytes(out[: self._most])

    def each_word(self, data: bytes, most: int) -> Iterator[bytes]:
        """Each word of the target's at each place of `data`; where these are more than `most`, so many of them."""
        words = list(dict.fromkeys(self._words))
        cases = len(words) * len(data)
        for case in range(cases) if cases <= most else self._rng.sample(range(cases), most):
            word, at = words[case % len(words)], case // len(words)
            made = data[:at] + word + data[at + len(word) :]
            if made != data and len(made) <= self._most:
                yield made

    def _place(self, out: bytearray, width: int = 1) -> int | None:
        return self._rng.randrange(len(out) - width + 1) if len(out) >= width else None

    def _flip(self, out: bytearray) -> None:
        if (at := self._place(out)) is not None:
            out[at] ^= 1 << self._rng.randrange(8)

    def _byte(self, out: bytearray) -> None:
        if (at := self._place(out)) is not None:
            out[at] = self._rng.randrange(256)

    def _add(self, out: bytearray) -> None:
        width = self._rng.choice(WIDTHS)
        if (at := self._place(out, width)) is not None:
            number = int.from_bytes(out[at : at + width], "little") + self._rng.randint(-SMALL, SMALL)
            out[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")

    def _number(self, out: bytearray) -> None:
        width = self._rng.choice(WIDTHS)
        if (at := self._place(out, width)) is not None:
            number = self._rng.choice(INTERESTING) % (1 << 8 * width)
            out[at : at + width] = number.to_bytes(width, self._rng.choice(("little", "little", "big")))

    def _block(self, out: bytearray) -> slice | None:
        """A piece of it: any bytes, or some rows."""
        at = self._place(out)
        if at is None:
            return None
        if self._row > 1 and self._rng.random() < 0.7:
            at -= at % self._row
            return slice(at, at + self._row * self._rng.choice(ROWS))
        return slice(at, at + self._rng.randrange(1, self._rng.choice(BLOCKS)))

    def _boundary(self, out: bytearray) -> int:
        """Where something may be put in between."""
        at = self._rng.randrange(len(out) + 1)
        return at - at % self._row if self._rng.random() < 0.7 else at

    def _insert(self, out: bytearray) -> None:
        at = self._boundary(out)
        out[at:at] = self._rng.randbytes(self._row if self._row > 1 else self._rng.randrange(1, 9))

    def _remove(self, out: bytearray) -> None:
        if (block := self._block(out)) is not None:
            del out[block]

    def _repeat(self, out: bytearray) -> None:
        if (block := self._block(out)) is not None:
            at = self._boundary(out)
            out[at:at] = out[block]

    def _copy(self, out: bytearray) -> None:
        if (block := self._block(out)) is not None:
            at, piece = self._boundary(out), out[block]
            out[at : at + len(piece)] = piece

    def _put_word(self, out: bytearray) -> None:
        word = self._rng.choice(self._words)
        if (at := self._place(out, len(word))) is not None:
            out[at : at + len(word)] = word

    def _insert_word(self, out: bytearray) -> None:
        at = self._rng.randrange(len(out) + 1)
        out[at:at] = self._rng.choice(self._words)

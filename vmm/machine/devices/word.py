# SPDX-License-Identifier: GPL-2.0-or-later
"""A device that is one word: reads give it, writes set it, both are counted. The C core serves it without Python."""

from __future__ import annotations

from vmm.base.bits import MASK64
from vmm.kvm.words import Word


class WordDevice:
    """The slow twin of a Word in the C core, over the same memory: both ways give the same numbers."""

    name = "word"

    def __init__(self, word: Word) -> None:
        self.word = word

    def get_state(self) -> tuple[int, int, int]:
        """Value, reads and writes."""
        return self.word.value, self.word.reads, self.word.writes

    def set_state(self, state: tuple[int, int, int]) -> None:
        """Be as `get_state` found it."""
        self.word.set(*state)

    def read(self, offset: int, size: int) -> int:
        """`size` bytes of the word from byte `offset` on; zero beyond its 8 bytes."""
        return self.word.read() >> 8 * offset & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """At offset 0 the whole word, zero-extended, as the core does; elsewhere those bytes of it."""
        if offset:
            mask = (1 << 8 * size) - 1 << 8 * offset
            value = (self.word.value & ~mask | value << 8 * offset) & MASK64
        self.word.write(value)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pages of guest memory are used from outside of the guest, and by whose code. Memory that is not watched is as
it was: a watched one is of a class of its own.

What C code does (a disk's thread, the queues of a card) goes by without being seen here.
"""

from __future__ import annotations

import sys

from vmm.abi.x86 import PAGE
from vmm.machine.memory.slots import GuestMemory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_PAGES = 1 << 16  # of one kind that are kept
DEPTH = 40  # callers that are looked at


class Uses:
    """Numbers of pages (of 4 KiB, guest-physical), each (read, written): `half` used by the code of file `half_file`,
    `own` written by all other callers, whose reads change nothing and are mostly those of who watches. `full` says that
    there were more than MAX_PAGES of a kind.
    """

    def __init__(self, half_file: str) -> None:
        self.half_file = half_file
        self.half: tuple[set[int], set[int]] = (set(), set())
        self.own: tuple[set[int], set[int]] = (set(), set())
        self.full = False

    def add(self, gpa: int, size: int, *, write: bool) -> None:
        """An access is made; the caller's callers say who it is."""
        by_half = self._by_half()
        if not (write or by_half):
            return
        pages = (self.half if by_half else self.own)[write]
        first, last = gpa // PAGE, (gpa + max(size, 1) - 1) // PAGE
        if len(pages) + last - first >= MAX_PAGES:
            self.full = True
            last = first + max(MAX_PAGES - len(pages), 0) - 1
        pages.update(range(first, last + 1))

    def _by_half(self) -> bool:
        frame = sys._getframe(3)
        for _ in range(DEPTH):
            if frame.f_code.co_filename == self.half_file:
                return True
            if frame.f_back is None:
                return False
            frame = frame.f_back
        return False


class WatchedMemory(GuestMemory):
    """GuestMemory that tells `uses` of each access."""

    uses: Uses

    def read(self, gpa: int, size: int) -> bytes:
        data = super().read(gpa, size)
        self.uses.add(gpa, size, write=False)
        return data

    def write(self, gpa: int, data: bytes) -> None:
        super().write(gpa, data)
        self.uses.add(gpa, len(data), write=True)

    def clear(self, gpa: int, size: int) -> None:
        super().clear(gpa, size)
        self.uses.add(gpa, size, write=True)

    def _store(self, layout: str, size: int, gpa: int, value: int) -> None:
        super()._store(layout, size, gpa, value)
        self.uses.add(gpa, size, write=True)


def watch(memory: GuestMemory, half_file: str) -> Uses:
    """From now on every access to `memory` from Python is noted. `half_file` is the file of the host half's code; what
    that calls counts as its own.
    """
    uses = Uses(half_file)
    watched: Any = memory
    watched.__class__ = WatchedMemory
    watched.uses = uses
    return uses

# SPDX-License-Identifier: GPL-2.0-or-later
"""Every page that a guest's tables map, with the bits that its CPU has set there. Numbers in, values out.

page_walk.py goes down for one address; this goes through all of them, and is bounded whatever the tables say. Sources:
Intel SDM vol. 3A, chapter 4 (4.8: the accessed and dirty flags); AMD APM vol. 2, 5.3 to 5.4.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from vmm.abi.x86 import PAGE, PTE, PTE_ADDRESS_MASK
from vmm.base.bits import MASK64
from vmm.errors import GuestMemoryError
from vmm.machine.x86.page_entries import NX, PRESENT, PSE, RW, USER
from vmm.machine.x86.page_walk import paging_mode

Read: TypeAlias = Callable[[int, int], bytes]
MAX_TABLES = 512  # that are read: they map 1 GiB by small pages, and all that there is by large ones
SHIFTS = {"4-level": (39, 30, 21, 12), "5-level": (48, 39, 30, 21, 12), "PAE": (30, 21, 12), "32-bit": (22, 12)}
LARGE = (30, 22, 21)  # bit 7 of an entry at these ends the walk


class Leaf(NamedTuple):
    """`size` bytes from linear `va` are those from guest-physical `gpa`. `accessed` and `dirty` are the CPU's own
    notes, that it has used the page, and written it; the rest are the rights that all levels together give.
    """

    va: int
    gpa: int
    size: int
    accessed: bool
    dirty: bool
    user: bool
    writable: bool
    executable: bool


def leaves(read: Read, cr3: int, cr4: int, efer: int, cr0: int, budget: list[int] | None = None) -> Iterator[Leaf]:
    """The leaves of the tables that these registers load, by linear address; none without paging.

    `read(gpa, size)` raises GuestMemoryError outside RAM: such a table maps nothing. At most MAX_TABLES are read, so
    tables that point at themselves end too; `budget` holds how many may still be, for a caller who wants to know.
    """
    mode = paging_mode(cr0, cr4, efer)
    if mode not in SHIFTS:
        return
    left = [MAX_TABLES] if budget is None else budget
    root = cr3 & (0xFFFF_FFE0 if mode == "PAE" else PTE_ADDRESS_MASK)
    yield from _table(read, root, mode, SHIFTS[mode], 0, PRESENT | RW | USER, left)


def _table(
    read: Read, at: int, mode: str, shifts: tuple[int, ...], va: int, rights: int, left: list[int]
) -> Iterator[Leaf]:
    """Of one table and those below it. `left` is how many may still be read."""
    if not left[0]:
        return
    left[0] -= 1
    shift, *below = shifts
    size = 32 if mode == "PAE" and shift == 30 else PAGE
    try:
        data = read(at, size)
    except GuestMemoryError:
        return
    for index, (raw,) in enumerate(struct.iter_unpack("<I" if mode == "32-bit" else "<Q", data)):
        if not raw & PRESENT:
            continue
        here = va | index << shift
        if shift == SHIFTS[mode][0] and shift > 32 and index >= 256:
            here |= -1 << shift + 9 & MASK64  # canonical: the highest bit of the address goes on
        own = raw & (RW | USER) | raw & NX
        if mode == "PAE" and shift == 30:
            own = RW | USER  # its entries give no rights (SDM 4.4.1)
        joined = rights & (own | ~(RW | USER)) | own & NX
        if below and not (shift in LARGE and raw & PSE and not (mode == "PAE" and shift == 30)):
            table = raw & (0xFFFF_F000 if mode == "32-bit" else PTE_ADDRESS_MASK)
            yield from _table(read, table, mode, tuple(below), here, joined, left)
            continue
        span = 1 << shift
        base = raw & PTE_ADDRESS_MASK & -span
        if mode == "32-bit":
            base = raw & 0xFFFF_FFFF & -span | ((raw >> 13 & 0xFF) << 32 if span > PAGE else 0)
        yield Leaf(
            here, base, span, bool(raw & PTE.ACCESSED), bool(raw & PTE.DIRTY), bool(joined & USER), bool(joined & RW),
            not joined & NX,
        )  # fmt: skip

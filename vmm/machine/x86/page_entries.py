# SPDX-License-Identifier: GPL-2.0-or-later
"""Page tables: the bits of an entry, and the boot identity map as bytes. Numbers in, bytes out.

Live tables are edited by page_edits.py and walked by page_walk.py. Sources: Intel SDM vol. 3A, chapter 4; AMD APM
vol. 2, chapter 5.
"""

from __future__ import annotations

from vmm.abi.x86 import LARGE_PAGE, PAGE, PTE
from vmm.base.light import cache, lru_cache
from vmm.errors import UsageError
from vmm.kvm.buffers import counted_up, packed_u64
from vmm.machine.memory.layout import (
    BOOT_TABLE_PAGES,
    CPU_BLOCK_SIZE,
    FOUR_GIB,
    GIB,
    MAX_CPUS,
    REGIONS,
    describe,
    ram_ranges,
    rows_below,
)

ROOT = REGIONS["page_tables"].base
"""CR3 of the boot tables: their PML4."""

ENTRIES = 512
# Plain integers: arithmetic with IntFlag is slow, and it keeps a member for every value it ever met.
PRESENT, RW, USER, PSE, NX = (int(bit) for bit in (PTE.PRESENT, PTE.RW, PTE.USER, PTE.PSE, PTE.NX))
LINK = PRESENT | RW | USER  # a table never takes a right away: the last entry alone decides (4.6.1)

CPUS_IN_SMALL_PAGES = (LARGE_PAGE - REGIONS["cpus"].base) // CPU_BLOCK_SIZE  # those behind have no guard pages

UserRanges = tuple[tuple[int, int], ...]


# --- the boot tables -------------------------------------------------------------------------------------------------


def identity_map(memory: int, user: UserRanges = (), cpus: int = MAX_CPUS) -> bytes:
    """The boot tables, as the bytes that belong at ROOT: one 4 KiB table after the other, the PML4 first.

    Virtual equals physical for the first 4 GiB and for RAM above (`memory` bytes in all, in whole GiB). The first 2 MiB
    has 4 KiB pages with the rights of layout.MAP; the rest 2 MiB pages, ring 0 only, writable, not executable.
    Of the blocks in region `cpus`, `cpus` have guard pages; RAM behind them is plain. `user` names ranges [low, high)
    of mapped pages in the first 2 MiB that ring 3 may use too. Raises UsageError.
    """
    high = sum(size for base, size in ram_ranges(memory) if base >= FOUR_GIB)
    return _identity_map(-(-high // GIB), user, min(cpus, CPUS_IN_SMALL_PAGES))


@lru_cache(maxsize=64)
def _identity_map(high_gibs: int, user: UserRanges, cpus: int) -> bytes:
    if (BOOT_TABLE_PAGES + high_gibs) * PAGE > REGIONS["page_tables"].size:
        raise UsageError(f"{high_gibs} GiB of RAM above 4 GiB need more page tables than the guest map has room for")
    first = ROOT + 2 * PAGE  # PML4, PDPT, four directories, the table of 4 KiB pages, directories above 4 GiB
    small = first + 4 * PAGE
    directories = [*range(first, small, PAGE), *(small + PAGE * (1 + n) for n in range(high_gibs))]
    low = b"".join(_directory(n * GIB) for n in range(4))
    return b"".join(
        (
            _table([(ROOT + PAGE) | LINK]),
            _table([directory | LINK for directory in directories]),
            packed_u64([small | LINK]) + low[8:],
            _first_table(user, cpus),
            *(_directory(FOUR_GIB + n * GIB) for n in range(high_gibs)),
        )
    )


def _table(entries: list[int]) -> bytes:
    return packed_u64(entries).ljust(PAGE, b"\0")


@cache
def _directory(base: int) -> bytes:
    """One GiB from `base` by 2 MiB pages."""
    flags = PRESENT | RW | PSE | NX
    return counted_up(base | flags, LARGE_PAGE, ENTRIES)


def _first_table(user: UserRanges, cpus: int) -> bytes:
    """The first 2 MiB by 4 KiB pages, as layout.MAP says."""
    table = _first_entries(cpus)
    if not user:
        return table
    entries = list(memoryview(table).cast("Q"))
    for low, high in user:
        if low % PAGE or high % PAGE or not 0 <= low < high <= LARGE_PAGE:
            raise UsageError(
                f"user range {low:#x}..{high:#x}: ring 3 can be given whole 4 KiB pages of the first 2 MiB only"
                " (put `.p2align 12` before both labels)"
            )
        for page in range(low // PAGE, high // PAGE):
            if not entries[page]:
                where = describe(page * PAGE) or "no region"
                raise UsageError(f"user range {low:#x}..{high:#x}: page {page * PAGE:#x} ({where}) is not mapped")
            entries[page] |= USER
    return packed_u64(entries)


@cache
def _first_entries(cpus: int) -> bytes:
    table = bytearray(ENTRIES * 8)
    for base, row in rows_below(LARGE_PAGE, cpus):
        if row.mapped:
            flags = leaf_flags(writable=row.writable, user=row.user, nx=not row.executable)
            at, count = base // PAGE, -(-row.size // PAGE)
            table[8 * at : 8 * (at + count)] = counted_up(base | flags, PAGE, count)
    return bytes(table)


def leaf_flags(*, writable: bool, user: bool, nx: bool) -> int:
    """The rights of a present page as entry bits."""
    return PRESENT | RW * writable | USER * user | NX * nx

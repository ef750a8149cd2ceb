# SPDX-License-Identifier: GPL-2.0-or-later
"""Edits of live 4-level page tables: map, unmap, change one entry. It touches memory only through two callables.

Sources: Intel SDM vol. 3A, 4.5; AMD APM vol. 2, 5.3.
"""

from __future__ import annotations

from vmm.abi.x86 import LARGE_PAGE, PAGE, PTE_ADDRESS_MASK
from vmm.base.bits import MASK64
from vmm.errors import UsageError
from vmm.machine.memory.layout import BOOT_TABLE_PAGES, REGIONS
from vmm.machine.x86.page_entries import ENTRIES, LINK, PRESENT, PSE, ROOT, leaf_flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class PageTables:
    """4-level tables in guest memory, changed through two callables: `read_u64(gpa)` and `write_u64(gpa, value)`.

    New tables are taken from [`free`, `end`); by default what the boot tables of a small machine leave. Pass
    `free=ROOT + len(identity_map(memory))`. The guest's TLB is not told: it must INVLPG or reload CR3 itself.
    """

    def __init__(
        self,
        read_u64: Callable[[int], int],
        write_u64: Callable[[int, int], object],
        *,
        root: int = ROOT,
        free: int = ROOT + BOOT_TABLE_PAGES * PAGE,
        end: int = REGIONS["page_tables"].end,
    ) -> None:
        self._read, self._write = read_u64, write_u64
        self.root, self.free, self.end = root, free, end

    def map(
        self,
        va: int,
        gpa: int,
        size: int,
        *,
        page_size: int = PAGE,
        writable: bool = True,
        user: bool = False,
        nx: bool = True,
    ) -> None:
        """Let [va, va+size) mean [gpa, gpa+size). What was mapped there is replaced; a 2 MiB page is split as needed.

        Raises UsageError: misaligned or non-canonical, no table page left, 2 MiB pages where a table of 4 KiB pages is
        in use. Pages done before the error stay mapped.
        """
        if page_size not in (PAGE, LARGE_PAGE):
            raise UsageError(f"map {va:#x}: a page has 4 KiB or 2 MiB, not {page_size:#x} bytes")
        _check_range(va, size, page_size)
        if gpa % page_size or not 0 <= gpa <= PTE_ADDRESS_MASK + PAGE - size:
            raise UsageError(f"map {va:#x}: {gpa:#x} is not a physical address that a page of {page_size:#x} can have")
        level = 1 if page_size == PAGE else 2
        flags = leaf_flags(writable=writable, user=user, nx=nx) | PSE * (level == 2)
        for offset in range(0, size, page_size):
            address = self._entry_address(va + offset, level)
            old = self._read(address)
            if level == 2 and old & PRESENT and not old & PSE:
                raise UsageError(f"map {va + offset:#x}: 4 KiB pages are in use there; map it by 4 KiB pages")
            self._write(address, gpa + offset | flags)

    def unmap(self, va: int, size: int) -> None:
        """Clear every page of [va, va+size), whole 4 KiB pages; a 2 MiB page is split if only part of it goes."""
        _check_range(va, size, PAGE)
        end = va + size
        while va < end:
            address, entry, span = self.leaf(va)
            if entry & PRESENT and (va % span or end - va < span):
                address, entry, span = self._entry_address(va, 1), entry, PAGE
            if entry & PRESENT:
                self._write(address, 0)
            va = va - va % span + span

    def leaf(self, va: int) -> tuple[int, int, int]:
        """(address, value, bytes covered) of the last entry on the way to `va`: a page, or the first not present."""
        table = self.root
        for level in (4, 3, 2):
            address = table + _index(va, level)
            entry = self._read(address)
            if not entry & PRESENT or (entry & PSE and level < 4):
                return address, entry, _span(level)
            table = entry & PTE_ADDRESS_MASK
        address = table + _index(va, 1)
        return address, self._read(address), PAGE

    def change(self, va: int, *, set_bits: int = 0, clear_bits: int = 0, split: bool = False) -> int:
        """Set and clear bits in the entry of the page that holds `va`; returns the old value.

        A 2 MiB page changes as a whole, or with `split` becomes 512 pages first. Raises UsageError where no table
        leads to the page; an entry that is merely not present can be changed.
        """
        address, old, span = self.leaf(va)
        if span > PAGE and not old & PRESENT:
            raise UsageError(f"change the page of {va:#x}: nothing is mapped there")
        if split and span > PAGE:
            address = self._entry_address(va, 1)
            old = self._read(address)
        self._write(address, old & ~clear_bits & MASK64 | set_bits)
        return old

    def _entry_address(self, va: int, wanted: int) -> int:
        """Where the entry for `va` lies at level `wanted` (1 PTE, 2 PDE), making tables on the way."""
        table = self.root
        for level in range(4, wanted, -1):
            address = table + _index(va, level)
            entry = self._read(address)
            if not entry & PRESENT:
                table = self._new_table([0] * ENTRIES)
                self._write(address, table | LINK)
            elif entry & PSE and level < 4:
                table = self._new_table(_split(entry, level))
                self._write(address, table | LINK)
            else:
                table = entry & PTE_ADDRESS_MASK
        return table + _index(va, wanted)

    def _new_table(self, entries: list[int]) -> int:
        if self.free + PAGE > self.end:
            raise UsageError(
                f"no page left for another page table (the region ends at {self.end:#x});"
                " map fewer places or use 2 MiB pages"
            )
        table, self.free = self.free, self.free + PAGE
        for number, entry in enumerate(entries):
            self._write(table + 8 * number, entry)
        return table


def _span(level: int) -> int:
    """Bytes that one entry covers: 4 KiB at level 1, 2 MiB at level 2, ..."""
    return 1 << 12 + 9 * (level - 1)


def _index(va: int, level: int) -> int:
    """Byte offset of the entry for `va` in a table of this level."""
    return va // _span(level) % ENTRIES * 8


def _split(entry: int, level: int) -> list[int]:
    """The 512 entries of the level below that together mean the same as this large page."""
    step = _span(level - 1)
    base = entry & PTE_ADDRESS_MASK & -_span(level)
    flags = entry & ~PTE_ADDRESS_MASK & ~PSE
    pat = entry & PAGE  # bit 12 of a large page; in a PTE the same meaning sits where PSE was
    flags |= (PSE if pat else 0) if level == 2 else PSE | pat
    return [base + number * step | flags for number in range(ENTRIES)]


def _check_range(va: int, size: int, page_size: int) -> None:
    if size <= 0 or va % page_size or size % page_size:
        raise UsageError(f"range {va:#x} of {size:#x} bytes is not made of whole pages of {page_size:#x} bytes")
    if not ((0 <= va and va + size <= 1 << 47) or (-(1 << 47) % (1 << 64) <= va and va + size <= 1 << 64)):
        raise UsageError(f"range {va:#x} of {size:#x} bytes is not canonical: bits 63 to 47 must be equal")

# SPDX-License-Identifier: GPL-2.0-or-later
"""All leaves of page tables, made here by hand, against the walk of single addresses; and tables that never end."""

from __future__ import annotations

import struct

import pytest

from vmm.abi.x86 import CR0, CR4, EFER, PTE
from vmm.errors import GuestMemoryError
from vmm.machine.x86.page_entries import NX
from vmm.machine.x86.page_leaves import MAX_TABLES, Leaf, leaves
from vmm.machine.x86.page_walk import walk

P, W, U, A, D, LARGE = PTE.PRESENT, PTE.RW, PTE.USER, PTE.ACCESSED, PTE.DIRTY, PTE.PSE
LONG = (CR4.PAE, EFER.LMA | EFER.LME | EFER.NX, CR0.PE | CR0.PG)


class Ram:
    """Tables by address; 64 KiB from 0."""

    def __init__(self) -> None:
        self.bytes = bytearray(0x10000)

    def put(self, table: int, index: int, value: int, size: int = 8) -> None:
        self.bytes[table + index * size : table + (index + 1) * size] = value.to_bytes(size, "little")

    def read(self, gpa: int, size: int) -> bytes:
        if not 0 <= gpa <= len(self.bytes) - size:
            raise GuestMemoryError("outside")
        return bytes(self.bytes[gpa : gpa + size])

    def u64(self, gpa: int) -> int:
        value: int = struct.unpack("<Q", self.read(gpa, 8))[0]
        return value


def agree(ram: Ram, found: list[Leaf], cr3: int, cr4: int, efer: int, cr0: int) -> None:
    """Every leaf is what a walk of its first and last byte finds."""
    for leaf in found:
        for va, gpa in ((leaf.va, leaf.gpa), (leaf.va + leaf.size - 1, leaf.gpa + leaf.size - 1)):
            one = walk(ram.u64, cr3, cr4, efer, cr0, va)
            assert (one.gpa, one.page_size) == (gpa, leaf.size)
            assert (one.user, one.writable, one.executable) == (leaf.user, leaf.writable, leaf.executable)


def test_four_levels() -> None:
    ram = Ram()
    ram.put(0x1000, 0, 0x2000 | P | W | U)
    ram.put(0x1000, 511, 0x2000 | P | W)  # the upper half, not for ring 3
    ram.put(0x2000, 1, (1 << 30) | P | W | U | LARGE | A | NX)
    ram.put(0x2000, 3, 0x3000 | P | U)  # read-only below
    ram.put(0x3000, 2, 0x20_0000 | P | W | U | LARGE | A | D)
    ram.put(0x3000, 5, 0x4000 | P | W | U)
    ram.put(0x4000, 7, 0x5000 | P | W | U | A)
    ram.put(0x4000, 8, 0x6000)
    ram.put(0x3000, 9, 0x9_0000_0000 | P)  # a table where no memory is
    found = list(leaves(ram.read, 0x1000, *LONG))
    assert [(leaf.size, leaf.accessed, leaf.dirty) for leaf in found[:3]] == [
        (1 << 30, True, False), (1 << 21, True, True), (1 << 12, True, False),
    ]  # fmt: skip
    assert [leaf.va >> 63 for leaf in found] == [0, 0, 0, 1, 1, 1]
    assert found[1].writable is False
    agree(ram, found, 0x1000, *LONG)


def test_pae_and_32_bits() -> None:
    ram = Ram()
    ram.put(0x1000, 0, 0x2000 | P)
    ram.put(0x1000, 3, 0x2000 | P)
    ram.put(0x2000, 1, 0x40_0000 | P | W | LARGE | A)
    ram.put(0x2000, 2, 0x3000 | P | W | U)
    ram.put(0x3000, 4, 0x7000 | P | W | U | A | D)
    state = (CR4.PAE, 0, CR0.PE | CR0.PG)
    found = list(leaves(ram.read, 0x1000, *state))
    assert [leaf.va for leaf in found] == [0x20_0000, 0x40_4000, 0xC020_0000, 0xC040_4000]
    agree(ram, found, 0x1000, *state)

    ram = Ram()
    ram.put(0x1000, 1, 0x2000 | P | W | U, 4)
    ram.put(0x2000, 1023, 0x8000 | P | W | U | A, 4)
    ram.put(0x1000, 768, 0x40_0000 | 3 << 13 | P | W | LARGE | D | A, 4)  # bits 39:32 of the address are 3
    state = (CR4.PSE, 0, CR0.PE | CR0.PG)
    found = list(leaves(ram.read, 0x1000, *state))
    assert [(leaf.va, leaf.gpa) for leaf in found] == [(0x7F_F000, 0x8000), (0xC000_0000, 0x3_0040_0000)]
    agree(ram, found, 0x1000, *state)


def test_tables_that_point_at_themselves_end() -> None:
    ram = Ram()
    for index in range(512):
        ram.put(0x1000, index, 0x1000 | P | W | A)
    budget = [MAX_TABLES]
    assert 0 < sum(1 for _ in leaves(ram.read, 0x1000, *LONG, budget)) <= 512 * MAX_TABLES
    assert budget == [0]


@pytest.mark.parametrize("cr0", [0, CR0.PE])
def test_without_paging_there_are_none(cr0: int) -> None:
    assert list(leaves(Ram().read, 0x1000, 0, 0, cr0)) == []

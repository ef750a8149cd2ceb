# SPDX-License-Identifier: GPL-2.0-or-later
"""Bitmaps of the dirty log, and the ring of coalesced writes, without a device."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.kvm._kvm import ffi
from vmm.kvm.coalesced import CoalescedRing, CoalescedWrite
from vmm.kvm.dirty import from_bitmap, to_bitmap


@given(st.sets(st.integers(0, 199)))
def test_a_bitmap_is_its_pages(pages):
    data = to_bitmap(pages, 200)
    assert len(data) == 32  # whole words of 64
    assert from_bitmap(data) == pages


def test_the_first_page_is_the_lowest_bit_of_the_first_byte():
    assert to_bitmap({0, 9}, 64) == b"\x01\x02" + bytes(6)


@pytest.fixture
def page():
    return ffi.new("__u8[4096]")


def fill(page, first, last, entries):
    ring = ffi.cast("struct kvm_coalesced_mmio_ring *", page)
    ring.first, ring.last = first, last
    at = ffi.cast("struct kvm_coalesced_mmio *", ffi.cast("char *", page) + 8)
    for place, (address, data, pio) in entries.items():
        at[place].phys_addr, at[place].len, at[place].pio = address, len(data), pio
        at[place].data[0 : len(data)] = list(data)
    return CoalescedRing(ring)


def test_an_empty_ring_has_no_first(page):
    assert fill(page, 3, 3, {3: (1, b"x", 0)}).first() is None


def test_entries_come_in_order_and_round_the_corner(page):
    last = CoalescedRing.places - 1
    ring = fill(page, last, 1, {last: (0xD0000000, b"\x01\x02\x03\x04", 0), 0: (0x80, b"\x05", 1)})
    assert ring.first() == CoalescedWrite(0xD0000000, b"\x01\x02\x03\x04", pio=False)
    assert ring.first() is not None  # it stays until it is taken
    ring.take()
    assert ring.first() == CoalescedWrite(0x80, b"\x05", pio=True)
    ring.take()
    assert ring.first() is None

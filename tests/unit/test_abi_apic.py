# SPDX-License-Identifier: GPL-2.0-or-later
"""Interrupt messages: encodings, and the extended destination id that KVM does not decode itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.abi import apic


@given(st.integers(0, 0x7FFF))
def test_an_extended_id_arrives_after_translation(apic_id: int) -> None:
    guest = apic.msi_address(apic_id, extended=True)
    assert guest < 1 << 32, "a guest writes a 32-bit address"
    translated = apic.translate_ext_dest_id(guest)
    assert apic.msi_destination(translated) == apic_id
    assert translated == apic.msi_address(apic_id)
    assert translated >> 32 & 0xFF == 0, "KVM refuses these bits"
    assert apic.translate_ext_dest_id(translated) == translated


def test_without_translation_kvm_sees_the_low_byte_only() -> None:
    assert apic.msi_destination(apic.msi_address(300, extended=True)) == 300 & 0xFF


def test_id_300_by_hand() -> None:
    assert apic.msi_address(300, extended=True) == 0xFEE2C020
    assert apic.translate_ext_dest_id(0xFEE2C020) == 0x1_00_FEE2C000
    assert apic.msi_address(300) == 0x100_FEE2C000


def test_a_remappable_address_is_left_alone() -> None:
    assert apic.translate_ext_dest_id(0xFEE2C030) == 0xFEE2C030


@given(st.integers(0, 0xFFFFFFFF), st.booleans())
def test_every_32_bit_id_round_trips(apic_id: int, logical: bool) -> None:
    address = apic.msi_address(apic_id, logical=logical)
    assert apic.msi_destination(address) == apic_id
    assert bool(address & 4) == logical


@pytest.mark.parametrize(("apic_id", "extended"), [(0x8000, True), (1 << 32, False), (-1, False)])
def test_ids_that_do_not_fit(apic_id: int, extended: bool) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        apic.msi_address(apic_id, extended=extended)


def test_data_words() -> None:
    assert apic.msi_data(0x40) == 0x40
    assert apic.msi_data(0, apic.DM_REMRD) == 0x300
    assert apic.msi_data(0x41, level=True) == 0xC041
    with pytest.raises(ValueError, match="does not fit in 8 bits"):
        apic.msi_data(256)


def test_ioapic_entries() -> None:
    entry = 0x2C << 56 | 1 << 49 | 0x40
    assert apic.ioapic_destination(entry) == 0x2C
    assert apic.ioapic_destination(entry, extended=True) == 300


def test_icr() -> None:
    assert apic.icr(0x40, destination=70) == 70 << 32 | 0x40
    assert apic.icr(0x40, shorthand=apic.DEST_SELF) == 0x40040
    assert apic.icr(0, apic.DM_NMI) == 0x400


def test_x2apic_registers() -> None:
    msr = {row.name: row.msr for row in apic.REGISTERS}
    assert (msr["EOI"], msr["SPIV"], msr["ICR"], msr["LVTT"], msr["TDCR"]) == (0x80B, 0x80F, 0x830, 0x832, 0x83E)
    assert msr["ICR2"] is None

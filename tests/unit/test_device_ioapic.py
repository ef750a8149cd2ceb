# SPDX-License-Identifier: GPL-2.0-or-later
"""The IOAPIC by its registers alone: what a guest reads and writes, what is sent, when a level comes again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.abi import irq
from vmm.abi.apic import DM_LOWEST, DM_NMI, msi_address, msi_data
from vmm.errors import UsageError
from vmm.machine.devices.ioapic import Ioapic, Message, message


class Rig:
    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.changes: list[tuple[int, int]] = []
        self.ioapic = Ioapic(self.sent.append, lambda pin, entry: self.changes.append((pin, entry)))

    def read(self, index: int) -> int:
        self.ioapic.write(irq.IOREGSEL, 4, index)
        return self.ioapic.read(irq.IOWIN, 4)

    def write(self, index: int, value: int) -> None:
        self.ioapic.write(irq.IOREGSEL, 4, index)
        self.ioapic.write(irq.IOWIN, 4, value)

    def program(self, pin: int, entry: int) -> None:
        """As a guest does it: the high half first, for the low one unmasks."""
        self.write(irq.IOAPIC_REDTBL + 2 * pin + 1, entry >> 32)
        self.write(irq.IOAPIC_REDTBL + 2 * pin, entry & 0xFFFFFFFF)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_after_reset(rig: Rig) -> None:
    assert rig.read(irq.IOAPIC_ID) == rig.read(irq.IOAPIC_ARB) == 0
    assert rig.read(irq.IOAPIC_VERSION) == 0x170011
    assert rig.ioapic.entries == (irq.RTE_MASKED,) * 24
    assert [rig.read(index) for index in (0x10, 0x11, 0x3E, 0x3F)] == [irq.RTE_MASKED, 0] * 2
    assert rig.read(0x40) == rig.read(0xFF) == rig.read(3) == 0


def test_the_index_register_and_other_offsets(rig: Rig) -> None:
    rig.ioapic.write(irq.IOREGSEL, 4, 0x1234)
    assert rig.ioapic.read(irq.IOREGSEL, 4) == 0x34
    assert rig.ioapic.read(irq.IOREGSEL, 1) == 0x34
    assert rig.ioapic.read(4, 4) == rig.ioapic.read(0x40, 4) == 0
    rig.ioapic.write(irq.IOREGSEL, 4, irq.IOAPIC_VERSION)
    assert [rig.ioapic.read(irq.IOWIN, size) for size in (1, 2, 4)] == [0x11, 0x11, 0x170011]
    rig.ioapic.write(0x40, 4, 0x51)
    rig.ioapic.write(4, 4, 0xFFFFFFFF)
    assert (rig.sent, rig.changes) == ([], [])


def test_the_id_keeps_four_bits_and_is_what_arbitration_reads(rig: Rig) -> None:
    rig.write(irq.IOAPIC_ID, 0xFFFFFFFF)
    assert rig.read(irq.IOAPIC_ID) == rig.read(irq.IOAPIC_ARB) == 0x0F000000
    rig.write(irq.IOAPIC_VERSION, 0)
    rig.write(irq.IOAPIC_ARB, 0)
    assert (rig.read(irq.IOAPIC_VERSION), rig.read(irq.IOAPIC_ARB)) == (0x170011, 0x0F000000)


@given(st.integers(0, 23), st.integers(0, (1 << 64) - 1))
def test_an_entry_keeps_its_writable_bits(pin: int, entry: int) -> None:
    rig = Rig()
    rig.program(pin, entry)
    kept = entry & irq.RTE_WRITABLE
    # An active-low level with its line low is asserted, and sent when it is unmasked.
    asserted = entry & (irq.RTE_MASKED | irq.RTE_LEVEL | irq.RTE_ACTIVE_LOW) == irq.RTE_LEVEL | irq.RTE_ACTIVE_LOW
    assert rig.ioapic.entries[pin] == kept | irq.RTE_REMOTE_IRR * asserted
    assert len(rig.sent) == asserted
    low, high = (rig.read(irq.IOAPIC_REDTBL + 2 * pin + half) for half in (0, 1))
    assert high << 32 | low == rig.ioapic.entries[pin]
    assert [at for at, _ in rig.changes] == [pin, pin]
    assert all(each == irq.RTE_MASKED for at, each in enumerate(rig.ioapic.entries) if at != pin)


def test_messages() -> None:
    assert message(irq.ioapic_rte(0x51, 7)) == Message(msi_address(7), msi_data(0x51))
    assert message(irq.ioapic_rte(0x51, 7, level=True)) == Message(msi_address(7), msi_data(0x51, level=True))
    logical = irq.ioapic_rte(0x51, 3, logical=True, mode=DM_LOWEST)
    assert message(logical) == Message(msi_address(3, logical=True), msi_data(0x51, DM_LOWEST))
    assert message(irq.ioapic_rte(0, mode=DM_NMI)) == Message(msi_address(0), msi_data(0, DM_NMI))


def test_an_edge_is_a_rise(rig: Rig) -> None:
    rig.program(5, irq.ioapic_rte(0x51))
    for level in (True, True, False, False, True):
        rig.ioapic.set_line(5, level)
    assert rig.sent == [message(irq.ioapic_rte(0x51))] * 2
    rig.ioapic.end_of_interrupt(0x51)
    assert len(rig.sent) == 2


def test_an_active_low_edge_is_a_fall(rig: Rig) -> None:
    rig.program(5, irq.ioapic_rte(0x51) | irq.RTE_ACTIVE_LOW)
    for level in (True, False, False, True):
        rig.ioapic.set_line(5, level)
    assert len(rig.sent) == 1


def test_an_edge_under_a_mask_is_lost(rig: Rig) -> None:
    rig.program(5, irq.ioapic_rte(0x51, masked=True))
    rig.ioapic.set_line(5, True)
    rig.program(5, irq.ioapic_rte(0x51))
    assert rig.sent == []


def test_a_level_comes_again_at_each_end_while_it_is_high(rig: Rig) -> None:
    entry = irq.ioapic_rte(0x51, level=True)
    rig.program(5, entry)
    rig.ioapic.set_line(5, True)
    assert rig.ioapic.entries[5] == entry | irq.RTE_REMOTE_IRR
    rig.ioapic.set_line(5, False)
    rig.ioapic.set_line(5, True)  # not again before the end
    rig.ioapic.end_of_interrupt(0x52)  # another vector's
    assert len(rig.sent) == 1
    rig.ioapic.end_of_interrupt(0x51)
    assert len(rig.sent) == 2
    rig.ioapic.set_line(5, False)
    rig.ioapic.end_of_interrupt(0x51)
    assert (len(rig.sent), rig.ioapic.entries[5]) == (2, entry)
    rig.ioapic.end_of_interrupt(0x51)
    assert len(rig.sent) == 2


def test_a_level_under_a_mask_comes_when_it_is_unmasked(rig: Rig) -> None:
    rig.program(5, irq.ioapic_rte(0x51, level=True, masked=True))
    rig.ioapic.set_line(5, True)
    assert rig.sent == []
    rig.program(5, irq.ioapic_rte(0x51, level=True))
    assert len(rig.sent) == 1
    rig.program(5, irq.ioapic_rte(0x51, level=True))  # remote IRR is not the guest's to write
    assert len(rig.sent) == 1
    assert rig.ioapic.entries[5] & irq.RTE_REMOTE_IRR
    rig.program(5, irq.ioapic_rte(0x51))  # an edge has none
    assert not rig.ioapic.entries[5] & irq.RTE_REMOTE_IRR


def test_two_levels_with_one_vector(rig: Rig) -> None:
    for pin in (5, 6):
        rig.program(pin, irq.ioapic_rte(0x51, level=True))
        rig.ioapic.set_line(pin, True)
    assert len(rig.sent) == 2
    rig.ioapic.end_of_interrupt(0x51)
    assert len(rig.sent) == 4


def test_a_line_may_be_driven_from_what_it_sends() -> None:
    def lower(_message: Message) -> None:
        sent.append(1)
        ioapic.set_line(5, False)

    sent: list[int] = []
    ioapic = Ioapic(lower)
    ioapic.write(irq.IOREGSEL, 4, irq.IOAPIC_REDTBL + 10)
    ioapic.write(irq.IOWIN, 4, 0x51)
    for _ in range(2):
        ioapic.set_line(5, True)
    assert sent == [1, 1]


@pytest.mark.parametrize("pin", [-1, 24])
def test_there_is_no_such_pin(rig: Rig, pin: int) -> None:
    with pytest.raises(UsageError, match="pins 0 to 23"):
        rig.ioapic.set_line(pin, True)

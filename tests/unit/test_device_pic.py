# SPDX-License-Identifier: GPL-2.0-or-later
"""The 8259A pair by its ports alone, beside a model of its priorities that is written the slow way."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.abi import irq
from vmm.machine.devices.pic import Pics


class Rig:
    def __init__(self) -> None:
        self.levels: list[bool] = []
        self.pics = Pics(self.levels.append)
        self.master, self.slave = self.pics.master_ports, self.pics.slave_ports

    def begin(self, *, icw1: int = irq.PIC_ICW1, icw4: int = irq.PIC_ICW4, mask: int = 0) -> None:
        for ports, base, wiring in ((self.master, 0x20, 4), (self.slave, 0x28, 2)):
            ports.write(0, 1, icw1)
            for word in (base, wiring, icw4):
                ports.write(1, 1, word)
            ports.write(1, 1, mask)

    def pulse(self, number: int) -> None:
        self.pics.set_line(number, True)
        self.pics.set_line(number, False)

    def isr(self, ports) -> int:
        ports.write(0, 1, 0x0B)
        return ports.read(0, 1)

    def irr(self, ports) -> int:
        ports.write(0, 1, 0x0A)
        return ports.read(0, 1)


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.begin()
    return rig


def test_an_edge_is_taken_and_ended(rig: Rig) -> None:
    rig.pulse(4)
    assert (rig.levels, rig.irr(rig.master)) == ([True], 1 << 4)
    assert rig.pics.acknowledge() == 0x24
    assert (rig.levels, rig.irr(rig.master), rig.isr(rig.master)) == ([True, False], 0, 1 << 4)
    rig.master.write(0, 1, irq.PIC_EOI)
    assert rig.isr(rig.master) == 0


def test_the_slave_comes_through_the_master(rig: Rig) -> None:
    rig.pulse(10)
    assert rig.pics.acknowledge() == 0x2A
    assert (rig.isr(rig.master), rig.isr(rig.slave)) == (1 << 2, 1 << 2)
    rig.pulse(9)  # higher in the slave, but the master waits for its own EOI
    assert not rig.pics.pending
    rig.slave.write(0, 1, irq.PIC_EOI)
    rig.master.write(0, 1, irq.PIC_EOI)
    assert rig.pics.acknowledge() == 0x29


def test_specially_fully_nested_the_slave_may_interrupt_itself() -> None:
    rig = Rig()
    rig.begin(icw4=irq.PIC_ICW4 | irq.PIC_ICW4_SFNM)
    rig.pulse(10)
    assert rig.pics.acknowledge() == 0x2A
    rig.pulse(9)
    assert rig.pics.acknowledge() == 0x29


def test_the_higher_waits_for_none_and_the_lower_for_the_end(rig: Rig) -> None:
    rig.pulse(5)
    assert rig.pics.acknowledge() == 0x25
    rig.pulse(6)
    assert not rig.pics.pending
    rig.pulse(1)
    assert rig.pics.acknowledge() == 0x21
    rig.master.write(0, 1, irq.PIC_EOI)  # the highest in service: 1
    assert rig.isr(rig.master) == 1 << 5
    rig.master.write(0, 1, 0x60 | 5)
    assert rig.pics.acknowledge() == 0x26


def test_a_mask_holds_and_an_edge_is_remembered(rig: Rig) -> None:
    rig.master.write(1, 1, 1 << 3)
    rig.pulse(3)
    assert rig.levels == []
    assert rig.master.read(1, 1) == 1 << 3
    rig.master.write(1, 1, 0)
    assert rig.levels == [True]
    rig.master.write(1, 1, 1 << 3)  # masked again before it was taken
    assert rig.levels == [True, False]
    assert rig.pics.acknowledge() == 0x27  # who had begun to take it gets the spurious vector
    assert rig.isr(rig.master) == 0


def test_the_slaves_request_that_goes_away_is_spurious_there(rig: Rig) -> None:
    rig.pics.elcr.write(1, 1, 1 << 3)
    rig.pics.set_line(11, True)
    assert rig.pics.pending
    rig.pics.set_line(11, False)
    assert not rig.pics.pending


def test_a_level_comes_again_until_it_falls(rig: Rig) -> None:
    rig.pics.elcr.write(0, 2, 0xFFFF)
    assert rig.pics.elcr.read(0, 2) == irq.ELCR_SLAVE_WRITABLE << 8 | irq.ELCR_MASTER_WRITABLE
    rig.pics.set_line(5, True)
    for _ in range(3):
        assert rig.pics.acknowledge() == 0x25
        assert not rig.pics.pending
        rig.master.write(0, 1, irq.PIC_EOI)
        assert rig.pics.pending
    rig.pics.set_line(5, False)
    assert not rig.pics.pending


def test_an_edge_needs_a_line_that_was_low(rig: Rig) -> None:
    rig.pics.set_line(4, True)
    assert rig.pics.acknowledge() == 0x24
    rig.master.write(0, 1, irq.PIC_EOI)
    rig.pics.set_line(4, True)
    assert not rig.pics.pending


def test_automatic_end_and_rotation() -> None:
    rig = Rig()
    rig.begin(icw4=irq.PIC_ICW4 | irq.PIC_ICW4_AEOI)
    rig.pulse(4)
    assert rig.pics.acknowledge() == 0x24
    assert rig.isr(rig.master) == 0
    rig.master.write(0, 1, 0x80)  # rotate in automatic EOI mode
    rig.pulse(4)
    assert rig.pics.acknowledge() == 0x24
    rig.pulse(4)
    rig.pulse(5)
    assert rig.pics.acknowledge() == 0x25  # 4 is the lowest now
    rig.master.write(0, 1, 0x00)
    rig.master.write(0, 1, 0xC0 | 7)  # set priority: as at the start
    assert rig.pics.acknowledge() == 0x24


def test_rotation_on_an_end(rig: Rig) -> None:
    rig.pulse(2 + 1)
    assert rig.pics.acknowledge() == 0x23
    rig.master.write(0, 1, 0xA0)  # rotate on non-specific EOI
    rig.pulse(3)
    rig.pulse(6)
    assert rig.pics.acknowledge() == 0x26
    rig.master.write(0, 1, 0xE0 | 6)  # rotate on specific EOI
    assert rig.pics.acknowledge() == 0x23
    rig.master.write(0, 1, 0x40)  # no operation
    assert rig.isr(rig.master) == 1 << 3


def test_special_mask_mode(rig: Rig) -> None:
    rig.pulse(1)
    assert rig.pics.acknowledge() == 0x21
    rig.pulse(6)
    assert not rig.pics.pending
    rig.master.write(1, 1, 1 << 1)
    assert not rig.pics.pending
    rig.master.write(0, 1, 0x68)
    assert rig.pics.acknowledge() == 0x26
    rig.master.write(0, 1, irq.PIC_EOI)  # not that of the masked one
    assert rig.isr(rig.master) == 1 << 1


def test_the_poll_command(rig: Rig) -> None:
    rig.master.write(0, 1, 0x0C)
    assert rig.master.read(0, 1) == 0
    rig.pulse(6)
    rig.master.write(0, 1, 0x0C)
    assert rig.master.read(0, 1) == irq.PIC_POLL_PENDING | 6
    assert (rig.isr(rig.master), rig.pics.pending) == (1 << 6, False)


def test_an_initialization_forgets_edges_and_sees_levels(rig: Rig) -> None:
    rig.pics.elcr.write(0, 1, 1 << 7)
    rig.pics.set_line(7, True)
    rig.pulse(3)
    rig.master.write(0, 1, irq.PIC_ICW1)
    for word in (0x40, 4, irq.PIC_ICW4):
        rig.master.write(1, 1, word)
    assert (rig.irr(rig.master), rig.master.read(1, 1)) == (1 << 7, 0)
    assert rig.pics.acknowledge() == 0x47


def test_a_single_chip_without_icw4_has_two_words(rig: Rig) -> None:
    rig.master.write(0, 1, 0x12)
    rig.master.write(1, 1, 0x50)
    rig.master.write(1, 1, 0xFE)
    assert rig.master.read(1, 1) == 0xFE
    rig.pulse(0)
    assert rig.pics.acknowledge() == 0x50


def test_all_levels_by_icw1() -> None:
    rig = Rig()
    rig.begin(icw1=irq.PIC_ICW1 | irq.PIC_ICW1_LTIM)
    rig.pics.set_line(0, True)
    rig.pics.set_line(0, False)
    assert rig.levels == [True, False]


def test_lines_that_are_none_reach_nothing(rig: Rig) -> None:
    for number in (2, 16, 23, 99):
        rig.pulse(number)
    assert rig.levels == []


def test_a_wide_write_is_one_for_each_port(rig: Rig) -> None:
    rig.master.write(0, 2, 0xEE << 8 | 0x0B)
    assert rig.master.read(1, 1) == 0xEE


def test_a_state_goes_on_elsewhere(rig: Rig) -> None:
    rig.pulse(4)
    rig.pics.acknowledge()
    rig.pulse(1)
    other = Rig()
    other.pics.set_state(rig.pics.get_state())
    assert other.levels == [True]
    assert other.pics.acknowledge() == 0x21
    assert other.isr(other.master) == 1 << 4 | 1 << 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["up", "down", "take", "end", "mask"]), st.integers(0, 7)), max_size=60))
def test_priorities_are_those_of_a_slow_model(steps) -> None:
    rig = Rig()
    rig.begin()
    irr, isr, mask, lines = set(), [], set(), set()
    for what, n in steps:
        if n == 2:
            continue
        if what == "up":
            irr |= {n} - lines
            lines.add(n)
            rig.pics.set_line(n, True)
        elif what == "down":
            lines.discard(n)
            rig.pics.set_line(n, False)
        elif what == "mask":
            mask ^= {n}
            rig.master.write(1, 1, sum(1 << each for each in mask))
        elif what == "end":
            if isr:
                isr.remove(min(isr))
            rig.master.write(0, 1, irq.PIC_EOI)
        wanted = min(irr - mask, default=None)
        asks = wanted is not None and all(wanted < each for each in isr)
        assert rig.pics.pending == asks
        if what == "take" and asks:
            assert rig.pics.acknowledge() == 0x20 + wanted
            irr.discard(wanted)
            isr.append(wanted)

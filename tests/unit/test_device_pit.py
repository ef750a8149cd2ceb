# SPDX-License-Identifier: GPL-2.0-or-later
"""The 8254 by its registers alone: modes, latches, both number systems, and when its output rises."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.pc_time import NS, Time
from vmm.abi import irq, pc
from vmm.machine.devices.pit import Pit, Port61


class Rig:
    def __init__(self) -> None:
        self.time = Time()
        self.edges: list[bool] = []
        self.pit = Pit(self.time.timers, self.edges.append)

    def program(self, channel: int, mode: int, count: int, *, bcd: bool = False) -> None:
        self.pit.write(3, 1, channel << 6 | 0x30 | mode << 1 | bcd)
        self.pit.write(channel, 1, count & 0xFF)
        self.pit.write(channel, 1, count >> 8)

    def ticks(self, count: int) -> None:
        """Pass so many ticks, to just behind the last."""
        goal = self.pit.ticks + count
        while self.pit.ticks < goal:
            left = (goal - self.pit.ticks) * NS // irq.PIT_HZ
            self.time.passes(max(left, 50))

    def count(self, channel: int) -> int:
        self.pit.write(3, 1, channel << 6)
        return self.pit.read(channel, 1) | self.pit.read(channel, 1) << 8

    @property
    def rises(self) -> int:
        return sum(1 for was, now in zip([False, *self.edges], self.edges, strict=False) if now and not was)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_rate_generator_rises_once_a_period(rig: Rig) -> None:
    rig.program(0, 2, 1193)
    before = rig.rises
    rig.time.passes(NS // 10)
    assert rig.rises - before == irq.PIT_HZ // 10 // 1193
    rig.program(0, 0, 0xFFFF)
    stopped = rig.rises
    rig.time.passes(NS // 50)
    assert rig.rises == stopped


def test_a_square_wave(rig: Rig) -> None:
    rig.program(0, 3, 1000)
    before = rig.rises
    rig.ticks(10_000)
    assert abs(rig.rises - before - 10) <= 1


def test_terminal_count_once(rig: Rig) -> None:
    rig.program(0, 0, 500)
    assert rig.edges[-1:] in ([], [False])
    rig.ticks(499)
    assert rig.rises == 0
    rig.ticks(2)
    assert rig.rises == 1
    rig.ticks(200_000)
    assert rig.rises == 1


def test_a_strobe_once(rig: Rig) -> None:
    rig.program(0, 4, 500)
    before = rig.rises
    rig.ticks(600)
    assert rig.rises == before + 1
    rig.ticks(100_000)
    assert rig.rises == before + 1


def test_the_first_byte_stops_mode_0(rig: Rig) -> None:
    rig.program(0, 0, 500)
    rig.ticks(100)
    rig.pit.write(0, 1, 0x10)
    rig.ticks(1000)
    assert rig.rises == 0
    rig.pit.write(0, 1, 0x00)
    rig.ticks(0x11)
    assert rig.rises == 1


@settings(deadline=None)
@given(st.sampled_from([0, 2, 3]), st.integers(2, 0xFFFF), st.integers(0, 0x2_0000))
def test_what_is_read_while_it_counts(mode: int, count: int, passed: int) -> None:
    rig = Rig()
    rig.program(2, mode, count)
    rig.pit.set_gate2(True)
    rig.pit.counters[2].started = rig.pit.ticks - passed
    got = rig.count(2)
    if mode == 0:
        assert got == (count - passed) % 0x10000
    elif mode == 2:
        assert got == count - passed % count
    else:
        assert got == count - 2 * (passed % count) % count


def test_a_count_of_0_is_the_longest(rig: Rig) -> None:
    rig.program(0, 2, 0)
    before = rig.rises
    rig.ticks(0x10000 - 1)
    assert rig.rises == before
    rig.ticks(2)
    assert rig.rises == before + 1


def test_decimal(rig: Rig) -> None:
    rig.program(0, 2, 0x1000, bcd=True)
    before = rig.rises
    rig.ticks(1000 - 1)
    assert rig.rises == before
    rig.ticks(2)
    assert rig.rises == before + 1
    rig.pit.counters[0].started = rig.pit.ticks - 1
    assert rig.count(0) == 0x0999


def test_a_latch_stays_until_it_is_read(rig: Rig) -> None:
    rig.program(0, 2, 0x4000)
    rig.ticks(0x10)
    rig.pit.write(3, 1, 0)
    rig.ticks(0x100)
    rig.pit.write(3, 1, 0)  # a second one changes nothing
    value = rig.pit.read(0, 1) | rig.pit.read(0, 1) << 8
    assert abs(value - (0x4000 - 0x10)) <= 2
    later = rig.pit.read(0, 1) | rig.pit.read(0, 1) << 8
    assert later <= 0x4000 - 0x110


@pytest.mark.parametrize(("access", "got"), [(1, 0x34), (2, 0x12)])
def test_one_byte_of_the_two(rig: Rig, access: int, got: int) -> None:
    rig.pit.write(3, 1, access << 4 | 2 << 1)
    rig.pit.write(0, 1, 0x34 if access == 1 else 0x12)
    rig.pit.counters[0].started = rig.pit.ticks
    assert rig.pit.counters[0].count == (0x34 if access == 1 else 0x1200)
    assert rig.pit.read(0, 1) == (0x34 if access == 1 else 0x12) == got


def test_the_read_back_command(rig: Rig) -> None:
    rig.program(0, 2, 0x4000)
    rig.program(2, 3, 0x2000)
    rig.pit.write(3, 1, 0xC0 | 0x02 | 0x08)  # count and status of 0 and 2
    assert rig.pit.read(0, 1) == irq.PIT_STATUS_OUT | 0x30 | 2 << 1
    assert rig.pit.read(2, 1) == irq.PIT_STATUS_OUT | 0x30 | 3 << 1
    assert rig.pit.read(2, 1) | rig.pit.read(2, 1) << 8 == 0x2000
    rig.pit.write(3, 1, 0x34)  # no count yet
    rig.pit.write(3, 1, 0xE2)
    assert rig.pit.read(0, 1) & irq.PIT_STATUS_NULL
    assert rig.pit.read(3, 1) == 0xFF


def test_counter_2_and_port_61(rig: Rig) -> None:
    port = Port61(rig.pit, rig.time.timers.now)
    rig.program(2, 0, 1000)
    rig.ticks(5000)
    assert not port.read(0, 1) & pc.PORT_61_OUT2  # its gate is low
    port.write(0, 1, pc.PORT_61_GATE2)
    rig.ticks(999)
    assert not port.read(0, 1) & pc.PORT_61_OUT2
    rig.ticks(2)
    assert port.read(0, 1) & pc.PORT_61_OUT2
    assert port.read(0, 1) & pc.PORT_61_WRITABLE == pc.PORT_61_GATE2
    seen = set()
    for _ in range(4):
        seen.add(port.read(0, 1) & pc.PORT_61_REFRESH)
        rig.time.passes(pc.REFRESH_NS)
    assert len(seen) == 2


def test_a_gate_begins_a_one_shot(rig: Rig) -> None:
    rig.program(2, 1, 1000)
    rig.ticks(3000)
    assert rig.pit.out2  # nothing has triggered it
    rig.pit.set_gate2(True)
    assert not rig.pit.out2
    rig.ticks(1001)
    assert rig.pit.out2


def test_a_state_goes_on_elsewhere(rig: Rig) -> None:
    rig.program(0, 2, 10_000)
    rig.ticks(4000)
    other = Rig()
    other.time.now = 77 * NS
    other.pit.set_state(rig.pit.get_state())
    assert abs(other.count(0) - 6000) <= 2
    before = other.rises
    other.ticks(6001)
    assert other.rises == before + 1

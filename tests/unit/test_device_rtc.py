# SPDX-License-Identifier: GPL-2.0-or-later
"""The MC146818 by its registers alone: the time in each mode, how it is set, alarms, the three interrupts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.pc_time import NS, Time
from vmm.abi import pc
from vmm.machine.devices.rtc import Rtc

START = datetime(2026, 11, 29, 17, 59, 58, tzinfo=UTC)


def ns(date: datetime) -> int:
    return int(date.timestamp()) * NS


class Rig:
    def __init__(self, date: datetime = START) -> None:
        self.time = Time(ns(date))
        self.time.start -= self.time.now  # it is `date` now, to the ns
        self.lines: list[bool] = []
        self.rtc = Rtc(self.time.timers, self.lines.append, self.time.wall)

    def read(self, index: int) -> int:
        self.rtc.write(0, 1, index)
        return self.rtc.read(1, 1)

    def write(self, index: int, value: int) -> None:
        self.rtc.write(0, 1, index)
        self.rtc.write(1, 1, value)

    def date(self) -> tuple[int, ...]:
        """Year to second, as raw bytes."""
        indices = (pc.CMOS_CENTURY, pc.RTC_YEAR, pc.RTC_MONTH, pc.RTC_DAY_OF_MONTH, pc.RTC_HOURS, pc.RTC_MINUTES)
        return tuple(self.read(index) for index in (*indices, pc.RTC_SECONDS))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_the_time_is_the_hosts_in_bcd_and_24_hours(rig: Rig) -> None:
    assert rig.date() == (0x20, 0x26, 0x11, 0x29, 0x17, 0x59, 0x58)
    assert rig.read(pc.RTC_DAY_OF_WEEK) == 1  # a Sunday
    rig.time.passes(2 * NS)
    assert rig.date()[4:] == (0x18, 0x00, 0x00)
    assert rig.read(pc.RTC_REG_D) == pc.RTC_VRT


@settings(deadline=None)
@given(st.datetimes(datetime(1970, 1, 2), datetime(2099, 12, 31)), st.booleans(), st.booleans())
def test_what_is_set_is_read_in_every_mode(date: datetime, binary: bool, hours24: bool) -> None:
    rig = Rig()
    mode = binary * pc.RTC_DM_BINARY | hours24 * pc.RTC_24H

    def code(value: int) -> int:
        return value if binary else value // 10 << 4 | value % 10

    hour = code(date.hour) if hours24 else code((date.hour - 1) % 12 + 1) | (pc.RTC_PM if date.hour >= 12 else 0)
    values = {
        pc.CMOS_CENTURY: code(date.year // 100), pc.RTC_YEAR: code(date.year % 100), pc.RTC_MONTH: code(date.month),
        pc.RTC_DAY_OF_MONTH: code(date.day), pc.RTC_HOURS: hour, pc.RTC_MINUTES: code(date.minute),
        pc.RTC_SECONDS: code(date.second), pc.RTC_DAY_OF_WEEK: code(date.isoweekday() % 7 + 1),
    }  # fmt: skip
    rig.write(pc.RTC_REG_B, mode | pc.RTC_SET)
    for index, value in values.items():
        rig.write(index, value)
        assert rig.read(index) == value
    rig.time.passes(5 * NS)  # held
    assert {index: rig.read(index) for index in values} == values
    rig.write(pc.RTC_REG_B, mode)
    assert {index: rig.read(index) for index in values} == values
    before = rig.rtc._time()
    rig.time.passes(86_400 * NS)
    assert rig.rtc._time() == before + 86_400 * NS
    assert before // NS == int(date.replace(tzinfo=UTC).timestamp())


def test_the_divider_lets_the_next_second_begin_after_half_of_one(rig: Rig) -> None:
    rig.write(pc.RTC_REG_A, pc.RTC_DIV_RESET2)
    rig.write(pc.RTC_SECONDS, 0x10)
    rig.time.passes(10 * NS)
    assert rig.read(pc.RTC_SECONDS) == 0x10
    rig.write(pc.RTC_REG_A, pc.RTC_REF_CLCK_32KHZ)
    rig.time.passes(NS // 2 - 1000)
    assert rig.read(pc.RTC_SECONDS) == 0x10
    rig.time.passes(2000)
    assert rig.read(pc.RTC_SECONDS) == 0x11


def test_a_byte_is_set_without_stopping_the_clock(rig: Rig) -> None:
    rig.write(pc.RTC_MONTH, 0x02)  # the 29th of February 2026 is none: nothing else moves
    assert rig.date() == (0x20, 0x26, 0x02, 0x29, 0x17, 0x59, 0x58)
    rig.write(pc.RTC_DAY_OF_MONTH, 0x28)
    rig.time.passes(2 * NS)
    assert rig.date() == (0x20, 0x26, 0x02, 0x28, 0x18, 0x00, 0x00)


def test_a_day_of_the_week_of_ones_own_holds_for_the_day(rig: Rig) -> None:
    rig.write(pc.RTC_DAY_OF_WEEK, 5)
    assert rig.read(pc.RTC_DAY_OF_WEEK) == 5
    rig.time.passes(86_400 * NS)
    assert rig.read(pc.RTC_DAY_OF_WEEK) == 2


def test_uip_warns_of_the_update(rig: Rig) -> None:
    assert not rig.read(pc.RTC_REG_A) & pc.RTC_UIP
    rig.time.passes(NS - pc.RTC_UPDATE_NS - pc.RTC_UIP_NS)
    assert rig.read(pc.RTC_REG_A) & pc.RTC_UIP
    rig.time.passes(pc.RTC_UPDATE_NS + pc.RTC_UIP_NS)
    assert not rig.read(pc.RTC_REG_A) & pc.RTC_UIP
    rig.write(pc.RTC_REG_A, 0x26 | pc.RTC_UIP)
    assert rig.read(pc.RTC_REG_A) == 0x26


def test_update_ended(rig: Rig) -> None:
    rig.write(pc.RTC_REG_B, pc.RTC_24H | pc.RTC_UIE)
    rig.time.passes(NS - 1)
    assert rig.lines == []
    rig.time.passes(1)
    assert rig.lines == [True]
    rig.time.passes(3 * NS)  # nobody has answered: the line stays
    assert rig.lines == [True]
    assert rig.read(pc.RTC_REG_C) == pc.RTC_IRQF | pc.RTC_UF | pc.RTC_PF
    assert rig.lines == [True, False]
    assert rig.read(pc.RTC_REG_C) == 0
    rig.time.passes(NS)
    assert rig.lines == [True, False, True]
    rig.write(pc.RTC_REG_B, pc.RTC_24H | pc.RTC_UIE | pc.RTC_SET)
    assert rig.read(pc.RTC_REG_B) == pc.RTC_24H | pc.RTC_SET  # SET clears UIE
    assert rig.lines == [True, False, True, False]


def test_flags_are_there_without_their_interrupt(rig: Rig) -> None:
    rig.time.passes(NS)
    assert rig.read(pc.RTC_REG_C) == pc.RTC_UF | pc.RTC_PF
    assert rig.lines == []


@pytest.mark.parametrize(("rate", "hz"), [(6, 1024), (3, 8192), (15, 2), (1, 256), (2, 128)])
def test_periodic_interrupts(rig: Rig, rate: int, hz: int) -> None:
    rig.write(pc.RTC_REG_A, pc.RTC_REF_CLCK_32KHZ | rate)
    rig.write(pc.RTC_REG_B, pc.RTC_24H | pc.RTC_PIE)
    count, step = 0, NS // hz // 4
    for _ in range(8 * hz // min(hz, 64)):
        for _ in range(4):
            rig.time.passes(step)
            if rig.lines[-1:] == [True]:
                count += 1
                assert rig.read(pc.RTC_REG_C) & pc.RTC_PF
    assert abs(count - 8 * hz // min(hz, 64)) <= 1
    rig.write(pc.RTC_REG_A, pc.RTC_REF_CLCK_32KHZ)
    rig.read(pc.RTC_REG_C)
    rig.time.passes(NS)
    assert rig.lines[-1] is False


@pytest.mark.parametrize(
    ("bytes_", "after"),
    [
        ((0x18, 0x00, 0x05), 7),
        ((0xC0, 0x00, 0x00), 2),
        ((0xFF, 0xFF, 0xFF), 1),
        ((0x17, 0x59, 0x58), 86_400),
        ((0xC0, 0xC0, 0x57), 59),
        ((0x00, 0x00, 0x01), 6 * 3600 + 3),
    ],
)
def test_an_alarm(rig: Rig, bytes_: tuple[int, int, int], after: int) -> None:
    for index, value in zip((pc.RTC_HOURS_ALARM, pc.RTC_MINUTES_ALARM, pc.RTC_SECONDS_ALARM), bytes_, strict=True):
        rig.write(index, value)
        assert rig.read(index) == value
    rig.write(pc.RTC_REG_B, pc.RTC_24H | pc.RTC_AIE)
    rig.time.passes(after * NS - 1)
    assert rig.lines == []
    rig.time.passes(1)
    assert rig.lines == [True]
    assert rig.read(pc.RTC_REG_C) & (pc.RTC_IRQF | pc.RTC_AF) == pc.RTC_IRQF | pc.RTC_AF


def test_an_alarm_that_is_no_time_never_comes(rig: Rig) -> None:
    rig.write(pc.RTC_HOURS_ALARM, 0x25)
    rig.write(pc.RTC_REG_B, pc.RTC_24H | pc.RTC_AIE)
    rig.time.passes(2 * 86_400 * NS)
    assert rig.lines == []


@settings(deadline=None)
@given(st.integers(0, 86_399), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 7))
def test_the_next_alarm_is_the_first_second_that_matches(now, hour, minute, second, wild) -> None:
    rig = Rig(datetime(2026, 1, 1, tzinfo=UTC))
    wanted = [0xFF if wild >> bit & 1 else value for bit, value in enumerate((hour, minute, second))]
    rig.write(pc.RTC_REG_B, pc.RTC_24H | pc.RTC_DM_BINARY)
    for index, value in zip((pc.RTC_HOURS_ALARM, pc.RTC_MINUTES_ALARM, pc.RTC_SECONDS_ALARM), wanted, strict=True):
        rig.write(index, value)
    found = rig.rtc._next_alarm(now * NS)

    def matches(at: int) -> bool:
        parts = (at // 3600 % 24, at // 60 % 60, at % 60)
        return all(w in (0xFF, part) for w, part in zip(wanted, parts, strict=True))

    assert found is not None
    assert found > now * NS
    assert matches(found // NS)
    step = found // NS - 1
    assert not any(matches(at) for at in range(max(now + 1, step - 4000), step + 1))


def test_cmos_memory_keeps_bytes_and_the_clock_its_own(rig: Rig) -> None:
    rig.rtc.preset(pc.CMOS_BASE_KIB, b"\x80\x02")
    assert (rig.read(pc.CMOS_BASE_KIB), rig.read(pc.CMOS_BASE_KIB + 1)) == (0x80, 2)
    rig.write(pc.CMOS_SHUTDOWN | pc.RTC_NMI_OFF, 0x0A)
    assert rig.read(pc.CMOS_SHUTDOWN) == 0x0A
    rig.write(pc.RTC_REG_C, 0xFF)
    rig.write(pc.RTC_REG_D, 0)
    assert (rig.read(pc.RTC_REG_C), rig.read(pc.RTC_REG_D)) == (0, pc.RTC_VRT)
    assert rig.rtc.read(0, 1) == 0xFF
    rig.rtc.write(0, 2, 0x55 << 8 | pc.CMOS_SHUTDOWN)
    assert rig.read(pc.CMOS_SHUTDOWN) == 0x55


def test_a_state_goes_on_elsewhere(rig: Rig) -> None:
    rig.write(pc.RTC_HOURS, 0x05)
    rig.write(pc.RTC_REG_B, pc.RTC_24H | pc.RTC_UIE)
    rig.time.passes(NS)
    state = rig.rtc.get_state()
    other = Rig()
    other.rtc.set_state(state)
    assert other.lines == [True]
    assert other.read(pc.RTC_HOURS) == 0x05
    assert other.read(pc.RTC_REG_C) & pc.RTC_IRQF
    other.time.passes(NS)
    assert other.lines == [True, False, True]

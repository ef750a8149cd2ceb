# SPDX-License-Identifier: GPL-2.0-or-later
"""An MC146818A real-time clock with 128 bytes of CMOS memory. It knows neither its ports nor its interrupt's number.

Source: Motorola MC146818A data sheet: address map, update cycle, interrupts, registers A to D; the century's byte is
the IBM PC's. The time is the host's, as `wall()` gives it, and goes on from whatever the guest sets. Where it is finer
than a chip, or there is a choice:

* The bytes of the time change at the end of the update cycle. UIP is set during the cycle and 244 us before it.
* Flags of register C are found when somebody looks; the interrupt for one that is enabled comes by an alarm. Periodic
  interrupts that were not answered are one, as on the chip.
* The square wave has no pin, and daylight saving (DSE) changes nothing. The day of the week is a counter of its own on
  the chip; here it follows the date, until the guest writes another, which then holds for that day.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from vmm.abi import pc
from vmm.base.light import RLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.machine.devices.timers import Timers

NS = 1_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIME = (
    pc.RTC_SECONDS, pc.RTC_MINUTES, pc.RTC_HOURS, pc.RTC_DAY_OF_WEEK, pc.RTC_DAY_OF_MONTH, pc.RTC_MONTH, pc.RTC_YEAR,
    pc.CMOS_CENTURY,
)  # fmt: skip
ALARM = (pc.RTC_HOURS_ALARM, pc.RTC_MINUTES_ALARM, pc.RTC_SECONDS_ALARM)
ENABLES = pc.RTC_PIE | pc.RTC_AIE | pc.RTC_UIE
DAY = 86_400


class Rtc:
    """Claims two ports, index and data. `irq(level)` drives its line; `wall()` gives ns since 1970, UTC."""

    name = "RTC"

    def __init__(self, timers: Timers, irq: Callable[[bool], object], wall: Callable[[], int]) -> None:
        self._timers, self._irq, self._wall = timers, irq, wall
        self._lock = RLock()
        self._alarm = timers.alarm(self._ring)
        self._index = 0
        self._memory = bytearray(pc.CMOS_BYTES)
        self._memory[pc.RTC_REG_A] = pc.RTC_REF_CLCK_32KHZ | 6  # 1,024 Hz, as a PC's BIOS leaves it
        self._memory[pc.RTC_REG_B] = pc.RTC_24H
        self._flags = 0
        self._offset = 0
        self._held: int | None = None
        """The guest's ns since 1970 at which its time stands, while SET or the divider holds it."""
        self._day: tuple[int, int] | None = None
        """Of a day of the week that the guest wrote: the day since 1970, and what it is."""
        self._odd: dict[int, int] = {}
        """Bytes that the guest wrote without SET, and that make no date before it writes others."""
        self._seen = self._time()
        self._level = False

    # -- what the machine does

    def get_state(self) -> dict[str, Any]:
        """Its registers and memory, and how far its time is from the host's."""
        with self._lock:
            self._look()
            names = ("_index", "_flags", "_offset", "_held", "_day", "_level")
            kept = {name: getattr(self, name) for name in names}
            return {"memory": bytes(self._memory), "_odd": dict(self._odd), **kept}

    def set_state(self, state: dict[str, Any]) -> None:
        """Be as `get_state` found it; what would have come in between does not."""
        with self._lock:
            level = self._level
            for name, value in state.items():
                if name == "memory":
                    self._memory[:] = value
                else:
                    setattr(self, name, value)
            self._seen = self._time()
            if level != self._level:
                self._irq(self._level)
            self._arm()

    def preset(self, index: int, data: bytes) -> None:
        """Bytes of memory that firmware would have left there."""
        self._memory[index : index + len(data)] = data

    # -- what the guest does

    def read(self, offset: int, size: int) -> int:
        """The index reads all ones; data is the chosen byte."""
        with self._lock:
            return self._read(self._index) if offset else 0xFF

    def write(self, offset: int, size: int, value: int) -> None:
        """Of a wider write the low byte."""
        with self._lock:
            if offset == 0:
                self._index = value & ~pc.RTC_NMI_OFF & 0x7F
                if size > 1:  # OUT of a word writes the next port, too
                    self._write(self._index, value >> 8 & 0xFF)
            else:
                self._write(self._index, value & 0xFF)

    def _read(self, index: int) -> int:
        self._look()
        if index in TIME:
            return self._with_time()[index]
        if index == pc.RTC_REG_A:
            return self._memory[index] | (pc.RTC_UIP if self._updating else 0)
        if index == pc.RTC_REG_C:
            flags, self._flags = self._flags, 0
            enabled = flags & self._memory[pc.RTC_REG_B] & ENABLES
            self._settle()
            return flags | (pc.RTC_IRQF if enabled else 0)
        return pc.RTC_VRT if index == pc.RTC_REG_D else self._memory[index]

    def _write(self, index: int, value: int) -> None:
        self._look()
        if index in TIME:
            self._memory[:] = self._with_time()
            self._memory[index] = value
            if self._held is None:
                self._odd[index] = value
                self._take_time(self._time() % NS, day=index == pc.RTC_DAY_OF_WEEK)
        elif index in (pc.RTC_REG_A, pc.RTC_REG_B):
            self._control(index, value)
        elif index not in (pc.RTC_REG_C, pc.RTC_REG_D):
            self._memory[index] = value
        self._settle()

    def _control(self, index: int, value: int) -> None:
        if index == pc.RTC_REG_A:
            value &= ~pc.RTC_UIP
        elif value & pc.RTC_SET:
            value &= ~pc.RTC_UIE  # data sheet, register B: SET clears UIE
        self._memory[:] = self._with_time()  # by the mode that was: a new one says how bytes are read from here on
        stopped = self._stopped
        self._memory[index] = value
        hold = bool(self._memory[pc.RTC_REG_B] & pc.RTC_SET) or self._stopped
        if hold and self._held is None:
            self._held = self._time()
        elif self._held is not None and not hold:
            # SET lets the divider run on. When that is let go, the next update is half a second away (register A).
            phase = NS // 2 if stopped else (self._wall() + self._offset) % NS
            self._held = None
            self._take_time(phase, day=True)
        elif not hold:
            self._take_time(self._time() % NS, day=False)

    # -- the time

    @property
    def _stopped(self) -> bool:
        return self._memory[pc.RTC_REG_A] & pc.RTC_DIV_CTL in (pc.RTC_DIV_RESET1, pc.RTC_DIV_RESET2)

    def _time(self) -> int:
        """ns since 1970, as the guest has set it."""
        return self._wall() + self._offset if self._held is None else self._held

    @property
    def _updating(self) -> bool:
        left = NS - self._time() % NS
        return self._held is None and left <= pc.RTC_UPDATE_NS + pc.RTC_UIP_NS

    def _bytes(self, time: int) -> dict[int, int]:
        """The time as its bytes, in the mode of register B."""
        date = EPOCH + timedelta(seconds=time // NS)
        days = time // NS // DAY
        week = _weekday(date)
        if self._day is not None and self._day[0] == days:
            week = self._day[1]
        century, year = divmod(date.year, 100)
        values = (date.second, date.minute, self._hour(date.hour), week, date.day, date.month, year, century)
        made = {index: self._encode(value) for index, value in zip(TIME, values, strict=True)}
        if not self._memory[pc.RTC_REG_B] & pc.RTC_24H and date.hour >= 12:
            made[pc.RTC_HOURS] |= pc.RTC_PM
        return made

    def _hour(self, hour: int) -> int:
        return hour if self._memory[pc.RTC_REG_B] & pc.RTC_24H else (hour - 1) % 12 + 1

    def _encode(self, value: int) -> int:
        return value if self._memory[pc.RTC_REG_B] & pc.RTC_DM_BINARY else value // 10 << 4 | value % 10

    def _decode(self, byte: int) -> int:
        """The number that a byte means; -1 if none (data sheet: the result of such is undefined)."""
        if self._memory[pc.RTC_REG_B] & pc.RTC_DM_BINARY:
            return byte
        return byte % 16 + 10 * (byte // 16) if byte % 16 < 10 and byte // 16 < 10 else -1

    def _decode_hour(self, byte: int) -> int:
        if self._memory[pc.RTC_REG_B] & pc.RTC_24H:
            return self._decode(byte)
        hour = self._decode(byte & ~pc.RTC_PM)
        return hour % 12 + (12 if byte & pc.RTC_PM else 0) if 1 <= hour <= 12 else -1

    def _with_time(self) -> bytearray:
        """Its memory as the guest reads it: while the time is held, the bytes are what was written."""
        memory = bytearray(self._memory)
        if self._held is None:
            for index, value in (self._bytes(self._time()) | self._odd).items():
                memory[index] = value
        return memory

    def _take_time(self, phase: int, *, day: bool) -> None:
        """The bytes in memory are the guest's time now, `phase` ns after their second began. Where they are no date,
        the time goes on as it was. `day`: the day of the week is meant, and may differ from that of the date.
        """
        hour = self._decode_hour(self._memory[pc.RTC_HOURS])
        second, minute, _, week, date, month, year, century = (self._decode(self._memory[index]) for index in TIME)
        try:
            set_to = datetime(century * 100 + year, month, date, hour, minute, second, tzinfo=UTC)
        except (ValueError, OverflowError):
            return
        self._odd.clear()
        seconds = (set_to - EPOCH) // timedelta(seconds=1)
        if day:
            self._day = (seconds // DAY, week) if week != _weekday(set_to) else None
        self._offset = seconds * NS + phase - self._wall()
        self._seen = self._time()

    # -- interrupts

    def _period(self) -> int:
        """ns between two periodic interrupts; 0 for none (data sheet, table of RS bits; 1 and 2 are as 8 and 9)."""
        rate = self._memory[pc.RTC_REG_A] & pc.RTC_RATE_SELECT
        if rate == 0 or self._stopped:
            return 0
        if rate <= 2:
            rate += 7
        return (NS << rate - 1) // pc.RTC_HZ

    def _next_alarm(self, time: int) -> int | None:
        """When the alarm bytes match next, after `time`."""
        fields = []
        for index, count in zip(ALARM, (24, 60, 60), strict=True):
            byte = self._memory[index]
            if byte & pc.RTC_DONT_CARE == pc.RTC_DONT_CARE:
                fields.append(range(count))
                continue
            value = self._decode_hour(byte) if index == pc.RTC_HOURS_ALARM else self._decode(byte)
            if not 0 <= value < count:
                return None
            fields.append(range(value, value + 1))
        hours, minutes, seconds = fields
        second = time // NS + 1
        midnight, within = second - second % DAY, second % DAY
        for hour in hours:
            for minute in minutes if (hour + 1) * 3600 > within else ():
                least = max(seconds[0], within - hour * 3600 - minute * 60)
                if least <= seconds[-1]:
                    return (midnight + hour * 3600 + minute * 60 + least) * NS
        return (midnight + DAY + hours[0] * 3600 + minutes[0] * 60 + seconds[0]) * NS

    def _look(self) -> None:
        """What has happened since somebody looked."""
        time, seen = self._time(), self._seen
        self._seen = time
        if time <= seen:  # it stands, or the host's clock went back
            return
        if self._held is None:
            if time // NS > seen // NS:
                self._flags |= pc.RTC_UF
            alarm = self._next_alarm(seen)
            if alarm is not None and alarm <= time:
                self._flags |= pc.RTC_AF
        period = self._period()
        if period and time // period > seen // period:
            self._flags |= pc.RTC_PF

    def _ring(self) -> None:
        with self._lock:
            self._look()
            self._settle()

    def _settle(self) -> None:
        level = bool(self._flags & self._memory[pc.RTC_REG_B] & ENABLES)
        if level != self._level:
            self._level = level
            self._irq(level)
        self._arm()

    def _arm(self) -> None:
        """Ring for the first thing that raises the line, unless it is raised already."""
        enabled, time = self._memory[pc.RTC_REG_B] & ENABLES, self._time()
        times = []
        if not self._level and self._held is None:
            if enabled & pc.RTC_UIE:
                times.append((time // NS + 1) * NS)
            alarm = self._next_alarm(time) if enabled & pc.RTC_AIE else None
            if alarm is not None:
                times.append(alarm)
            period = self._period() if enabled & pc.RTC_PIE else 0
            if period:
                times.append((time // period + 1) * period)
        self._alarm.set(self._timers.now() + min(times) - time if times else None)


def _weekday(date: datetime) -> int:
    """1 to 7, of which Sunday is 1."""
    return date.isoweekday() % 7 + 1

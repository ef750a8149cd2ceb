# SPDX-License-Identifier: GPL-2.0-or-later
"""An 8254 timer: three counters, each in one of six modes. It knows neither its ports nor its interrupt's number.

Source: Intel 8254 data sheet (control word, read-back command, mode definitions); port 61h as in the IBM PC/AT
Technical Reference. Time is a clock's, in ns; a counter is computed from when it was loaded. Where a chip is finer:

* A count is loaded when its last byte is written; one that is written in mode 2 or 3 begins at once, not at the end of
  the present period.
* Interrupts that were not in time are one: who counts them sees fewer on a loaded host, as with KVM's PIT where its
  reinjection is off.
* The gates of counters 0 and 1 are high, as in a PC, so their modes 1 and 5 never begin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmm.abi import irq, pc
from vmm.base.light import RLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.machine.devices.timers import Timers

NS = 1_000_000_000
_STATE = (
    "mode", "bcd", "access", "count", "gate", "started", "latched", "status", "second", "low_byte", "second_read",
    "loaded",
)  # fmt: skip


class Counter:
    """One of the three. Times are ticks of PIT_HZ since the device's clock began."""

    def __init__(self) -> None:
        self.mode, self.bcd, self.access = 3, False, irq.PIT_RW_BOTH
        self.count = 0x10000
        self.gate = True
        self.started: int | None = None
        self.latched: int | None = None
        self.status: int | None = None
        self.second = self.second_read = self.loaded = False
        self.low_byte = 0

    def get_state(self, now: int) -> tuple[Any, ...]:
        """Its start as an age, for clocks differ."""
        values = {name: getattr(self, name) for name in _STATE}
        values["started"] = None if self.started is None else now - self.started
        return tuple(values.values())

    def set_state(self, state: tuple[Any, ...], now: int) -> None:
        for name, value in zip(_STATE, state, strict=True):
            setattr(self, name, value)
        self.started = None if self.started is None else now - self.started

    def control(self, word: int) -> None:
        """A control word: the counter stops until it has a count."""
        self.access = word >> 4 & 3
        mode = word >> 1 & 7
        self.mode, self.bcd = mode - 4 if mode > 5 else mode, bool(word & 1)
        self.started, self.latched, self.status = None, None, None
        self.second = self.second_read = self.loaded = False

    def write(self, byte: int, now: int) -> None:
        """A byte of the count."""
        if self.access == irq.PIT_RW_BOTH and not self.second:
            self.second, self.low_byte = True, byte
            if self.mode == 0:
                self.started, self.loaded = None, False  # data sheet, mode 0: the first byte stops it
            return
        value = byte << 8 if self.access == irq.PIT_RW_MSB else byte
        if self.second:
            value, self.second = byte << 8 | self.low_byte, False
        if self.bcd:
            value = sum((value >> 4 * digit & 0xF) * 10**digit for digit in range(4))
        self.count = value or (10_000 if self.bcd else 0x10000)
        self.loaded = True
        if self.mode not in (1, 5):
            self.started = now if self.gate else None

    def set_gate(self, level: bool, now: int) -> None:
        """Its GATE pin. A low one stops counting in modes 0, 2, 3 and 4; a rising one begins anew, in mode 0 and 4 too
        (data sheet, "Gate Pin Operations", but for what had been counted there).
        """
        rising, self.gate = level and not self.gate, level
        if rising and self.loaded:
            self.started = now
        elif not level and self.mode not in (1, 5):
            self.started = None

    def reading(self, now: int) -> int:
        """The counting element, as a driver reads it."""
        if self.started is None:
            value = self.count
        elif self.mode in (2, 3):
            passed = (now - self.started) % self.count
            value = self.count - (passed if self.mode == 2 else 2 * passed % self.count)
        else:
            value = (self.count - (now - self.started)) % (10_000 if self.bcd else 0x10000)
        value %= 10_000 if self.bcd else 0x10000
        return sum(value // 10**digit % 10 << 4 * digit for digit in range(4)) if self.bcd else value

    def out(self, now: int) -> bool:
        """The OUT pin."""
        if self.started is None:
            return self.mode != 0
        passed = now - self.started
        match self.mode:
            case 0 | 1:
                return passed >= self.count
            case 2:
                return passed % self.count != self.count - 1
            case 3:
                return passed % self.count < (self.count + 1) // 2
            case _:
                return passed != self.count

    def next_rise(self, after: int) -> int | None:
        """When OUT goes up next, in ticks."""
        if self.started is None:
            return None
        if self.mode in (2, 3):
            return self.started + ((after - self.started) // self.count + 1) * self.count
        end = self.started + self.count + (1 if self.mode in (4, 5) else 0)
        return end if end > after else None

    def read(self, now: int) -> int:
        """A byte of status, of what was latched, or of the counter."""
        if self.status is not None:
            status, self.status = self.status, None
            return status
        value = self.reading(now) if self.latched is None else self.latched
        if self.access == irq.PIT_RW_BOTH and not self.second_read:
            self.second_read = True
            return value & 0xFF
        if self.access != irq.PIT_RW_LSB:
            value >>= 8
        self.second_read, self.latched = False, None
        return value & 0xFF

    def latch(self, now: int) -> None:
        """Keep the count for the next reads; what is latched already stays."""
        if self.latched is None:
            self.latched = self.reading(now)

    def latch_status(self, now: int) -> None:
        """Likewise, of the status byte."""
        if self.status is None:
            null = 0 if self.loaded else irq.PIT_STATUS_NULL
            out = irq.PIT_STATUS_OUT if self.out(now) else 0
            self.status = out | null | self.access << 4 | self.mode << 1 | self.bcd


class Pit:
    """Claims four ports. `irq(level)` is the OUT pin of counter 0."""

    name = "8254 PIT"

    def __init__(self, timers: Timers, irq: Callable[[bool], object]) -> None:
        self._timers, self._irq = timers, irq
        self._lock = RLock()
        self._alarm = timers.alarm(self._ring)
        self.counters = tuple(Counter() for _ in range(3))
        self.counters[2].gate = False
        self._level = False
        self._rise: int | None = None

    @property
    def ticks(self) -> int:
        """The device's clock."""
        return self._timers.now() * irq.PIT_HZ // NS

    def get_state(self) -> tuple[Any, ...]:
        """Its counters, each with how far it is."""
        with self._lock:
            now = self.ticks
            return tuple(each.get_state(now) for each in self.counters), self._level

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Go on from there."""
        with self._lock:
            counters, level = state
            now = self.ticks
            for each, saved in zip(self.counters, counters, strict=True):
                each.set_state(saved, now)
            if level != self._level:
                self._level = level
                self._irq(level)
            self._arm(now)

    def set_gate2(self, level: bool) -> None:
        """The gate of counter 2: bit 0 of port 61h."""
        with self._lock:
            self.counters[2].set_gate(level, self.ticks)

    @property
    def out2(self) -> bool:
        """The output of counter 2."""
        return self.counters[2].out(self.ticks)

    def read(self, offset: int, size: int) -> int:
        """A counter's byte; the control word cannot be read."""
        with self._lock:
            return self.counters[offset].read(self.ticks) if offset < irq.PIT_CHANNELS else 0xFF

    def write(self, offset: int, size: int, value: int) -> None:
        """A byte of a count, or a control word."""
        value &= 0xFF
        with self._lock:
            now = self.ticks
            if offset < irq.PIT_CHANNELS:
                self.counters[offset].write(value, now)
            elif value >> 6 == irq.PIT_READ_BACK:
                for number, each in enumerate(self.counters):
                    if value >> number + 1 & 1:
                        if not value & irq.PIT_READ_BACK_NO_COUNT:
                            each.latch(now)
                        if not value & irq.PIT_READ_BACK_NO_STATUS:
                            each.latch_status(now)
                return
            elif value >> 4 & 3 == irq.PIT_RW_LATCH:
                self.counters[value >> 6].latch(now)
                return
            else:
                self.counters[value >> 6].control(value)
            if offset == 0 or (offset == irq.PIT_CHANNELS and value >> 6 == 0):
                self._drive(self.counters[0].out(now))
                self._arm(now)

    def _drive(self, level: bool) -> None:
        if level != self._level:
            self._level = level
            self._irq(level)

    def _ring(self) -> None:
        with self._lock:
            now = self.ticks
            if self._rise is not None and now >= self._rise:
                self._drive(False)  # it may have been low for a tick only
                self._drive(True)
            self._drive(self.counters[0].out(now))
            self._arm(now)

    def _arm(self, now: int) -> None:
        self._rise = rise = self.counters[0].next_rise(now)
        # One ns more, for the tick is the floor of a time.
        self._alarm.set(None if rise is None else -(-rise * NS // irq.PIT_HZ) + 1)


class Port61:
    """Claims one port: the gate of counter 2 and the speaker's, and what can be read beside them."""

    name = "system control port B"

    def __init__(self, pit: Pit, now: Callable[[], int]) -> None:
        self._pit, self._now, self._value = pit, now, 0

    def get_state(self) -> int:
        """What was written."""
        return self._value

    def set_state(self, state: int) -> None:
        """As it was; the gate is the PIT's own state."""
        self._value = state

    def read(self, offset: int, size: int) -> int:
        """What was written, the refresh's toggle, the output of counter 2."""
        toggle = pc.PORT_61_REFRESH if self._now() // pc.REFRESH_NS & 1 else 0
        return self._value | toggle | (pc.PORT_61_OUT2 if self._pit.out2 else 0)

    def write(self, offset: int, size: int, value: int) -> None:
        """Bit 0 is the gate."""
        self._value = value & pc.PORT_61_WRITABLE
        self._pit.set_gate2(bool(value & pc.PORT_61_GATE2))

# SPDX-License-Identifier: GPL-2.0-or-later
"""ACPI's fixed hardware: PM1 event and control registers, and the power management timer. No address, no VM.

Source: ACPI 6.5, 4.8.3.1 (PM1 event), 4.8.3.2 (PM1 control), 4.8.3.3 (timer). There is no legacy mode to leave, so
SCI_EN always reads 1 (4.8.2.5: what has no SMI_CMD). Registers are reached by bytes or wider, as 4.8.1 allows. The
timer's carry is noticed when somebody looks, or has its interrupt enabled and writes or reads here.
"""

from __future__ import annotations

from vmm.abi import pc
from vmm.base.light import RLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

NS = 1_000_000_000
CARRY = pc.PM_TIMER_BITS - 1  # the bit whose change sets TMR_STS


class PmTimer:
    """Claims four ports: a counter of 24 bits at 3.579545 MHz, which runs always. `now` gives ns."""

    name = "ACPI PM timer"

    def __init__(self, now: Callable[[], int]) -> None:
        self._now, self._offset = now, 0

    @property
    def ticks(self) -> int:
        """All of them since it began, of which the guest sees the low bits."""
        return self._offset + self._now() * pc.PM_TIMER_HZ // NS

    def get_state(self) -> int:
        """Ticks, for `set_state`: it goes on from there."""
        return self.ticks

    def set_state(self, ticks: int) -> None:
        """Go on from a count."""
        self._offset = 0
        self._offset = ticks - self.ticks

    def read(self, offset: int, size: int) -> int:
        """The counter, or its bytes."""
        return (self.ticks & (1 << pc.PM_TIMER_BITS) - 1) >> 8 * offset & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """It cannot be set."""


class Pm1Event:
    """Claims four ports: status (writing 1 clears), then enable. `sci(level)` drives the SCI, which is a level."""

    name = "ACPI PM1 events"

    def __init__(self, timer: PmTimer, sci: Callable[[bool], object]) -> None:
        self._timer, self._sci = timer, sci
        self._lock = RLock()
        self._status = self._enable = 0
        self._carries = timer.ticks >> CARRY
        self._level = False

    def get_state(self) -> tuple[int, int]:
        """Status and enable."""
        with self._lock:
            return self._status, self._enable

    def set_state(self, state: tuple[int, int]) -> None:
        """Be as `get_state` found it; the SCI is driven to what that means."""
        with self._lock:
            self._status, self._enable = state
            self._carries = self._timer.ticks >> CARRY
            self._drive()

    def raise_event(self, status: int) -> None:
        """A fixed event has happened (PM1_PWRBTN, ...)."""
        with self._lock:
            self._status |= status & pc.PM1_STATUSES
            self._drive()

    def read(self, offset: int, size: int) -> int:
        """Status in the low half, enable in the high."""
        with self._lock:
            self._look()
            return (self._status | self._enable << 16) >> 8 * offset & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Bytes of status clear what they have set; those of enable are kept."""
        with self._lock:
            self._look()
            given, mask = value << 8 * offset, (1 << 8 * size) - 1 << 8 * offset
            self._status &= ~(given & 0xFFFF)
            keep = ~(mask >> 16) & 0xFFFF
            self._enable = (self._enable & keep | given >> 16 & ~keep) & pc.PM1_ENABLES
            self._drive()

    def _look(self) -> None:
        carries = self._timer.ticks >> CARRY
        if carries != self._carries:
            self._carries = carries
            self._status |= pc.PM1_TMR

    def _drive(self) -> None:
        level = bool(self._status & self._enable)
        if level != self._level:
            self._level = level
            self._sci(level)


class Pm1Control:
    """Claims two ports. `sleep(type)` is called with SLP_TYP when the guest sets SLP_EN, which always reads 0."""

    name = "ACPI PM1 control"

    def __init__(self, sleep: Callable[[int], object]) -> None:
        self._sleep = sleep
        self._value = 0

    def get_state(self) -> int:
        """What is kept of it."""
        return self._value

    def set_state(self, state: int) -> None:
        """As it was."""
        self._value = state

    def read(self, offset: int, size: int) -> int:
        """SCI_EN is set, SLP_EN is not."""
        return (self._value | pc.PM1_SCI_EN) >> 8 * offset & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """SLP_EN enters the sleeping state of SLP_TYP."""
        mask = (1 << 8 * size) - 1 << 8 * offset & 0xFFFF
        value = self._value & ~mask | value << 8 * offset & mask
        self._value = value & ~pc.PM1_SLP_EN
        if value & pc.PM1_SLP_EN:
            self._sleep((value & pc.PM1_SLP_TYP) >> pc.PM1_SLP_TYP_SHIFT)

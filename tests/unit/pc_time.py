# SPDX-License-Identifier: GPL-2.0-or-later
"""A clock for tests of devices that act by themselves: time passes when it is told to, and alarms ring on the way."""

from __future__ import annotations

from vmm.machine.devices.timers import Timers

NS = 1_000_000_000


class Time:
    """`timers` for a device; `wall()` begins at `start` ns since 1970 and passes with it."""

    def __init__(self, start: int = 0) -> None:
        self.now, self.start = 1_000, start
        self.timers = StillTimers(self)

    def wall(self) -> int:
        return self.start + self.now

    def passes(self, ns: int) -> None:
        """Ring what is due, each at its time."""
        end = self.now + ns
        while True:
            following = min((each.deadline for each in self.timers.alarms if each.deadline is not None), default=None)
            if following is None or following > end:
                break
            self.now = max(self.now, following)
            self.timers.ring_due()
        self.now = end


class StillTimers(Timers):
    """Without its thread."""

    def __init__(self, time: Time) -> None:
        super().__init__(failed=lambda error: None, now=lambda: time.now)

    @property
    def alarms(self):
        return self._alarms

    def arm(self, alarm, deadline) -> None:
        alarm.deadline = deadline

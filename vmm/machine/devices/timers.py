# SPDX-License-Identifier: GPL-2.0-or-later
"""Time for devices that act by themselves: a clock, and alarms that one thread rings. It knows no device.

The thread begins with the first alarm that is set, so a guest that sets none costs no thread. A device re-arms its
alarm from its own state; what is late rings late and once, and the device says what that means.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

NS = 1_000_000_000
LONGEST = 3600.0  # seconds of one wait: what is further off is looked at again


class Alarm:
    """One device's: `set(deadline)` in ns of its clock, or None for never; each rings once."""

    def __init__(self, timers: Timers, ring: Callable[[], object]) -> None:
        self._timers, self.ring = timers, ring
        self.deadline: int | None = None

    def set(self, deadline: int | None) -> None:
        """From any thread; replaces the deadline before."""
        self._timers.arm(self, deadline)


class Timers:
    """`failed` is called with what an alarm's callback raised, on the thread of the alarms."""

    def __init__(self, failed: Callable[[BaseException], object], now: Callable[[], int] = time.monotonic_ns) -> None:
        self.now = now
        self._failed = failed
        self._alarms: list[Alarm] = []
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._closed = False

    def alarm(self, ring: Callable[[], object]) -> Alarm:
        """An alarm that calls `ring()`, set to never."""
        alarm = Alarm(self, ring)
        with self._changed:
            self._alarms.append(alarm)
        return alarm

    def arm(self, alarm: Alarm, deadline: int | None) -> None:
        """Alarm.set."""
        with self._changed:
            alarm.deadline = deadline
            if deadline is None or self._closed:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._live, name="device timers", daemon=True)
                self._thread.start()
            self._changed.notify()

    def ring_due(self) -> int | None:
        """Ring what is due; the next deadline. What the thread does, and tests with a clock of their own."""
        with self._changed:
            now = self.now()
            due = [each for each in self._alarms if each.deadline is not None and each.deadline <= now]
            for each in due:
                each.deadline = None
        for each in due:  # without the lock: it may set itself, or another
            each.ring()
        with self._changed:
            return min((each.deadline for each in self._alarms if each.deadline is not None), default=None)

    def close(self) -> None:
        """End the thread; no alarm rings afterwards. Idempotent. An alarm's callback must not call it."""
        with self._changed:
            self._closed = True
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is not None and thread.is_alive():  # in a child by fork it is not
            thread.join()

    def _live(self) -> None:
        try:
            while True:
                self.ring_due()
                with self._changed:
                    if self._closed:
                        return
                    following = min((each.deadline for each in self._alarms if each.deadline is not None), default=None)
                    wait = LONGEST if following is None else min((following - self.now()) / NS, LONGEST)
                    if wait > 0:
                        self._changed.wait(wait)
        except BaseException as error:
            self._failed(error)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The receiving half of a 16550A: the FIFO, its trigger level, overruns, and a patient sender in front of it.

It knows no register but FCR and no interrupt line. Not safe against threads: the UART that owns it holds its lock.
Source: National Semiconductor PC16550D data sheet, sections 8.4 to 8.6 and 8.11.
"""

from __future__ import annotations

from vmm.abi import serial_reg as r
from vmm.base.light import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Receiver:
    """`overrun` is the error that LSR shows, `fifo` is whether the FIFOs are enabled. `timed_out` is set by the owner
    when four character times have passed, and cleared here by what restarts them.
    """

    def __init__(self) -> None:
        self.overrun = False
        self.fifo = False
        self.timed_out = False
        self._trigger = 1
        self._held: deque[int] = deque()
        self._waiting: deque[int] = deque()

    def get_state(self) -> tuple[bool, bool, bool, int, bytes, bytes]:
        """All of it, for `set_state`."""
        return self.overrun, self.fifo, self.timed_out, self._trigger, bytes(self._held), bytes(self._waiting)

    def set_state(self, state: tuple[bool, bool, bool, int, bytes, bytes]) -> None:
        """Be as `get_state` found it."""
        self.overrun, self.fifo, self.timed_out, self._trigger, held, waiting = state
        self._held, self._waiting = deque(held), deque(waiting)

    def __len__(self) -> int:
        """Characters the guest could read now."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """Characters still with the patient sender."""
        return len(self._waiting)

    @property
    def triggered(self) -> bool:
        """At least as many characters as the trigger level; without FIFOs, one."""
        return len(self._held) >= self._trigger

    def control(self, fcr: int) -> None:
        """A write to FCR. Switching the FIFOs on or off empties them; without the enable bit no other counts."""
        enable = bool(fcr & r.UART_FCR_ENABLE_FIFO)
        if enable != self.fifo or (enable and fcr & r.UART_FCR_CLEAR_RCVR):
            self._held.clear()
        self.fifo = enable
        self._trigger = r.TRIGGER_LEVEL[fcr & r.UART_FCR_TRIGGER_MASK] if enable else 1

    def arrive(self, character: int) -> None:
        """A character came off the line. On overrun the FIFO keeps what it has; the single RBR takes the newer one."""
        self.timed_out = False
        if len(self._held) >= self._depth:
            self.overrun = True
            if self.fifo:
                return
            self._held.clear()
        self._held.append(character)

    def queue(self, characters: Iterable[int]) -> None:
        """Hand characters to the patient sender."""
        self._waiting.extend(characters)

    def pull(self) -> None:
        """Let the patient sender send what there is room for."""
        while self._waiting and len(self._held) < self._depth:
            self._held.append(self._waiting.popleft())

    def pop(self) -> int:
        """A read of RBR: the oldest character, 0 if there is none."""
        self.timed_out = False
        return self._held.popleft() if self._held else 0

    @property
    def _depth(self) -> int:
        return r.FIFO_SIZE if self.fifo else 1

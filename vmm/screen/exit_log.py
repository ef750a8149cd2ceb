# SPDX-License-Identifier: GPL-2.0-or-later
"""The exits of a machine as they come, each with the instruction that caused it. It looks on; it answers nothing.

While somebody looks on, no exit takes the lean way (Machine.observe). Where they come faster than anybody could read
them, the instruction is looked up for the last of them only, so that a storm of exits is slowed down by little.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from vmm.kvm.exits import Debug, Exit, Interrupted
from vmm.machine.machine import Machine
from vmm.machine.run.cpu import Cpu
from vmm.observe.exit_text import describe, named
from vmm.observe.location import Sites
from vmm.screen.scene import ExitLook

KEPT = 500
RATE = 400  # exits in a second whose instruction is looked up
"""Looking one up takes about as long as a step of KVM's."""


class ExitLog:
    """`muted` while a state is put back or a run is done again: what comes then has come before. `ours(cpu, exit)` says
    which are the debugger's own: those are not shown.
    """

    def __init__(self, machine: Machine, ours: Callable[[Cpu, Exit], bool]) -> None:
        self._machine, self._sites, self._ours = machine, Sites(machine), ours
        self._rows: deque[ExitLook] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._second, self._looked_up = 0, 0
        self.count = 0
        self.muted = False
        machine.observe(self.saw)

    def close(self) -> None:
        """Look on no more."""
        self._machine.unobserve(self.saw)

    def saw(self, cpu: Cpu, exit: Exit) -> None:
        """An exit, on its vCPU's thread, before it is handled."""
        if self.muted or isinstance(exit, (Debug, Interrupted)) or self._ours(cpu, exit):
            return
        with self._lock:
            self.count += 1
            number, second = self.count, int(time.monotonic())
            if second != self._second:
                self._second, self._looked_up = second, 0
            self._looked_up += 1
            look_up = self._looked_up <= RATE
        where = written = ""
        if look_up:
            site = self._sites.of(cpu, exit)
            where, written = site.at, site.source or site.insn
        row = ExitLook(number, cpu.index, named(exit, describe(exit)), where, written)
        with self._lock:
            self._rows.append(row)

    @property
    def rows(self) -> tuple[ExitLook, ...]:
        """The last of them, oldest first."""
        with self._lock:
            return tuple(self._rows)

    def cut(self, count: int) -> None:
        """Forget what came after the first `count`: one goes back to before it."""
        with self._lock:
            kept = [row for row in self._rows if row.number <= count]
            self._rows.clear()
            self._rows.extend(kept)
            self.count = count

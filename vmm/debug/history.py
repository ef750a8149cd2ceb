# SPDX-License-Identifier: GPL-2.0-or-later
"""The way back: snapshots of earlier stops (Machine.save), and where one was not kept, steps from the nearest before,
which must come to the same registers. It keeps a bounded number of bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmm.debug.values import STEP, Stopped
from vmm.errors import UsageError, VmmError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.machine.context import Context
    from vmm.machine.machine import Machine

STEPS_BETWEEN = 64
MOST_STEPS = 10_000


@dataclass
class Kept:
    """One stop: the registers of each vCPU, and a snapshot or what led here."""

    stopped: Stopped
    registers: tuple[object, ...]
    halted: frozenset[int]
    context: Context | None


class History:
    """The stops of one run."""

    def __init__(self, machine: Machine, most: int) -> None:
        self._machine, self._most = machine, most
        self._kept: list[Kept] = []
        self._since = 0

    def clear(self) -> None:
        self._kept.clear()
        self._since = 0

    def note(self, stopped: Stopped, *, caught: bool) -> None:
        """A stop. At a catch no snapshot is taken: it would serve the exit."""
        if not self._most:
            return
        self._since += 1
        wanted = stopped.why != STEP or self._since >= STEPS_BETWEEN or not self._kept
        context = None
        if wanted and not caught and not stopped.ended:
            context = self._snapshot()
            self._since = 0 if context else self._since
        halted = frozenset(self._machine.all_cpus.halted)
        self._kept.append(Kept(stopped, self._registers(), halted, context))

    def _registers(self) -> tuple[object, ...]:
        return tuple(cpu.vcpu.get_regs() for cpu in self._machine.cpus)

    def _snapshot(self) -> Context | None:
        size = self._machine.memory.size
        with_one = [each for each in self._kept if each.context is not None]
        if size > self._most // 2:
            return None
        if (len(with_one) + 1) * size > self._most:  # every second of those in the middle goes
            for each in with_one[1:-1:2] or with_one[:1]:
                each.context = None
        try:
            return self._machine.save()
        except VmmError:
            return None  # inside an instruction that would end the run

    def back(self, number: int, again: Callable[[Stopped], object]) -> Stopped:
        """See Session.back; `again` makes the step once more that led to a stop."""
        numbers = [each.stopped.number for each in self._kept]
        index = len(numbers) - 1 + number
        if number >= 0:
            index = numbers.index(number) if number in numbers else -1
        if not 0 <= index < len(self._kept):
            have = f"{numbers[0]} to {numbers[-1]}" if numbers else "none"
            raise UsageError(f"no earlier stop {number} in this run: there are {have}")
        begin = index
        while begin >= 0 and self._kept[begin].context is None:
            if begin > 0 and self._kept[begin].stopped.why != STEP:
                begin = -1
                break
            begin -= 1
        what = f"back to stop {self._kept[index].stopped.number}"
        if begin < 0 or index - begin > MOST_STEPS:
            text = f"{what}: no snapshot was kept from which steps lead there"
            raise UsageError(text, hint="Session(history=...), bytes for snapshots")
        here = None if self._kept[-1].stopped.ended else self._snapshot()
        way = self._kept[begin : index + 1]
        self._restore(way[0])
        for each in way[1:]:
            again(each.stopped)
            if self._registers() != each.registers:
                if here is not None:
                    self._machine.restore(here)
                way_text = f"from stop {way[0].stopped.number} the guest went another way this time"
                raise UsageError(f"{what}: {way_text}, as one that looks at clocks may")
        del self._kept[index + 1 :]
        return self._kept[index].stopped

    def _restore(self, kept: Kept) -> None:
        assert kept.context is not None
        self._machine.restore(kept.context)
        halted = self._machine.all_cpus.halted
        halted.clear()
        halted.update(kept.halted)

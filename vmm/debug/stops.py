# SPDX-License-Identifier: GPL-2.0-or-later
"""The stops of a run: what the end of a leg means, and what is told of it. It lets nothing run; a run's begin and its
end are here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.debug import places
from vmm.debug.crash import Crash, crash_of
from vmm.debug.history import History
from vmm.debug.legs import Cause, Legs
from vmm.debug.one_step import Steps
from vmm.debug.points import Points
from vmm.debug.values import BREAKPOINT, CATCH, ENDED, FAULT, INTERRUPTED, PLAIN_STEP, STEP, Break, Stopped
from vmm.errors import UsageError
from vmm.machine.ends import Result, Stop, Why

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmm.asm.program import Program
    from vmm.kvm.exits import Exit
    from vmm.machine.machine import Machine
    from vmm.machine.run.cpu import Cpu

MOST_STOPS = 10_000


class Stops(Points):
    """`stops` are all of this run so far; `result` is that of the last run that has ended."""

    def __init__(self, machine: Machine, program: Program | None, limit: float | None, history: int) -> None:
        super().__init__(machine, program)
        self.limit = limit
        self.stops: list[Stopped] = []
        self.keep_interrupts = False
        """An `interrupt` that finds nothing running stops the next `go` as soon as it begins."""
        self.result: Result | None = None
        self.brief = False
        """A stop tells its address alone, neither text nor what changed, and takes a quarter of the time."""
        self._legs = Legs(machine)
        self._steps = Steps(self._legs)
        self._history = History(machine, history)
        self._stop_number = 0
        self._held = False
        self._inside = False  # one of several steps: an interrupt that came between two of them counts
        self._ended: tuple[Stop, Cpu | None] | None = None
        self._crash: Crash | None = None
        self._caught: Cpu | None = None
        self._before: dict[int, dict[str, int]] = {}
        self._stood: dict[int, int] = {}  # where each vCPU was at its last stop

    @property
    def running(self) -> bool:
        """A vCPU is in KVM_RUN, or nearly."""
        return self._legs.running

    @property
    def ended(self) -> bool:
        """The run is over; the next `go` begins another."""
        return self._ended is not None

    @property
    def halted(self) -> frozenset[int]:
        """vCPUs that have halted for good in this run."""
        return frozenset(self.machine.all_cpus.halted) if self._legs.begun else frozenset()

    def interrupt(self) -> None:
        """Stop what runs; from any thread. Nothing runs: nothing happens. Once `go` has begun, none is lost."""
        self._legs.interrupt()

    def _open(self, active: Sequence[Cpu], limit: float | None, exit_limit: int | None) -> None:
        self._legs.begin(active, limit, exit_limit)
        self._ended = self._caught = self._crash = None
        self.stops.clear()
        self._history.clear()
        self._before = {cpu.index: self.registers(cpu.index) for cpu in self._legs.members}
        self._stood = {}
        self.result = None

    def _begin(self) -> None:
        """Before anything runs: of a run that nobody has begun, the begin."""
        if not self._inside:
            self._forget()
            self._look_at_reads()
        if self._held:
            if self._ended is not None:
                raise UsageError(f"the run has ended: {self._ended[0].text}")
            return
        if self._ended is not None or (not self._legs.begun and not self.stops):
            self._open(self.machine.members(), self.limit, None)

    def _forget(self) -> None:
        if not self.keep_interrupts:
            self._legs.forget_interrupt()

    def _pass_caught(self) -> None:
        if self._caught is not None:
            self._legs.let_pass(self._caught)
            self._caught = None

    def _seen(self, stop: Stop, by: Cpu | None, cause: Cause | None, note: str = "") -> Stopped | None:
        """The stop that a leg's end is; None where it is none: a condition is wrong, or hits are let pass."""
        if cause is None:
            if stop.why is Why.HALT and self._legs.members:
                cpu = by or self.machine.cpus[self.vcpu]
                return self._stopped(STEP, cpu, f"vCPU {cpu.index} has halted, and others have not")
            return self._ends(stop, by)
        if cause.kind == INTERRUPTED:
            self._legs.forget_interrupt()
            return self._stopped(INTERRUPTED, by or self.machine.cpus[self.vcpu], "interrupted")
        cpu = cause.cpu or self.machine.cpus[self.vcpu]
        if cause.kind == STEP:
            return self._stopped(STEP, cpu, note or PLAIN_STEP, exit=cause.exit)
        if cause.kind == CATCH:
            self._caught = cpu
        struck = self._struck(cause)
        self.vcpu, before = cpu.index, self.vcpu
        for each in struck:
            if self._counts(each):
                if each.temporary and each in self.breaks:
                    self.breaks.remove(each)
                return self._stopped(cause.kind, cpu, str(each), struck=each, exit=cause.exit)
        self.vcpu = before
        if cause.kind == BREAKPOINT:
            self._stood[cpu.index] = cause.address  # it goes on from here, and off it
        return None

    def _ends(self, stop: Stop, by: Cpu | None, result: Result | None = None) -> Stopped:
        cpu = by or self.machine.cpus[self.vcpu]
        self._ended = stop, by
        if not self._held:
            result = self.result = result or self.machine.conclude(stop, by, self._legs.wall)
        self._crash = crash_of(self.machine, stop, by)
        return self._stopped(FAULT if stop.crashed else ENDED, cpu, stop.text, exit=stop.exit, result=result)

    def _stopped(
        self, why: str, cpu: Cpu, text: str, *, struck: Break | None = None, exit: Exit | None = None,
        result: Result | None = None,
    ) -> Stopped:  # fmt: skip
        self.vcpu = cpu.index
        self._stop_number += 1
        changed: dict[str, tuple[int, int]] = {}
        if self.brief:
            self._finish_exit(cpu)
            where = places.bare(cpu.at)
        else:
            where, now = self.where(cpu.index), self.registers(cpu.index)
            before = self._before.get(cpu.index, now)
            self._before[cpu.index] = now
            changed = {name: (before[name], value) for name, value in now.items() if before[name] != value}
        stopped = Stopped(self._stop_number, why, cpu.index, where, text, struck, exit, result, changed)
        self._stood[cpu.index] = stopped.where.address
        self.stops.append(stopped)
        if len(self.stops) > MOST_STOPS:
            del self.stops[: MOST_STOPS // 10]
        self._history.note(stopped, caught=self._caught is not None)
        return stopped

# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine under a debugger: breakpoints, steps, and a look at it while it stands still.

    with Machine() as m:
        m.load(text)
        s = Session(m)
        s.break_at("loop", when="rcx == 3")
        print(s.go())
        print(s.step())

A front end (the gdb server, the screen) holds the runs that others begin, such as a payload's host half:
`Session(machine, front=f)` is asked by Machine.run, with all vCPUs standing still, and f(session) says how it goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.debug.stepping import Stepping
from vmm.debug.values import BEGIN, Stopped
from vmm.errors import UsageError
from vmm.machine.ends import Result, Stop, Why
from vmm.observe.postmortem import examine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmm.asm.program import Program
    from vmm.kvm.exits import Exit
    from vmm.machine.context import Context
    from vmm.machine.machine import Machine
    from vmm.machine.run.cpu import Cpu
    from vmm.observe.postmortem import PostMortem

KILLED = "ended by the debugger"


class Session(Stepping):
    """One machine's runs under a debugger. All methods are for the thread that runs the machine, but `interrupt`.
    HostError: the machine is closed; UsageError: it is running, or has a debugger already.

    `vcpu` is the index of the vCPU that is looked at; a stop selects its own. `stops` are all stops so far. `limit` is
    how long the guest may run between the begin and the end of a run, seconds; standing still does not count.
    `history` is how many bytes snapshots for `back` may take; 0 takes none.
    """

    def __init__(
        self,
        machine: Machine,
        program: Program | None = None,
        *,
        front: Callable[[Session], object] | None = None,
        limit: float | None = None,
        history: int = 256 << 20,
    ) -> None:
        machine.between_runs("debugging it")
        if machine.holder is not None:
            raise UsageError("this machine has a debugger already")
        super().__init__(machine, program, limit, history)
        self.front = front
        self.given = limit
        """How long whoever began this run lets its guest run, seconds; None: it was not said."""
        self._detached = False
        machine.holder = self

    def close(self) -> None:
        """Let the machine go; its next run is as any other."""
        if self.machine.holder is self:
            self._stands_as_left()
            self.machine.holder = None
        self._legs.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def begin(self) -> None:
        """Whoever called this has loaded or started something: the next `go` or step begins a run.

        Raises:
            HostError: the machine is closed.
            UsageError: nothing was ever loaded.
        """
        self._open(self.machine.members(), self.limit, None)

    def kill(self) -> Stopped:
        """End the run here, as if the host had stopped it."""
        self._begin()
        return self._ends(Stop(Why.STOPPED, KILLED), None)

    def restart(self, saved: Context) -> None:
        """The machine as it was when this state was saved; the run goes on from there."""
        self.machine.restore(saved)
        self.machine.all_cpus.halted.clear()
        self._ended = self._caught = self._crash = None
        self._stood = {}
        self.vcpu = 0

    def limit_from_now(self, seconds: float | None) -> None:
        """How long the guest may run from here; None: as long as it likes."""
        self._legs.limit = None if seconds is None else self._legs.wall + seconds

    def detach(self) -> None:
        """Let the guest run on without us: `front` is not asked any more in this run, and no breakpoint stops it."""
        self._detached = True

    def back(self, number: int = -1) -> Stopped:
        """Go back to an earlier stop of this run: its number, or -1 for the one before this. By snapshot, or from the
        nearest one before by steps, which must come to the same registers.

        Raises:
            UsageError: no such stop, or nothing was kept to come there.
        """
        stopped = self._history.back(number, self._again)
        self._returned(stopped)
        return stopped

    def _again(self, stopped: Stopped) -> None:
        """Make the step that led to this stop once more (history.py); nothing is noted."""
        cpu = self._cpu(stopped.vcpu)
        self._steps.step(cpu, [], [cpu], without=cpu.at)

    def _returned(self, stopped: Stopped) -> None:
        """The machine is what it was at this stop (history.py)."""
        self._ended = self._caught = self._crash = None
        self.result = None
        self.vcpu = stopped.vcpu
        while self.stops and self.stops[-1] is not stopped:
            self.stops.pop()
        self._before = {cpu.index: self.registers(cpu.index) for cpu in self.machine.cpus}
        self._stood = {stopped.vcpu: stopped.where.address}

    def ending(self) -> Result:
        """How the run has ended, whose last stop says so: as Machine.run gives it to whoever began it.

        Raises:
            UsageError: it has not.
        """
        if self._ended is None:
            raise UsageError("the run has not ended")
        stop, by = self._ended
        return self.machine.conclude(stop, by, self._legs.wall)

    def postmortem(self) -> PostMortem:
        """What the run that has ended has left behind, as values: reason, registers, code, page walks, last exits.

        Raises:
            UsageError: it has not ended.
        """
        result = self.ending()
        if self._crash is not None:
            self._crash.undo()
        try:
            return examine(self.machine, result)
        finally:
            if self._crash is not None:
                self._crash.show()

    def stand_at_end(self, result: Result) -> Stopped:
        """The machine's last run was not ours, and has ended so: that is our first stop, and may be looked at; the next
        `go` or step begins a run from there.

        Raises:
            HostError: the machine is closed.
            UsageError: nothing was ever loaded.
        """
        self._open(self.machine.members(), self.limit, None)
        by = None if result.vcpu is None else self.machine.cpus[result.vcpu]
        return self._ends(result.stop, by, result)

    def ours(self, cpu: Cpu, exit: Exit) -> bool:
        """Is this exit the debugger's own doing, and not the guest's?"""
        return self._legs.ours(cpu, exit)

    def hold(
        self, active: Sequence[Cpu], limit: float | None, exit_limit: int | None
    ) -> tuple[Stop, Cpu | None, float]:
        """Machine.run asks: `front` is called until the run has ended, or it lets go. `limit` in seconds, `exit_limit`
        in exits, None for none; the stop, who made it, and how many seconds it took.

        Raises:
            UsageError: the front end gave the run up before its end.
        """
        self.given = limit if limit is not None else self.limit
        self._open(active, self.given, exit_limit)
        self._held = True
        try:
            if self.front is not None:
                self._stopped(BEGIN, self.machine.cpus[0], "nothing has run yet")
                self.front(self)
            while self._ended is None:
                if not self._detached and self.front is not None:
                    raise UsageError("the debugger's front end gave a run up that has not ended")
                self._free()
            stop, by = self._ended
            return stop, by, self._legs.wall
        finally:
            self._stands_as_left()
            self._held = False
            self._ended = None
            self._detached = False
            self._legs.limit = None

    def _stands_as_left(self) -> None:
        """A crash is shown to who debugs; others find the machine as the run has left it."""
        if self._crash is not None and not self.machine.vm.closed:
            self._crash.undo()
        self._crash = None

    def _free(self) -> None:
        """No debugger any more: the machine's own limit counts from here."""
        if self._legs.limit is None and self.machine.timeout is not None:
            self._legs.limit = self._legs.wall + self.machine.timeout
        self._go([], None)

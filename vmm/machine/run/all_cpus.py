# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of several vCPUs, from its start to the moment when every one is out of KVM_RUN; its limits and its end.

The boot vCPU runs on the caller's thread, each other on its own. It knows limits, threads and why a run ends;
it knows neither devices nor programs.
"""

from __future__ import annotations

import errno
import os
import time

from vmm.base.light import Lock, RLock, partial
from vmm.errors import UsageError, exhausted
from vmm.kvm import exits, kick
from vmm.kvm.exits import Exit
from vmm.kvm.lean import ACCESSES
from vmm.machine.bus.platform import Platform
from vmm.machine.ends import Stop, Why
from vmm.machine.run.cpu import Cpu, Watch, current, rules
from vmm.machine.run.lean import LeanLane
from vmm.machine.run.limits import HEARTBEAT, RUNS_ALREADY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from vmm.machine.run.thread import CpuThread

LATE = 2 * HEARTBEAT  # seconds between two beats; more is late: the host had no time, or a callback took it
MOST_PATIENCE = 25  # times the limit
Observer: TypeAlias = "Callable[[Cpu, Exit], object]"


class AllCpus:
    """Runs the vCPUs of one machine, again and again. It is what a cpu asks (cpu.Control)."""

    def __init__(self, platform: Platform, lane: LeanLane | None) -> None:
        self.platform, self._lane = platform, lane
        self.cpus: list[Cpu] = []
        self._observers: tuple[tuple[Observer, tuple[type[Exit], ...]], ...] = ()
        self._assigned: Observer | None = None  # that of them which is `on_exit`
        self._sees_accesses = False
        self.watch: Watch | None = None
        self.after: Callable[[Cpu, Exit], object] | None = None
        """Called with each exit after it was handled, on its vCPU's thread; while set, no exit takes the lean way."""
        self.on_tick: list[Callable[[Cpu], object]] = []
        """Called when a vCPU was kicked out of KVM_RUN, on its own thread: that of vCPU 0 at each heartbeat."""
        self.gate: Callable[[Cpu, Exit], bool] | None = None
        """Asked before an exit is served, on its vCPU's thread: False leaves it to the next run, and has called `end`.
        While set, no exit takes the lean way."""
        self.halted: set[int] = set()
        """vCPUs that have halted for good since the run began, which may be one of several legs."""
        self._threads: list[CpuThread] = []
        self._lock = RLock()  # a signal handler may call end() while this thread is in it
        self._running = Lock()
        self._open = False  # a run has begun, and its end is not through
        self._ended = False
        self._pid = os.getpid()
        self._active: set[int] = set()
        self._stop: Stop | None = None
        self._stopped_by: Cpu | None = None
        self.patient = False
        """Does a run's time limit leave out what beats were late, up to MOST_PATIENCE times the limit? A host that is
        starved of its CPUs (or is emulated on one that is) then says of a guest what it says at other times.
        """
        self._beat = 0.0
        self._deadline: float | None = None
        self._last_deadline = 0.0
        self._exit_limit: int | None = None
        self._taken = 0

    def run(
        self,
        active: Sequence[Cpu],
        limit: float | None,
        exit_limit: int | None,
        *,
        boot: bool = True,
        goes_on: bool = False,
    ) -> tuple[Stop, Cpu | None, float]:
        """Run vCPU 0 and the `active` others until one ends the run: why it ended, by whom, after how many seconds.

        A debugger runs in legs: without `boot`, vCPU 0 stands still; a leg that `goes_on` counts exits and halted
        vCPUs on from the one before.

        Raises:
            UsageError: it runs already.
            whatever a hook raised, and KeyboardInterrupt, after every vCPU has stopped.
        """
        if self._running.locked():
            raise UsageError(RUNS_ALREADY)
        with self._running:
            if self._open:
                self._end_all()  # ^C came into the end of the last run: its reason is not this one's
            begin = time.monotonic()
            self._exit_limit, self._taken = exit_limit, 0
            if exit_limit == 0:
                self.end(None, exit_limit_reached(0, None))
            if not goes_on:
                self.halted.clear()
                for cpu in self.cpus:
                    cpu.core.reset()
            return self._through(active, limit, begin, boot)

    def go_on(self, limit: float | None, begin: float) -> tuple[Stop, Cpu | None, float]:
        """As `run`, for a run of vCPU 0 that has begun as a plain machine's, at that time of time.monotonic(): it holds
        `running`, and its core may hold an exit back for this.
        """
        cpu = self.cpus[0]
        cpu.vcpu.pending = True  # as far as anybody knows; completing where there is nothing to complete does nothing
        try:
            return self._through((), limit, begin, True)
        finally:
            cpu.core.keep_held()

    @property
    def running(self) -> bool:
        """A run has begun that is not through yet; from any thread."""
        return self._running.locked()

    def take_over(self, running: Lock) -> None:
        """A run that has begun already holds this lock in place of ours."""
        self._running = running

    def closed(self) -> None:
        """There is nothing to close any more."""
        self._ended = True

    def _through(
        self, active: Sequence[Cpu], limit: float | None, begin: float, boot: bool
    ) -> tuple[Stop, Cpu | None, float]:
        """A run that has begun then, from here to its end."""
        self._open = True
        self._beat, self._deadline = begin, None if limit is None else begin + limit
        self._last_deadline = begin + (limit or 0.0) * MOST_PATIENCE
        left = None if limit is None else max(0.0, begin + limit - time.monotonic())
        try:
            self._run(active, left, boot)
        finally:
            stop, by = self._end_all()
        for thread in self._threads:
            if thread.errors and self._mine:
                raise thread.errors[0]
        return stop, by, time.monotonic() - begin

    def _run(self, active: Sequence[Cpu], limit: float | None, with_boot: bool) -> None:
        boot = self.cpus[0]
        self._active = {cpu.index for cpu in active}
        if with_boot:
            self._active.add(boot.index)
        self._ensure_threads(len(self.cpus) - 1 if active else 0)
        for thread in self._threads:
            thread.errors.clear()
        boot.on_this_thread(partial(self._run_bound, active, limit, with_boot))

    def _run_bound(self, active: Sequence[Cpu], limit: float | None, with_boot: bool) -> None:
        """On the thread of the boot vCPU, which the timer kicks."""
        timer = kick.Timer(HEARTBEAT if limit is None else min(HEARTBEAT, max(limit, 0.0)), HEARTBEAT)
        try:
            for cpu in active:
                self._threads[cpu.index - 1].start(partial(self._drive, cpu))
            if with_boot:
                self._drive(self.cpus[0])
            self._wait_for_threads()
        finally:
            timer.close()

    def _drive(self, cpu: Cpu) -> None:
        try:
            cpu.drive(self)
        except BaseException as error:
            if not self._mine:
                self._lock = RLock()  # a thread, which is the parent's, may have held it
            self.finish(cpu, Stop(Why.INTERRUPTED, f"{type(error).__name__}: {error}"))
            raise

    def _ensure_threads(self, count: int) -> None:
        if count:
            # A ^C in the midst of an import may leave Python's import lock taken by this thread for good; one that
            # imported then would wait for it for ever.
            rules()
        while len(self._threads) < count:
            from vmm.machine.run.thread import CpuThread

            try:
                self._threads.append(CpuThread(self.cpus[len(self._threads) + 1]))
            except RuntimeError as error:
                doing = f"starting a thread for vCPU {len(self._threads) + 1} of {count + 1}"
                raise exhausted(doing, "pthread_create", errno.EAGAIN) from error

    @property
    def _mine(self) -> bool:
        """False in a child by fork: a callback made it and came back in it, and the threads are the parent's."""
        return os.getpid() == self._pid

    def _wait_for_threads(self) -> None:
        """The boot vCPU is done; keep the limits for those that go on."""
        for thread in self._threads:
            idle = thread.idle()
            while not idle.wait(HEARTBEAT):
                self.tick(self.cpus[0])

    def _end_all(self) -> tuple[Stop, Cpu | None]:
        """Every vCPU out of KVM_RUN and every thread idle. Why, and by whom; a stop from here on is the next run's."""
        with self._lock:
            if self._stop is None:
                self._stop = Stop(Why.INTERRUPTED, "the run was interrupted")
        for thread in self._threads if self._mine else ():
            thread.finish()
        for cpu in self.cpus:
            cpu.vcpu.clear_interrupt()
        with self._lock:
            ended = self._stop, self._stopped_by
            self._stop = self._stopped_by = None
            self._open = False
        return ended

    # -- rounds (rounds.py)

    def claim(self) -> None:
        """Runs are this caller's alone, until `give_up`. UsageError: it runs."""
        if not self._running.acquire(blocking=False):
            raise UsageError(RUNS_ALREADY)
        if self._open:
            self._end_all()  # as in `run`

    def give_up(self) -> None:
        """Of what `claim` gave."""
        self._open = False
        self._running.release()

    def begin_round(self, now: float, limit: float | None) -> None:
        """A run of vCPU 0 begins, by who has claimed them, at that time of time.monotonic()."""
        self._open, self._beat, self._exit_limit = True, now, None
        if limit is None:
            self._deadline = None
        else:
            self._deadline, self._last_deadline = now + limit, now + limit * MOST_PATIENCE

    def end_round(self) -> Stop:
        """It has ended: why."""
        with self._lock:
            stop, self._stop, self._stopped_by = self._stop, None, None
            self._open = False
        return stop or Stop(Why.INTERRUPTED, "the run was interrupted")

    # -- between runs

    def settle(self) -> None:
        """Between two runs: every vCPU at the boundary of an instruction (Cpu.settle). A stop that a hook asks for
        meanwhile ends what it is called in, as it would a run; one from before is still the next run's.

        Raises:
            UsageError: it runs; an instruction would end otherwise.
            whatever a hook raises.
        """
        if not any(cpu.vcpu.pending or cpu.vcpu.stored for cpu in self.cpus):
            return
        if not self._running.acquire(blocking=False):
            raise UsageError("this machine runs; ask for its state after run()")
        before = self._stop, self._stopped_by
        try:
            for cpu in self.cpus:
                cpu.on_this_thread(partial(cpu.settle, self))
        finally:
            with self._lock:
                self._stop, self._stopped_by = before
            self._running.release()

    def end(self, cpu: Cpu | None, stop: Stop) -> None:
        """End the run, whoever asks; the first reason counts. Between two runs it ends the next at once, so that it
        cannot come too early.
        """
        with self._lock:
            if self._stop is None:
                self._stopped_by, self._stop = cpu, stop
            me = current()
            for each in (cpu, me if me in self.cpus else None):
                if each is not None:
                    each.core.stopped = True
            for other in self.cpus:  # under the lock: close() unmaps what interrupt() writes
                if other is not cpu and other is not me:
                    other.interrupt()

    def close(self, release: Callable[[], object]) -> None:
        """End a run if there is one, end the threads, then call `release` while nobody can interrupt a vCPU.

        Raises:
            UsageError: called by a hook of the very run.
        """
        if self._running.locked() and current() in self.cpus:
            raise UsageError("a hook cannot close the machine that runs it; call stop(), and close it after run()")
        if self._ended:
            return
        idle = False
        try:  # ^C may come between any two lines, and a second call has to find the way free
            idle = self._running.acquire(blocking=False)
            if not self._mine:  # whoever ran it is not here
                self._threads = []
            elif not idle or self._threads:  # a second ^C may have left one at work, though nobody runs it
                closed = Stop(Why.STOPPED, "the machine was closed")
                self.end(None, closed)
                while not idle:
                    idle = self._running.acquire(timeout=HEARTBEAT)
                    self.end(None, closed)
            for thread in self._threads:
                thread.close()
            self._threads = []
            with self._lock:
                release()
            self._ended = True
        finally:
            if idle:
                self._running.release()

    # -- what a cpu asks (cpu.Control)

    @property
    def lane(self) -> LeanLane | None:
        """The lean way, unless somebody wants to see what it serves."""
        seen = self._sees_accesses or self.watch is not None or self._exit_limit is not None or self.after is not None
        return None if seen or self.gate is not None else self._lane

    @property
    def taken(self) -> int:
        """Exits that counted in this run or leg, or the last one, where there is a limit."""
        return self._taken

    def withdraw(self, stop: Stop) -> None:
        """Take back an `end` that came after its run, so that it does not end the next."""
        with self._lock:
            if self._stop is stop and not self._open:
                self._stop = self._stopped_by = None

    @property
    def stopping(self) -> bool:
        return self._stop is not None

    def finish(self, cpu: Cpu, stop: Stop) -> None:
        if stop.why is Why.HALT:
            # Without an in-kernel LAPIC nothing wakes this vCPU; the others may still have work.
            self._active.discard(cpu.index)
            self.halted.add(cpu.index)
            if self._active:
                return
        self.end(cpu, stop)

    def tick(self, cpu: Cpu) -> None:
        now = time.monotonic()
        if self._deadline is not None and self.patient:
            late, self._beat = now - self._beat - LATE, now
            self._deadline = min(self._deadline + max(late, 0.0), self._last_deadline)
        if self._deadline is not None and now >= self._deadline and self._stop is None:
            self.end(None, Stop(Why.TIME_LIMIT, "the guest did not end within its time limit"))
        if self.on_tick and current() is cpu:
            for look in self.on_tick:
                look(cpu)

    def admit(self, cpu: Cpu, exit: Exit) -> bool:
        if self.gate is not None and not self.gate(cpu, exit):
            return False
        if self._exit_limit is None:
            return True
        with self._lock:  # every vCPU counts here
            self._taken += 1
            if self._taken <= self._exit_limit:
                return True
        self.end(None, exit_limit_reached(self._exit_limit, None))
        return False

    def observe(self, cpu: Cpu, exit: Exit) -> None:
        for f, kinds in self._observers:
            if not kinds or isinstance(exit, kinds):
                f(cpu, exit)

    def served(self, cpu: Cpu, exit: Exit) -> None:
        if self.after is not None:
            self.after(cpu, exit)
        if self._exit_limit is not None and self._taken >= self._exit_limit:
            self.end(cpu, exit_limit_reached(self._exit_limit, exit))

    # -- who sees exits

    def add_observer(self, f: Observer, kinds: tuple[type[Exit], ...]) -> None:
        """Call f(cpu, exit) with each exit of these kinds, or each of all, before it is handled.

        Raises:
            UsageError: it cannot be called, or there is no such kind.
        """
        if not callable(f):
            raise UsageError(f"observing exits: {f!r} cannot be called")
        for kind in kinds:
            if getattr(kind, "__module__", "") != exits.__name__:
                raise UsageError(f"observing {kind!r}: that is no kind of exit", hint="a class of vmm.kvm.exits")
        with self._lock:
            self._see((*self._observers, (f, kinds)))

    def remove_observer(self, f: Observer) -> None:
        """UsageError: it is none."""
        with self._lock:
            rows = [row for row in self._observers if row[0] == f]
            if not rows:
                raise UsageError(f"{f!r} observes no exits of this machine")
            self._see(tuple(row for row in self._observers if row is not rows[0]))

    def _see(self, observers: tuple[tuple[Observer, tuple[type[Exit], ...]], ...]) -> None:
        self._observers = observers
        self._sees_accesses = any(not kinds or issubclass(each, kinds) for _, kinds in observers for each in ACCESSES)
        for cpu in self.cpus:
            cpu.core.stopped = True  # perhaps the other way from here on; taken back where that is seen

    @property
    def on_exit(self) -> Observer | None:
        """One observer of every exit, by assignment; it takes the place of the one that was assigned before, alone."""
        return self._assigned

    @on_exit.setter
    def on_exit(self, f: Observer | None) -> None:
        if f is not None and not callable(f):
            raise UsageError(f"observing exits: {f!r} cannot be called")
        if self._assigned is not None:
            self.remove_observer(self._assigned)
        self._assigned = f
        if f is not None:
            self.add_observer(f, ())

    def open_window(self, cpu: Cpu) -> None:
        """Have KVM say when a vCPU that runs can take an interrupt (IrqWindowOpen); from any thread."""
        with self._lock:  # close() unmaps what this writes
            if not cpu.vcpu.closed:
                cpu.vcpu.request_interrupt_window(True)
                cpu.interrupt()


def exit_limit_reached(limit: int, exit: Exit | None) -> Stop:
    """Why a run ends after its `limit` exits; the last of them was `exit`."""
    return Stop(Why.EXIT_LIMIT, f"the guest has caused {limit} exit{'s' * (limit != 1)}, the limit of this run", exit)

# SPDX-License-Identifier: GPL-2.0-or-later
"""One vCPU's way through KVM_RUN: run, remember, handle, answer, until somebody asks for the end.

The boot vCPU runs on the caller's thread and every other one on a thread of its own that lives as long as the
machine, because KVM accounts time by thread. It knows nothing of what an exit means (loop.py) nor who wired the
devices (machine.py).
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Protocol

from vmm.kvm import kick
from vmm.kvm.exits import Exit, Interrupted
from vmm.kvm.vcpu import Vcpu
from vmm.machine.loop import handle
from vmm.machine.platform import Platform
from vmm.machine.steps import Stop

KEPT_EXITS = 10
PATIENCE = 0.01  # seconds between two kicks of a vCPU that should have stopped


class Control(Protocol):
    """What a runner asks of its machine."""

    platform: Platform

    @property
    def stopping(self) -> bool:
        """The run is over, or nearly."""

    def finish(self, runner: Runner, stop: Stop) -> None:
        """This vCPU stops; the run ends with it unless others still have work."""

    def tick(self, runner: Runner) -> None:
        """KVM_RUN was interrupted: time to look at the limits."""

    def observe(self, runner: Runner, exit: Exit) -> None:
        """An exit was taken, before it is handled."""


class Runner:
    """Drives one vCPU. `recent` are its last exits, `counts` how many of each kind it had."""

    def __init__(self, vcpu: Vcpu, index: int) -> None:
        self.vcpu, self.index = vcpu, index
        self.recent: deque[Exit] = deque(maxlen=KEPT_EXITS)
        self.counts: Counter[str] = Counter()
        self.thread_id: int | None = None

    @contextmanager
    def on_this_thread(self) -> Iterator[None]:
        """The calling thread is the vCPU's for a while: a kick reaches it."""
        kick.install()
        outer, before = current(), self.vcpu.bound()
        try:  # ^C may come between any two lines: nothing may stay bound
            self.vcpu.bind()
            self.thread_id = kick.thread_id()  # last: a kick needs a thread that has bound something
            _current.runner = self
            yield
        finally:
            _current.runner = outer
            self.thread_id = None
            self.vcpu.unbind(before)

    def drive(self, control: Control) -> None:
        """Run until the control says stop or this vCPU ends the run. What a hook raises goes through.

        An exit's answer is in kvm_run before anything can end the loop, so a later run goes on where this one was.
        """
        vcpu, counts, recent, platform = self.vcpu, self.counts, self.recent, control.platform
        while not control.stopping:
            exit = vcpu.run()
            counts[type(exit).__name__] += 1
            if type(exit) is Interrupted:
                control.tick(self)
                continue
            recent.append(exit)
            control.observe(self, exit)
            step = handle(exit, platform)
            if isinstance(step, Stop):
                control.finish(self, step)
                return
            if step.answers:
                vcpu.reply(exit, step.reply)

    def interrupt(self) -> None:
        """Get the vCPU out of KVM_RUN; from any thread. Losing the race is impossible (kick.py)."""
        self.vcpu.interrupt()
        thread_id = self.thread_id
        if thread_id is not None:
            kick.kick(thread_id)


class Worker:
    """A thread that drives one runner each time it is told to, so that a vCPU keeps its thread over many runs."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.error: BaseException | None = None
        # Its put is one step for a signal handler: ^C can come before or after it, not in the middle.
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._live, name=f"vcpu-{runner.vcpu.id}", daemon=True)
        self._thread.start()

    def start(self, job: Callable[[], None]) -> None:
        """Run `job` on the thread, after those it has. Its exception, if any, is kept in `error`."""
        self._jobs.put(job)

    def idle(self) -> threading.Event:
        """An event that is set when every job given so far has ended."""
        done = threading.Event()
        self._jobs.put(done.set)
        return done

    def finish(self) -> None:
        """Get the vCPU out of KVM_RUN until every job has ended: its machine must be stopping."""
        done = self.idle()
        while not done.wait(PATIENCE):
            self.runner.interrupt()

    def close(self) -> None:
        """End the thread, and first the job it may still have: its machine must be stopping."""
        self.finish()
        self._jobs.put(None)
        self._thread.join()

    def _live(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                with self.runner.on_this_thread():
                    job()
            except BaseException as error:
                self.error = error


class _Current(threading.local):
    runner: Runner | None = None


_current = _Current()


def current() -> Runner | None:
    """The runner whose exit this thread is handling; for hooks that need their vCPU."""
    return _current.runner

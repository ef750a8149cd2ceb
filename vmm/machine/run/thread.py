# SPDX-License-Identifier: GPL-2.0-or-later
"""The thread of a vCPU that is not the boot vCPU: it lives as long as the machine, because KVM accounts time by thread.

Only a machine that runs a second vCPU imports this. It knows jobs; what they are is all_cpus.py's business.
"""

from __future__ import annotations

import threading
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.machine.run.cpu import Cpu

PATIENCE = 0.01  # seconds between two kicks of a vCPU that should have stopped

_Jobs: TypeAlias = "SimpleQueue[Callable[[], object] | None]"


class CpuThread:
    """A thread that drives one cpu each time it is told to, so that a vCPU keeps its thread over many runs.

    The thread does not hold its CpuThread: one that nobody holds (^C came while it was made) ends by itself.
    """

    def __init__(self, cpu: Cpu) -> None:
        self.cpu = cpu
        self.errors: list[BaseException] = []
        # Its put is one step for a signal handler: ^C can come before or after it, not in the middle.
        self._jobs: _Jobs = SimpleQueue()
        self._thread = threading.Thread(
            target=_live, args=(self._jobs, self.errors), name=f"vcpu-{cpu.vcpu.id}", daemon=True
        )
        self._thread.start()

    def start(self, job: Callable[[], None]) -> None:
        """Run `job` on the thread, after those it has. Its exception, if any, joins `errors`."""
        cpu = self.cpu

        self._jobs.put(partial(cpu.on_this_thread, job))

    def idle(self) -> threading.Event:
        """An event that is set when every job given so far has ended."""
        done = threading.Event()
        self._jobs.put(done.set)
        return done

    def finish(self) -> None:
        """Get the vCPU out of KVM_RUN until every job has ended: its machine must be stopping."""
        done = self.idle()
        while not done.wait(PATIENCE):
            self.cpu.interrupt()

    def close(self) -> None:
        """End the thread, and first the job it may still have: its machine must be stopping. Idempotent."""
        if self._thread is threading.current_thread():  # it let go of the last that held the machine
            self._jobs.put(None)
            return
        while self._thread.is_alive():
            self._jobs.put(None)
            self.cpu.interrupt()
            self._thread.join(PATIENCE)

    def __del__(self) -> None:
        self._jobs.put(None)


def _live(jobs: _Jobs, errors: list[BaseException]) -> None:
    while (job := jobs.get()) is not None:
        try:
            job()
        except BaseException as error:
            errors.append(error)
        del job  # while waiting, hold nothing of a machine that may be gone

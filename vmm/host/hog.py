# SPDX-License-Identifier: GPL-2.0-or-later
"""Another process that wants the same CPU, for as long as a `with` lasts; and a thread pinned to a CPU meanwhile.

    with pinned(cpu), Hog(cpu) as hog:
        ...                                  # this thread now shares the CPU
    hog.on_cpu                               # nanoseconds that it took

A thread of this process would not do: it fights for the interpreter's lock, and its run time is not taken from the
vCPU. Only our own threads and our own process are touched, so a host with one CPU serves as well as any other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from vmm.errors import MissingCapability, os_reason
from vmm.host import schedstat

if TYPE_CHECKING:
    import subprocess

LIFETIME = 60.0  # seconds, longer than any proof; a hog that nobody ended ends itself

# It ends with its parent, however that dies: an orphan has another parent. Then a byte tells that it runs.
_SPIN = """
import os, sys, time
cpu, parent, end = int(sys.argv[1]), int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
os.sched_setaffinity(0, {cpu})
os.write(1, b".")
while os.getppid() == parent and time.monotonic() < end:
    for _ in range(2000):
        pass
"""


def any_cpu() -> int:
    """A CPU that this thread may use."""
    return max(os.sched_getaffinity(0))


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """The calling thread, and those it starts meanwhile, run on `cpu` only; afterwards it may go where it could before.

    Raises:
        MissingCapability: the host does not let us.
    """
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:
        raise MissingCapability(f"pinning a thread to CPU {cpu} (sched_setaffinity): {os_reason(error)}") from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Hog:
    """A process that spins on `cpu`. It runs when `with` has entered, and has ended when `with` is left.

    Raises (on entering):
        MissingCapability: no process can be started, or it may not run there.
    """

    def __init__(self, cpu: int) -> None:
        self.cpu = cpu
        self._process: subprocess.Popen[bytes] | None = None
        self._last = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def on_cpu(self) -> int:
        """Nanoseconds that it has had the CPU; after the end, as far as it was known then."""
        if self._process is not None and self._process.poll() is None:
            self._last = schedstat.of_process(self._process.pid).on_cpu
        return self._last

    def __enter__(self) -> Self:
        import subprocess  # slow to load, and few need a hog

        if not sys.executable:
            raise MissingCapability(
                "a process to compete for a CPU cannot be started: this Python does not know its path"
            )
        arguments = [sys.executable, "-S", "-E", "-c", _SPIN, str(self.cpu), str(os.getpid()), str(LIFETIME)]
        try:
            self._process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise MissingCapability(f"starting a process that competes for CPU {self.cpu}: {error}") from error
        try:
            assert self._process.stdout is not None
            if not self._process.stdout.read(1):
                raise MissingCapability(f"a process that should compete for CPU {self.cpu} ended at once")
        except BaseException:
            self._end()
            raise
        return self

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.kill()
        finally:
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                _ = self.on_cpu
        finally:
            self._end()

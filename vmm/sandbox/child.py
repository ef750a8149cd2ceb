# SPDX-License-Identifier: GPL-2.0-or-later
"""Work on what a stranger wrote, in a child process that can touch nothing: bytes come back, or a clear end.

The child is a fork, so it has the work's arguments as they are. It closes all other descriptors, may read Python's
modules, has limits of CPU time and memory, and no system call but those of computing. What comes back is bytes alone;
who calls takes them apart, and trusts them as little as the source.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
import warnings

from vmm.abi.x86 import PAGE
from vmm.errors import PayloadError, exhausted
from vmm.kvm import confine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CPU_SECONDS = 60
MEMORY = 1 << 30
"""Bytes of address space beyond what the process has when it is forked."""
MAX_RESULT = 256 << 20
LARGEST_SPACE = 1 << 40  # of a sanitizer's shadow: a limit of the address space means nothing there
TOLD, NO_MEMORY, FAILED = 0, 3, 4


def apart(
    work: Callable[[], bytes],
    doing: str,
    *,
    prepare: Callable[[], object] | None = None,
    cpu: int = CPU_SECONDS,
    memory: int = MEMORY,
    file: str = "",
) -> bytes:
    """What `work()` gives, called in a child of its own. `doing` says to a stranger what it was for, `file` on what;
    `prepare` is called in the child before anything is given up, to load libraries.

    Raises:
        PayloadError: it took more than `cpu` seconds or `memory` bytes, or the child ended by a signal or an error.
        HostError: no child could be made.
    """
    reader, writer = os.pipe()
    try:
        with warnings.catch_warnings():
            # Of Python 3.12: another thread may hold a lock. The child takes none but the allocator's, and fork's.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
    except OSError as error:
        os.close(reader)
        os.close(writer)
        raise exhausted(doing, "fork", error.errno or 0) from error
    if not child:
        _live(work, prepare, writer, cpu, memory)
    os.close(writer)
    status, data = None, bytearray()
    try:
        late = _read(reader, data, time.monotonic() + 2 * cpu + 5)
        if late:
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    finally:
        os.close(reader)
        if status is None:  # ^C
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if status == 0 and not late and len(data) <= MAX_RESULT:
        return bytes(data)
    raise PayloadError(
        f"{doing}: {_why(status, late or len(data) > MAX_RESULT, cpu, memory)}",
        "`pyvmm docs sandbox#children`",
        file=file,
    )


def _read(reader: int, data: bytearray, until: float) -> bool:
    """All that the child writes; True if it went on past `until`, or wrote more than anybody needs."""
    while (left := until - time.monotonic()) > 0:
        if select.select([reader], [], [], left)[0]:
            got = os.read(reader, 1 << 20)
            if not got:
                return False
            data += got
            if len(data) > MAX_RESULT:
                return True
    return True


def _why(status: int, late: bool, cpu: int, memory: int) -> str:
    if late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)):
        return f"not done after {cpu} s of CPU time, and ended"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"it ended the process that did it, by {signal.Signals(number).name}"
    if os.WEXITSTATUS(status) == NO_MEMORY:
        return f"it needs more than {memory >> 20} MiB of memory"
    return f"the process that did it failed (status {os.WEXITSTATUS(status)})"


def _live(work: Callable[[], bytes], prepare: Callable[[], object] | None, writer: int, cpu: int, memory: int) -> None:
    """The child, from fork to its end: nothing is returned, raised or flushed."""
    status = FAILED
    try:
        for each in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if callable(signal.getsignal(each)):
                signal.signal(each, signal.SIG_DFL)
        writer = _only(writer)
        if prepare is not None:
            prepare()
        _confine(cpu, memory)
        data = memoryview(work())
        while data:
            data = data[os.write(writer, data) :]
        status = TOLD
    except MemoryError:
        status = NO_MEMORY
    except BaseException:
        status = FAILED
    finally:
        os._exit(status)


def _only(writer: int) -> int:
    """Leave the child the pipe alone, as descriptor 3; what it prints goes nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    writer = fcntl.fcntl(writer, fcntl.F_DUPFD, 10)
    for each in (0, 1, 2):
        os.dup2(null, each)
    os.dup2(writer, 3)
    confine.close_from(4)
    return 3


def _confine(cpu: int, memory: int) -> None:
    from vmm.sandbox import enter
    from vmm.sandbox.compiled import COMPUTING, KILL, for_process

    filters = confine.has_filters(KILL)
    with open("/proc/self/statm", "rb") as file:
        now = int(file.read().split()[0]) * PAGE
    confine.no_new_privileges()
    enter.restrict_files()
    confine.at_most("RLIMIT_CPU", cpu)
    for name in ("RLIMIT_CORE", "RLIMIT_FSIZE", "RLIMIT_NPROC"):
        confine.at_most(name, 0)
    if now < LARGEST_SPACE:
        confine.at_most("RLIMIT_AS", now + memory)
    if filters:
        confine.filter_calls(for_process(COMPUTING), 0)

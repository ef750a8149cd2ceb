# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host's scheduler says of a thread: time on a CPU, and time spent waiting for one. It changes nothing.

Source: Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat". KVM takes stolen time from the same counter.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from vmm.errors import MissingCapability


class SchedStat(NamedTuple):
    """Nanoseconds on a CPU, nanoseconds runnable without one (`run_delay`), and how often it was given one."""

    on_cpu: int
    run_delay: int
    slices: int


def of_thread(tid: int) -> SchedStat:
    """A thread of this process, since it began.

    Raises:
        MissingCapability: this kernel does not tell.
    """
    return _read(f"/proc/self/task/{tid}/schedstat")


def of_process(pid: int) -> SchedStat:
    """The main thread of a process; as `of_thread`."""
    return _read(f"/proc/{pid}/schedstat")


def asleep(tid: int) -> bool:
    """Is a thread of this process waiting for something other than a CPU? Source: proc(5), field 3 of /proc/pid/stat.

    Raises:
        MissingCapability: this kernel does not tell.
    """
    path = f"/proc/self/task/{tid}/stat"
    try:
        return Path(path).read_text("ascii", "replace").rpartition(")")[2].split()[0] in "SD"
    except (OSError, IndexError) as error:
        raise MissingCapability(f"the kernel does not tell whether a thread sleeps ({path}): {error}") from error


def _read(path: str) -> SchedStat:
    try:
        on_cpu, run_delay, slices = (int(field) for field in Path(path).read_text("ascii").split())
    except (OSError, ValueError) as error:
        raise MissingCapability(f"the scheduler does not tell how long a thread waited ({path}): {error}") from error
    return SchedStat(on_cpu, run_delay, slices)

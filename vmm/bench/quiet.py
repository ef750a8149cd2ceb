# SPDX-License-Identifier: GPL-2.0-or-later
"""Had a row the CPUs for itself? What the kernel says of it while the row was measured; nothing is changed.

Three things spoil a row: a thread of ours that could run and had no CPU (run_delay, sched-stats.rst), a hypervisor that
took the CPU away (steal, proc(5)), and other programs that had nearly all CPUs, where children of ours are measured. A
CPU that is slower than it was before in this bench is said, too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vmm.errors import MissingCapability
from vmm.host.schedstat import of_thread
from vmm.host.sysfs import HostFiles

SPOILED = 0.05  # of a row's time
FEW_IDLE = 0.05
SLOWER = 0.85
USER, NICE, SYSTEM, IDLE, IOWAIT, IRQ, SOFTIRQ, STEAL = range(8)  # of a line of /proc/stat
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Look:
    """One look at the clocks, in seconds: of all CPUs that this process may use, of its own and of its children."""

    wall: float
    waited: float
    idle: float
    stolen: float
    busy: float
    own: float
    cpus: int


def look() -> Look:
    """How it is now; what this kernel does not tell is 0."""
    may = os.sched_getaffinity(0)
    rows = [
        [int(each) / TICK for each in words[1:]]
        for words in (line.split() for line in _lines("/proc/stat"))
        if words[:1] and words[0][:3] == "cpu" and words[0][3:].isdigit() and int(words[0][3:]) in may
    ]
    waited = 0.0
    for task in Path("/proc/self/task").iterdir():
        with suppress(MissingCapability):
            waited += of_thread(int(task.name)).run_delay / 1e9
    return Look(
        wall=time.monotonic(),
        waited=waited,
        idle=sum(row[IDLE] + row[IOWAIT] for row in rows),
        stolen=sum(row[STEAL] for row in rows if len(row) > STEAL),
        busy=sum(row[USER] + row[NICE] + row[SYSTEM] + row[IRQ] + row[SOFTIRQ] for row in rows),
        own=sum(os.times()[:4]),
        cpus=len(rows),
    )


def verdict(before: Look, after: Look) -> str:
    """What disturbed the time between two looks, in a few words; empty if nothing did."""
    wall = after.wall - before.wall
    if wall <= 0:
        return ""
    waited = (after.waited - before.waited) / wall
    stolen = (after.stolen - before.stolen) / wall / max(after.cpus, 1)
    if stolen > SPOILED:
        return f"the hypervisor below took {stolen:.0%} of the CPU time"
    if waited > SPOILED:
        return f"waited for a CPU {min(waited, 1):.0%} of the time: other programs run"
    others = (after.busy - before.busy - (after.own - before.own)) / wall
    idle = (after.idle - before.idle) / wall / max(after.cpus, 1)
    if after.cpus and idle < FEW_IDLE and others > SPOILED * after.cpus:
        return f"other programs had {others:.1f} of {after.cpus} CPUs"
    return ""


class Watch:
    """Watches the rows of one bench."""

    def __init__(self) -> None:
        self.said = ""
        self._fastest = 0.0

    @contextmanager
    def row(self) -> Iterator[None]:
        """`said` is what disturbed the block; empty: nothing did."""
        before, self.said = look(), ""
        yield
        self.said = verdict(before, look()) or self.slower(mhz(os.sched_getaffinity(0)))

    def slower(self, now: float) -> str:
        """Is the CPU slower than at its fastest so far? Looked at right behind the work."""
        self._fastest = max(self._fastest, now)
        return f"the CPU runs at {now:.0f} of {self._fastest:.0f} MHz" if 0 < now < SLOWER * self._fastest else ""


def mhz(may: set[int]) -> float:
    """The fastest of these CPUs now, by /proc/cpuinfo; 0 if it does not say."""
    found, number = [0.0], -1
    for line in _lines("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        with suppress(ValueError):
            if name.strip() == "processor":
                number = int(value)
            elif name.strip() == "cpu MHz" and number in may:
                found.append(float(value))
    return max(found)


def machine_facts() -> dict[str, str]:
    """What tells this machine from others, by name: `cpu`, `cpus` that this process may use, `kvm`, whose module does
    its work.
    """
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    cpus = str(len(os.sched_getaffinity(0)))
    return {**({"cpu": model} if model else {}), "cpus": cpus, "kvm": HostFiles().backend().text}


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("ascii", "replace").splitlines()
    except OSError:
        return []

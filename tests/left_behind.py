# SPDX-License-Identifier: GPL-2.0-or-later
"""What a piece of work left behind in this process: open files, and children.

What an earlier test left in a cycle goes whenever the collector comes by, and takes its descriptors with it: a count
that is not taken on a swept floor may be too high. After the work nothing is swept: what only the collector closes was
left open. A child of an earlier test may stay for good (multiprocessing keeps its resource tracker): what a piece of
work left behind is the difference, not whether there is any.
"""

from __future__ import annotations

import gc
from pathlib import Path


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def files_before() -> int:
    gc.collect()
    return open_files()


def children(pid: int | None = None) -> set[int]:
    """The process ids of the children of a process (this one), of each of its threads, running or to be reaped."""
    tasks = Path(f"/proc/{pid or 'self'}/task")
    return {int(each) for task in tasks.iterdir() for each in (task / "children").read_text(encoding="ascii").split()}

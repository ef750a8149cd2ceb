# SPDX-License-Identifier: GPL-2.0-or-later
"""How many files this process has open: before, with nothing of earlier tests left to go; after, as it is.

What an earlier test left in a cycle goes whenever the collector comes by, and takes its descriptors with it: a count
that is not taken on a swept floor may be too high. After the work nothing is swept: what only the collector closes was
left open.
"""

from __future__ import annotations

import gc
from pathlib import Path


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def files_before() -> int:
    gc.collect()
    return open_files()

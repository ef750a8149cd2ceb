# SPDX-License-Identifier: GPL-2.0-or-later
"""The limits of a run as numbers: what is one, and what only looks like one. A limit that limits nothing is refused."""

from __future__ import annotations

from vmm.base.integer import integer
from vmm.errors import UsageError

MAX_TIMEOUT = 24 * 3600.0
HEARTBEAT = 0.02
"""Seconds between two looks at the clock and at Python's signal handlers, while the guest gives no exit."""
RUNS_ALREADY = "this machine runs already; a hook may run another machine, not its own"


def time_limit(seconds: float) -> float:
    """The seconds, from 0 (ends at once) to a day.

    Raises:
        UsageError: more, less, not a number; a NaN would never come.
    """
    try:
        if 0 <= seconds <= MAX_TIMEOUT:
            return float(seconds)
    except (TypeError, ValueError):
        pass
    raise UsageError(f"a time limit of {seconds!r} s: give 0 to {MAX_TIMEOUT:g} seconds")


def exit_limit(count: int) -> int:
    """The number of exits, 0 or more.

    Raises:
        UsageError: it is none.
    """
    number = integer(count)
    if number is None or number < 0:
        raise UsageError(f"exit_limit={count!r}: give the number of exits after which the run ends, 0 or more")
    return number

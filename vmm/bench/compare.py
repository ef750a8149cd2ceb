# SPDX-License-Identifier: GPL-2.0-or-later
"""Two sides that take turns until their ratio is settled, on one CPU; and what became of it as a row of the table."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from vmm.bench.sides import Side
from vmm.bench.stats import Pair

TURN = 0.015  # seconds: long beside a round, short beside what disturbs a machine for a while
WARM_UP = 3  # rounds
FEWEST = 5  # turns


@dataclass(frozen=True)
class Budget:
    """How long a row may take: FEWEST turns a side, then until the ratio is settled or `seconds` have passed."""

    seconds: float = 4.0
    turn: float = TURN
    quick: bool = False


QUICK = Budget(0.1, 0.003, quick=True)


@dataclass(frozen=True)
class Goal:
    """`limit` is of the ratio (`of` "ratio") or of the median; `text` is how the goal was put."""

    limit: float
    text: str
    of: str = "ratio"
    better: str = "lower"

    def margin(self, value: float, noise: float) -> float:
        """How far inside the limit a value is, in units of its own noise; below 0 it is outside."""
        inside = self.limit - value if self.better == "lower" else value - self.limit
        if noise > 0:
            return inside / noise
        return math.copysign(math.inf, inside) if inside else 0.0


@dataclass(frozen=True)
class Row:
    """A measurement in `unit` ("ns", "bytes", "1/s"). `floor` is the peer's figure, and `peer` who that is.

    `cost` says how far an operation goes: kernel, C core, Python, process. `disturbed` says what else was on its CPUs;
    `why` is set where nothing was measured, or there was no peer.
    """

    name: str
    group: str
    what: str
    cost: str = ""
    unit: str = "ns"
    median: float | None = None
    mad: float | None = None
    n: int = 0
    floor: float | None = None
    peer: str = ""
    ratio: float | None = None
    error: float | None = None
    turns: int = 0
    turns_needed: int | None = None
    goal: Goal | None = None
    noisy: bool = False
    disturbed: str = ""
    why: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def margin(self) -> float | None:
        """How far the figure is inside its goal, in units of its own noise; None without a goal or without a figure.

        The noise of a ratio is its error, that of a median its MAD over the root of the samples.
        """
        if self.goal is None or self.median is None:
            return None
        if self.goal.of == "median":
            return self.goal.margin(self.median, (self.mad or 0.0) / math.sqrt(max(1, self.n)))
        if self.ratio is None:
            return None
        return self.goal.margin(self.ratio, self.ratio * (self.error or 0.0))

    @property
    def met(self) -> bool | None:
        """Whether the goal is met, by more than one noise; None without a goal or without a figure."""
        margin = self.margin
        return None if margin is None else margin >= 1

    @property
    def close(self) -> bool:
        """Within one noise of its goal's edge, on either side: another run may say otherwise."""
        margin = self.margin
        return margin is not None and abs(margin) < 1


def take_turns(
    ours: Side, floor: Side | None, budget: Budget, pair: Pair | None = None, *, between: float = 0.0
) -> Pair:
    """Rounds of both sides, now one first and now the other; each has `between` seconds that are off the clock."""
    pair = pair or Pair()
    sides = [(ours, pair.ours)] if floor is None else [(ours, pair.ours), (floor, pair.floor)]
    for side, _ in sides:
        side.measure(WARM_UP if not budget.quick else 1)
    begin = time.monotonic()
    one = max(ours.measure(1)[0] / 1e9, 1e-6) + between
    rounds = max(1, min(1000, int(budget.turn / one)))
    while True:
        for side, turns in sides:
            turns.append(side.measure(rounds))
        sides.reverse()
        if len(pair.ours) >= FEWEST and (pair.settled or time.monotonic() - begin > budget.seconds):
            return pair


def per_operation(pair: Pair, count: float) -> Pair:
    """The same, of rounds that hold `count` operations each."""
    return Pair(*([[value / count for value in turn] for turn in side] for side in (pair.ours, pair.floor)))


def row_of(pair: Pair, row: Row, goal: Callable[[float], Goal] | None = None) -> Row:
    """`row` with the figures; `goal` gets the floor's median, for goals that depend on it."""
    from dataclasses import replace

    floor = pair.floor_median
    return replace(
        row,
        median=pair.median,
        mad=pair.mad,
        n=pair.n,
        floor=floor,
        peer=row.peer if floor is not None else "",
        ratio=pair.ratio,
        error=pair.error,
        turns=len(pair.ours),
        turns_needed=pair.turns_needed,
        noisy=pair.noisy,
        goal=goal(floor) if goal is not None and floor is not None else row.goal,
    )


def as_rate(row: Row) -> Row:
    """A row of times as one of how many a second; what was measured of it is the same."""
    from dataclasses import replace

    if row.median is None or row.mad is None:
        return replace(row, unit="1/s")
    return replace(
        row, unit="1/s", median=1e9 / row.median, mad=1e9 * row.mad / row.median**2,
        floor=1e9 / row.floor if row.floor else None, ratio=1 / row.ratio if row.ratio else None,
    )  # fmt: skip


@contextmanager
def pinned(cpus: int) -> Iterator[bool]:
    """The calling thread, and what it starts, on the last `cpus` CPUs it may use; put back at the end.

    The last, because the first of a machine has most of its interrupts. Yields whether there were as many.
    """
    before = os.sched_getaffinity(0)
    chosen = sorted(before)[-cpus:]
    os.sched_setaffinity(0, chosen)
    try:
        yield len(chosen) == cpus
    finally:
        os.sched_setaffinity(0, before)

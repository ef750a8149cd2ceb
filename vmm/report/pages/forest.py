# SPDX-License-Identifier: GPL-2.0-or-later
"""Where figures of a bench lie beside their floor and their goal, on one logarithmic scale. Numbers in, places on the
scale out (per cent of its width); it writes no markup.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from vmm.report.bench import Document

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
LEAST, MOST = 1e-3, 1e3  # what is beyond lies at the edge
NARROW = 0.6  # per cent: an interval is at least as wide
HIGH = 30  # units of a history's drawing


class Figure(NamedTuple):
    """`value` with its noise to both sides, and its goal, all over what `over` says: "floor", or "goal"."""

    value: float
    noise: float
    goal: float | None
    over: str


def figure(row: Document) -> Figure | None:
    """Of a row: its ratio; of one without a floor, its median over its goal; None where nothing can be compared."""
    if row["ratio"] is not None and row["ratio"] > 0:
        noise = row["ratio"] * (row["error"] or 0.0)
        return Figure(row["ratio"], noise, row["goal"] if row["goal_of"] == "ratio" else None, "floor")
    if row["median"] is not None and row["goal"] and row["goal_of"] == "median" and row["median"] > 0:
        noise = (row["mad"] or 0.0) / math.sqrt(max(row["n"], 1)) / row["goal"]
        return Figure(row["median"] / row["goal"], noise, 1.0, "goal")
    return None


class Scale:
    """From a number to per cent of the scale's width."""

    def __init__(self, figures: Iterable[Figure]) -> None:
        values = [0.5, 2.0]
        for each in figures:
            if each.over == "floor":
                values += [each.value - each.noise, each.value + each.noise, each.goal or 1.0]
        inside = [min(max(value, LEAST), MOST) for value in values]
        self.low, self.high = math.log(min(inside) * 0.9), math.log(max(inside) * 1.1)

    def at(self, value: float) -> float:
        """0 to 100."""
        place = (math.log(min(max(value, LEAST), MOST)) - self.low) / (self.high - self.low)
        return round(100 * min(max(place, 0.0), 1.0), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """(place, text) of round numbers."""
        return [(self.at(tick), f"{tick:g}") for tick in TICKS if self.low <= math.log(tick) <= self.high]

    def places(self, of: Figure) -> dict[str, Any]:
        """The interval, the point, the goal and the floor; of a figure over its goal, a bar from nothing to it."""
        if of.over == "goal":
            whole = max(of.value, 1.0) * 1.1
            at = round(100 * of.value / whole, 2)
            return {"begin": 0, "width": at, "point": at, "goal": round(100 / whole, 2), "floor": None, "over": of.over}
        begin, end = self.at(of.value - of.noise), self.at(of.value + of.noise)
        if end - begin < NARROW:
            middle = self.at(of.value)
            begin, end = middle - NARROW / 2, middle + NARROW / 2
        return {
            "begin": round(begin, 2),
            "width": round(end - begin, 2),
            "point": self.at(of.value),
            "goal": None if of.goal is None else self.at(of.goal),
            "floor": self.at(1.0),
            "over": of.over,
        }


def line(figures: Sequence[Figure | None]) -> dict[str, Any] | None:
    """A row's history as a drawing of 100 by HIGH units: `d` joins the points, `bars` are intervals, `goal` is a height
    (or None); the first is the oldest. None where there are fewer than two.
    """
    known = [(index, each) for index, each in enumerate(figures) if each is not None]
    if len(known) < 2:
        return None
    values = [each.value + sign * each.noise for _, each in known for sign in (-1, 1)]
    goal = known[-1][1].goal
    values += [goal] if goal is not None else []
    low, high = min(values), max(values)
    low, high = (low * 0.98, high * 1.02) if high > low else (low * 0.9, high * 1.1)
    step = 90 / max(len(figures) - 1, 1)

    def up(value: float) -> float:
        return round(HIGH - 3 - (HIGH - 6) * (value - low) / (high - low), 2)

    points = [(round(5 + index * step, 2), up(each.value)) for index, each in known]
    return {
        "d": "M" + "L".join(f"{x:g} {y:g}" for x, y in points),
        "points": points,
        "bars": [
            (round(5 + index * step, 2), up(each.value - each.noise), up(each.value + each.noise))
            for index, each in known
        ],
        "goal": None if goal is None else up(goal),
        "high": HIGH,
    }

# SPDX-License-Identifier: GPL-2.0-or-later
"""Samples in, judgements out: median and MAD, when a ratio is settled, when a machine is too noisy. No clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

SETTLED = 0.005  # the ratio's relative error that is small enough to stop at
SPREAD = 0.10  # a MAD above this share of the median is noise ...
OUTLIER = 1.5  # ... and so is a sample above so many medians ...
OUTLIERS = 0.20  # ... if so many of them are
FEWEST_NOISY = 4  # one noisy row in so many makes a noisy machine


def mad(values: Sequence[float]) -> float:
    """The median absolute deviation from the median; 0 for a single value."""
    middle = median(values)
    return median(abs(value - middle) for value in values)


@dataclass
class Pair:
    """Samples of two sides that took turns: one list per turn and side. `floor` is empty where there is none."""

    ours: list[list[float]] = field(default_factory=list)
    floor: list[list[float]] = field(default_factory=list)

    @staticmethod
    def _all(turns: list[list[float]]) -> list[float]:
        return [value for turn in turns for value in turn]

    @property
    def n(self) -> int:
        """How many samples of ours there are."""
        return len(self._all(self.ours))

    @property
    def median(self) -> float:
        return median(self._all(self.ours))

    @property
    def mad(self) -> float:
        return mad(self._all(self.ours))

    @property
    def floor_median(self) -> float | None:
        return median(self._all(self.floor)) if self.floor else None

    @property
    def ratios(self) -> list[float]:
        """One for each turn, of the medians of its two sides."""
        return [median(ours) / median(floor) for ours, floor in zip(self.ours, self.floor, strict=False)]

    @property
    def ratio(self) -> float | None:
        """The median of the turns' ratios: what slows both sides for a while does not move it."""
        return median(self.ratios) if self.floor else None

    @property
    def error(self) -> float:
        """The relative error of the ratio (of our median, without a floor): MAD of the turns over their root."""
        values = self.ratios if self.floor else [median(turn) for turn in self.ours]
        return mad(values) / median(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf

    @property
    def settled(self) -> bool:
        return self.error <= SETTLED

    @property
    def turns_needed(self) -> int | None:
        """About how many turns settle the ratio, by the scatter of those that were taken; None if unknown."""
        if not self.floor or not math.isfinite(self.error):
            return None
        return max(len(self.ours), math.ceil(len(self.ours) * (self.error / SETTLED) ** 2))

    @property
    def noisy(self) -> bool:
        return noisy(self._all(self.ours)) or (bool(self.floor) and noisy(self._all(self.floor)))


def noisy(values: Sequence[float]) -> bool:
    """Samples of the same thing that differ too much to quote an absolute time."""
    middle = median(values)
    outliers = sum(value > OUTLIER * middle for value in values)
    return mad(values) > SPREAD * middle or outliers > OUTLIERS * len(values)


def noise_verdict(noisy_rows: int, rows: int, load: float, cpus: int) -> str | None:
    """A plain sentence if the machine is too noisy for these figures, else None. `load` is runnable processes."""
    if not rows or noisy_rows * FEWEST_NOISY < rows:
        return None
    busy = f"; {load:.1f} processes wanted to run on {cpus} CPU{'s' * (cpus != 1)}" if load > cpus else ""
    return (
        f"this machine is too noisy now: {noisy_rows} of {rows} rows scatter by more than {SPREAD:.0%} of their median"
        f"{busy}. Times are what they are; ratios come from runs that took turns, and are the better part"
    )

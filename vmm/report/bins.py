# SPDX-License-Identifier: GPL-2.0-or-later
"""How many exits of each kind each vCPU had in each span of time. Bounded, however long the run: spans double when
there would be too many. It draws nothing.
"""

from __future__ import annotations

FIRST_SPAN = 10_000  # nanoseconds, at first

Key = tuple[int, str, int]
"""(vCPU, kind, number of the span)"""


class Bins:
    """`counts` has how many exits each bin holds, `firsts` what was told of the first of them."""

    def __init__(self, most: int, most_counts: int | None = None) -> None:
        """At most `most` spans, and `most_counts` bins that hold something."""
        self.span = FIRST_SPAN
        self.counts: dict[Key, int] = {}
        self.firsts: dict[Key, tuple[int, ...]] = {}
        self._most, self._most_counts = most, most_counts

    def add(self, cpu: int, kind: str, t: int, first: tuple[int, ...] = ()) -> None:
        """One exit at `t` nanoseconds; exits come in the order of time."""
        self.reach(t)
        key = (cpu, kind, t // self.span)
        count = self.counts.get(key, 0)
        self.counts[key] = count + 1
        if count:
            return
        self.firsts[key] = first
        while self._most_counts is not None and len(self.counts) > self._most_counts and self.span <= t:
            self._double()

    def reach(self, t: int) -> None:
        """Have a span for this time."""
        while t // self.span >= self._most:
            self._double()

    def _double(self) -> None:
        self.span *= 2
        counts: dict[Key, int] = {}
        firsts: dict[Key, tuple[int, ...]] = {}
        for (cpu, kind, at), count in sorted(self.counts.items()):
            key = (cpu, kind, at // 2)
            counts[key] = counts.get(key, 0) + count
            firsts.setdefault(key, self.firsts[cpu, kind, at])
        self.counts, self.firsts = counts, firsts

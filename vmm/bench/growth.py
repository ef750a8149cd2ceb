# SPDX-License-Identifier: GPL-2.0-or-later
"""Does an exit cost more where there is more: claimed ports, memslots, vCPUs? The sizes of one question take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from statistics import median
from typing import NamedTuple

from vmm.abi.x86 import PAGE
from vmm.bench import guests, sides
from vmm.bench.compare import TURN, Budget, Goal, Row, pinned
from vmm.bench.spec import Spec
from vmm.bench.stats import Pair, mad, noisy

COUNT = 100  # exits in a batch
FIRST_PORT = 0x1000
FIRST_SLOT = 0x1000_0000  # guest-physical, far above what the guest uses
FLAT = 1.05


class Point(NamedTuple):
    """At this size an exit takes so many ns."""

    size: int
    median: float
    mad: float


def _ports(size: int) -> sides.Batch:
    """`size` ports, each claimed by itself; the guest's is one of them."""
    side = sides.PythonPort(guests.port_out(COUNT))
    for port in range(FIRST_PORT, FIRST_PORT + size - 1):
        side.machine.on_port_write(port, lambda value: None)
    return side


def _memslots(size: int) -> sides.Batch:
    """`size` memslots of a page each, all but the guest's own unused."""
    side = sides.PythonPort(guests.port_out(COUNT))
    for number in range(size - 1):
        side.machine.memory.add(FIRST_SLOT + 2 * PAGE * number, PAGE)
    return side


def _vcpus(size: int) -> sides.Batch:
    """`size` vCPUs, all but the first waiting for a SIPI in the kernel."""
    return sides.IdleOthers(guests.port_out(COUNT), size)


QUESTIONS: dict[str, tuple[str, Callable[[int], sides.Batch], tuple[int, ...]]] = {
    "growth_ports": ("claimed ports", _ports, (1, 10, 100, 1000, 10000)),
    "growth_memslots": ("memslots", _memslots, (1, 5, 20, 100, 500)),
    "growth_vcpus": ("vCPUs, all but one idle", _vcpus, (1, 2, 4, 8, 16)),
}


def specs() -> Iterator[Spec]:
    """A row for each question: the largest size beside the smallest; `more["points"]` has all."""
    for name, (what, make, sizes) in QUESTIONS.items():
        row = Row(name, "growth", f"OUT to Python with {sizes[-1]} {what}", "Python", peer=f"with {sizes[0]}",
                  goal=Goal(FLAT, f"flat: at most {FLAT:.2f} x"))  # fmt: skip
        yield Spec(row, partial(_grow, row, make, sizes))


def _grow(row: Row, make: Callable[[int], sides.Batch], sizes: tuple[int, ...], budget: Budget) -> Row:
    sampled: dict[int, list[list[float]]] = {size: [] for size in sizes}
    with pinned(1):
        made = {}
        try:
            for size in sizes:
                made[size] = make(size)
                made[size].measure(1)
            rounds = max(1, int(budget.turn / (COUNT * 10e-6)))
            turns = 5 if budget.quick else max(5, int(5 * budget.seconds / TURN / len(sizes) / 10))
            for _ in range(turns):
                for size in sizes:
                    sampled[size].append([each / COUNT for each in made[size].measure(rounds)])
        finally:
            for side in made.values():
                side.close()
    points = []
    for size, each in sampled.items():
        values = [value for turn in each for value in turn]
        points.append(Point(size, median(values), mad(values)))
    pair = Pair(sampled[sizes[-1]], sampled[sizes[0]])
    return replace(
        row, median=pair.median, mad=pair.mad, n=pair.n, floor=pair.floor_median, ratio=pair.ratio, error=pair.error,
        noisy=any(noisy([value for turn in each for value in turn]) for each in sampled.values()),
        more={"points": [list(point) for point in points]},
    )  # fmt: skip

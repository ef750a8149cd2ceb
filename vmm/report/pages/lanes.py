# SPDX-License-Identifier: GPL-2.0-or-later
"""The timeline of a run for its page: bars per vCPU that are there without a script, and what the script needs to go
nearer. Numbers in, values for a template out; it writes no markup.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from vmm.report.bins import Bins
from vmm.report.timeline import KINDS, ticks

WIDTH, HEIGHT = 1000, 60  # units of a lane's drawing, which is as wide as the page
COLUMNS = 250
SHOWN = 64  # vCPUs with a lane
UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "us"))


def lanes(bins: Bins, by_cpu: Counter[int], cpus: int, time: int) -> list[dict[str, Any]]:
    """A lane for each vCPU: `paths` are (kind, the `d` of an SVG path), `text` says the same in words."""
    whole = whole_of(bins, time)
    columns: dict[int, dict[tuple[str, int], int]] = {}
    for (cpu, kind, at), count in bins.counts.items():
        column = min(at * bins.span * COLUMNS // whole, COLUMNS - 1)
        own = columns.setdefault(cpu, {})
        own[kind, column] = own.get((kind, column), 0) + count
    top = max((max(_sums(own).values()) for own in columns.values()), default=1)
    return [
        {
            "cpu": cpu,
            "exits": by_cpu[cpu],
            "paths": list(_paths(columns.get(cpu, {}), top)),
            "kinds": [(kind, count) for kind, count in _kinds(columns.get(cpu, {})).items() if count],
        }
        for cpu in range(min(cpus, SHOWN))
    ]


def whole_of(bins: Bins, time: int) -> int:
    """Nanoseconds that a lane is wide: to the end of the last bin."""
    return (time // bins.span + 1) * bins.span


def _sums(own: dict[tuple[str, int], int]) -> Counter[int]:
    sums: Counter[int] = Counter()
    for (_, column), count in own.items():
        sums[column] += count
    return sums


def _kinds(own: dict[tuple[str, int], int]) -> dict[str, int]:
    return {kind: sum(count for (each, _), count in own.items() if each == kind) for kind in KINDS}


def _paths(own: dict[tuple[str, int], int], top: int) -> list[tuple[str, str]]:
    bar, filled, found = WIDTH / COLUMNS, [0.0] * COLUMNS, []
    for kind in KINDS:
        pieces = []
        for column in range(COLUMNS):
            if count := own.get((kind, column)):
                tall = max(count / top * (HEIGHT - 2), 1.5)
                pieces.append(
                    f"M{column * bar:g} {HEIGHT - filled[column]:.1f}h{bar * 0.9:g}v{-tall:.1f}h{-bar * 0.9:g}z"
                )
                filled[column] += tall
        if pieces:
            found.append((kind, "".join(pieces)))
    return found


def axis(whole: int) -> list[dict[str, Any]]:
    """Round times along a lane: `at` per cent of its width, and the text."""
    unit, name = next((unit, name) for unit, name in UNITS if whole >= unit or name == "us")
    return [{"at": round(100 * at / whole, 2), "text": f"{at / unit:g} {name}"} for at in ticks(whole)]


def data(bins: Bins, cpus: int, time: int) -> dict[str, Any]:
    """For the script. `bars` has for each vCPU and kind flat rows of four numbers: how many bins after the one before,
    how many exits, the number of the first, and its place in the table of places (-1: not there).
    """
    rows: dict[int, dict[str, list[int]]] = {}
    last: dict[tuple[int, str], int] = {}
    for (cpu, kind, at), count in sorted(bins.counts.items()):
        if cpu >= SHOWN:
            continue
        seq, place = bins.firsts[cpu, kind, at]
        rows.setdefault(cpu, {}).setdefault(kind, []).extend((at - last.get((cpu, kind), 0), count, seq, place))
        last[cpu, kind] = at
    return {
        "span": bins.span,
        "bins": whole_of(bins, time) // bins.span,
        "kinds": list(KINDS),
        "bars": [rows.get(cpu, {}) for cpu in range(min(cpus, SHOWN))],
    }

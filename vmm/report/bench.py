# SPDX-License-Identifier: GPL-2.0-or-later
"""What `pyvmm bench` measured, as a JSON document (schemas/bench.schema.json) and as text. It measures nothing.

Text is made from the document's rows alone, so that a document of another day is shown, and compared, the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vmm.bench.compare import Row
from vmm.bench.stats import SETTLED, SPREAD
from vmm.report.columns import one_line
from vmm.report.style import Style

SCHEMA = 1
WORSE = 1.10  # against an earlier document: a ratio (a median, without a floor) that grew by more than this
PLOT_WIDTH = 48
NAMED = 4  # rows that a note names
HEAD = ("row", "cost", "pyvmm", "+-", "floor", "ratio", "goal", "")
GROUPS = {
    "goals": "Goals; the floor is a C program with the same guest, for hello QEMU or Python, for two_vcpus one vCPU",
    "exits": "Exit kinds; the floor is a C program with the same guest",
    "growth": "Growth; the floor is the smallest size",
}
LEGEND = (
    "Times are medians of rounds that took turns, +- their median absolute deviation. After a goal: how far inside it\n"
    "the figure is, in units of its own noise; within one it is close, and not met. More: pyvmm bench --help"
)
Document = dict[str, Any]


def row_document(row: Row) -> Document:
    """A row as it stands in the document. `median_ns`, `mad_ns` and `floor_ns` are null where the unit is not time."""
    time = row.unit == "ns"
    goal = row.goal
    return {
        "name": row.name,
        "group": row.group,
        "what": row.what,
        "cost": row.cost,
        "unit": row.unit,
        "median_ns": row.median if time else None,
        "mad_ns": row.mad if time else None,
        "floor_ns": row.floor if time else None,
        "median": row.median,
        "mad": row.mad,
        "floor": row.floor,
        "peer": row.peer,
        "n": row.n,
        "ratio": row.ratio,
        "error": row.error if row.error is not None and math.isfinite(row.error) else None,
        "turns": row.turns,
        "turns_needed": row.turns_needed,
        "goal": goal.limit if goal else None,
        "goal_text": goal.text if goal else "",
        "goal_of": goal.of if goal else "",
        "better": goal.better if goal else "lower",
        "met": row.met,
        "margin": row.margin if row.margin is not None and math.isfinite(row.margin) else None,
        "close": row.close,
        "noisy": row.noisy,
        "disturbed": row.disturbed,
        "why": row.why,
        "points": row.more.get("points", []),
    }


def document(
    rows: Sequence[Row],
    host: str,
    noise: str | None,
    elapsed: float,
    *,
    quick: bool,
    when: str = "",
    pyvmm: str = "",
    machine: Mapping[str, str] | None = None,
) -> Document:
    """Everything of one bench. `host` is a line that tells it from others, `noise` what was said of its noise, `when`
    the time in UTC (ISO 8601), `pyvmm` its version, `machine` facts by name.
    """
    found = [row_document(row) for row in rows]
    return {
        "schema": SCHEMA,
        "host": host,
        "quick": quick,
        "elapsed_s": round(elapsed, 3),
        "noise": noise,
        "when": when,
        "pyvmm": pyvmm,
        "machine": dict(machine or {}),
        "met": sum(row["met"] is True for row in found),
        "missed": [row["name"] for row in found if row["met"] is False and not row["close"]],
        "close": [row["name"] for row in found if row["close"]],
        "rows": found,
    }


def number(value: float | None, unit: str) -> str:
    """`7.21 us`, `15.4 KiB`, `812/s`; three digits that matter, `-` for nothing."""
    if value is None:
        return "-"
    if unit == "bytes":
        for name, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
            if value >= size:
                return f"{value / size:.3g} {name}"
        return f"{value:.0f} B"
    if unit == "1/s":
        return f"{value:.0f}/s"
    value = float(f"{value:.3g}")  # first: 999.7 ns are a microsecond
    for name, scale in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if value >= scale:
            digits = max(0, 2 - int(math.log10(value / scale)))
            return f"{value / scale:.{digits}f} {name}"
    return f"{value:.0f} ns"


def cells(row: Document) -> tuple[str, ...]:
    """A row as one text for each column of HEAD."""
    if row["why"] and row["median"] is None:
        return (row["name"], row["cost"], "-", "", "-", "-", row["goal_text"], one_line(row["why"]))
    met = "close" if row.get("close") else {True: "yes", False: "no", None: ""}[row["met"]]
    if row.get("margin") is not None:
        met += f" {row['margin']:+.1f}"
    ratio = "-" if row["ratio"] is None else f"{row['ratio']:.3f}"
    remarks = [met] if met else []
    if row["noisy"]:
        remarks.append("(noisy)")
    if row.get("disturbed"):
        remarks.append(f"({row['disturbed']})")
    if row["why"]:
        remarks.append(one_line(row["why"]))
    spread = number(row["mad"], row["unit"])
    return (
        row["name"], row["cost"], number(row["median"], row["unit"]), spread, number(row["floor"], row["unit"]),
        ratio, row["goal_text"], " ".join(remarks),
    )  # fmt: skip


def widths(names: Sequence[str]) -> tuple[int, ...]:
    """Columns that fit every row of these names, known before the first is measured."""
    return (max(len("row"), *map(len, names)), 7, 8, 8, 8, 6, 25, 0)


def head(columns: Sequence[int], style: Style) -> str:
    return style("head", _line(HEAD, columns))


def row_line(row: Document, columns: Sequence[int], style: Style) -> str:
    """One row; green where its goal is met, yellow where that is close, red where it is missed."""
    kind = "warn" if row.get("close") else {True: "good", False: "bad", None: ""}[row["met"]]
    text = _line(cells(row), columns)
    return style(kind, text) if kind else text


def _line(texts: Sequence[str], columns: Sequence[int]) -> str:
    left = (0, 1, 6, 7)
    padded = [
        text.ljust(width) if place in left else text.rjust(width)
        for place, (text, width) in enumerate(zip(texts, columns, strict=True))
    ]
    return "  ".join(padded).rstrip()


def plot(row: Document) -> Iterator[str]:
    """Cost against size as bars, for a row that has points."""
    points = row["points"]
    if not points:
        return
    yield f"{row['what']}: cost of an exit against their number"
    top = max(median for _, median, _ in points)
    for size, median, mad in points:
        bar = "#" * max(1, round(PLOT_WIDTH * median / top))
        yield f"  {size:>6}  {number(median, 'ns'):>8} +- {number(mad, 'ns'):<7} {bar}"


def closing(doc: Document) -> Iterator[str]:
    """What is met, what is not, and what to think of the figures."""
    disturbed = [row for row in doc["rows"] if row.get("disturbed")]
    if disturbed:
        yield (
            f"note: {len(disturbed)} of {len(doc['rows'])} rows had their CPUs not for themselves, as each says; "
            "neither times nor ratios of theirs are to be quoted"
        )
    if doc["noise"]:
        yield f"note: {doc['noise']}"
    elif noisy := [row["name"] for row in doc["rows"] if row["noisy"]]:
        yield f"note: {', '.join(noisy)}: the times scatter by more than {SPREAD:.0%}; the ratio is the better part"
    unsettled = [row for row in doc["rows"] if (row.get("turns_needed") or 0) > row.get("turns", 0)]
    if unsettled:
        unsettled.sort(key=lambda row: row["turns"] / row["turns_needed"])
        named = ", ".join(f"{row['name']} ({row['turns']} of {row['turns_needed']} turns)" for row in unsettled[:NAMED])
        if len(unsettled) > NAMED:
            named += f", and {len(unsettled) - NAMED} more (--json has them)"
        yield f"note: ratios not yet stable to {SETTLED:.1%}, with the turns that were taken and needed: {named}"
    close = doc.get("close", [])
    goals = doc["met"] + len(doc["missed"]) + len(close)
    if goals:
        rest = "".join(
            f"; {word}: {', '.join(names)}" for word, names in (("close", close), ("missed", doc["missed"])) if names
        )
        yield f"{doc['met']} of {goals} goals met{rest} ({doc['elapsed_s']:.0f} s)"


def against(doc: Document, before: Document) -> tuple[list[str], list[str]]:
    """This document beside an earlier one: a line for each row of both, and the names of those that got worse.

    Ratios are compared where both have one (they hold across machines), else medians.
    """
    old = {row["name"]: row for row in before["rows"]}
    lines, worse = [], []
    for row in doc["rows"]:
        then = old.get(row["name"])
        if then is None:
            continue
        key = "ratio" if row["ratio"] is not None and then["ratio"] is not None else "median"
        now_value, then_value = row[key], then[key]
        if now_value is None or then_value is None or not then_value:
            continue
        change = now_value / then_value if row["better"] == "lower" else then_value / now_value
        if change > WORSE:
            worse.append(row["name"])
        shown = [f"{value:.3f}" if key == "ratio" else number(value, row["unit"]) for value in (then_value, now_value)]
        mark = "  worse" if change > WORSE else "  better" if change < 1 / WORSE else ""
        lines.append(f"{row['name']:20}  {key:6}  {shown[0]:>9} -> {shown[1]:>9}{mark}")
    return lines, worse

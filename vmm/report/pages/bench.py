# SPDX-License-Identifier: GPL-2.0-or-later
"""A bench as a page: each row with its interval beside its floor and its goal, and over several documents, its history.
Documents of `pyvmm bench --json` (as vmm.report.bench_read gives them) in, HTML out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vmm.report.bench import GROUPS, WORSE, Document, number
from vmm.report.pages.forest import Scale, figure, line
from vmm.report.pages.render import page

STATES = {True: "met", False: "missed", None: ""}


def bench_page(documents: Sequence[tuple[str, Document]], command: str) -> str:
    """The page of these named documents, the oldest first; the last is the one that is shown row by row.

    Raises:
        UsageError: the template library is missing.
    """
    name, doc = documents[-1]
    scale = Scale(each for row in doc["rows"] if (each := figure(row)) is not None)
    goals = doc["met"] + len(doc["close"]) + len(doc["missed"])
    return page(
        "bench.html",
        title="What pyvmm costs" if len(documents) == 1 else f"What pyvmm costs: {len(documents)} measurements",
        command=command,
        name=name,
        doc=doc,
        goals=goals,
        margins={row["name"]: f" ({inside})" if (inside := _inside(row)) else "" for row in doc["rows"]},
        facts=_facts(doc),
        disturbed=sum(bool(row["disturbed"]) for row in doc["rows"]),
        ticks=scale.ticks,
        groups=[
            {"heading": GROUPS[group], "id": group, "rows": [_row(row, scale, documents) for row in rows]}
            for group in GROUPS
            if (rows := [row for row in doc["rows"] if row["group"] == group])
        ],
        documents=[_document(label, each) for label, each in documents] if len(documents) > 1 else [],
        changes=_changes(*documents[-2:]) if len(documents) > 1 else [],
        worse=WORSE,
    )


def _facts(doc: Document) -> list[tuple[str, str]]:
    facts = [("host", doc["host"]), *doc["machine"].items()]
    facts += [(name, value) for name, value in (("measured", doc["when"]), ("pyvmm", doc["pyvmm"])) if value]
    facts.append(("took", f"{doc['elapsed_s']:.0f} s" + (" (--quick: for a look only)" if doc["quick"] else "")))
    return facts


def state_of(row: Document) -> str:
    """`met`, `close`, `missed`, or nothing where there is no goal or no figure."""
    return "close" if row["close"] else STATES[row["met"]]


def _row(row: Document, scale: Scale, documents: Sequence[tuple[str, Document]]) -> dict[str, Any]:
    found = figure(row)
    then = [
        (label, next((each for each in doc["rows"] if each["name"] == row["name"]), None)) for label, doc in documents
    ]
    return {
        "name": row["name"],
        "what": row["what"],
        "cost": row["cost"],
        "peer": row["peer"],
        "state": state_of(row),
        "goal": row["goal_text"],
        "median": number(row["median"], row["unit"]),
        "mad": number(row["mad"], row["unit"]),
        "floor": number(row["floor"], row["unit"]),
        "ratio": _ratio(row),
        "margin": [each for each in (_inside(row), _margin(row["margin"])) if each],
        "remarks": [each for each in ("noisy" if row["noisy"] else "", row["disturbed"], row["why"]) if each],
        "places": None if found is None else scale.places(found),
        "label": _label(row),
        "points": [(f"{size:g}", number(median, "ns"), number(mad, "ns")) for size, median, mad in row["points"]],
        "line": line([None if each is None else figure(each) for _, each in then]),
        "then": [
            {"label": label, "state": state_of(each), "median": number(each["median"], each["unit"]),
             "floor": number(each["floor"], each["unit"]), "ratio": _ratio(each)}
            for label, each in then
            if each is not None
        ],
    }  # fmt: skip


def _ratio(row: Document) -> str:
    if row["ratio"] is None:
        return "-"
    noise = f" \u00b1 {row['ratio'] * row['error']:.3f}" if row["error"] is not None else ""
    return f"{row['ratio']:.3f}{noise}"


def _inside(row: Document) -> str:
    """By how much a figure is inside or outside of its goal, in per cent of the goal: what a reader asks first."""
    found = figure(row)
    if found is None or not found.goal:
        return ""
    part = (found.value / found.goal - 1) * (1 if row["better"] == "lower" else -1)
    return f"{100 * abs(part):.3g} % {'outside' if part > 0 else 'inside'}"


def _margin(margin: float | None) -> str:
    if margin is None:
        return ""
    return f"{abs(margin):.1f} times its noise {'inside' if margin >= 0 else 'outside'}"


def _label(row: Document) -> str:
    """The drawing in words."""
    found = figure(row)
    if found is None:
        return ""
    if found.over == "goal":
        return f"{100 * found.value:.3g} % of its goal"
    goal = "" if found.goal is None else f", the goal is {found.goal:.2f}"
    return f"{found.value:.3f} times its floor, give or take {found.noise:.3f}{goal}"


def _document(label: str, doc: Document) -> dict[str, Any]:
    return {
        "label": label,
        "facts": "; ".join(f"{value}" for _, value in _facts(doc)),
        "rows": len(doc["rows"]),
        "met": doc["met"],
        "close": len(doc["close"]),
        "missed": len(doc["missed"]),
        "noise": doc["noise"] or "",
    }


def _changes(before: tuple[str, Document], now: tuple[str, Document]) -> list[dict[str, Any]]:
    """Rows of both whose ratio (without a floor: median) changed by more than WORSE, the worst first."""
    old = {row["name"]: row for row in before[1]["rows"]}
    found = []
    for row in now[1]["rows"]:
        then = old.get(row["name"])
        if then is None:
            continue
        key = "ratio" if row["ratio"] is not None and then["ratio"] is not None else "median"
        if not row[key] or not then[key]:
            continue
        change = row[key] / then[key] if row["better"] == "lower" else then[key] / row[key]
        if change > WORSE or change < 1 / WORSE:
            shown = [_ratio(each) if key == "ratio" else number(each["median"], each["unit"]) for each in (then, row)]
            found.append((change, {"name": row["name"], "of": key, "before": shown[0], "now": shown[1],
                                   "what": "worse" if change > WORSE else "better"}))  # fmt: skip
    return [each for _, each in sorted(found, key=lambda pair: -pair[0])]

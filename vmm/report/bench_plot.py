# SPDX-License-Identifier: GPL-2.0-or-later
"""The picture of `pyvmm bench --plot`: growth, and ratios beside their goals. No other module imports matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vmm.errors import UsageError

KINDS = (".png", ".svg", ".pdf")


def check(name: str) -> None:
    """Say before anything is measured that no picture can be drawn.

    Raises:
        UsageError: the file's kind is unknown, or matplotlib is not installed.
    """
    import importlib.util

    if Path(name).suffix.lower() not in KINDS:
        raise UsageError(f"--plot {name}: the file's name ends in {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib\n  try: `pip install 'pyvmm[plot]'`")


def draw(document: dict[str, Any], name: str) -> None:
    """Write the picture of a bench document.

    Raises:
        UsageError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    growing = [row for row in document["rows"] if row["points"]]
    rated = [row for row in document["rows"] if row["ratio"] is not None and not row["points"]]
    figure = Figure(figsize=(10, 2.5 + 0.25 * len(rated) + 3 * bool(growing)), layout="constrained")
    parts = figure.subfigures(2 if growing and rated else 1, 1, squeeze=False)[:, 0]
    if growing:
        for axes, row in zip(parts[0].subplots(1, len(growing), squeeze=False)[0], growing, strict=True):
            sizes, medians, mads = zip(*row["points"], strict=True)
            axes.errorbar(sizes, [ns / 1000 for ns in medians], [ns / 1000 for ns in mads], marker="o", capsize=3)
            axes.set_xscale("log")
            axes.set_ylim(bottom=0)
            axes.set_xlabel(row["name"].removeprefix("growth_"))
            axes.set_ylabel("us for an exit")
    if rated:
        axes = parts[-1].subplots()
        places = range(len(rated))
        colours = ["tab:green" if row["met"] else "tab:red" if row["met"] is False else "tab:grey" for row in rated]
        axes.barh(places, [row["ratio"] for row in rated], color=colours)
        for place, row in zip(places, rated, strict=True):
            if row["goal"] is not None and row["goal_of"] == "ratio":
                axes.plot([row["goal"]] * 2, [place - 0.4, place + 0.4], color="black")
        axes.set_yticks(places, [row["name"] for row in rated])
        axes.invert_yaxis()
        axes.set_xlabel("pyvmm over its floor; the black line is the goal")
    try:
        figure.savefig(name)
    except OSError as error:
        raise UsageError(f"writing {name!r}: {error.strerror or error}") from error

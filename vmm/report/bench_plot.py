# SPDX-License-Identifier: GPL-2.0-or-later
"""The picture of `pyvmm bench --plot`: growth, and ratios beside their goals. No other module imports matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from vmm.errors import UsageError, os_reason

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
        raise UsageError("--plot needs matplotlib", hint="`pip install 'pyvmm[plot]'`")


def draw(document: dict[str, Any], name: str, file: BinaryIO) -> None:
    """Write the picture of a bench document; its kind is by the name.

    Raises:
        UsageError: the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    growing = [row for row in document["rows"] if row["points"]]
    rated = [row for row in document["rows"] if row["ratio"] is not None and not row["points"]]
    heights = [*[3.0] * bool(growing), *[1 + 0.22 * len(rated)] * bool(rated)] or [1.0]
    figure = Figure(figsize=(9, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    if growing:
        for axes, row in zip(parts[0].subplots(1, len(growing), squeeze=False)[0], growing, strict=True):
            sizes, medians, mads = zip(*row["points"], strict=True)
            axes.errorbar(sizes, [ns / 1000 for ns in medians], [ns / 1000 for ns in mads], marker="o", capsize=3)
            axes.set_xscale("log")
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.minorticks_off()
            axes.set_ylim(0, 1.2 * max(medians) / 1000)
            axes.set_xlabel(row["what"].partition(f"{sizes[-1]} ")[2])
        parts[0].supylabel("us for an exit")
    if rated:
        axes = parts[-1].subplots()
        places = range(len(rated))
        colours = ["tab:green" if row["met"] else "tab:red" if row["met"] is False else "tab:grey" for row in rated]
        axes.barh(places, [row["ratio"] for row in rated], color=colours)
        axes.axvline(1, color="black", linewidth=0.5)
        for place, row in zip(places, rated, strict=True):
            if row["goal"] is not None and row["goal_of"] == "ratio":
                axes.plot([row["goal"]] * 2, [place - 0.4, place + 0.4], color="black")
        axes.set_yticks(places, [row["name"] for row in rated])
        axes.invert_yaxis()
        axes.set_ylim(len(rated) - 0.4, -0.6)
        axes.set_xlabel("pyvmm over its floor; a short black line is the goal")
    try:  # letters as letters, and the same file for the same rows
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "pyvmm"}):
            figure.savefig(
                file,
                format=Path(name).suffix.lower()[1:],
                metadata={"CreationDate" if Path(name).suffix.lower() == ".pdf" else "Date": None},
            )
    except OSError as error:
        raise UsageError(f"writing {name!r}: {os_reason(error)}") from error

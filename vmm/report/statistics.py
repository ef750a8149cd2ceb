# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM's statistics of a run as text for a person. Values in, lines out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vmm.report.style import Style, printable

INDENT = "  "


def statistics_lines(rows: Iterable[Mapping[str, Any]], style: Style) -> list[str]:
    """A head for each VM and vCPU, then one line for each statistic that changed: `exits  +12`."""
    rows = list(rows)
    several = any(row["guest"] > 1 for row in rows)
    lines = []
    for row in rows:
        of = f"{row['of']} of guest {row['guest']}" if several else row["of"]
        lines.append(f"{INDENT}{style('head', 'statistics')} of {of}" + ("" if row["values"] else ": nothing changed"))
        width = max((len(each["name"]) for each in row["values"]), default=0)
        for each in row["values"]:
            value = f"{each['value']:#x}" if each["kind"] == "msr" else f"{each['value']:,}"
            sign = "+" if each["kind"] == "cumulative" else "= "
            name = style("name", printable(each["name"]).ljust(width))
            lines.append(f"{INDENT}{INDENT}{name}  {sign}{value} {each['unit']}".rstrip())
    return lines

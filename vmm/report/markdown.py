# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of `pyvmm probe` as GitHub-flavoured Markdown, for the summary of a CI step. Values in, text out."""

from __future__ import annotations

import re

from vmm.payload.probe import Table
from vmm.payload.prove import Row
from vmm.report.columns import HEAD, cells, number, one_line
from vmm.report.table import host_line, refusal_text, summary

# What could start markup inside a line: of a link, an emphasis, a code span, HTML, a mention, a cell.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|~#!@&])")


def escape(text: str) -> str:
    """Text that shows as it is, in one line, also inside a table's cell."""
    return _MARKUP.sub(r"\\\1", one_line(text))


def render(table: Table) -> str:
    """A heading, what host this is, the table, and for each broken row its evidence, folded away."""
    lines = ["### KVM paravirtual features", "", escape(host_line(table.host)), ""]
    lines += [_line(HEAD), "|" + "---|" * len(HEAD)]
    for row in table.rows:
        feature, bit, offered, verdict, evidence = map(escape, cells(row))
        loud = f"**{verdict}**" if row.outcome in ("fail", "error") else verdict
        lines.append(_line((feature, bit, offered, loud, evidence)))
    lines += ["", escape(summary(table))]
    for row in table.broken:
        lines += ["", *_details(row)]
    return "\n".join(lines) + "\n"


def _line(texts: tuple[str, ...]) -> str:
    return f"| {' | '.join(texts)} |"


def _details(row: Row) -> list[str]:
    lines = [f"<details><summary>{_html(row.name)}: evidence</summary>", "", "| what | value |", "|---|---|"]
    lines += [_line((escape(str(name)), escape(number(value)))) for name, value in row.finding.evidence.items()]
    lines += [_line(("refusal", escape(refusal_text(each)))) for each in row.refusals]
    return [*lines, "", "</details>"]


def _html(text: str) -> str:
    return one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

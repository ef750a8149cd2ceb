# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of `pyvmm probe` as GitHub-flavoured Markdown, for the summary of a CI step. Values in, text out."""

from __future__ import annotations

from vmm.payload.proof.probe import Table
from vmm.payload.proof.prove import Row
from vmm.payload.proof.verdict import Deviation
from vmm.report.columns import HEAD, TOPIC_HEAD, Cells, cells, number, one_line
from vmm.report.gfm import escape, head, line
from vmm.report.table import host_line, refusal_text, summary


def render(table: Table) -> str:
    """A heading, what host this is, the table, what deviates, and each broken row's evidence, folded away."""
    lines = ["### KVM paravirtual features", "", escape(host_line(table.host)), "", *head(HEAD)]
    lines += [line(_cells(row)) for row in table.features]
    if table.topics:
        lines += ["", "### Topics of the KVM API", "", *head(_without_bit(TOPIC_HEAD))]
        lines += [line(_without_bit(_cells(row))) for row in table.topics]
    lines += ["", escape(summary(table))]
    if table.deviations:
        lines += ["", *head(("deviation of", "what", "the ABI says", "seen", "known"))]
        lines += [_deviation(row, each) for row in table.rows for each in row.deviations]
    for row in table.broken:
        lines += ["", *_details(row)]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> Cells:
    shown = Cells(*map(escape, cells(row)))
    return shown._replace(verdict=f"**{shown.verdict}**") if row.outcome in ("fail", "error") else shown


def _deviation(row: Row, each: Deviation) -> str:
    known = "; ".join(text for text in (each.kernels, each.commit) if text)
    return line(escape(one_line(text)) for text in (row.name, each.what, each.expected, each.observed, known))


def _without_bit(row: Cells) -> tuple[str, str, str]:
    return row.feature, row.verdict, row.evidence


def _details(row: Row) -> list[str]:
    lines = [f"<details><summary>{_html(row.name)}: evidence</summary>", "", *head(("what", "value"))]
    lines += [line((escape(str(name)), escape(number(value)))) for name, value in row.finding.evidence.items()]
    lines += [line(("refusal", escape(refusal_text(each)))) for each in row.refusals]
    return [*lines, "", "</details>"]


def _html(text: str) -> str:
    return one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of `pyvmm probe` as JUnit XML, one test case per feature. Values in, text out.

A deviation is a property of its case; in a strict probe it is a failure of the type `deviation`.

What such a file is made of stands in vmm.report.xunit.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, SubElement

from vmm.payload.proof.probe import Table
from vmm.payload.proof.prove import Row
from vmm.payload.proof.verdict import Verdict
from vmm.report.columns import cells, number, one_line
from vmm.report.probe import host
from vmm.report.table import refusal_text
from vmm.report.xunit import begin, properties, whole, xml

SUITE = "pyvmm probe"


def render(table: Table, when: datetime | None = None) -> str:
    """The whole file. Rows that never came are errors, so that an interrupted run is not taken for a good one."""
    counts = {
        "tests": len(table.rows) + len(table.missing),
        "failures": len(table.failed),
        "errors": len(table.errors) + len(table.missing),
        "skipped": sum(row.outcome == "skip" for row in table.rows),
    }
    root, suite = begin(SUITE, when or datetime.now(UTC), counts, table.elapsed)
    properties(suite, {name: str(value) for name, value in host(table.host).items()})
    sharing = Counter(row.payload for row in table.rows)
    for row in table.rows:
        _case(suite, row, row.elapsed / max(1, sharing[row.payload]))
    for name in table.missing:
        case = SubElement(suite, "testcase", classname=SUITE, name=xml(name), time="0.000")
        SubElement(case, "error", message="interrupted before it ran", type="interrupted")
    return whole(root)


def _case(suite: Element, row: Row, seconds: float) -> None:
    """`seconds` is the row's share: one guest may prove several features."""
    case = SubElement(suite, "testcase", classname=SUITE, name=xml(row.name), time=f"{seconds:.3f}")
    shown = cells(row)
    found = {"verdict": shown.verdict, "bit": shown.bit, "offered": shown.offered, "payload": row.payload}
    found |= {"reason": row.finding.reason, "summary": row.finding.summary}
    found |= {f"evidence.{name}": number(value) for name, value in row.finding.evidence.items()}
    found |= {f"refusal.{n}": refusal_text(each) for n, each in enumerate(row.refusals, 1)}
    found |= {f"deviation.{n}": one_line(each.line) for n, each in enumerate(row.deviations, 1)}
    properties(case, {name: value for name, value in found.items() if value})
    message = f"{shown.verdict}: {shown.evidence}" if shown.evidence else shown.verdict
    match row.outcome:
        case "skip":
            SubElement(case, "skipped", message=message, type=shown.verdict)
        case "fail":
            kind = shown.verdict if row.verdict is Verdict.BROKEN else "deviation"
            SubElement(case, "failure", message=message, type=kind).text = _evidence(row)
        case "error":
            SubElement(case, "error", message=message, type=shown.verdict).text = xml(row.error)
        case _:  # a pass says nothing
            pass


def _evidence(row: Row) -> str:
    lines = [f"{name} = {number(value)}" for name, value in row.finding.evidence.items()]
    lines += [refusal_text(each) for each in row.refusals]
    return xml("\n".join([*lines, *(f"deviation: {one_line(each.line)}" for each in row.deviations)]))

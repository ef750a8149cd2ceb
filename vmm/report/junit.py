# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of `pyvmm probe` as JUnit XML, one test case per feature. Values in, text out.

A deviation is a property of its case; in a strict probe it is a failure of the type `deviation`.

There is no standard; this is the part that Jenkins, GitLab and the GitHub actions agree on: testsuites, testsuite,
properties, testcase with failure, error or skipped.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from vmm.payload.proof.probe import Table
from vmm.payload.proof.prove import Row
from vmm.payload.proof.verdict import Verdict
from vmm.report.columns import cells, number, one_line
from vmm.report.probe import host
from vmm.report.style import printable
from vmm.report.table import refusal_text

SUITE = "pyvmm probe"


def render(table: Table, when: datetime | None = None) -> str:
    """The whole file. Rows that never came are errors, so that an interrupted run is not taken for a good one."""
    when = when or datetime.now(UTC)
    root = Element("testsuites", name="pyvmm")
    suite = SubElement(root, "testsuite", name=SUITE, timestamp=when.strftime("%Y-%m-%dT%H:%M:%S"))
    counts = {
        "tests": len(table.rows) + len(table.missing),
        "failures": len(table.failed),
        "errors": len(table.errors) + len(table.missing),
        "skipped": sum(row.outcome == "skip" for row in table.rows),
    }
    for element in (root, suite):
        for name, count in counts.items():
            element.set(name, str(count))
        element.set("time", f"{table.elapsed:.3f}")
    _properties(suite, {name: str(value) for name, value in host(table.host).items()})
    sharing = Counter(row.payload for row in table.rows)
    for row in table.rows:
        _case(suite, row, row.elapsed / max(1, sharing[row.payload]))
    for name in table.missing:
        case = SubElement(suite, "testcase", classname=SUITE, name=_xml(name), time="0.000")
        SubElement(case, "error", message="interrupted before it ran", type="interrupted")
    indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _case(suite: Element, row: Row, seconds: float) -> None:
    """`seconds` is the row's share: one guest may prove several features."""
    case = SubElement(suite, "testcase", classname=SUITE, name=_xml(row.name), time=f"{seconds:.3f}")
    shown = cells(row)
    found = {"verdict": shown.verdict, "bit": shown.bit, "offered": shown.offered, "payload": row.payload}
    found |= {"reason": row.finding.reason, "summary": row.finding.summary}
    found |= {f"evidence.{name}": number(value) for name, value in row.finding.evidence.items()}
    found |= {f"refusal.{n}": refusal_text(each) for n, each in enumerate(row.refusals, 1)}
    found |= {f"deviation.{n}": one_line(each.line) for n, each in enumerate(row.deviations, 1)}
    _properties(case, {name: value for name, value in found.items() if value})
    message = f"{shown.verdict}: {shown.evidence}" if shown.evidence else shown.verdict
    match row.outcome:
        case "skip":
            SubElement(case, "skipped", message=message, type=shown.verdict)
        case "fail":
            kind = shown.verdict if row.verdict is Verdict.BROKEN else "deviation"
            SubElement(case, "failure", message=message, type=kind).text = _evidence(row)
        case "error":
            SubElement(case, "error", message=message, type=shown.verdict).text = _xml(row.error)
        case _:  # a pass says nothing
            pass


def _evidence(row: Row) -> str:
    lines = [f"{name} = {number(value)}" for name, value in row.finding.evidence.items()]
    lines += [refusal_text(each) for each in row.refusals]
    return _xml("\n".join([*lines, *(f"deviation: {one_line(each.line)}" for each in row.deviations)]))


def _properties(parent: Element, values: dict[str, str]) -> None:
    box = SubElement(parent, "properties")
    for name, value in values.items():
        SubElement(box, "property", name=_xml(name), value=_xml(value))


def _xml(text: str) -> str:
    """Text of characters that XML 1.0 has: printable, and white space."""
    return printable(text)

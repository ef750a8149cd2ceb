# SPDX-License-Identifier: GPL-2.0-or-later
"""Checked lessons as JUnit XML: a test case per student and lesson. Values in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from xml.etree.ElementTree import SubElement

from vmm.learn.attempt import CANNOT, RIGHT, Verdict
from vmm.report.xunit import begin, properties, whole, xml

SUITE = "pyvmm learn"


def render(checked: Sequence[tuple[str, Verdict]], when: datetime | None = None) -> str:
    """The whole file; pairs of student and verdict. What is not right is a failure, a missing file too."""
    outcomes = [verdict.outcome for _, verdict in checked]
    counts = {
        "tests": len(outcomes),
        "failures": sum(each not in (RIGHT, CANNOT) for each in outcomes),
        "errors": 0,
        "skipped": outcomes.count(CANNOT),
    }
    root, box = begin(SUITE, when or datetime.now(UTC), counts, sum(verdict.seconds for _, verdict in checked))
    for student, verdict in checked:
        name = f"{verdict.lesson.number:02} {verdict.lesson.name}"
        case = SubElement(box, "testcase", classname=xml(student), name=name, time=f"{verdict.seconds:.3f}")
        properties(case, {"outcome": verdict.outcome, "title": verdict.lesson.title, "file": verdict.file})
        message = xml(verdict.text.partition("\n")[0])
        if verdict.outcome == CANNOT:
            SubElement(case, "skipped", message=message)
        elif verdict.outcome != RIGHT:
            SubElement(case, "failure", message=message, type=verdict.outcome).text = xml(verdict.text)
        else:
            SubElement(case, "system-out").text = xml(verdict.text)
    return whole(root)

# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm kut` as JUnit XML: a test case per test, with its output. Values in, text out."""

from __future__ import annotations

from datetime import UTC, datetime
from xml.etree.ElementTree import Element, SubElement

from vmm.payload.kut.suite import Done, Suite
from vmm.payload.kut.verdict import FAILURES, SKIPS, State
from vmm.report.xunit import begin, properties, whole, xml

SUITE = "kvm-unit-tests"


def render(suite: Suite, when: datetime | None = None) -> str:
    """The whole file. Tests that never came are errors, so that an interrupted run is not taken for a good one."""
    states = [done.ended.state for done in suite.done]
    counts = {
        "tests": len(suite.tests),
        "failures": sum(state in FAILURES for state in states),
        "errors": states.count(State.ERROR) + len(suite.missing),
        "skipped": sum(state in SKIPS for state in states),
    }
    root, box = begin(SUITE, when or datetime.now(UTC), counts, suite.elapsed)
    for done in suite.done:
        _case(box, done)
    for name in suite.missing:
        case = SubElement(box, "testcase", classname=SUITE, name=xml(name), time="0.000")
        SubElement(case, "error", message="interrupted before it ran", type="interrupted")
    return whole(root)


def _case(box: Element, done: Done) -> None:
    test, ended = done.test, done.ended
    case = SubElement(box, "testcase", classname=SUITE, name=xml(test.name), time=f"{ended.seconds:.3f}")
    found = {"verdict": str(ended.state), "file": test.entry.file, "params": test.entry.params}
    found |= {"groups": " ".join(test.entry.groups), "summary": ended.report.summary}
    found |= {f"note.{number}": text for number, text in enumerate(ended.notes, 1)}
    if done.qemu is not None:
        found["qemu"] = str(done.qemu.state)
    properties(case, {name: value for name, value in found.items() if value})
    message = xml(ended.reason)
    if ended.state in SKIPS:
        SubElement(case, "skipped", message=message, type=str(ended.state))
    elif ended.state is not State.PASS:
        kind = "error" if ended.state is State.ERROR else "failure"
        lines = [f"{each.kind}: {each.text}" for each in ended.report.bad] + ended.where
        SubElement(case, kind, message=message, type=str(ended.state)).text = xml("\n".join(lines))
    if ended.console:
        SubElement(case, "system-out").text = xml(ended.console.replace("\r", ""))

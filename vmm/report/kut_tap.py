# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm kut` in the Test Anything Protocol, version 14: a test point per test, its checks as a subtest before it."""

from __future__ import annotations

from vmm.payload.kut.suite import Done
from vmm.payload.kut.verdict import SKIPS, State
from vmm.report.tap import INDENT, escape, value_text

SUB = " " * 4


def point(number: int, done: Done) -> str:
    """The test point `number` (from 1) with what belongs to it."""
    ended = done.ended
    ok = ended.state is State.PASS or ended.state in SKIPS
    text = f"{'ok' if ok else 'not ok'} {number} - {escape(done.test.name)}"
    if ended.state in SKIPS:
        return f"{text} # SKIP {escape(ended.reason)}\n"
    return _subtest(done) + text + "\n" + _diagnostics(done)


def _subtest(done: Done) -> str:
    lines = done.ended.report.lines
    if not lines:
        return ""
    rows = [f"# Subtest: {escape(done.test.name)}"]
    for number, each in enumerate(lines, 1):
        ok = "ok" if each.kind in ("PASS", "SKIP", "XPASS") else "not ok"
        row = f"{ok} {number} - {escape(each.text)}"
        # What is expected to fail is TAP's TODO; that it passes is told by the test's own verdict.
        rows.append(row + {"SKIP": " # SKIP", "XFAIL": " # TODO", "XPASS": " # TODO"}.get(each.kind, ""))
    rows.append(f"1..{len(lines)}")
    return "".join(f"{SUB}{row}\n" for row in rows)


def _diagnostics(done: Done) -> str:
    ended = done.ended
    found = {
        "verdict": str(ended.state),
        "reason": ended.reason,
        "status": ended.status,
        "seconds": round(ended.seconds, 3),
    }
    rows = ["---", *(f"{name}: {value_text(value)}" for name, value in found.items() if value not in ("", None))]
    for name, values in (("where", ended.where), ("notes", ended.notes)):
        rows += [f"{name}:", *(f"{INDENT}- {value_text(each)}" for each in values)] if values else []
    return "".join(f"{INDENT}{row}\n" for row in [*rows, "..."])

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test said: its exit code, and the lines that it printed. Values in, values out.

kvm-unit-tests' exit(code) writes `code` to isa-debug-exit, and QEMU ends with status code << 1 | 1. Its scripts take
status 1 for a pass and 77 for a skip (lib/report.c: 77 >> 1), 255 is abort(). The status decides; the lines say why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

STATUS_PASS, STATUS_SKIP, STATUS_ABORT = 1, 77, 255
KINDS = ("PASS", "FAIL", "SKIP", "XFAIL", "XPASS", "ABORT")
LAST_CHARACTERS = 80  # of the last line, where it is quoted
BAD = ("FAIL", "XPASS", "ABORT")  # what counts as an unexpected failure

_LINE = re.compile(rf"^({'|'.join(KINDS)}):? ?(.*)$", re.MULTILINE)
_CRY = re.compile(r"^(Unhandled .*exception.*|.*[Aa]ssert failed.*|unhandled .*exception.*)$", re.MULTILINE)
_SUMMARY = re.compile(
    r"^SUMMARY: (\d+) tests"
    r"(?:, (\d+) unexpected failures)?(?:, (\d+) expected failures)?(?:, (\d+) skipped)?", re.MULTILINE,
)  # fmt: skip


class State(StrEnum):
    """What became of a test. Its word, and how it counts.

    PASS, FAIL and SKIP are the test's own or the file's; CANNOT is a skip too: this host or this board lacks
    something, and the reason names it. TIMEOUT and CRASH are failures of the guest, ERROR is one of pyvmm's own.
    """

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    CANNOT = "cannot run"
    TIMEOUT = "timeout"
    CRASH = "crash"
    ERROR = "error"


SKIPS = frozenset({State.SKIP, State.CANNOT})
FAILURES = frozenset({State.FAIL, State.TIMEOUT, State.CRASH})


@dataclass(frozen=True)
class Line:
    """One line of a test's report: `kind` of KINDS, and what it says."""

    kind: str
    text: str


@dataclass(frozen=True)
class Report:
    """What a console holds: the report's lines in order, and the numbers of its SUMMARY line, where it came. `cry` is
    the line that tells of an exception without a handler, or of an assertion; `last` is the last one before the
    summary.
    """

    lines: tuple[Line, ...] = ()
    cry: str = ""
    last: str = ""
    tests: int | None = None
    unexpected: int = 0
    expected: int = 0
    skipped: int = 0

    @property
    def bad(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.kind in BAD)

    @property
    def summary(self) -> str:
        """`12 tests, 1 unexpected failures`, as kvm-unit-tests has it; empty without a SUMMARY line."""
        if self.tests is None:
            return ""
        counts = (
            (self.unexpected, "unexpected failures"),
            (self.expected, "expected failures"),
            (self.skipped, "skipped"),
        )
        return ", ".join([f"{self.tests} tests", *(f"{count} {what}" for count, what in counts if count)])


def read_report(console: str) -> Report:
    """The report in a test's output."""
    text = console.replace("\r", "")
    lines = tuple(Line(match[1], match[2].strip()) for match in _LINE.finditer(text))
    cry = match[0].strip() if (match := _CRY.search(text)) else ""
    said = [line.strip() for line in text.split("\n") if line.strip() and not line.startswith("SUMMARY:")]
    last = said[-1][:LAST_CHARACTERS] if said else ""
    ends = list(_SUMMARY.finditer(text))
    if not ends:
        return Report(lines, cry, last)
    tests, *counts = (int(each or 0) for each in ends[-1].groups())
    return Report(lines, cry, last, tests, *counts)


def status_of(code: int) -> int:
    """The status that QEMU ends with when a guest writes `code` to isa-debug-exit (8 bits of it)."""
    return (code << 1 | 1) & 0xFF


def judge(status: int, report: Report) -> tuple[State, str]:
    """(state, reason) of a test that ended by isa-debug-exit."""
    if status == STATUS_PASS:
        odd = report.bad
        return State.PASS, f"though it printed {odd[0].kind}: {odd[0].text}" if odd else ""
    if status == STATUS_SKIP:
        said = next((line.text for line in report.lines if line.kind == "SKIP"), report.last)
        return State.SKIP, f"it says: {said}" if said else "it says so itself"
    bad = report.bad
    if status == STATUS_ABORT:
        why = report.cry or (f"{bad[0].kind}: {bad[0].text}" if bad else "")
        return State.FAIL, "it aborted" + f": {why}" * bool(why)
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        return State.FAIL, f"{bad[0].kind}: {bad[0].text}{more}"
    last = f"; it printed last: {report.last}" if report.last else ""
    return State.FAIL, f"it ended with status {status}{last}"

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test printed and its status, as a verdict."""

from __future__ import annotations

import pytest

from vmm.payload.kut.verdict import Line, Report, State, judge, read_report, status_of

PRINTED = (
    "enabling apic\r\nPASS: a\r\nFAIL: b: c\r\nSKIP: d\r\nXFAIL: e\r\nXPASS: f\r\nINFO: PASS: no line of its own\r\n"
    "SUMMARY: 5 tests, 2 unexpected failures, 1 expected failures, 1 skipped\r\n"
)


def test_the_lines_of_a_report() -> None:
    found = read_report(PRINTED)
    assert found.lines == (
        Line("PASS", "a"), Line("FAIL", "b: c"), Line("SKIP", "d"), Line("XFAIL", "e"), Line("XPASS", "f"),
    )  # fmt: skip
    assert (found.tests, found.unexpected, found.expected, found.skipped) == (5, 2, 1, 1)
    assert found.summary == "5 tests, 2 unexpected failures, 1 expected failures, 1 skipped"
    assert [line.text for line in found.bad] == ["b: c", "f"]


def test_nothing_printed() -> None:
    assert read_report("") == Report()
    assert read_report("").summary == ""


def test_the_last_summary_counts() -> None:
    assert read_report("SUMMARY: 1 tests\nSUMMARY: 2 tests\n").tests == 2


@pytest.mark.parametrize(("code", "status"), [(0, 1), (1, 3), (38, 77), (127, 255), (7, 15), (0xFF, 255)])
def test_a_status_is_as_qemu_has_it(code: int, status: int) -> None:
    assert status_of(code) == status


@pytest.mark.parametrize(
    ("code", "printed", "state", "reason"),
    [
        (0, "PASS: a\nSUMMARY: 1 tests\n", State.PASS, ""),
        (0, "", State.PASS, ""),
        (0, "FAIL: a\n", State.PASS, "though it printed FAIL: a"),
        (1, "FAIL: a\nFAIL: b\n", State.FAIL, "FAIL: a (and 1 more)"),
        (1, "", State.FAIL, "it ended with status 3"),
        (38, "SKIP: no x\nSUMMARY: 1 tests, 1 skipped\n", State.SKIP, "it says: no x"),
        (38, "SUMMARY: 0 tests\n", State.SKIP, "it says so itself"),
        (38, "enabling apic\nSVM not available\nSUMMARY: 0 tests\n", State.SKIP, "it says: SVM not available"),
        (77, "", State.FAIL, "it ended with status 155"),
        (127, "", State.FAIL, "it aborted"),
        (127, "Unhandled exception 6 #UD at ip 00401\nx\n", State.FAIL,
         "it aborted: Unhandled exception 6 #UD at ip 00401"),
        (127, "ABORT: no memory\n", State.FAIL, "it aborted: ABORT: no memory"),
    ],
)  # fmt: skip
def test_a_verdict(code: int, printed: str, state: State, reason: str) -> None:
    assert judge(status_of(code), read_report(printed)) == (state, reason)

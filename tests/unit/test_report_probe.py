# SPDX-License-Identifier: GPL-2.0-or-later
"""A probe's table in every form, from made-up rows: each verdict, pyvmm's own error, text that wants to break out."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from unicodedata import category
from xml.etree import ElementTree

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.host.measured import HostFacts
from vmm.payload.options import Options
from vmm.payload.proof.probe import Table
from vmm.payload.proof.prove import Row
from vmm.payload.proof.verdict import Deviation, Finding, Refusal, Verdict
from vmm.report import junit, markdown, probe, table, tap
from vmm.report.columns import cells, one_line
from vmm.report.style import Style

WEIRD = "a|b\nok 9 - c # SKIP ]]> <i>&amp;</i> \x1b[31m\x00\x7f\x9f\u202e\ud800\uffff *_`\\ @me\r\n\t| 🙂  "
EVIDENCE = {"numbers": [1, 2, 4096], "ratio": 1.5, "nan": float("nan"), "raw": b"\x00\xff", WEIRD: WEIRD, "none": None}
REFUSALS = (
    Refusal("masked", "WRMSR of MSR_KVM_STEAL_TIME", "accepted", "accepted"),
    Refusal("enforced", f"RDMSR {WEIRD}", "#GP", "accepted"),
)


def row(name: str, verdict: Verdict, reason: str = "", **changes: Any) -> Row:
    made = Row(name, 5, "eax", True, Finding(verdict, reason, {}, "one line"), (), "lesson", 0.25)
    return replace(made, **changes)


ROWS = (
    row("WORKS", Verdict.WORKS, refusals=REFUSALS[:1]),
    row("SERVICED", Verdict.SERVICED, "pyvmm answered"),
    row("INERT", Verdict.INERT, "the effect never shows"),
    row("ADVERTISED", Verdict.ADVERTISED, bit=0, register="edx", offered=False),
    row("ABSENT", Verdict.ABSENT, "not offered", offered=False),
    row("UNPROVEN", Verdict.UNPROVEN, "no second CPU"),
    row("BROKEN", Verdict.BROKEN, finding=Finding(Verdict.BROKEN, WEIRD, EVIDENCE), refusals=REFUSALS),
    row("ERROR", Verdict.UNPROVEN, f"pyvmm error: {WEIRD}", bit=None, register="", error=f"Traceback\n{WEIRD}"),
    row("EMPTY", Verdict.ABSENT, finding=Finding(Verdict.ABSENT), payload=""),
    row(WEIRD, Verdict.INERT, WEIRD),
)


@pytest.fixture
def made(host_facts: HostFacts) -> Callable[..., Table]:
    def make(*rows: Row, names: tuple[str, ...] | None = None, **more: Any) -> Table:
        return Table(host_facts, names or tuple(each.name for each in rows), rows, 1.25, Options(), **more)

    return make


def tame(text: str) -> bool:
    """Nothing that moves a cursor or turns text around, and nothing that UTF-8 lacks."""
    turns = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    return not turns & set(text) and all(char == "\n" or category(char) not in ("Cc", "Cs") for char in text)


# JSON -------------------------------------------------------------------------------------------------------------


def test_document_follows_its_schema(made: Callable[..., Table], follows: Callable[[str, Any], Any]) -> None:
    doc = follows("probe", probe.document(made(*ROWS)))
    assert [each["outcome"] for each in doc["features"][:8]] == [
        "pass", "pass", "skip", "pass", "skip", "skip", "fail", "error",
    ]  # fmt: skip
    assert (doc["broken"], doc["errors"], doc["interrupted"], doc["not_run"]) == (1, 1, False, [])
    assert doc["counts"] == {
        "works": 1, "serviced": 1, "inert": 2, "advertised": 1, "absent": 2, "unproven": 1, "broken": 1,
    }  # fmt: skip
    assert doc["features"][6]["evidence"]["numbers"] == [1, 2, 4096]
    assert [each["holds"] for each in doc["features"][6]["refusals"]] == [True, False]
    assert doc["host"]["hypercall"] == "vmmcall"


def test_an_interrupted_probe_says_what_was_not_run(
    made: Callable[..., Table], follows: Callable[[str, Any], Any]
) -> None:
    doc = follows("probe", probe.document(made(ROWS[0], names=("WORKS", "LATER"), interrupted=True)))
    assert (doc["interrupted"], doc["not_run"], len(doc["features"])) == (True, ["LATER"], 1)
    follows("probe", probe.document(made()))


def test_the_schema_can_fail(made: Callable[..., Table], follows: Callable[[str, Any], Any]) -> None:
    doc = probe.document(made(*ROWS))
    for path, bad in (("verdict", "fine"), ("bit", 32), ("offered", "yes"), ("unknown", 1)):
        wrong = copy.deepcopy(doc)
        wrong["features"][0][path] = bad
        with pytest.raises(jsonschema.ValidationError):
            follows("probe", wrong)


@pytest.mark.parametrize(
    ("rows", "interrupted", "status"),
    [(ROWS[:6], False, 0), (ROWS[:7], False, 1), (ROWS, False, 99), (ROWS, True, 130), ((), False, 0)],
)
def test_exit_status(made: Callable[..., Table], rows: tuple[Row, ...], interrupted: bool, status: int) -> None:
    assert made(*rows, interrupted=interrupted).exit_code == status


# Text -------------------------------------------------------------------------------------------------------------


def test_lines_are_aligned_tame_and_complete(made: Callable[..., Table]) -> None:
    found = made(*ROWS)
    columns = table.widths(found.names)
    lines = [table.head(columns, Style()), *(table.row_line(each, columns, Style()) for each in ROWS)]
    where = lines[0].index("verdict")
    for line, each in zip(lines[1:], ROWS, strict=True):
        assert line[where:].startswith("error" if each.error else each.verdict), line
        assert tame(line)
        assert "\n" not in line
    assert "edx 0" in lines[4]
    assert lines[8].split()[1:3] == ["-", "-"]
    assert tame(table.host_line(found.host))


def test_colour_changes_no_text() -> None:
    columns = table.widths(["BROKEN"])
    coloured = table.row_line(ROWS[6], columns, Style(True))
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == table.row_line(ROWS[6], columns, Style())
    assert "\x1b[31;1mbroken" in coloured


def test_closing_tells_what_is_broken_with_its_evidence(made: Callable[..., Table]) -> None:
    text = "\n".join(table.closing(made(*ROWS), Style()))
    assert tame(text)
    assert "broken  BROKEN: a|b" in text
    assert "1, 2, 4096 (0x1000)" in text
    assert "accepted, and the ABI says #GP" in text
    assert "a mistake in pyvmm" in text
    assert text.endswith(
        "10 features: 1 works, 1 serviced, 2 inert, 1 advertised, 2 absent, 1 unproven, 1 broken, 1 not shown for an "
        "error of pyvmm's own; 2 of 3 refusals as the ABI says (1.2 s)"
    )


def test_summary_of_little(made: Callable[..., Table]) -> None:
    assert table.summary(made(ROWS[1])) == "1 feature: 1 serviced; nothing is broken (1.2 s)"
    assert table.summary(made()) == "0 features: none; nothing is broken (1.2 s)"
    early = table.summary(made(ROWS[1], names=("SERVICED", "LATER"), interrupted=True))
    assert early == "1 feature: 1 serviced; 1 not run (1.2 s)"


# Markdown ---------------------------------------------------------------------------------------------------------


def unescaped(text: str, char: str) -> int:
    return len(re.findall(rf"(?<!\\)(?:\\\\)*{re.escape(char)}", text))


def test_markdown_cells_hold(made: Callable[..., Table]) -> None:
    text = markdown.render(made(*ROWS))
    assert tame(text)
    lines = text.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("| feature"))
    for line in lines[begin : begin + 2 + len(ROWS)]:
        assert unescaped(line, "|") == 6, line
    rows = lines[begin + 2 : begin + 2 + len(ROWS)]
    assert all(unescaped(line, "<") == unescaped(line, "`") == unescaped(line, "@") == 0 for line in rows)
    assert "| **broken** |" in rows[6]
    assert "| **error** |" in rows[7]
    assert "<details><summary>BROKEN: evidence</summary>" in lines


@given(st.text(st.characters()))
def test_markdown_escape(text: str) -> None:
    escaped = markdown.escape(text)
    assert "\n" not in escaped
    assert unescaped(escaped, "|") == 0
    assert re.sub(r"\\(.)", r"\1", escaped) == one_line(text)


# Deviations ------------------------------------------------------------------------------------------------------

DEVIATES = row(
    "DEVIATES",
    Verdict.WORKS,
    finding=Finding(
        Verdict.WORKS,
        summary="one line",
        deviations=(
            Deviation(f"enforced: {WEIRD}", "#GP", "accepted", "before 9.9", "KVM: x"),
            Deviation("b", "1", "2"),
        ),
    ),
)
STRICT = replace(DEVIATES, strict=True)


def test_deviations_are_counted_apart_and_fail_a_strict_probe_only(
    made: Callable[..., Table], follows: Callable[[str, Any], Any]
) -> None:
    every = made(ROWS[0], DEVIATES)
    doc = follows("probe", probe.document(every))
    assert (doc["broken"], doc["deviations"], doc["options"]["strict"], every.exit_code) == (0, 2, False, 0)
    assert doc["features"][1]["deviations"][1] == {
        "what": "b", "expected": "1", "observed": "2", "kernels": "", "commit": "",
    }  # fmt: skip
    strict = made(ROWS[0], STRICT, strict=True)
    doc = follows("probe", probe.document(strict))
    assert (doc["broken"], doc["deviations"], doc["options"]["strict"], strict.exit_code) == (0, 2, True, 1)
    assert (doc["features"][1]["verdict"], doc["features"][1]["outcome"]) == ("works", "fail")


def test_deviations_as_text(made: Callable[..., Table]) -> None:
    lines = list(table.closing(made(ROWS[0], DEVIATES), Style()))
    assert lines[1:4] == [
        "works  DEVIATES: one line; 2 deviations",
        "    deviation  "
        + one_line(f'enforced: {WEIRD}: accepted, and the ABI says #GP (before 9.9; changed by "KVM: x")'),
        "    deviation  b: 2, and the ABI says 1",
    ]
    assert "nothing is broken; 2 deviations; " in lines[-1]
    assert "deviation" not in "".join(table.closing(made(ROWS[0]), Style()))
    assert list(table.details(DEVIATES, Style())) == lines[2:4]
    loud = [list(table.deviation_lines(each, Style(True)))[1] for each in (DEVIATES, STRICT)]
    assert loud[0] != loud[1], "in a strict probe they are faults"


def test_deviations_as_markdown(made: Callable[..., Table]) -> None:
    text = markdown.render(made(ROWS[0], DEVIATES))
    rows = [line for line in text.splitlines() if line.startswith("| DEVIATES |")]
    assert len(rows) == 3, "its row, and two in the table of deviations"
    assert rows[2] == "| DEVIATES | b | 1 | 2 |  |"
    assert {unescaped(line, "|") for line in rows[1:]} == {6}
    assert "deviation of" not in markdown.render(made(ROWS[0]))


def test_deviations_in_junit(made: Callable[..., Table]) -> None:
    for each, failures in ((DEVIATES, 0), (STRICT, 1)):
        (suite,) = ElementTree.fromstring(junit.render(made(each)).encode())
        (case,) = suite.findall("testcase")
        properties = {each.get("name"): each.get("value") for each in case.iter("property")}
        assert properties["deviation.2"] == "b: 2, and the ABI says 1"
        found = case.findall("failure")
        assert suite.get("failures") == str(len(found)) == str(failures)
        for failure in found:
            assert failure.get("type") == "deviation"
            assert "deviation: b: 2, and the ABI says 1" in (failure.text or "")


def test_deviations_in_tap(made: Callable[..., Table]) -> None:
    text = tap.point(1, DEVIATES)
    assert text.startswith("ok 1 - DEVIATES\n")
    assert '    - {"what": "b", "expected": "1", "observed": "2", "kernels": "", "commit": ""}\n' in text
    assert tap.point(1, STRICT).startswith("not ok 1 - DEVIATES\n")
    assert (tap.tail(made(DEVIATES).deviations), tap.tail(())) == ("# 2 deviations\n", "")


# JUnit ------------------------------------------------------------------------------------------------------------


def test_junit_is_valid_and_counts(made: Callable[..., Table]) -> None:
    text = junit.render(made(*ROWS), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    root = ElementTree.fromstring(text.encode("utf-8"))
    (suite,) = root
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases][:9] == [each.name for each in ROWS[:9]]
    assert suite.get("timestamp") == "2026-01-02T03:04:05"
    for kind, element in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(kind) or -1) == len(suite.findall(f"testcase/{element}")) == int(root.get(kind) or -1)
    assert suite.get("tests") == str(len(cases)) == str(len(ROWS))
    kinds = [[child.tag for child in case if child.tag != "properties"] for case in cases]
    assert kinds == [
        [], [], ["skipped"], [], ["skipped"], ["skipped"], ["failure"], ["error"], ["skipped"], ["skipped"],
    ]  # fmt: skip
    failure = cases[6].find("failure")
    assert failure is not None
    assert "numbers = 1, 2, 4096 (0x1000)" in (failure.text or "")
    properties = {each.get("name"): each.get("value") for each in cases[6].iter("property")}
    assert properties["verdict"] == "broken"
    assert properties["evidence.ratio"] == "1.5"
    shared = sum(float(case.get("time") or 0) for case in cases[:8])
    assert shared == pytest.approx(8 / 9 * 0.25, abs=0.01), "rows of one payload share its time"


def test_junit_of_an_interrupted_probe_is_no_pass(made: Callable[..., Table]) -> None:
    text = junit.render(made(ROWS[0], names=("WORKS", "LATER"), interrupted=True))
    (suite,) = ElementTree.fromstring(text.encode())
    assert (suite.get("tests"), suite.get("errors")) == ("2", "1")
    assert ElementTree.fromstring(junit.render(made()).encode())[0].get("tests") == "0"


@given(text=st.text(st.characters()))
def test_any_text_fits_into_junit(host_facts: HostFacts, text: str) -> None:
    rows = (
        row(text, Verdict.BROKEN, finding=Finding(Verdict.BROKEN, text, {text: text})),
        row("E", Verdict.UNPROVEN, text, error=text + "x"),
    )
    rendered = junit.render(Table(host_facts, (text, "E"), rows, 0.0, Options()))
    assert len(ElementTree.fromstring(rendered.encode("utf-8"))[0].findall("testcase")) == 2


# TAP --------------------------------------------------------------------------------------------------------------

POINT = re.compile(r"(not )?ok (\d+) - ((?:[^#\\\n]|\\[#\\])*?)(?: # SKIP (.+))?")


def points(text: str) -> list[tuple[bool, str, str | None, dict[str, Any]]]:
    """(ok, description, skip reason, diagnostics) of each test point; the rest must be diagnostics, or it raises."""
    found: list[tuple[bool, str, str | None, dict[str, Any]]] = []
    lines = iter(text.splitlines())
    for line in lines:
        match = POINT.fullmatch(line)
        assert match, f"no test point: {line!r}"
        assert int(match[2]) == len(found) + 1
        assert next(lines) == "  ---"
        block: dict[str, Any] = {}
        for inner in lines:
            if inner == "  ...":
                break
            key, colon, value = inner.strip().partition(":")
            assert inner.startswith("  ")
            assert colon or key.startswith("- ")
            if inner.startswith("  ") and inner[2] != " ":
                block[key] = json.loads(value) if value else None
        found.append((match[1] is None, match[3], match[4], block))
    return found


def test_tap_points() -> None:
    assert tap.head(3) == "TAP version 14\n1..3\n"
    text = "".join(tap.point(number, each) for number, each in enumerate(ROWS, 1))
    assert tame(text)
    found = points(text)
    assert [ok for ok, *_ in found] == [each.outcome not in ("fail", "error") for each in ROWS]
    assert [bool(skip) for _, _, skip, _ in found] == [each.outcome == "skip" for each in ROWS]
    assert found[2][2] == "inert: the effect never shows"
    assert found[8][2] == "absent"
    assert found[5][3]["verdict"] == "unproven"
    assert tap.bail("a#b\nc") == "Bail out! a\\#b c\n"


@given(text=st.text(st.characters()))
def test_any_text_fits_into_tap(text: str) -> None:
    made = row(text, Verdict.BROKEN, finding=Finding(Verdict.BROKEN, text, {text: text}))
    rendered = tap.point(1, made) + tap.point(2, replace(made, finding=Finding(Verdict.INERT, text)))
    assert len(points(rendered)) == 2
    assert rendered.encode("utf-8")
    assert tame(rendered)


def test_cells_are_one_line_each() -> None:
    assert all("\n" not in text and tame(text) for each in ROWS for text in cells(each))

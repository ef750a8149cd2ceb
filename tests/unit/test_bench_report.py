# SPDX-License-Identifier: GPL-2.0-or-later
"""What `pyvmm bench` shows and writes, from rows made by hand: cells, the document and its schema, comparisons."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vmm.bench import exits, processes, table
from vmm.bench.compare import Goal, Row
from vmm.errors import UsageError
from vmm.report import bench, bench_plot
from vmm.report.style import Style

ROWS = (
    Row("pio", "goals", "OUT", "Python", median=7600.0, mad=20.0, n=50, floor=7200.0, peer="C", ratio=1.055,
        error=0.001, goal=Goal(1.07, "floor + 0.5 us")),
    Row("hello", "goals", "a process", "process", median=6e7, mad=1e6, n=9, floor=4e7, peer="QEMU", ratio=1.5,
        error=0.1, goal=Goal(0.6, "at most 0.60 x"), noisy=True),
    Row("wake", "goals", "a wake-up", "Python", median=9e3, mad=10.0, n=5, floor=8.6e3, peer="C", ratio=1.047,
        error=float("inf"), goal=Goal(1.05, "at most 1.05 x")),
    Row("idle", "goals", "a VM", "process", "bytes", median=20480.0, mad=0.0, n=9,
        goal=Goal(300 << 10, "at most 300 KiB", of="median")),
    Row("hypercall", "exits", "a call", "kernel", why="no such\x1b instruction"),
    Row("growth_x", "growth", "x", "Python", median=7.0, mad=0.1, n=5, floor=7.0, peer="with 1", ratio=1.0,
        more={"points": [[1, 7000.0, 10.0], [100, 3500.0, 20.0]]}),
)  # fmt: skip


@pytest.fixture
def doc() -> dict[str, Any]:
    return bench.document(ROWS, "Linux", "noisy", 12.3456, quick=True)


def test_the_document_follows_its_schema(doc: dict[str, Any], follows: Callable[[str, Any], Any]) -> None:
    read = follows("bench", doc)
    assert read["missed"] == ["hello"]
    assert read["close"] == ["wake"]
    assert read["met"] == 2
    rows = {row["name"]: row for row in read["rows"]}
    assert rows["pio"]["goal"] == 1.07
    assert rows["hypercall"]["goal"] is None
    assert (rows["idle"]["median_ns"], rows["idle"]["median"]) == (None, 20480.0)
    assert rows["wake"]["error"] is None  # infinity is no JSON
    assert (rows["pio"]["margin"], rows["hello"]["margin"]) == (pytest.approx(14.2, abs=0.1), pytest.approx(-6.0))
    assert rows["idle"]["margin"] is None


def test_the_page_has_every_row_and_every_field() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/bench.md").read_text(encoding="utf-8")
    rows = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 3:
            rows.update(dict.fromkeys(re.findall(r"`(\w+)`", cells[0]), cells[1]))
    assert rows == {spec.row.name: spec.row.cost for spec in table.select([])}
    for group in bench.GROUPS:
        assert f"`{group}`" in page
    schema = json.loads((Path(bench.__file__).parent / "schemas/bench.schema.json").read_text(encoding="utf-8"))
    properties = schema["properties"]
    for field in (*properties, *properties["rows"]["items"]["properties"]):
        assert f"`{field}`" in page, field


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "ns", "-"),
        (812.4, "ns", "812 ns"),
        (999.4, "ns", "999 ns"),
        (999.6, "ns", "1.00 us"),
        (99.96e6, "ns", "100 ms"),
        (7213.0, "ns", "7.21 us"),
        (72130.0, "ns", "72.1 us"),
        (721300.0, "ns", "721 us"),
        (7.2e6, "ns", "7.20 ms"),
        (7.6e9, "ns", "7.60 s"),
        (700.2, "1/s", "700/s"),
        (100.0, "bytes", "100 B"),
        (20480.0, "bytes", "20 KiB"),
        (40 << 20, "bytes", "40 MiB"),
    ],
)
def test_numbers_have_a_unit_and_three_digits(value: float | None, unit: str, text: str) -> None:
    assert bench.number(value, unit) == text


def test_a_row_is_a_line(doc: dict[str, Any]) -> None:
    columns = bench.widths([row.name for row in ROWS])
    pio, hello, wake, idle, hypercall, _ = (bench.row_line(row, columns, Style()) for row in doc["rows"])
    assert "1.055" in pio
    assert pio.endswith("yes +14.2")
    assert wake.endswith("close +0.0")
    assert "60.0 ms" in hello
    assert hello.endswith("no -6.0 (noisy)")
    assert idle.split()[2:4] == ["20", "KiB"]
    assert hypercall.endswith("no such\\x1b instruction")
    assert {line.index("Python") if "Python" in line else line.index("process") for line in (pio, hello)} == {
        columns[0] + 2
    }
    head = bench.head(columns, Style())
    assert head.index("ratio") + len("ratio") == pio.index("1.055") + len("1.055")


def test_colour_says_whether_a_goal_is_met(doc: dict[str, Any]) -> None:
    columns = bench.widths(["pio"])
    assert bench.row_line(doc["rows"][0], columns, Style(True)).startswith("\x1b[32m")
    assert bench.row_line(doc["rows"][1], columns, Style(True)).startswith("\x1b[31")
    assert bench.row_line(doc["rows"][2], columns, Style(True)).startswith("\x1b[33m")
    assert "\x1b[" not in bench.row_line(doc["rows"][4], columns, Style(True))


def test_growth_is_a_picture_in_letters(doc: dict[str, Any]) -> None:
    title, first, second = bench.plot(doc["rows"][-1])
    assert "x" in title
    assert first.count("#") == bench.PLOT_WIDTH == 2 * second.count("#")
    assert list(bench.plot(doc["rows"][0])) == []


def test_the_closing_names_what_is_missed(doc: dict[str, Any]) -> None:
    assert list(bench.closing(doc)) == ["note: noisy", "2 of 4 goals met; close: wake; missed: hello (12 s)"]
    quiet = list(bench.closing(doc | {"noise": None}))
    assert quiet[0].startswith("note: hello: the times scatter")
    assert quiet[1:] == ["2 of 4 goals met; close: wake; missed: hello (12 s)"]


def test_a_document_beside_an_earlier_one(doc: dict[str, Any]) -> None:
    before = bench.document(
        (
            Row("pio", "goals", "", ratio=1.0, median=1.0),
            Row("hello", "goals", "", ratio=1.0, median=1.0),
            Row("idle", "goals", "", "", "bytes", median=40960.0),
            Row("gone", "goals", "", ratio=1.0),
            Row("hypercall", "exits", "", ratio=1.0),
        ),
        "Linux", None, 1.0, quick=False,
    )  # fmt: skip
    lines, worse = bench.against(doc, before)
    assert worse == ["hello"]
    assert [line.split()[0] for line in lines] == ["pio", "hello", "idle"]
    assert lines[1].endswith("1.000 ->     1.500  worse")
    assert lines[2].endswith("40 KiB ->    20 KiB  better")


def test_more_is_better_where_a_row_says_so() -> None:
    fast = Goal(1.9, "", better="higher")
    now = bench.document((Row("two", "goals", "", ratio=1.0, goal=fast),), "", None, 0, quick=False)
    then = bench.document((Row("two", "goals", "", ratio=2.0, goal=fast),), "", None, 0, quick=False)
    assert bench.against(now, then)[1] == ["two"]
    assert bench.against(then, now)[1] == []


@pytest.mark.parametrize("kind", [".png", ".svg", ".pdf"])
def test_the_picture(doc: dict[str, Any], kind: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / f"bench{kind}"
    bench_plot.check(str(target))
    with target.open("wb") as file:
        bench_plot.draw(doc, target.name, file)
    first = target.read_bytes()
    assert len(first) > 1000
    with target.open("wb") as file:
        bench_plot.draw(doc, target.name, file)
    assert target.read_bytes() == first  # no date, no chance: a picture under review changes when its rows do
    if kind == ".svg":
        assert b">pio</text>" in first
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(UsageError, match=r"writing .*No space left"):
        bench_plot.draw(doc, target.name, full)


def test_a_picture_of_no_kind_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(UsageError, match=r"\.png"):
        bench_plot.check("bench.txt")


def test_no_picture_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="matplotlib"):
        bench_plot.check("bench.png")


def test_a_ratio_that_is_not_stable_is_named_with_the_turns_it_needs() -> None:
    rows = [
        replace(ROWS[0], turns=8, turns_needed=8),
        replace(ROWS[0], name="wide", turns=5, turns_needed=90),
        replace(ROWS[0], name="alone", turns=5, turns_needed=None),
    ]
    said = [line for line in bench.closing(bench.document(rows, "Linux", None, 1.0, quick=True)) if "stable" in line]
    assert len(said) == 1
    assert said[0].endswith("taken and needed: wide (5 of 90 turns)")


def test_every_goal_fits_its_column() -> None:
    """One goal of two limits is the longest; a goal's text may be known only with its figure."""
    specs = list(table.specs())
    width = bench.widths([spec.row.name for spec in specs])[bench.HEAD.index("goal")]
    texts = [spec.row.goal.text for spec in specs if spec.row.goal]
    texts += [row.goal(5000.0).text for row in (*exits.GOALS, *exits.WAKES, *exits.KINDS) if row.goal]
    assert max(map(len, texts)) <= width


def test_every_row_of_processes_names_its_peer() -> None:
    of_a_difference = {"sandbox"}  # which has no peer: the same command with and without
    named = {spec.row.peer for spec in processes.specs() if spec.row.name not in of_a_difference}
    assert named == {"QEMU", "Python"}

# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of a bench: figures beside floor and goal, history; documents that people bring; and in a real Chromium."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_bench_report import ROWS
from tests.unit.test_pages import Page, whole
from tests.unit.test_pages_run import EVIL, HEADINGS, UNNAMED, UNSCOPED, text_of
from tools.chromium import Chromium
from vmm.bench.compare import Goal, Row
from vmm.cli import main
from vmm.report import bench
from vmm.report.bench_read import read
from vmm.report.pages.bench import bench_page
from vmm.report.pages.forest import Figure, Scale, line

RATE = Row("rate", "goals", "reads a second", "C core", "1/s", median=900.0, mad=9.0, n=9, floor=1000.0, peer="C",
           ratio=0.9, error=0.02, goal=Goal(0.7, "at least 0.70 x", better="higher"))  # fmt: skip
Document = dict[str, Any]


def document(times: float = 1.0, host: str = "Linux") -> Document:
    rows = [replace(row, ratio=row.ratio and row.ratio * times) for row in (*ROWS, RATE)]
    made = bench.document(rows, host, None, 9.0, quick=False, when="2026-01-02T03:04:05Z", machine={"cpu": "a CPU"})
    return read(made, "x")


def test_what_was_written_is_read(follows: Any) -> None:
    made = bench.document(ROWS, "Linux", "noisy", 9.0, quick=True, machine={"cpu": "a CPU"})
    found = read(json.loads(json.dumps(made)), "x")
    follows("bench", made)
    assert {key: value for key, value in found.items() if key != "rows"} == {
        key: value for key, value in made.items() if key != "rows"
    }
    for now, then in zip(found["rows"], made["rows"], strict=True):
        assert now == then


def test_an_old_document_is_read() -> None:
    found = read({"schema": 1, "rows": [{"name": "a", "median": 1, "ratio": None}]}, "x")
    whole(bench_page([("old", found)], "pyvmm"))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"name": 1}, "name is no text"),
        ({"median": "x"}, "median is no number"),
        ({"ratio": True}, "ratio is no number"),
        ({"error": float("nan")}, "error is no number"),
        ({"unit": "m"}, "the unit or the group"),
        ({"points": [[1, 2]]}, "its points are no list"),
        ({"what": []}, "what is no text"),
    ],
)
def test_a_document_of_something_else_is_refused(
    row: Document, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"schema": 1, "rows": [{"name": "a", "median": 1, "ratio": 1} | row]}), encoding="utf-8")
    assert main(["bench", "--from", str(file)]) == 2
    assert words in capsys.readouterr().err


def test_a_row_stands_beside_its_floor_and_its_goal() -> None:
    text = bench_page([("now", document())], "pyvmm bench --html F")
    whole(text)
    assert "3 of 5 goals met" in text_of(text)
    assert 'aria-label="1.055 times its floor, give or take 0.001, the goal is 1.07"' in text
    assert 'aria-label="6.67 % of its goal"' in text
    assert "1.500 ± 0.150" in text
    assert "6.0 times its noise outside" in text
    assert "14.2 times its noise inside" in text
    assert "a CPU" in text_of(text)
    for row in document()["rows"]:
        assert f'id="row-{row["name"]}"' in text


def test_the_scale_is_logarithmic_and_holds_all() -> None:
    scale = Scale([Figure(0.25, 0.05, 1.0, "floor"), Figure(4.0, 0.0, None, "floor")])
    assert scale.at(2) - scale.at(1) == pytest.approx(scale.at(1) - scale.at(0.5), abs=0.05)
    places = scale.places(Figure(0.25, 0.05, 1.0, "floor"))
    assert 0 < places["begin"] < places["point"] < places["begin"] + places["width"] < places["goal"] == places["floor"]
    assert [text for _, text in scale.ticks] == ["0.2", "0.5", "1", "2"]
    assert scale.at(0) == 0 < scale.at(1) < scale.at(1e9) == 100


def test_history_says_what_changed() -> None:
    every = [("monday", document()), ("tuesday", document(1.3)), ("today", document(0.8))]
    text = bench_page(every, "pyvmm")
    whole(text)
    found = re.findall(r'<a href="#row-(\w+)">\w+</a></th><td><span class="verdict (?:missed|met)">(\w+)<', text)
    assert found[0] == ("rate", "worse")
    assert ("pio", "better") in found
    assert "idle" not in dict(found)
    assert text.count("<summary>3 measurements</summary>") == len(document()["rows"])
    assert len(re.findall('class="line"', text)) == 6


def test_a_history_with_holes() -> None:
    assert line([None, Figure(1.0, 0.1, None, "floor"), None]) is None
    found = line([Figure(1.0, 0.0, None, "floor"), None, Figure(1.0, 0.0, None, "floor")])
    assert found is not None
    assert [x for x, _ in found["points"]] == [5, 95]


def test_what_a_document_says_is_text() -> None:
    doc = document(host=EVIL)
    for key in ("name", "what", "cost", "peer", "goal_text", "disturbed", "why"):
        doc["rows"][0][key] = EVIL
    page = Page(bench_page([(EVIL, doc), ("b" + EVIL, doc)], EVIL))
    assert not page.seen["script"]
    assert not page.seen["img"]


def test_documents_of_other_days_need_no_kvm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / name) for name in ("a.json", "b.json")]
    for file, times in zip(files, (1.0, 2.0), strict=True):
        Path(file).write_text(json.dumps(document(times)), encoding="utf-8")
    page = tmp_path / "x.html"
    assert main(["bench", "--from", *files, "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert "hello" in out
    assert "goals met" in out
    assert "2 measurements" in page.read_text(encoding="utf-8")
    assert main(["bench", "--from", *files, "--html", files[0]]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert main(["bench", "goals", "--from", files[0], "goals"]) == 2
    assert main(["bench", "--quick", "--from", files[0]]) == 2
    assert "--from measures nothing" in capsys.readouterr().err
    other = f"{Path(files[0]).parent}/./{Path(files[0]).name}"
    assert main(["bench", "--from", *files, files[0]]) == 2
    assert f"--from names one file twice: {files[0]}\n" in capsys.readouterr().err
    assert main(["bench", "--from", *files, other]) == 2
    assert f"--from names one file twice: {other}, as {files[0]}\n" in capsys.readouterr().err
    assert main(["bench", "--from", files[0], "--json", "--against", files[0]]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == 1


@pytest.mark.parametrize("width", [400, 1600])
def test_in_a_browser_a_bench_fits(chromium: Chromium, width: int) -> None:
    every = [("monday", document()), ("today", document(0.8, host="x" * 300))]
    chromium.open(bench_page(every, "pyvmm " + "y" * 300), width=width, dark=width == 400)
    assert chromium.run("document.documentElement.scrollWidth") == width
    levels = chromium.run(HEADINGS)
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert chromium.run(UNNAMED) == []
    assert chromium.run(UNSCOPED) == 0
    assert not chromium.complaints

# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm matrix`: hosts side by side, as text, Markdown, JSON, and into a page between its marks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmm import cli
from vmm.report import matrix
from vmm.report.snapshot import read
from vmm.report.style import Style


def row(name: str, verdict: str, *, bit: int | None = None, reason: str = "", deviates: str = "") -> dict[str, Any]:
    outcome = {"works": "pass", "advertised": "pass", "broken": "fail"}.get(verdict, "skip")
    deviations = [{"what": deviates, "expected": "clear", "observed": "set", "kernels": "", "commit": ""}]
    return {
        "name": name,
        "bit": bit,
        "register": "" if bit is None else "eax",
        "offered": True,
        "verdict": verdict,
        "outcome": outcome,
        "reason": reason,
        "refusals": [],
        "deviations": deviations if deviates else [],
    }


def document(kernel: str, *rows: dict[str, Any], topics: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    host = {
        "text": "AMD SVM", "kernel": kernel, "backend": "svm", "ring0": "native", "hypercall": "vmmcall",
        "pv_features": {"eax": 0, "edx": 0},
    }  # fmt: skip
    return {"schema": 1, "host": host, "options": {}, "features": list(rows), "topics": list(topics)}


OLD = document(
    "6.1.0",
    row("STEAL_TIME", "works", bit=5),
    row("PV_EOI", "inert", bit=6, reason="no | interrupt is held"),
    row("PV_UNHALT", "works", bit=7, deviates="the bit"),
    topics=(row("irqfd", "works"), row("smm", "absent", reason="KVM does not offer it")),
)
NEW = document(
    "7.2.0",
    row("STEAL_TIME", "broken", bit=5, reason="no number fits"),
    row("PV_EOI", "inert", bit=6, reason="no | interrupt is held"),
    row("PV_UNHALT", "works", bit=7),
)


def made(*, api: bool = False) -> dict[str, Any]:
    return matrix.matrix([("old", read(OLD, "old.json")), ("new", read(NEW, "new.json"))], api=api)


def test_the_document(follows: Callable[[str, Any], Any]) -> None:
    doc = follows("matrix", made(api=True))
    rows = {each["name"]: [cell["state"] for cell in each["cells"]] for each in doc["rows"]}
    assert rows == {
        "STEAL_TIME": ["works", "broken"],
        "PV_EOI": ["inert", "inert"],
        "PV_UNHALT": ["works", "works"],
        "irqfd": ["works", "not probed"],
        "smm": ["absent", "not probed"],
    }
    assert doc["rows"][2]["cells"][0]["deviations"] == ["the bit: set, and the ABI says clear"]
    assert [each["name"] for each in made()["rows"]] == ["STEAL_TIME", "PV_EOI", "PV_UNHALT"], "topics only with --api"


def test_hosts_that_say_the_same_share_a_note() -> None:
    lines = matrix.text(made(api=True), Style()).splitlines()
    assert lines[0] == "old  Linux 6.1.0; AMD SVM"
    table = {words[0]: words[1:] for line in lines if (words := line.split())}
    assert table["PV_EOI"] == ["inert", "[2]", "inert", "[2]"]
    assert table["PV_UNHALT"] == ["works", "[3]", "works"]
    assert "[1] new: STEAL_TIME broken: no number fits" in lines
    assert "[2] old, new: PV_EOI inert: no | interrupt is held" in lines
    assert "[3] old: PV_UNHALT deviates: the bit: set, and the ABI says clear" in lines


def test_markdown_keeps_text_text() -> None:
    text = matrix.markdown(made())
    assert "| PV\\_EOI | inert <sup>2</sup> | inert <sup>2</sup> |" in text
    assert "**broken** <sup>1</sup>" in text
    assert "no \\| interrupt" in text


@pytest.fixture
def pyvmm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)
    for name, doc in (("old", OLD), ("new", NEW)):
        Path(name).mkdir()
        for file in (f"{name}/probe.json", f"{name}.json"):
            Path(file).write_text(json.dumps(doc), encoding="utf-8")

    def run(*words: str) -> tuple[int, str, str]:
        status = cli.main(["matrix", *words])
        return status, *capsys.readouterr()

    return run


def test_columns_are_named(pyvmm: Callable[..., tuple[int, str, str]], follows: Callable[[str, Any], Any]) -> None:
    for words in (("old.json", "new.json"), ("old/probe.json", "new/probe.json"), ("old=new.json", "new=old.json")):
        doc = follows("matrix", pyvmm(*words, "--json")[1])
        assert [host["name"] for host in doc["hosts"]] == ["old", "new"]
    status, _, err = pyvmm("old.json", "old/probe.json")
    assert (status, "two columns are called old" in err) == (2, True)
    assert pyvmm("old.json", "new.json")[1].startswith("old  Linux 6.1.0")


def test_without_notes_the_table_and_the_hosts_stay(pyvmm: Callable[..., tuple[int, str, str]]) -> None:
    for form in ("--markdown", "--no-color"):
        whole, brief = (pyvmm("old.json", "new.json", form, *more)[1] for more in ((), ("--no-notes",)))
        assert "works, deviates" not in whole
        assert "works, deviates" in brief, "a deviation is not hidden"
        assert "and the ABI says" not in brief
        assert "[1]" not in brief
        assert "<sup>" not in brief
        assert brief.count("Linux") == 2


def test_into_a_page(pyvmm: Callable[..., tuple[int, str, str]]) -> None:
    page = Path("page.md")
    page.write_text(f"before\n{matrix.BEGIN}\nold text\n{matrix.END}\nafter\n", encoding="utf-8")
    assert pyvmm("old.json", "new.json", "--into", "page.md")[:2] == (0, "page.md: written\n")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old text" not in text
    assert "| STEAL\\_TIME | works |" in text
    assert pyvmm("old.json", "new.json", "--into", "page.md")[1] == "page.md: as it was\n"


@pytest.mark.parametrize("text", ["", "{begin}", "{end}{begin}", "{begin}{end}{begin}", "{begin}{end}{end}"])
def test_a_page_without_one_pair_of_marks_is_left_alone(pyvmm: Callable[..., tuple[int, str, str]], text: str) -> None:
    text = text.format(begin=matrix.BEGIN, end=matrix.END)
    good = f"{matrix.BEGIN}{matrix.END}"
    Path("good.md").write_text(good, encoding="utf-8")
    Path("bad.md").write_text(text, encoding="utf-8")
    status, _, err = pyvmm("old.json", "--into", "good.md", "bad.md")
    assert status == 2
    assert "bad.md: it has not one pair of marks" in err
    assert Path("bad.md").read_text(encoding="utf-8") == text
    assert Path("good.md").read_text(encoding="utf-8") == good, "nothing is written unless all can be"
    assert pyvmm("old.json", "--into", "gone.md")[2].startswith("pyvmm: reading 'gone.md': No such file")

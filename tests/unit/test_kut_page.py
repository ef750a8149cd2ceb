# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of docs/kut.md: from documents, and between its marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools import kut_page


def document(**verdicts: tuple[str, str | None]) -> dict[str, Any]:
    tests = []
    for name, (ours, qemu) in verdicts.items():
        test: dict[str, Any] = {"name": name, "file": "a.flat", "params": "-x", "cpus": 1}
        test |= {"verdict": ours, "reason": "" if ours == "pass" else "why | not", "summary": "3 tests"}
        tests.append(test | ({} if qemu is None else {"qemu": {"verdict": qemu}}))
    return {"tests": tests, "counts": {"pass": 1}}


def test_one_document() -> None:
    made = kut_page.table(
        *[document(a=("pass", "pass"), b=("fail", "pass"), c=("pass", "timeout"), d=("skip", None))] * 2
    )
    assert "| a | pass | pass | 3 tests |\n| b | *fail* | pass | why \\| not |\n" in made
    assert "| c | pass | *timeout* | 3 tests |\n| d | *skip* | - | why \\| not |\n" in made
    assert made.endswith("; of 3 that ran in both QEMU passes 2; pyvmm passes 1 of those, and 1 more.")


def test_a_later_run_of_the_same_tests() -> None:
    made = kut_page.table(document(a=("pass", None)), document(a=("fail", "pass")))
    assert "| a | pass | pass | 3 tests |" in made


def test_other_tests_are_refused() -> None:
    other = document(a=("pass", "pass"))
    other["tests"][0]["params"] = "-y"
    for theirs in (document(b=("pass", "pass")), other):
        with pytest.raises(ValueError, match="not the same test"):
            kut_page.table(document(a=("pass", None)), theirs)


def test_the_page_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, found = tmp_path / "kut.md", tmp_path / "found.json"
    page.write_text(f"x\n{kut_page.BEGIN}\nold\n{kut_page.END}\ny\n")
    found.write_text(json.dumps(document(a=("pass", "pass"))))
    monkeypatch.setattr(kut_page, "PAGE", page)
    assert kut_page.main([str(found)]) == 0
    assert "old" not in page.read_text()
    assert "| a | pass | pass | 3 tests |" in page.read_text()
    page.write_text("x")
    assert kut_page.main([str(found)]) == 2
    assert "no pair of marks" in capsys.readouterr().err
    assert kut_page.main([]) == 2


def test_the_page_has_its_table() -> None:
    rows = kut_page.PAGE.read_text(encoding="utf-8").partition(kut_page.BEGIN)[2].partition(kut_page.END)[0]
    assert rows.count("\n| ") > 20


def two_hosts() -> dict[str, dict[str, Any]]:
    one = document(a=("pass", "pass"), b=("fail", "pass"), c=("skip", None)) | {"not_run": []}
    other = document(a=("pass", "pass"), b=("pass", "timeout")) | {"not_run": ["d"]}
    return {"svm-1": one, "vmx-1": other}


def test_hosts_of_the_lab_beside_each_other() -> None:
    made = kut_page.table_of_hosts(two_hosts())
    assert made.startswith("| test | svm-1 | svm-1, QEMU | vmx-1 | vmx-1, QEMU | what it said in pyvmm |\n")
    assert (
        "| a | pass | pass | pass | pass | 3 tests |\n| b | *fail* | pass | pass | *timeout* | why \\| not |\n" in made
    )
    assert "| c |" not in made
    assert "svm-1: of 2 that ran in both QEMU passes 2; pyvmm passes 1 of those, and 0 more.\n" in made
    assert made.endswith("passes 1; pyvmm passes 1 of those, and 1 more. 1 were not run.")


def test_hosts_with_other_tests_of_one_name_are_refused() -> None:
    hosts = two_hosts()
    hosts["vmx-1"]["tests"][0]["cpus"] = 2
    with pytest.raises(ValueError, match="a: not the same test"):
        kut_page.table_of_hosts(hosts)


def test_the_page_of_hosts_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "kut.md"
    page.write_text(f"x\n{kut_page.BEGIN_HOSTS}\nold\n{kut_page.END_HOSTS}\ny\n")
    monkeypatch.setattr(kut_page, "PAGE", page)
    files = []
    for name, found in two_hosts().items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "kut.json").write_text(json.dumps(found))
        files.append(str(tmp_path / name / "kut.json"))
    assert kut_page.main(["--hosts", *files]) == 0
    assert "| svm-1, QEMU |" in page.read_text()
    assert "old" not in page.read_text()
    assert kut_page.main(["--hosts"]) == 2


def test_a_host_may_have_its_tests_in_several_documents() -> None:
    first = document(a=("pass", "pass"), b=("fail", "pass")) | {"not_run": ["c", "d"]}
    later = document(b=("pass", "pass"), c=("pass", "pass")) | {"not_run": []}
    (found,) = kut_page.by_host(["svm-1", "svm-1"], [first, later]).values()
    assert [(each["name"], each["verdict"]) for each in found["tests"]] == [("a", "pass"), ("b", "pass"), ("c", "pass")]
    assert found["not_run"] == ["d"]

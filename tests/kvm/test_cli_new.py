# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm new`: each start is written, runs to `pass`, its tests run; nothing is written over; bad names are refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vmm.cli import main
from vmm.payload.templates import STARTS, Start

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.kind)
def test_a_start_is_written_and_passes(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if start.kind == "c" and not (shutil.which("gcc") or shutil.which("clang")):
        pytest.skip("no C compiler here")
    name = "my-first_1"
    assert main(["new", name, "--kind", start.kind]) == 0
    said = capsys.readouterr().out
    folder = tmp_path / name if start.folder else tmp_path
    written = sorted(file.name for file in folder.iterdir())
    assert written == sorted(to.replace("NAME", name) for _, to in start.files)
    assert all(file in said for file in written)
    text = (folder / f"{name}{start.suffix}").read_text()
    assert "NAME" not in text.replace("FILENAME", "")
    assert text.count("; ") + text.count("//") + text.count("/*") >= 8  # a student reads it
    assert main(["run", str(folder / f"{name}{start.suffix}")]) == 0
    assert main(["run", str(folder / f"{name}{start.suffix}"), "--json"]) == 0
    out = capsys.readouterr().out
    results = json.loads(out[out.rindex("\n{\n") :])["results"]
    assert results
    assert None not in results.values()


def test_the_tests_of_a_project_pass_and_can_fail(tmp_path: Path) -> None:
    assert main(["new", "mine", "--kind", "pytest"]) == 0

    def tested() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "vmm.pytest_plugin", "-p", "no:pyvmm", "-c", os.devnull,
             "--rootdir", "."],
            cwd=tmp_path / "mine", env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip

    done = tested()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout
    guest = tmp_path / "mine" / "mine.asm"
    guest.write_text(guest.read_text().replace("add   rax, rcx", "sub   rax, rcx"))
    assert "4 failed, 1 passed" in tested().stdout


def test_nothing_that_is_there_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, file in (("plain", "a.asm"), ("host-half", "b.py"), ("pytest", "c/README.md")):
        name = file.partition(".")[0].partition("/")[0]
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("mine")
        before = sorted(each.name for each in (tmp_path / file).parent.iterdir())
        assert main(["new", name, "--kind", kind]) == 2
        assert f"{file} is there already, and stays as it is" in capsys.readouterr().err
        assert (tmp_path / file).read_text() == "mine"
        assert sorted(each.name for each in (tmp_path / file).parent.iterdir()) == before  # nor half of it
    (tmp_path / "dangling.asm").symlink_to("nowhere")
    assert main(["new", "dangling"]) == 2
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "required: NAME"),
        ([""], "cannot name a guest"),
        (["."], "cannot name a guest"),
        ([".."], "cannot name a guest"),
        (["a b"], "cannot name a guest"),
        (["é"], "cannot name a guest"),
        (["a\0b"], "cannot name a guest"),
        (["x" * 101], "cannot name a guest"),
        (["a\nb"], "cannot name a guest"),
        (["--", "-x"], "cannot name a guest"),
        (["no/such/place"], "No such file or directory"),
        (["a", "--kind", "interupt"], "did you mean interrupt"),
        (["a", "--kind", ""], "no kind of guest is called ''"),
        (["a", "--kind", "ring3", "--c"], "--c and --kind ring3"),
        (["file/", "--kind", "pytest"], "is there already"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["new", *words]) == 2
    assert said in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_into_a_folder_with_a_suffix_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sub").mkdir()
    assert main(["new", "sub/one.asm", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1, "kind": "plain", "name": "one", "files": ["sub/one.asm"],
    }  # fmt: skip
    assert "hello from one" in (tmp_path / "sub" / "one.asm").read_text()


def test_the_kinds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "--list"]) == 0
    text = capsys.readouterr().out
    assert all(f"{start.kind} " in text and start.what in text for start in STARTS)
    assert main(["new", "--list", "--json"]) == 0
    assert [row["kind"] for row in json.loads(capsys.readouterr().out)["kinds"]] == [start.kind for start in STARTS]

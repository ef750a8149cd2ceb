# SPDX-License-Identifier: GPL-2.0-or-later
"""The course without a device: its lessons are whole, progress is kept, no file of a student's is lost."""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.mistakes import edited, mistakes
from vmm.cli import main
from vmm.errors import HostError, UsageError
from vmm.learn import folders
from vmm.learn.attempt import CANNOT, RIGHT, WRONG, Verdict
from vmm.learn.course import HOLE, LESSONS, ORDER, Lesson, find, lessons, of_text
from vmm.learn.junit import render
from vmm.learn.progress import Progress
from vmm.learn.text import after, here, next_lesson, wrapped

ROOT = Path(__file__).resolve().parents[2]
ALL = [pytest.param(each, id=each.name) for each in lessons()]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A student of one's own, who stands in a folder of their own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return tmp_path / "state" / "pyvmm" / "learn.json"


@pytest.fixture
def learn(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`pyvmm learn WORDS`: (status, standard output, standard error)."""

    def call(*words: str) -> tuple[int, str, str]:
        status = main(["learn", *words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


# The lessons ------------------------------------------------------------------------------------------------------


def test_there_are_twelve_and_none_is_forgotten() -> None:
    assert len(ORDER) == 12
    assert {each.name for each in LESSONS.iterdir() if (each / "lesson.md").exists()} == set(ORDER)


@pytest.mark.parametrize("lesson", ALL)
def test_a_starter_has_one_hole_which_the_solution_fills(lesson: Lesson) -> None:
    assert lesson.starter.count(HOLE) == 1
    begin, end = lesson.starter.splitlines()[: lesson.hole - 1], lesson.starter.splitlines()[lesson.hole :]
    solution = lesson.solution.splitlines()
    assert solution[: len(begin)] == begin
    assert solution[len(solution) - len(end) :] == end
    assert len(begin) + len(end) < len(solution)


@pytest.mark.parametrize("lesson", ALL)
def test_a_lesson_is_whole(lesson: Lesson) -> None:
    assert lesson.title
    assert "## Task" in lesson.text
    assert lesson.hint
    assert lesson.hint not in lesson.text
    sources = lesson.text.partition("## Sources")[2]
    assert "Intel SDM" in sources or "Documentation/" in sources
    assert 150 < len(lesson.text.split()) < 600, "short, and not a stub"
    assert f"pyvmm learn show {lesson.number}" in lesson.starter
    for text in (lesson.starter, lesson.solution):
        assert of_text(text, "x.asm") == lesson
    assert of_text("hlt", lesson.file) == lesson


def test_the_lessons_are_packaged() -> None:
    """Each file of each is of a name that the wheel takes, and the sdist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["setuptools"]["package-data"]["*"]
    manifest = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
    sdist = next(line.split()[2:] for line in manifest if line.startswith("recursive-include vmm/learn/lessons "))
    files = [each for each in LESSONS.rglob("*") if each.is_file() and "__pycache__" not in each.parts]
    assert len(files) >= 5 * len(ORDER)
    for path in files:
        if path.suffix != ".py":  # a folder of them is a package
            assert any(fnmatch.fnmatch(path.name, pattern) for pattern in wheel), path
            assert any(fnmatch.fnmatch(path.name, pattern) for pattern in sdist), path


@pytest.mark.parametrize("lesson", ALL)
def test_each_lesson_has_three_mistakes_of_other_texts(lesson: Lesson) -> None:
    found = mistakes(lesson)
    assert len({each.name for each in found}) == len(found) >= 3
    assert len({each.text for each in found} | {lesson.solution}) == len(found) + 1
    for each in found:
        assert of_text(each.text, "x.asm") == lesson
        assert all(len(words) > 5 for words in each.says)


SOLUTION = "start:\n    nop\n    hlt\n    nop\n"


def test_a_mistake_is_the_solution_but_for_its_edits() -> None:
    assert edited(SOLUTION, " start:\n-    nop\n     hlt\n") == "start:\n    hlt\n    nop\n"
    assert edited(SOLUTION, "-start:\n+begin:\n\n     hlt\n+    ret\n     nop\n").split() == [
        "begin:", "nop", "hlt", "ret", "nop"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("diff", "said"),
    [
        ("-    nop\n", "are 2 times in the solution"),
        ("-    ret\n", "are 0 times in the solution"),
        ("-    hlt\n\n-    hlt\n", "are 0 times in the solution"),
        (" start:\n-    hlt\n", "are 0 times in the solution"),
        ("     hlt\n", "this is no edit"),
        ("-    hlt\n+    hlt\n", "this is no edit"),
        ("    hlt\n@@ 1 @@\n", "this is no edit"),
    ],
)
def test_an_edit_that_does_not_go_with_the_solution_is_refused(diff: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        edited(SOLUTION, diff)


@pytest.mark.parametrize("entry", ["## a\n\nwords\n", "## a\n\n```diff\n-    hlt\n```\n", "words\n", ""])
def test_a_mistake_without_edit_or_words_is_refused(
    entry: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = "## b\n\n```diff\n-    hlt\n```\n\n- words\n" * entry.startswith("##")
    (tmp_path / "hlt").mkdir()
    (tmp_path / "hlt/mistakes.md").write_text(f"# Mistakes\n\n{whole}\n{entry}")
    monkeypatch.setattr("vmm.learn.course.LESSONS", tmp_path)
    with pytest.raises(ValueError, match="each `## NAME` has one"):
        mistakes(find("hlt"))


@pytest.mark.parametrize("word", ["0", "13", "99999999999", "hllt", ""])
def test_no_such_lesson(word: str) -> None:
    with pytest.raises(UsageError):
        find(word)


def test_whose_file_it_is() -> None:
    assert of_text("; lesson: idt\n", "01-hlt.asm") == find("idt")
    assert of_text("start: hlt", "mine.asm") is None
    with pytest.raises(UsageError, match="no lesson is called 'itd'; did you mean idt"):
        of_text("; lesson: itd\n", "x.asm")


# Progress ---------------------------------------------------------------------------------------------------------


def test_progress_is_kept(state: Path) -> None:
    progress = Progress()
    assert next_lesson(progress) == find("hlt")
    progress.note("loop", started="2026-01-01", file="/x/03-loop.asm")
    assert next_lesson(Progress()) == find("loop")
    progress.checked("loop", "03-loop.asm", right=False)
    progress.checked("loop", "03-loop.asm", right=True)
    first = Progress().lessons["loop"]["right"]
    progress.checked("loop", "03-loop.asm", right=False)
    again = Progress()
    assert (again.is_right("loop"), again.lessons["loop"]["checks"], again.notice) == (True, 3, "")
    assert again.lessons["loop"]["right"] == first
    again.forget(("loop",))
    assert not Progress().lessons
    assert json.loads(state.read_text())["schema"] == 1


def test_two_terminals_lose_nothing() -> None:
    one, other = Progress(), Progress()
    one.note("hlt", hint=True)
    other.note("console", hint=True)
    assert set(Progress().lessons) == {"hlt", "console"}


COUNT = "import sys; from vmm.learn.progress import Progress\nfor _ in range(10): Progress().checked('hlt', 'x', False)"


def test_processes_at_once_lose_nothing() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen([sys.executable, "-c", COUNT], env=environment) for _ in range(3)]
    assert [each.wait(timeout=100) for each in running] == [0, 0, 0]
    assert Progress().lessons["hlt"]["checks"] == 30


@pytest.mark.parametrize("text", ["", "{", "[]", '{"lessons": []}', '{"lessons": {"hlt": 1}}', "[" * 100_000,
                                  '{"lessons": {"hlt": {"checks": "many"}}}', "\0"])  # fmt: skip
def test_damaged_progress_is_put_aside_and_said(text: str, state: Path) -> None:
    state.parent.mkdir(parents=True)
    state.write_text(text)
    progress = Progress()
    assert "was damaged, and the course begins anew" in progress.notice
    assert state.with_name("learn.json.damaged").read_text() == text
    progress.note("hlt", hint=True)
    assert Progress().lessons == {"hlt": {"hint": True}}


def test_a_state_that_cannot_be_kept_is_said_and_the_course_goes_on(learn: Any, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    status, out, err = learn("hint", "1")
    assert (status, len(err.splitlines())) == (0, 1)
    assert err.startswith("pyvmm: progress ")
    assert find("hlt").hint in out


def test_a_relative_state_home_counts_for_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    Progress().note("hlt", hint=True)
    assert (tmp_path / ".local/state/pyvmm/learn.json").exists()
    assert not Path("relative").exists()


# Files ------------------------------------------------------------------------------------------------------------


def test_a_students_file_is_never_lost(learn: Any) -> None:
    assert learn("start", "3")[0] == 0
    mine = Path("03-loop.asm")
    mine.write_text("mine")
    status, out, err = learn("start", "3")
    assert (status, out) == (2, "")
    assert err.startswith("pyvmm: 03-loop.asm is there already, and stays as it is\n  try: --force")
    assert mine.read_text() == "mine"
    assert learn("start", "3", "--force")[0] == 0
    assert mine.read_text() == find("loop").starter
    assert Path("03-loop.asm~").read_text() == "mine"


def test_an_export_is_all_or_nothing(learn: Any) -> None:
    assert learn("export", "class")[0] == 0
    assert {each.name for each in Path("class").glob("*.asm")} == {each.file for each in lessons()}
    assert len(list(Path("class/texts").glob("*.md"))) == len(lessons())
    assert "| 12 | [" in Path("class/README.md").read_text()
    assert not [each for each in Path("class").rglob("*") if each.is_file() and "iretq" in each.read_text()
                and each.name == "05-idt.asm"]  # fmt: skip
    Path("class/README.md").unlink()
    status, _, err = learn("export", "class")
    assert status == 2
    assert "is there already, and stays as it is (and 24 more)" in err
    assert not Path("class/README.md").exists()
    assert learn("export")[0] == 2


def test_the_exported_makefile_checks(learn: Any, tmp_path: Path) -> None:
    learn("export", "class")
    for target, wanted in (("check", "learn check --all ."), ("01-hlt", "learn check ./01-hlt.asm")):
        done = subprocess.run(
            ["make", "PYVMM=echo", target], cwd="class", capture_output=True, text=True, timeout=60, check=True
        )
        assert wanted in done.stdout


@pytest.mark.parametrize("target", ["/proc/no/folder", "\0"])
def test_a_folder_that_cannot_be_written(target: str) -> None:
    with pytest.raises(UsageError, match="writing "):
        folders.export(target)


def test_students_are_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file of a lesson is there"):
        list(folders.students(str(tmp_path)))
    with pytest.raises(UsageError, match="reading "):
        list(folders.students(str(tmp_path / "gone")))
    for name in ("bob", "ada", ".hidden"):
        folders.start(find("hlt"), str(tmp_path / "class" / name))
    (tmp_path / "class" / "notes").mkdir()
    assert [name for name, _ in folders.students(str(tmp_path / "class"))] == ["ada", "bob"]
    assert next(folders.students(str(tmp_path / "class/ada")))[0] == "ada"


# Words ------------------------------------------------------------------------------------------------------------


def test_the_list_says_what_is_next(learn: Any) -> None:
    status, out, err = learn()
    assert (status, err) == (0, "")
    assert all(f" {each.number:>2}  {each.name}" in out for each in lessons())
    assert "0 of 12 are right. lesson 1, hlt:" in out
    for each in lessons():
        Progress().checked(each.name, each.file, right=True)
    assert "All 12 lessons are right" in learn("list")[1]


def test_the_list_for_programs(learn: Any, follows: Callable[[str, Any], Any]) -> None:
    document = follows("learn", learn("--json")[1])
    assert [each["name"] for each in document["lessons"]] == list(ORDER)
    assert (document["next"], document["checked"]) == ("hlt", [])


def test_texts_need_no_device(learn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vmm.kvm.system import Kvm

    def refuse(*_: object) -> None:
        raise HostError("no /dev/kvm here")

    monkeypatch.setattr(Kvm, "open", refuse)
    status, out, err = learn("show", "12")
    assert (status, err) == (0, "")
    assert "# Lesson 12: An asynchronous page fault" in out
    assert "KVM cannot be used here (no /dev/kvm here), and `check` needs it" in out
    assert "KVM cannot be used here" in here(find("hlt"))
    for words in (["hint", "4"], ["solution", "4"], ["start", "4"], ["reset", "4"], ["reset"]):
        assert learn(*words)[0] == 0
    Path("04-mmio.asm").write_text(find("mmio").solution)
    monkeypatch.setattr("vmm.learn.attempt.Guest", refuse)
    status, out, err = learn("check", "4")
    assert (status, out, err) == (99, "", "pyvmm: no /dev/kvm here\n")


def test_short_words(learn: Any) -> None:
    wanted = learn("show", "loop")[1]
    assert learn("3")[1] == learn("03-loop")[1] == learn("show", "03-loop")[1] == wanted
    assert learn("x.asm")[2].startswith("pyvmm: reading x.asm: No such file")
    assert learn("--watch", "x.asm")[2].startswith("pyvmm: reading x.asm: No such file")


def test_what_comes_after_a_lesson() -> None:
    progress = Progress()
    assert after(progress, find("console")) == find("loop")
    for name in ORDER[2:]:
        progress.checked(name, "x", right=True)
    assert after(progress, find("console")) == find("hlt")
    for name in ORDER:
        progress.checked(name, "x", right=True)
    assert after(progress, find("hlt")) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hnit"], "no action or lesson is called 'hnit'; did you mean hint?"),
        (["show", "99"], "there is no lesson 99: they are 1 to 12"),
        (["show", "1", "2"], "unrecognized arguments: 2"),
        (["show", "--json"], "--json goes with list and check, not with show"),
        (["hint", "--watch"], "--watch goes with check, not with hint"),
        (["check", "--all", ".", "1"], "--all DIR checks what is in DIR"),
        (["check", "--watch", "--json", "hlt.asm"], "reading hlt.asm: No such file"),
        (["check"], "01-hlt.asm is not there"),
        (["check", "gone/01-hlt.asm"], "reading gone/01-hlt.asm: No such file or directory"),
        (["check", "--dir", "away", "1"], "away/01-hlt.asm is not there"),
    ],
)
def test_bad_usage_is_said(words: list[str], said: str, learn: Any) -> None:
    status, out, err = learn(*words)
    assert (status, out) == (2, "")
    assert err.startswith(f"pyvmm: {said}"), err


def test_junit_counts_what_is_not_right() -> None:
    rows = [("ada", Verdict(find("hlt"), RIGHT, "well")), ("ada", Verdict(find("loop"), WRONG, "a\x1bb\nc")),
            ("bob", Verdict(find("async_pf"), CANNOT, "no userfaultfd"))]  # fmt: skip
    text = render(rows)
    assert 'tests="3" failures="1" errors="0" skipped="1"' in text
    assert 'classname="ada" name="03 loop"' in text
    assert "\x1b" not in text


def test_long_words_are_wrapped_and_a_message_of_several_lines_is_not() -> None:
    assert all(len(line) <= 40 for line in wrapped("word " * 40, 40))
    assert list(wrapped("one\n  two\n  ^", 20)) == ["  one", "    two", "    ^"]

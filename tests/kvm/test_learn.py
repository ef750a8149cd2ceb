# SPDX-License-Identifier: GPL-2.0-or-later
"""The course on /dev/kvm: each solution is right, each typical mistake is told in the words of its lesson's list."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.mistakes import Mistake, mistakes
from vmm.cli import main
from vmm.errors import UsageError
from vmm.learn import checks
from vmm.learn.attempt import CANNOT, EMPTY, RIGHT, WRONG, Verdict, attempt, read
from vmm.learn.course import Lesson, find, lessons

PATIENT = 20.0  # seconds: a guest that ends does so in milliseconds, on an emulated host in many of them
SHORT = 0.3  # for guests that are known to come to no end
ALL = [pytest.param(each, id=each.name) for each in lessons()]
MISTAKES = [
    pytest.param(lesson, mistake, id=f"{lesson.name}-{mistake.name}")
    for lesson in lessons()
    for mistake in mistakes(lesson)
]


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


def usable(lesson: Lesson) -> None:
    """A skip, with the reason, where this host cannot show it."""
    if why := checks.of(lesson.name).cannot():
        pytest.skip(f"{lesson}: {why}")


@pytest.mark.every_host
@pytest.mark.on_demand
@pytest.mark.parametrize("lesson", ALL)
def test_a_solution_is_right(lesson: Lesson) -> None:
    usable(lesson)
    verdict = attempt(lesson, lesson.file, lesson.solution, PATIENT)
    assert (verdict.outcome, verdict.notes) == (RIGHT, ()), verdict.text


def test_each_lesson_is_shown_with_what_differs_here(learn: Callable[..., tuple[int, str, str]]) -> None:
    for each in lessons():
        status, out, err = learn("show", each.name)
        assert (status, err) == (0, ""), each.name
        assert each.title in out
        assert checks.of(each.name).differs()[:40] in out


def test_the_timer_is_measured_with_a_handler_that_ends_nothing() -> None:
    timer = importlib.import_module("vmm.learn.lessons.timer.check")
    assert find("timer").solution.count(timer.END + "    xor   eax, eax\n    xor   edx, edx\n" + timer.WRITE) == 1
    verdict = verdict_of(
        "timer",
        lambda text: text.replace(timer.END, "").replace(f"edx, edx\n{timer.WRITE}    pop", "edx, edx\n    pop"),
    )
    assert verdict.outcome == WRONG
    assert "no line of your handler writes to X2APIC_EOI" in verdict.text
    assert bool(checks.of("timer").differs()) == (timer.NOT_HELD in verdict.text)


@pytest.mark.parametrize("lesson", ALL)
def test_a_starter_says_which_line_waits(lesson: Lesson) -> None:
    usable(lesson)
    verdict = attempt(lesson, lesson.file, lesson.starter, SHORT)
    assert verdict.outcome == EMPTY
    assert verdict.text.startswith(f"line {lesson.hole} still waits for your code. As it is: ")


@pytest.mark.every_host
@pytest.mark.on_demand
@pytest.mark.parametrize(("lesson", "mistake"), MISTAKES)
def test_a_mistake_is_told_by_what_the_guest_did(lesson: Lesson, mistake: Mistake) -> None:
    """Where the CPU is emulated, a guest that does come to an end needs more time for that: then the longer limit's
    verdict counts.
    """
    usable(lesson)
    for limit in (SHORT, PATIENT):
        verdict = attempt(lesson, lesson.file, mistake.text, limit)
        if all(words in verdict.text for words in mistake.says):
            break
    assert (verdict.outcome, verdict.notes) == (WRONG, ())
    for words in mistake.says:
        assert words in verdict.text


def verdict_of(name: str, edit: Callable[[str], str], limit: float = SHORT) -> Verdict:
    lesson = find(name)
    return attempt(lesson, lesson.file, edit(lesson.solution), limit)


def test_the_machine_is_the_lessons_whatever_the_header_says() -> None:
    verdict = verdict_of("timer", lambda text: text.replace("irqchip=split", "irqchip=none"), PATIENT)
    assert verdict.outcome == RIGHT
    assert verdict.notes == ("the header lines at the top were changed: the machine is still the lesson's",)


def test_a_number_written_down_is_no_sum() -> None:
    """The check runs the guest with more than one `last`."""
    loop = "again:\n    add   rax, rcx\n    dec   ecx\n    jnz   again\n"
    verdict = verdict_of("loop", lambda text: text.replace(loop, "    mov   eax, 55\n"))
    assert verdict.outcome == WRONG
    assert "with last = 1 your guest stored sum = 55, and 1 + 2 + ... + 1 is 1" in verdict.text


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("loop", "    RESULT sum", "", "`RESULT sum` was never executed"),
        ("loop", "    RESULT sum", "    RESULT summ", "your text does not assemble: "),
        ("loop", "    PASS", "    hlt", "and was to end by PASS: nothing can wake it"),
        ("hlt", "    hlt", "    out   EXIT_PORT, al", "your guest said itself that it failed, by 0x2a to port 0xf4"),
        ("hlt", "    hlt", "    xor   eax, eax\n    out   EXIT_PORT, al", "your guest ended by PASS at line 10"),
        ("hlt", "    hlt", "again:\n    out   0x80, al\n    jmp   again", "your guest "),
        ("hlt", "    hlt", "    xor   eax, eax\n    mov   cr3, rax\n    mov   rax, [0x100000]", "your guest "),
        ("timer", "    sti  ", "    cli  ", "halted with interrupts off (IF is 0) at line "),
    ],
)
def test_other_ends_have_words_too(name: str, old: str, new: str, said: str) -> None:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    verdict = verdict_of(name, edit)
    assert verdict.outcome == WRONG
    assert said in verdict.text


def test_a_lesson_that_this_host_cannot_show_is_not_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    of = checks.of("hlt")
    monkeypatch.setattr(checks, "of", lambda name: replace(of, cannot=lambda: "no such thing here"))
    verdict = verdict_of("hlt", str)
    assert (verdict.outcome, verdict.text) == (CANNOT, "no such thing here")


# The command ------------------------------------------------------------------------------------------------------


def test_a_student_goes_from_start_to_right(learn: Any, state: Path, follows_learn: Any) -> None:
    assert learn("start")[0] == 0
    status, out, err = learn("check")
    assert (status, err) == (1, "")
    assert out.startswith("lesson 1, hlt: nothing filled in yet\n  line 9 still waits for your code.")
    assert "pyvmm learn hint 1" in out
    file = Path("01-hlt.asm")
    file.write_text(find("hlt").solution)
    status, out, _ = learn("check")
    assert status == 0
    assert out.startswith("lesson 1, hlt: right\n  your guest halted")
    assert "next: pyvmm learn start 2" in out
    document = follows_learn(learn("check", "1", "--json")[1])
    assert [each["outcome"] for each in document["checked"]] == ["right"]
    assert (document["lessons"][0]["state"], document["lessons"][0]["checks"]) == ("right", 3)
    assert document["next"] == "console"
    assert json.loads(state.read_text())["lessons"]["hlt"]["file"] == str(file.absolute())


@pytest.fixture
def follows_learn() -> Callable[[str], Any]:
    import jsonschema

    import vmm.report

    schema = json.loads((Path(vmm.report.__file__).parent / "schemas/learn.schema.json").read_text(encoding="utf-8"))

    def check(text: str) -> Any:
        document = json.loads(text)
        jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)
        return document

    return check


def test_a_class_is_checked_at_once(learn: Any, tmp_path: Path, follows_learn: Any) -> None:
    for name, which in (("ada", "solution"), ("bob", "starter")):
        (tmp_path / "class" / name).mkdir(parents=True)
        (tmp_path / "class" / name / "01-hlt.asm").write_text(getattr(find("hlt"), which))
    (tmp_path / "class" / "bob" / "04-mmio.asm").write_bytes(b"\xff\xfe")
    junit = tmp_path / "results.xml"
    status, out, _ = learn("check", "--all", str(tmp_path / "class"), "--junit", str(junit))
    assert status == 1
    assert "ada: 1 of 12 are right" in out
    assert "bob: 0 of 12 are right" in out
    root = ElementTree.parse(junit).getroot()
    cases = {(case.get("classname"), case.get("name")): case for case in root.iter("testcase")}
    assert cases["ada", "01 hlt"].find("failure") is None
    assert cases["bob", "01 hlt"].find("failure").get("type") == "empty"
    assert cases["bob", "04 mmio"].find("failure").get("type") == "wrong"
    assert int(root.get("tests")) == len(cases)
    assert int(root.get("failures")) == sum(case.find("failure") is not None for case in cases.values())
    document = follows_learn(learn("check", "--all", str(tmp_path / "class" / "ada"), "--json")[1])
    assert {each["student"] for each in document["checked"]} == {"ada"}


def test_it_tells_what_differs_here(learn: Any) -> None:
    from vmm.payload.proof.lab import ring0

    out = learn("show", "ring3")[1]
    assert ("## On this host" in out) == (ring0().kind != "native")


def lines(process: subprocess.Popen[str], until: str) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line
        if until in line:
            return


def test_watch_checks_at_each_save_and_ends_by_ctrl_c(uncovered: dict[str, str], tmp_path: Path) -> None:
    file = Path("01-hlt.asm")
    file.write_text(find("hlt").starter)
    command = [sys.executable, "-u", "-m", "vmm", "learn", "check", "--watch", str(file)]
    root = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=uncovered | {"PYTHONPATH": root}
    ) as process:
        try:
            assert "nothing filled in yet" in "".join(lines(process, "is checked again"))
            new = tmp_path / "new"
            new.write_text(find("hlt").solution)
            new.replace(file)  # as an editor saves
            assert "lesson 1, hlt: right" in "".join(lines(process, "is checked again"))
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err.splitlines()[-1:]) == (130, ["pyvmm: interrupted"])


def test_what_is_no_lesson_is_refused_in_words(learn: Any, tmp_path: Path) -> None:
    Path("empty.asm").write_text("")
    Path("binary.asm").write_bytes(b"\x7fELF\xff\x00")
    Path("whose.asm").write_text("start:\n    hlt\n")
    Path("01-hlt.asm").write_text(find("idt").solution)
    for words, said in (
        (["empty.asm"], "empty.asm is empty: there is nothing to run"),
        (["binary.asm"], "binary.asm: not UTF-8 text at byte 4; a lesson is checked as text"),
        (["whose.asm"], "whose.asm does not say whose lesson it is"),
        (["./"], "./ is a directory, and a payload is a regular file"),
        (["1", "01-hlt.asm"], "01-hlt.asm says that it is lesson 5, idt, and not lesson 1, hlt"),
        (["gone.asm"], "reading gone.asm: No such file or directory"),
        (["7"], "07-paging.asm is not there"),
    ):
        status, out, err = learn("check", *words)
        assert (status, out) == (2, ""), words
        assert err.startswith(f"pyvmm: {said}"), err
    assert learn("check", "hlt", "whose.asm")[0] == 1  # told whose it is: RAX is 0
    with pytest.raises(UsageError):
        read("empty.asm")

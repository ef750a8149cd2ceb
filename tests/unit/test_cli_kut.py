# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm kut` as far as it needs no KVM: what is chosen, what is decided before it runs, and every report."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from vmm import cli
from vmm.payload.kut.beside_qemu import command
from vmm.payload.kut.one import Ended, from_json
from vmm.payload.kut.suite import Done, Runner, Suite, Test, answer, find_cfg, load, prepare, select
from vmm.payload.kut.verdict import State
from vmm.report import kut, kut_junit, kut_markdown, kut_tap
from vmm.report.style import Style

FOLDER = Path(__file__).parents[1] / "kut"


def chosen(*wanted: str, groups: tuple[str, ...] = (), **more: Any) -> dict[str, Test]:
    entries = select(load(find_cfg(FOLDER)), wanted, groups)
    return {each.name: prepare(each, FOLDER, **more) for each in entries}


# What is chosen


def test_names_patterns_and_groups() -> None:
    assert list(chosen("passes", "two*")) == ["passes", "two_cpus"]
    assert list(chosen(groups=("smp",))) == ["two_cpus", "three_cpus"]
    assert list(chosen("t*", groups=("smp",))) == ["two_cpus", "three_cpus"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["{}", "pases"], "did you mean passes"),
        (["{}", "-g", "smal"], "did you mean small"),
        (["{}", "hangs", "-g", "smp"], "no test has one of these names and is in one of these groups"),
        (["{}/nowhere"], "no such folder"),
        (["{}/.."], "no unittests.cfg in it"),
        (["{}", "--cfg", "{}/nowhere.cfg"], "No such file"),
        (["{}", "--jobs", "0"], "--jobs 0"),
        (["{}", "--timeout", "-1"], "a time limit of -1"),
        (["{}", "--env", "{}/nowhere"], "--env"),
        (["{}", "--qemu", "no-such-qemu"], "--qemu no-such-qemu"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["kut", *(each.replace("{}", str(FOLDER)) for each in arguments)]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert "Traceback" not in said


def test_a_binary_is_no_cfg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "unittests.cfg").write_bytes(b"\xff\xfe\x00")
    assert cli.main(["kut", str(tmp_path)]) == 2
    assert "it is no text" in capsys.readouterr().err


def test_the_tree_of_kvm_unit_tests(tmp_path: Path) -> None:
    (tmp_path / "x86").mkdir()
    (tmp_path / "x86" / "unittests.cfg").write_text("[a]\nfile = a.flat\n")
    assert find_cfg(tmp_path) == tmp_path / "x86" / "unittests.cfg"


# What is decided before


def test_somebody_elses_file_for_the_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x86").mkdir()
    (tmp_path / "x86/one.flat").write_bytes(b"")
    (tmp_path / "mine.cfg").write_text("[one]\nfile = one.flat\n")
    for folder in (tmp_path, tmp_path / "x86"):
        assert cli.main(["kut", str(folder), "--cfg", str(tmp_path / "mine.cfg"), "--list"]) == 0
        assert "there is no image" not in capsys.readouterr().out


def test_names_may_stand_behind_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["kut", str(FOLDER), "--timeout", "5", "passes", "--list", "fails"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["passes", "fails"]


def test_conditions_and_obstacles() -> None:
    found = {name: test.ended and (test.ended.state, test.ended.reason) for name, test in chosen().items()}
    assert found["for_i386"] == (State.SKIP, "for i386 only")
    assert found["for_tcg"] == (State.SKIP, "for tcg only")
    assert found["by_hand"] == (State.SKIP, "in group nodefault: name it, or its group, to run it")
    assert found["needs_a_file"] == (State.SKIP, "/proc/no/such/file is not 1: No such file or directory")
    assert found["hyperv"] == (
        State.CANNOT,
        "-cpu hv_synic: pyvmm offers no Hyper-V enlightenments; "
        "-device hyperv-testdev: the testdev board has no such device",
    )
    assert found["passes"] == (State.CANNOT, f"there is no image {FOLDER / 'report.flat'}")


def test_a_check_that_holds_and_one_that_does_not(tmp_path: Path) -> None:
    (tmp_path / "yes").write_text("Y\n")
    (tmp_path / "a.flat").write_bytes(b"")
    cfg = tmp_path / "unittests.cfg"
    for value, state in (("Y", None), ("N", State.SKIP)):
        cfg.write_text(f"[a]\nfile = a.flat\ncheck = {tmp_path}/yes={value}\n")
        (entry,) = load(cfg)
        ended = prepare(entry, tmp_path).ended
        assert (ended and ended.state) == state


def test_named_runs_what_is_run_by_hand() -> None:
    ended = chosen("by_hand", named=True)["by_hand"].ended
    assert ended is not None
    assert ended.state is State.CANNOT  # only its image is missing


def test_images_of_a_32_bit_build() -> None:
    found = chosen("for_i386", "devices", arch="i386")
    assert [test.ended and test.ended.state for test in found.values()] == [State.SKIP, State.CANNOT]
    assert found["devices"].ended is not None
    assert found["devices"].ended.reason == "for x86_64 only"


def test_times() -> None:
    assert chosen("hangs")["hangs"].timeout == 1
    assert chosen("passes")["passes"].timeout == 90
    assert chosen("hangs", limit=5.0)["hangs"].timeout == 5


@pytest.mark.parametrize(
    ("line", "reason"), [("extra_params = -append `id`", "the command 'id'"), ("smp = $((2))", "is the shell's to do")]
)
def test_what_only_a_shell_can_do(line: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "unittests.cfg").write_text(f"[a]\nfile = a.flat\n{line}\n")
    (entry,) = load(find_cfg(tmp_path))
    ended = prepare(entry, tmp_path).ended
    assert ended is not None
    assert ended.state is State.CANNOT
    assert reason in ended.reason


def test_max_smp(tmp_path: Path) -> None:
    (tmp_path / "unittests.cfg").write_text("[a]\nfile = a.flat\nsmp = $MAX_SMP\n")
    (entry,) = load(find_cfg(tmp_path))
    assert prepare(entry, tmp_path).settings.cpus >= 1


def smp(value: str, tmp_path: Path) -> Test:
    (tmp_path / "unittests.cfg").write_text(f"[a]\nfile = a.flat\nsmp = {value}\nextra_params = -m 64\n")
    (tmp_path / "a.flat").write_bytes(b"")
    (entry,) = load(find_cfg(tmp_path))
    return prepare(entry, tmp_path)


def test_the_number_of_cpus_is_said_as_to_qemu(tmp_path: Path) -> None:
    found = smp("1,maxcpus=256", tmp_path)
    assert (found.settings.cpus, found.ended) == (1, None)
    line = command(found, "qemu")
    assert line[line.index("-smp") + 1] == "1,maxcpus=256"
    assert line.index("-smp") < line.index("-m")  # what the test's parameters say of it comes later, and wins


def test_no_number_of_cpus_is_of_that_test_alone(tmp_path: Path) -> None:
    ended = smp("many", tmp_path).ended
    assert ended is not None
    assert (str(ended.state), ended.reason) == ("cannot run", "-smp many: no number of CPUs")


def test_qemu_gets_the_words_as_they_are() -> None:
    test = chosen("passes")["passes"]
    line = command(test, "qemu")
    assert line[:2] == ["qemu", "-no-reboot"]  # a triple fault ends it
    assert line[line.index("-kernel") + 1] == str(FOLDER / "report.flat")
    assert line[-2:] == ["-append", 'pass "two words"']
    assert command(chosen("skips")["skips"])[-2:] == ["-append", "skip"]


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["kut", str(FOLDER), "--list"]) == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert len(lines) == len(load(find_cfg(FOLDER)))
    assert lines["for_i386"] == "skip: for i386 only"
    assert lines["passes"].startswith("cannot run: there is no image")


# A child that says nothing


@pytest.mark.parametrize(
    ("status", "out", "err", "reason"),
    [
        (-9, "", "", "its process ended with signal 9: it said nothing"),
        (1, "", "a\nTraceback\nb\nc\n", "its process ended with status 1: Traceback / b / c"),
        (0, '{"state": "odd"}', "", "its process ended with status 0: it said nothing"),
        (0, "[]", "", "its process ended with status 0: it said nothing"),
    ],
)
def test_a_child_that_says_nothing_is_an_error(status: int, out: str, err: str, reason: str) -> None:
    ended = answer(status, out, err)
    assert (ended.state, ended.reason) == (State.ERROR, reason)


def test_a_child_that_says_something() -> None:
    ended = Ended(State.FAIL, "why", 3, "console", 1.5, ["note"], ["place"])
    assert from_json(json.loads(json.dumps(ended.as_json()))) == ended
    assert answer(0, json.dumps(ended.as_json()), "") == ended


# Reports


def suite() -> Suite:
    """One of each verdict, by hand."""
    (test,) = chosen("passes").values()
    console = "PASS: a\nFAIL: b # c\nSKIP: d\nXFAIL: e\x1b[1m\nSUMMARY: 4 tests, 1 unexpected failures\n"
    found = {
        "good": Ended(State.PASS, "", 1, "PASS: a\nSUMMARY: 1 tests\n", 0.25),
        "bad": Ended(State.FAIL, "FAIL: b # c", 3, console, 2.0, ["a note"]),
        "not today": Ended(State.SKIP, "it says: d", 77),
        "not here": Ended(State.CANNOT, "no clwb | here"),
        "late": Ended(State.TIMEOUT, "not done", None, "x", 9.0, [], ["vCPU 0 at main"]),
        "dead": Ended(State.CRASH, "a triple fault"),
        "ours": Ended(State.ERROR, "status 1"),
    }
    made = Suite(FOLDER, tuple(_renamed(test, name) for name in [*found, "never ran"]))
    qemu = Ended(State.PASS, "", 1)
    made.done = [Done(_renamed(test, name), ended, qemu if name == "bad" else None) for name, ended in found.items()]
    made.elapsed = 12.0
    return made


def _renamed(test: Test, name: str) -> Test:
    from dataclasses import replace

    return replace(test, entry=replace(test.entry, name=name))


def test_counts_and_statuses() -> None:
    made = suite()
    assert made.counts == dict.fromkeys(("pass", "fail", "skip", "cannot run", "timeout", "crash", "error"), 1)
    assert made.missing == ["never ran"]
    assert made.exit_code == 99
    made.done = [each for each in made.done if each.ended.state is not State.ERROR]
    assert made.exit_code == 1
    for state in (State.FAIL, State.TIMEOUT, State.CRASH):
        assert Suite(FOLDER, (), [each for each in made.done if each.ended.state is state]).exit_code == 1
    made.done = [each for each in made.done if each.ended.state in (State.PASS, State.SKIP, State.CANNOT)]
    assert made.exit_code == 0
    made.done = made.done[1:]
    assert made.exit_code == 77
    made.interrupted = True
    assert made.exit_code == 130


def test_the_table() -> None:
    made = suite()
    columns = kut.widths(made.tests, qemu=True)
    rows = [kut.row(each, columns, Style(), qemu=True) for each in made.done]
    assert rows[0].split() == ["good", "pass", "-", "0.2", "s", "1", "tests"]
    assert rows[1].split()[:3] == ["bad", "fail", "pass"]
    assert list(kut.details(made.done[1], Style())) == ["    note  a note", "    FAIL  b # c"]
    assert kut.summary(made) == (
        "7 tests: 1 pass, 1 fail, 1 skip, 1 cannot run, 1 timeout, 1 crash, 1 error; 1 not run (12.0 s)"
    )
    assert kut.beside(made) == "of 1 run in both QEMU passes 1; pyvmm passes 0 of those, and 0 more"


def test_json(follows: Callable[[str, Any], Any]) -> None:
    found = follows("kut", json.dumps(kut.document(suite())))
    assert [each["verdict"] for each in found["tests"]][:3] == ["pass", "fail", "skip"]
    assert found["tests"][1]["qemu"]["verdict"] == "pass"
    assert found["tests"][1]["checks"][1] == {"kind": "FAIL", "text": "b # c"}
    assert (found["failed"], found["not_run"], found["exit_code"]) == (3, ["never ran"], 99)


def test_tap() -> None:
    points = [kut_tap.point(number, each) for number, each in enumerate(suite().done, 1)]
    assert points[0].startswith("    # Subtest: good\n    ok 1 - a\n    1..1\nok 1 - good\n  ---\n")
    assert "    not ok 2 - b \\# c\n    ok 3 - d # SKIP\n    not ok 4 - e\\\\x1b[1m # TODO\n" in points[1]
    assert "\nnot ok 2 - bad\n" in points[1]
    assert points[2] == "ok 3 - not today # SKIP it says: d\n"
    assert points[3] == "ok 4 - not here # SKIP no clwb | here\n"
    assert "not ok 5 - late" in points[4]
    assert '  where:\n    - "vCPU 0 at main"\n' in points[4]


def test_junit() -> None:
    root = ElementTree.fromstring(kut_junit.render(suite(), datetime(2026, 1, 2, tzinfo=UTC)))
    (box,) = root
    assert {name: box.get(name) for name in ("tests", "failures", "errors", "skipped", "time")} == {
        "tests": "8", "failures": "3", "errors": "2", "skipped": "2", "time": "12.000",
    }  # fmt: skip
    cases = {case.get("name"): case for case in box}
    assert cases["bad"].find("failure") is not None
    assert cases["ours"].find("error") is not None
    assert cases["never ran"].find("error") is not None
    assert cases["not here"].find("skipped") is not None
    assert "\\x1b" in (cases["bad"].findtext("system-out") or "")


def test_markdown() -> None:
    text = kut_markdown.render(suite())
    assert "| bad | *fail* | pass | 2.0 s | FAIL: b \\# c |" in text
    assert "| not here | *cannot run* | - |  | no clwb \\| here |" in text
    assert "of 1 run in both QEMU passes 1" in text


# The runner, with children that are no machines


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """What a child does instead of running a guest: `text` is its program."""

    def use(text: str) -> None:
        fake = tmp_path / "child"
        fake.write_text(f"#!{sys.executable}\n{text}")
        fake.chmod(0o755)
        monkeypatch.setattr("vmm.payload.kut.suite.sys.executable", str(fake))

    return use


def runnable(names: list[str], tmp_path: Path) -> Suite:
    (tmp_path / "a.flat").write_bytes(b"")
    cfg = tmp_path / "unittests.cfg"
    cfg.write_text("".join(f"[{name}]\nfile = a.flat\nextra_params = -append {name}\n" for name in names))
    return Suite(tmp_path, tuple(prepare(each, tmp_path) for each in load(cfg)))


PRINTS = """
import json, sys, time
asked = json.load(sys.stdin)
args = asked["settings"]["args"]
time.sleep(0.3 if args == "a" else 0)
found = {"state": "pass", "reason": "", "status": 1, "console": args, "seconds": 1.0, "notes": [], "where": []}
print(json.dumps(found))
"""


def test_the_order_is_the_files(children: Callable[[str], None], tmp_path: Path) -> None:
    children(PRINTS)
    made = runnable(["a", "b", "c"], tmp_path)
    assert [done.ended.console for done in Runner(made, jobs=3)] == ["a", "b", "c"]
    assert made.exit_code == 0


def test_a_child_that_dies_harms_no_other(children: Callable[[str], None], tmp_path: Path) -> None:
    children("import os, sys\nif 'bad' in sys.stdin.read(): os.kill(os.getpid(), 11)\n" + "raise SystemExit('x')")
    made = runnable(["bad", "b"], tmp_path)
    assert [done.ended.reason for done in Runner(made)] == [
        "its process ended with signal 11: it said nothing",
        "its process ended with status 1: x",
    ]
    assert made.exit_code == 99


def test_a_child_that_does_not_end_is_ended(
    children: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children("import time\ntime.sleep(60)\n")
    monkeypatch.setattr("vmm.payload.kut.suite.GRACE", 0.2)
    made = runnable(["a"], tmp_path)
    (entry,) = load(find_cfg(tmp_path))
    made.tests = (prepare(entry, tmp_path, limit=0.1),)
    (done,) = Runner(made)
    assert done.ended.state is State.ERROR
    assert "did not end" in done.ended.reason


def test_interrupted(children: Callable[[str], None], tmp_path: Path) -> None:
    children("import time\ntime.sleep(60)\n")
    made = runnable(["a", "b"], tmp_path)
    runner = Runner(made)

    def interrupt(_name: str) -> None:
        import _thread

        _thread.interrupt_main()

    runner.on_start = interrupt
    with pytest.raises(KeyboardInterrupt):
        list(runner)
    assert made.interrupted
    assert made.missing == ["a", "b"]
    assert made.exit_code == 130

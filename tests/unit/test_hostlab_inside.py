# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs inside a host of the lab, as far as it needs none: advice read, tables compared, checks counted."""

from __future__ import annotations

import ast
import errno
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.hostlab import parcel
from tools.hostlab.inside import action, host, repeat, sabotage, user
from vmm.errors import KvmCallError
from vmm.host import unusable
from vmm.host.node import Node
from vmm.host.surroundings import Setting
from vmm.host.sysfs import Backend, Nested
from vmm.host.unusable import Surroundings
from vmm.host.userfaultfd import Userfault


def advice(mode: str, group: str, *, udev: bool = True, name: str = "jo") -> tuple[str, ...]:
    node = Node("/dev/kvm", "character device", mode, "root", group, (10, 232), "no")
    here = Setting(
        "1.2", "x86_64", 2, Backend("unknown", ()), Nested(None, ""), None, (), {}, Userfault(False, ""), None
    )
    error = KvmCallError("open", errno.EACCES, "opening /dev/kvm")
    return unusable.hints(error, Surroundings(node, here, 232, name, udev))


def loaded(file: Path, seen: set[Path]) -> dict[str, Path]:
    """Modules that a test's file imports as it is loaded, and who: those of others, through those of the tests' own."""
    found: dict[str, Path] = {}
    seen.add(file)
    for each in ast.parse(file.read_text()).body:
        names = [each.module or ""] if isinstance(each, ast.ImportFrom) else []
        names += [f"{each.module}.{alias.name}" for alias in each.names] if isinstance(each, ast.ImportFrom) else []
        names += [alias.name for alias in each.names] if isinstance(each, ast.Import) else []
        for name in names:
            own = parcel.PROJECT / (name.replace(".", "/") + ".py")
            if not name.startswith("tests"):
                found[name.partition(".")[0]] = file
            elif own.is_file() and own not in seen:
                found |= loaded(own, seen)
    return found


def test_what_every_host_loads_is_in_a_host() -> None:
    seen: set[Path] = set()
    tests = Path(__file__).parents[1]
    meant = [each for each in sorted((tests / "kvm").glob("test_*.py")) if "every_host" in each.read_text()]
    wanted = {name: file for each in (tests / "conftest.py", *meant) for name, file in loaded(each, seen).items()}
    assert len(meant) > 20
    assert {"pytest", "hypothesis", "vmm"} <= wanted.keys()
    assert {name: str(file) for name, file in wanted.items() if name.replace("_", "-") in parcel.NOT_THERE} == {}


@pytest.mark.parametrize(
    ("hints", "first"),
    [
        (advice("crw-rw----", "kvm"), "sudo usermod -aG kvm jo"),
        (advice("crw-------", "root"), "sudo groupadd -f -r kvm && "),
        (advice("crw-------", "root", udev=False), "sudo setfacl -m u:jo:rw /dev/kvm"),
        (advice("crw-rw----", "kvm", name="4321"), "sudo setfacl -m u:4321:rw /dev/kvm"),
    ],
)
def test_each_advice_has_a_command_that_a_shell_can_read(hints: tuple[str, ...], first: str) -> None:
    assert user.command_of(hints[0]).startswith(first)
    for hint in hints:
        done = subprocess.run(["sh", "-n", "-c", user.command_of(hint)], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


def test_the_rule_arrives_in_its_file_as_it_is_meant(tmp_path: Path) -> None:
    """The line is run with a sudo that only writes: the quotes must survive the shell."""
    written = tmp_path / "rule"
    script = f'sudo() {{ case $1 in tee) cat >"{written}";; *) echo "$*";; esac; }}\n'
    done = subprocess.run(
        ["sh", "-c", script + user.command_of(advice("crw-------", "root")[0])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert written.read_text() == 'KERNEL=="kvm", GROUP="kvm", MODE="0660", OPTIONS+="static_node=kvm"\n'
    assert done.stdout.splitlines() == [
        "groupadd -f -r kvm",
        "usermod -aG kvm jo",
        "udevadm control --reload",
        "udevadm trigger --settle --name-match=kvm",
    ]


def test_an_advice_without_a_command_is_an_error() -> None:
    with pytest.raises(ValueError, match="no command in"):
        user.command_of("`newgrp kvm`, or log in again")


def row(name: str, verdict: str, reason: str = "", outcome: str = "pass") -> dict[str, Any]:
    return {"name": name, "verdict": verdict, "reason": reason, "summary": "", "outcome": outcome}


def table(*rows: dict[str, Any]) -> dict[str, Any]:
    return {
        "features": [each for each in rows if each["name"].isupper()],
        "topics": [r for r in rows if r["name"].islower()],
    }


@pytest.mark.parametrize(
    ("mine", "right"),
    [
        (row("A", "works"), None),
        (row("A", "unproven", "no userfaultfd: the system call: EPERM"), True),
        (row("A", "unproven", "it needs CAP_SYS_PTRACE"), True),
        (row("A", "unproven", "two CPUs are needed"), False),
        (row("A", "broken", "open: EPERM"), False),  # a permission is no fault of the feature's
        (row("A", "unproven", "EPERM", outcome="error"), False),
        (row("A", "absent", "EPERM"), False),
    ],
)
def test_what_a_user_has_worse_than_root(mine: dict[str, Any], right: bool | None) -> None:
    found = list(user.worse(table(row("A", "works"), row("b", "absent")), table(mine, row("b", "absent"))))
    assert [(name, ok) for name, ok, _ in found] == ([] if right is None else [("A", right)])


def test_a_row_that_is_not_there_is_worse() -> None:
    assert list(user.worse(table(row("A", "absent")), table())) == [("A", False, "not in the user's table")]


def test_checks_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = host.Seen()
    assert seen.tell(lambda: None, tmp_path / "none.json") == 1  # nothing was looked at
    assert seen.tell(lambda: seen("one", True, "x"), tmp_path / "one.json") == 0
    assert seen.tell(lambda: seen("two", False, "status 3: why"), tmp_path / "two.json") == 1
    assert json.loads((tmp_path / "two.json").read_text())["checks"][1] == {
        "what": "two",
        "ok": False,
        "seen": "status 3: why",
    }
    assert "NOT OK  two\n    seen: status 3: why\n1 of 2 as they should be\n" in capsys.readouterr().out


def test_what_was_seen_before_an_error_is_kept_and_the_error_is_seen(tmp_path: Path) -> None:
    seen = host.Seen()

    def story() -> None:
        seen("one", True, "x")
        raise RuntimeError("no udev")

    assert seen.tell(story, tmp_path / "x.json") == 1
    last = {"what": "it comes to its end", "ok": False, "seen": "RuntimeError: no udev"}
    assert json.loads((tmp_path / "x.json").read_text())["checks"] == [
        {"what": "one", "ok": True, "seen": "x"},
        last,
    ]


SUMMARY = """\
### KVM paravirtual features

| feature | bit | offered | verdict | evidence |
|---|---|---|---|---|
| NOP\\_IO\\_DELAY | 1 | yes | advertised | the bit |
| PV\\_EOI | 6 | yes | works | |

1 of 2 work
"""


def test_the_rows_of_a_summary() -> None:
    assert action.rows_of(SUMMARY) == ["NOP_IO_DELAY", "PV_EOI"]


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> dict[str, host.Done]:
    """What the steps of the next job end with; nothing is started, and no file changes its owner."""
    done: dict[str, host.Done] = {}
    monkeypatch.setattr(action.runner, "run", lambda *words, **options: done)
    monkeypatch.setattr(action.shutil, "chown", lambda *words: None)
    return done


def test_each_step_of_a_job_is_a_check_and_one_too_many_is_not_as_it_should_be(
    tmp_path: Path, ended: dict[str, host.Done]
) -> None:
    def bad() -> list[object]:
        seen = host.Seen()
        home = tmp_path / str(len(list(tmp_path.iterdir())))
        home.mkdir()
        action.Story(seen, home, tmp_path).job("x", {}, doctor=0, gate=1)
        return [check["what"] for check in seen.checks if not check["ok"]]

    ended["doctor"] = host.Done(0, "", "")
    assert bad() == ["x: gate ends with 1", "x: doctor, gate run, and nothing else"]
    ended["gate"] = host.Done(1, "", "")
    assert bad() == []
    ended["doctor"] = host.Done(77, "", "")
    assert bad() == ["x: doctor ends with 0"]
    ended["more"] = ended["doctor"]
    assert bad() == ["x: doctor ends with 0", "x: doctor, gate run, and nothing else"]


def test_a_step_of_the_action_starts_as_the_user_with_what_it_is_given_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def call_as(name: str, words: list[str], env: dict[str, str], cwd: Path) -> host.Done:
        started.append((name, words[0], env))
        if "PYVMM_REQUIRE_KVM" in env:
            (cwd / "output").write_text("usable=true\n", encoding="utf-8")
        return host.Done(0, "", "")

    monkeypatch.setattr(action.host, "call_as", call_as)
    monkeypatch.setattr(action.shutil, "chown", lambda *words: None)
    monkeypatch.setenv("PYVMM_REQUIRE_KVM", "1")
    (tmp_path / "whl").mkdir()
    job = action.Job(tmp_path, "x", tmp_path / "whl", {"features": "PV_EOI"}, ())
    assert list(job.done) == ["device", "install", "doctor", "probe"]
    assert {(name, word) for name, word, _ in started} == {("runner", "bash")}
    device, _, _, probe = (env for _, _, env in started)
    assert "PYVMM_REQUIRE_KVM" not in device
    assert (probe["FEATURES"], probe["PIP_NO_INDEX"]) == ("PV_EOI", "1")
    assert probe["PIP_FIND_LINKS"] == str(tmp_path / "whl")
    assert job.output == "usable=true"


@pytest.mark.parametrize("main", [user.main, lambda out: action.main(out, out)], ids=["user", "action"])
def test_it_does_nothing_on_any_other_machine(
    main: Callable[[Path], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*words: object, **options: object) -> None:
        raise AssertionError(f"called: {words}")

    monkeypatch.setattr(subprocess, "run", never)
    assert main(tmp_path) == 2
    assert not list(tmp_path.iterdir())


def document(**rows: str) -> dict[str, Any]:
    told = [{"name": name, "verdict": verdict, "reason": "", "summary": "seen"} for name, verdict in rows.items()]
    return {"features": told[:1], "topics": told[1:], "elapsed_s": 2.0}


def test_a_table_that_says_something_else_is_named_row_by_row(tmp_path: Path) -> None:
    tables = iter([document(A="works", B="works"), document(A="works", B="broken"), document(A="works")])
    seen = host.Seen()
    file = tmp_path / repeat.FILE
    repeat.look(seen, file, lambda: next(tables), times=3)
    assert json.loads(file.read_text())["checks"] == seen.checks
    assert [check["ok"] for check in seen.checks] == [True, False, False]
    assert seen.checks[1]["seen"] == "B: first works, 0 deviations, now broken, 0 deviations: seen"
    assert "B: first works, 0 deviations, now no row" in str(seen.checks[2]["seen"])


def test_a_deviation_that_comes_and_goes_is_a_difference(tmp_path: Path) -> None:
    first, then = document(A="works"), document(A="works")
    then["features"][0]["deviations"] = [{"what": "x"}]
    seen = host.Seen()
    tables = iter([first, then])
    repeat.look(seen, tmp_path / repeat.FILE, lambda: next(tables), times=2)
    assert [check["ok"] for check in seen.checks] == [True, False]


def test_a_table_that_does_not_come_is_said_and_the_rest_is_kept(tmp_path: Path) -> None:
    def ask() -> dict[str, Any]:
        if len(seen.checks) == 0:
            raise ValueError("status 99, no document: no /dev/kvm")
        return document(A="works")

    seen = host.Seen()
    repeat.look(seen, tmp_path / repeat.FILE, ask, times=2)
    assert [(check["ok"], check["seen"]) for check in seen.checks] == [
        (False, "status 99, no document: no /dev/kvm"),
        (True, "1 rows in 2 s"),
    ]


REPORT = """<testsuites><testsuite>
<testcase classname="tests.kvm.test_pv_x" name="test_good"/>
<testcase classname="tests.kvm.test_pv_x" name="test_bad"><failure message="assert works&#10;more"/></testcase>
<testcase classname="tests.kvm.test_pv_x" name="test_error"><error message="no VM"/></testcase>
<testcase classname="tests.kvm.test_pv_x" name="test_skipped"><skipped message="no SVM"/></testcase>
</testsuite></testsuites>"""


def test_a_sabotage_that_nobody_notices_is_a_check_that_fails() -> None:
    seen = host.Seen()
    sabotage.look(seen, REPORT)
    assert [tuple(check.values()) for check in seen.checks] == [
        ("test_pv_x::test_good", True, "noticed"),
        ("test_pv_x::test_bad", False, "assert works"),
        ("test_pv_x::test_error", False, "no VM"),
    ]


def test_every_feature_whose_effect_is_proven_is_sabotaged_by_some_test() -> None:
    files = {Path(name).name for name in sabotage.marked()}
    pairs = {path.name for path in Path("tests/kvm").glob("test_pv_*.py")}
    assert pairs - files == {"test_pv_hints.py"}  # two bits that only announce something

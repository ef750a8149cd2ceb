# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin in a project of its own, which has pyvmm from the wheel: what a user writes and what he sees."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

if TYPE_CHECKING:
    from tests.kvm.conftest import Wheel

ROOT = Path(__file__).resolve().parents[2]

TESTS = '''
import pytest
from vmm.payload.outcome import Outcome

SOURCE = """
add:   lea rax, [rdi + rsi]
       ret
crash: mov al, '!'
       out 0xe9, al
       ud2
"""

def test_pass(machine):
    machine.load(SOURCE)
    assert machine.call("add", -1, 3) == 2

def test_crash(machine):
    machine.load(SOURCE)
    machine.call("crash")

def test_wrong(machine_factory):
    one, two = machine_factory(), machine_factory(memory="4M")
    for each in (one, two):
        each.load(SOURCE)
    assert one.call("add", 1, 1) == two.call("add", 1, 2)

def test_hook_that_raises(machine):
    machine.load("mov al, 7; out 0x80, al; hlt")
    machine.on_port_write(0x80, lambda value: 1 / 0)
    machine.run()

@pytest.mark.kvm(cpus=4096)
def test_cpus(): ...

@pytest.mark.kvm(features=["MMU_OP"])
def test_feature(machine): ...

@pytest.mark.kvm(caps=["PPC_SMT"], features=["STEAL_TIME"])
class TestOfClass:
    def test_cap(self): ...

@pytest.mark.kvm(features=["STEALTIME"])
def test_misspelt(): ...

@pytest.mark.kvm(feature=["STEAL_TIME"])
def test_unreadable(): ...

def test_shipped(run_payload):
    outcome = run_payload("cpuid")
    assert isinstance(outcome, Outcome) and outcome.outcome == "pass"

def test_proof(run_payload):
    assert run_payload("poll_control").outcome == "pass"

def test_own_file(run_payload):
    assert run_payload("own.asm", params={"n": 5}).results == {"twice": 10}

def test_own_file_fails(run_payload):
    assert run_payload("own.asm", params={"n": 0}).outcome == "pass"

def test_cannot_show(run_payload):
    run_payload("skips.asm")

def test_cannot_show_and_said(run_payload):
    assert run_payload("skips.asm", skip=False).outcome == "skip"

def test_without_a_guest(): ...
'''
OWN = """; summary: twice a number
; param: n = 1  the number
; result: twice u64  2 n
%include "results.inc"
%include "console.inc"
start:
    mov  rax, PARAM_n
    test rax, rax
    jz   none
    add  rax, rax
    RESULT twice
    PASS
none:
    mov  al, 'n'
    out  DEBUG_CONSOLE, al
    FAIL
"""
SKIPS = '; summary: cannot be shown\n%include "results.inc"\nstart: SKIP\n'
PASSED = {
    "test_pass",
    "test_shipped",
    "test_proof",
    "test_own_file",
    "test_cannot_show_and_said",
    "test_without_a_guest",
}
SKIPPED = {
    "test_cpus": "this test needs 4096 host CPUs, and",
    "test_feature": "this host's KVM does not offer MMU_OP, which this test needs",
    "test_cannot_show": "payload skips: the guest says that this host cannot show it",
}
FAILED = {"test_crash", "test_wrong", "test_hook_that_raises", "test_own_file_fails"}
ERRORS = {"test_misspelt": "did you mean STEAL_TIME", "test_unreadable": "a marker kvm that cannot be read"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "tests").mkdir()
    (folder / "tests/test_guests.py").write_text(TESTS, encoding="utf-8")
    (folder / "tests/own.asm").write_text(OWN, encoding="utf-8")
    (folder / "tests/skips.asm").write_text(SKIPS, encoding="utf-8")
    return folder


# A machine that has no time for an example fails none.
PATIENT = """
from hypothesis import settings
settings.register_profile("here", deadline=None)
settings.load_profile("here")
"""


def run_pytest(wheel: Wheel, folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    options = ("-rs", "--strict-markers", "-p", "no:cacheprovider", "--junitxml=out.xml")
    return wheel.run("python", "-m", "pytest", *options, *arguments, cwd=folder, **more)


def cases(folder: Path) -> dict[str, ElementTree.Element]:
    return {case.get("name", ""): case for case in ElementTree.parse(folder / "out.xml").iter("testcase")}


def properties(case: ElementTree.Element) -> dict[str, str]:
    return {each.get("name", ""): each.get("value", "") for each in case.iter("property")}


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_every_outcome(wheel: Wheel, project: Path, workers: tuple[str, ...]) -> None:
    done = run_pytest(wheel, project, *workers, PYVMM_REQUIRE_KVM="")
    assert done.returncode == 1, done.stdout + done.stderr
    found = cases(project)
    kinds = {
        name: next((child.tag for child in case if child.tag != "properties"), "passed")
        for name, case in found.items()
        if name != "test_cap"
    }
    expected = dict.fromkeys(PASSED, "passed") | dict.fromkeys(SKIPPED, "skipped")
    expected |= dict.fromkeys(FAILED, "failure") | dict.fromkeys(ERRORS, "error")
    assert kinds == expected, done.stdout
    for name, reason in SKIPPED.items():
        assert reason in done.stdout
        assert reason in (found[name].find("skipped").get("message") or "")
    for reason in ERRORS.values():
        assert reason in done.stdout
    # the report of a failure holds the guest's console, and how it ended
    text = done.stdout
    assert "crash did not return: the guest took an exception that it had no handler for" in text
    assert re.search(r"-+ guest: console -+\n!\n", text)
    assert re.search(r"-+ guest: post-mortem -+\n.*\n +exception  #UD", text)
    assert re.search(r"-> .* ud2\n", text)
    assert "guest 1: end" in text
    assert "guest 2: end" in text
    assert re.search(r"-+ guest own: console -+\nn\n", text)
    assert "vmm/machine/run/call.py" not in text, "the traceback ends in the test's own line"
    # and the JUnit file verdicts, evidence, console and post-mortem
    assert properties(found["test_proof"])["pyvmm.poll_control.POLL_CONTROL"].startswith("works")
    assert properties(found["test_own_file"]) == {
        "pyvmm.own.outcome": "pass", "pyvmm.own.reason": "", "pyvmm.own.twice": "10",
    }  # fmt: skip
    assert properties(found["test_crash"])["pyvmm.guest.console"] == "!"
    assert "#UD" in properties(found["test_crash"])["pyvmm.guest.post-mortem"]
    assert properties(found["test_pass"]) == {}


def test_where_kvm_is_required_a_skip_is_an_error(wheel: Wheel, project: Path) -> None:
    done = run_pytest(wheel, project, "-k", "test_cpus or test_pass", PYVMM_REQUIRE_KVM="1")
    assert done.returncode == 1
    assert "1 passed" in done.stdout
    assert "PYVMM_REQUIRE_KVM=1, and: this test needs 4096 host CPUs" in done.stdout


def test_a_project_with_fixtures_of_these_names_is_left_alone(wheel: Wheel, tmp_path: Path) -> None:
    """The plugin comes with every installed pyvmm; it opens no device for tests that have nothing to do with it."""
    (tmp_path / "test_own.py").write_text(
        "import sys, pytest\n@pytest.fixture\ndef machine():\n    return 'mill'\n"
        "def test_mill(machine):\n    assert machine == 'mill'\n    assert 'vmm.kvm' not in sys.modules\n"
        "    assert 'vmm.errors' not in sys.modules\n",
        encoding="utf-8",
    )
    done = run_pytest(wheel, tmp_path, PYVMM_REQUIRE_KVM="1")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", ["docs/testing.md", "README.md"])
def test_what_the_documentation_shows(wheel: Wheel, tmp_path: Path, page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    examples = [code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "def test_" in code]
    if not examples and page == "README.md":
        pytest.skip("README.md shows no test")
    for number, code in enumerate(examples):
        (tmp_path / f"test_{number}.py").write_text(code, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(PATIENT, encoding="utf-8")
    done = run_pytest(wheel, tmp_path)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def test_an_error_of_the_caller_is_shown_at_his_line_alone(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "def helper(machine):\n    machine.load('mov eax, nobody')\n"
        "def test_text(machine):\n    helper(machine)\n"
        "def test_inside(machine):\n    machine.on_port_write(0x80, lambda value: 1 / 0)\n"
        "    machine.load('out 0x80, al; hlt')\n    machine.run()\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    text, inside = done.stdout.split("test_inside", 1)
    assert "unknown symbol 'nobody'" in text
    assert "machine.load('mov eax, nobody')" in text
    assert "vmm/asm" not in text
    assert len(text.splitlines()) < 40
    assert "ZeroDivisionError" in inside

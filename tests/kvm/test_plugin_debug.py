# SPDX-License-Identifier: GPL-2.0-or-later
"""`--pyvmm-debug`: a failed test leaves its machines open at a prompt, in a terminal and through a pipe."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = '''
import vmm

SOURCE = """
add:   lea rax, [rdi + rsi]
       ret
crash: mov eax, 42
       ud2
spin:  jmp spin
value: .quad 0x1122334455667788
"""

def test_crash(machine):
    print("what the test said")
    machine.load(SOURCE)
    assert machine.call("add", 1, 2) == 3
    machine.call("crash")

def test_passes(machine):
    machine.load("hlt")
    machine.run()

def test_without_a_machine():
    assert False

def test_never_ran(machine):
    machine.load(SOURCE)
    assert machine.program is None

def test_never_loaded(machine):
    assert machine.program is not None

def test_closed():
    with vmm.Machine() as m:
        m.load("hlt")
        m.run()
    assert not m

def test_two(machine_factory):
    one, two = machine_factory(), machine_factory()
    for each in (one, two):
        each.load(SOURCE)
    assert one.call("add", 1, 1) == two.call("add", 1, 2)

def test_own():
    m = vmm.Machine()
    m.load("again: mov al, 7; out 0x80, al; jmp again")
    m.on_port_write(0x80, lambda value: 1 / 0)
    m.run()

def test_payload(run_payload):
    assert run_payload("hello").outcome == "fail"
'''
ASKED = {
    "test_crash": (
        "print rax", "mem value 8", "mem nobody", "list", "set rax 7", "!print('python', m.regs.rax, machine is m)",
        "call add 40 2", "break add+4", "c", "print rax", "s", "back", "restart", "step x", "frobnicate", "help mem",
        "set rip crash", "s", "s", "c", "postmortem", "next",
    ),
    "test_never_ran": ("step", "registers", ""),
    "test_never_loaded": ("step", ""),
    "test_two": ("machine 1", "print rax", "machine 3", ""),
    "test_own": ("s", "s", "continue", ""),
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "test_it.py").write_text(TESTS, encoding="utf-8")
    return tmp_path


def command(*more: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--pyvmm-debug", *more, "test_it.py"]


def by_test(said: str) -> dict[str, str]:
    """What was said at each test's prompt."""
    parts = re.split(r"^test_it\.py::(\w+): ", said.partition("= FAILURES =")[0], flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_what_the_prompt_can_for_machines_in_every_state(project: Path) -> None:
    lines = [each or "next" for asked in ASKED.values() for each in asked]
    done = subprocess.run(
        command(), input="\n".join(lines), cwd=project, capture_output=True, text=True, check=False, timeout=300
    )
    said = by_test(done.stdout)
    assert list(said) == [
        "test_crash", "test_never_ran", "test_never_loaded", "test_closed", "test_two", "test_own", "test_payload",
    ]  # fmt: skip
    assert "8 failed, 1 passed" in done.stdout, "the tests go on"
    assert "Traceback" not in done.stdout.partition("= FAILURES =")[0] + done.stderr
    crash = said["test_crash"]
    assert "#UD (invalid opcode) at crash+0x5, <text>:5  ud2" in crash.splitlines()[0]
    assert "what the test said" in crash
    assert "* vCPU 0: 0x2000a <crash+0x5> <text>:5  ud2" in crash, "not the handler that took it"
    answers = crash.split("(pyvmm) ")[1:]
    for number, expected in enumerate(
        (
            r"0x2a \(42\)", "88 77 66 55 44 33 22 11", "no label is called 'nobody'", r"-> +5  ud2", r"0x7 \(7\)",
            "python 7 True", "<add>", "breakpoint 1 at add", r"breakpoint 1 at add\+4; at 0x20004", r"0x2a \(42\)",
            "a step; at 0x7fff0", r"#2 vCPU 0: breakpoint 1", "<add>", "`help step` says",
            "no command is called 'frobnicate'",
            "mem WHERE", "crash", r"rax 0x\w+ -> 0x2a", r"own gate of #UD \(invalid opcode\)",
            "no handler for; at 0x2000a <crash.*ud2", r"exception  #UD \(invalid opcode\)",
        )
    ):  # fmt: skip
        assert re.search(expected, answers[number]), (ASKED["test_crash"][number], answers[number])
    assert "a step; at 0x20004 <add+0x4>" in said["test_never_ran"]
    assert "run() before load()" in said["test_never_loaded"]
    assert "was closed before the test failed" in said["test_closed"]
    assert "(pyvmm)" not in said["test_closed"] + said["test_payload"]
    assert "* machine 1: the guest wrote 0x2" in said["test_two"]
    assert "0x2 (2)" in said["test_two"]
    assert "there are 1 to 2" in said["test_two"]
    assert "a callback raised ZeroDivisionError" in said["test_own"]
    assert "`pyvmm debug hello` opens another" in said["test_payload"]


def test_in_the_workers_of_xdist_it_is_refused(project: Path) -> None:
    done = subprocess.run(
        command("-n", "1"), stdin=subprocess.DEVNULL, cwd=project, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.strip() == (
        "ERROR: --pyvmm-debug needs a terminal, and the workers of pytest-xdist have none; run it with -n 0"
    )


class Terminal:
    """A person's: what is typed, and what has been seen so far."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            arguments, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, start_new_session=True,
            env={**os.environ, "TERM": "dumb"},
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""

    def until(self, text: str) -> str:
        """What came up to this text, which is then behind us."""
        deadline = time.monotonic() + 240
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen[-2000:]
            if select.select([self.ours], [], [], 1)[0]:
                try:
                    self.seen += os.read(self.ours, 65536).decode(errors="replace")
                except OSError:
                    break
        before, found, self.seen = self.seen.partition(text)
        assert found, before[-2000:]
        return before

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def close(self) -> int:
        """Reads on until it has ended: who writes to a terminal that is gone fails."""
        deadline = time.monotonic() + 60
        try:
            while self.process.poll() is None and time.monotonic() < deadline:
                if select.select([self.ours], [], [], 0.2)[0]:
                    try:
                        os.read(self.ours, 65536)
                    except OSError:
                        break
            return self.process.wait(60)
        finally:
            os.close(self.ours)
            self.process.kill()


@pytest.mark.parametrize("captures", [(), ("-s",)], ids=["captured", "not captured"])
def test_in_a_terminal(project: Path, captures: tuple[str, ...]) -> None:
    """As a person has it: a guest that spins is stopped by ^C, a line is repeated by Enter, and q ends the tests."""
    terminal = Terminal(command(*captures), project)
    try:
        terminal.until("(pyvmm) ")
        terminal.type("call spin\n")
        terminal.until("<spin>")
        terminal.until("(pyvmm) ")
        terminal.type("continue\n")
        terminal.until("^C stops it")  # from here on ^C means the guest
        os.kill(terminal.process.pid, signal.SIGINT)
        terminal.until("interrupted; at")
        assert "<spin>" in terminal.until("(pyvmm) ")
        terminal.type("restart\n")
        terminal.until("(pyvmm) ")
        terminal.type("step\n")
        terminal.until("<add+0x4>")
        terminal.until("(pyvmm) ")
        terminal.type("\n")
        terminal.until("a step")
        terminal.until("(pyvmm) ")
        terminal.type("\x04")
        terminal.until("test_never_ran")
        terminal.until("(pyvmm) ")
        terminal.type("q\n")
        terminal.until("ended at the prompt of --pyvmm-debug")
    finally:
        assert terminal.close() == pytest.ExitCode.INTERRUPTED

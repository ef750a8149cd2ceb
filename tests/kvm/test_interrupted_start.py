# SPDX-License-Identifier: GPL-2.0-or-later
"""^C while the command `pyvmm` starts, or ends: one line and status 130, wherever it strikes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vmm.cli import wrong
from vmm.errors import EXIT_INTERRUPTED

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 100
LINE = "pyvmm: interrupted\n"

# Each child begins the command as its script does, and gets SIGINT at the n-th import from there on. What it says and
# how it ends is printed; the parent has imported nothing of pyvmm but what the script has.
AT_IMPORTS = """
import json, os, signal, sys
from vmm.cli import command
signal.signal(signal.SIGINT, signal.default_int_handler)
every, *arguments = sys.argv[1:]
found, n = [], 0
while True:
    n += int(every)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        left = [n]
        def hook(event, _about):
            if event == "import":
                left[0] -= 1
                if left[0] == 0:
                    os.write(writing, b"struck ")
                    os.kill(os.getpid(), signal.SIGINT)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(writing, 2)
        sys.argv = ["pyvmm", *arguments]
        sys.addaudithook(hook)
        command()
    os.close(writing)
    with open(reading) as said:
        text = said.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not text.startswith("struck "):
        break
    found.append([status, text[len("struck "):]])
print(json.dumps(found))
"""

# The command with work of its own: sys.argv[1] is what it does there.
WITH_WORK = """
import signal, sys, time, weakref
from vmm import cli

class Thing:
    pass

def work(arguments, out):
    cli._at_ctrl_c(signal.default_int_handler)
    exec(where, globals())
    return 0

where = sys.argv.pop(1)
cli._parsed = work
cli.command()
"""


@pytest.mark.parametrize(
    ("every", "least", "arguments"), [(7, 9, ["list"]), (8, 8, ["run", "hlt"]), (130, 2, ["debug", "hello"])]
)
def test_at_any_import_of_a_start(every: int, least: int, arguments: list[str]) -> None:
    if arguments[0] == "debug":
        pytest.importorskip("textual", reason="textual is not installed: pip install 'pyvmm[debug]'")
    else:  # what it assembles is kept: capstone has an import that takes ^C for a missing module
        subprocess.run(
            [sys.executable, "-m", "vmm", *arguments], cwd=ROOT, check=True, capture_output=True, timeout=LIMIT
        )
    done = subprocess.run(
        [sys.executable, "-c", AT_IMPORTS, str(every), *arguments], cwd=ROOT, capture_output=True, text=True,
        check=True, timeout=LIMIT,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert len(found) >= least, found
    assert found == [[EXIT_INTERRUPTED, LINE]] * len(found)


def _with_work(work: str, *, before: str = "signal.signal(signal.SIGINT, signal.default_int_handler)") -> list[object]:
    code = WITH_WORK.replace("where = ", f"{before}\nwhere = ", 1)
    done = subprocess.run(
        [sys.executable, "-c", code, work], cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT
    )
    return [done.returncode, done.stderr]


def test_in_a_callback_where_python_would_forget_it() -> None:
    work = """
thing = Thing()
seen = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
del thing
time.sleep(5)
"""
    assert _with_work(work) == [EXIT_INTERRUPTED, LINE]
    status, said = _with_work("seen = Thing()\nsee = weakref.ref(seen, lambda _: 1 / 0)\ndel seen")
    assert status == 0
    assert "ZeroDivisionError" in str(said)


def test_while_a_class_names_its_members() -> None:
    work = """
class Member:
    def __set_name__(self, owner, name):
        signal.raise_signal(signal.SIGINT)

class Owner:
    member = Member()
"""
    assert _with_work(work) == [EXIT_INTERRUPTED, LINE]


def test_when_all_is_done() -> None:
    work = "cli._awaited = lambda: signal.raise_signal(signal.SIGINT)"
    assert _with_work(work) == [EXIT_INTERRUPTED, LINE]
    assert _with_work(f"sys.stderr = None\n{work}") == [EXIT_INTERRUPTED, ""]


def test_who_starts_it_without_it_keeps_it_so() -> None:
    work = "signal.raise_signal(signal.SIGINT)"
    assert _with_work(work) == [EXIT_INTERRUPTED, LINE]
    assert _with_work(work, before="signal.signal(signal.SIGINT, signal.SIG_IGN)") == [0, ""]


def test_an_error_of_another_cause_is_none_of_the_users(capsys: pytest.CaptureFixture[str]) -> None:
    error = RuntimeError("naming")
    assert wrong.told(error) is None
    error.__cause__ = KeyboardInterrupt()
    assert wrong.told(error) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == LINE

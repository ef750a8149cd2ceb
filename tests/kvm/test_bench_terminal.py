# SPDX-License-Identifier: GPL-2.0-or-later
"""The progress bar of `pyvmm bench`, as a person sees it: a screen of letters is kept from what a terminal is sent."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from vmm import cli
from vmm.bench import table

ROOT = Path(__file__).resolve().parents[2]
ROWS = ("pio_out_c", "rdmsr", "page_fault")
PATIENCE = 60
BLOCKS = re.compile("[━╸╺]")
SEQUENCE = re.compile(r"\x1b\[(\??)(\d*)(?:;\d+)*([A-Za-z])|\r|\n|[^\x1b\r\n]")


class Screen:
    """What a terminal of `columns` shows; it scrolls without end. `cursor`: whether it is to be seen."""

    def __init__(self, columns: int) -> None:
        self.lines, self.columns, self.cursor = [""], columns, True
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        for match in SEQUENCE.finditer(text):
            private, count, order = match[1], match[2], match[3]
            if order is None:
                self._put(match[0])
            elif private:
                assert (count, order) in (("25", "l"), ("25", "h")), match[0]
                self.cursor = order == "h"
            elif order == "A":
                self._row -= int(count or 1)
            elif order == "K":
                assert count == "2", match[0]
                self.lines[self._row] = ""
            else:
                assert order == "m" or count, match[0]

    def _put(self, what: str) -> None:
        if what == "\r":
            self._column = 0
            return
        if what == "\n" or self._column == self.columns:
            self._row += 1
            self._column = self._column if what == "\n" else 0
            if self._row == len(self.lines):
                self.lines.append("")
        if what != "\n":
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + what + line[self._column + 1 :]
            self._column += 1


@contextlib.contextmanager
def bench(*words: str, columns: int = 100, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], Callable]]:
    """`pyvmm bench` on a terminal, and a function that gives what it writes next; empty at the end."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    dropped = ("NO_COLOR", "COLUMNS", "FORCE_COLOR", "COV")  # coverage and ^C: see tests/conftest.py, uncovered
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    command = [sys.executable, "-m", "vmm", "bench", "--quick", *words]
    process = subprocess.Popen(
        command, stdin=there, stdout=there, stderr=there, env=kept | {"TERM": "xterm"} | environment
    )
    os.close(there)

    decode = codecs.getincrementaldecoder("utf-8")().decode  # a read may end inside a character

    def read() -> str:
        text = ""
        with contextlib.suppress(OSError):  # EIO: the last writer has gone
            while not text and (data := os.read(here, 4096)):
                text = decode(data)
        return text

    try:
        yield process, read
    finally:
        process.kill()
        process.wait(PATIENCE)
        os.close(here)


def seen(*words: str, columns: int = 100, **environment: str) -> tuple[Screen, str]:
    """The screen at the end, and all that was written."""
    screen, text = Screen(columns), ""
    with bench(*words, columns=columns, **environment) as (process, read):
        while more := read():
            text += more
        assert process.wait(PATIENCE) == 0, text
    screen.feed(text)
    return screen, text


@pytest.mark.parametrize("columns", [100, 70])
def test_a_terminal_has_a_bar_that_goes(columns: int) -> None:
    screen, text = seen(*ROWS, columns=columns)
    for done, name in enumerate(ROWS):
        assert re.search(rf"{done}/3\b.*?\b{name}:", re.sub(r"\x1b\[[0-9;]*m", "", text)), name
    assert BLOCKS.search(text)
    shown = "\n".join(screen.lines)
    assert not BLOCKS.search(shown)
    assert not re.search(r"\d/3\b", shown)
    assert screen.cursor
    for name in ROWS:
        assert len([line for line in screen.lines if line.startswith(name)]) == 1
    assert "goals met" in shown
    assert "\n\nGoals; the floor is" in shown  # the line before is the host's


def test_the_rows_that_stay_are_those_of_a_pipe() -> None:
    """Nothing of the bar is left between the lines, and it eats none of them."""
    done = subprocess.run(
        [sys.executable, "-m", "vmm", "bench", "--quick", *ROWS], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0
    assert not BLOCKS.search(done.stdout + done.stderr)
    assert "\x1b" not in done.stdout + done.stderr
    assert "0/3" not in done.stdout
    screen, _ = seen(*ROWS, columns=1000)

    def shape(lines: list[str]) -> list[str]:
        """The beginnings, without what a noisy machine adds."""
        begins = [re.sub(r"\d+", "#", " ".join(line.split()[:2])) for line in lines]
        return [begin for begin in begins if not begin.startswith("note:")]

    assert shape(screen.lines[:-1]) == shape(done.stdout.splitlines())


@pytest.mark.parametrize("how", [("--json",), ("--no-color",), ("NO_COLOR",), ("TERM",)])
def test_who_wants_no_bar_has_none(how: tuple[str]) -> None:
    words = how if how[0].startswith("-") else ()
    environment = {"NO_COLOR": "1"} if how[0] == "NO_COLOR" else {"TERM": "dumb"} if how[0] == "TERM" else {}
    _, text = seen("pio_out_c", *words, **environment)
    assert "\x1b" not in text
    assert not BLOCKS.search(text)
    if how[0] == "--json":
        assert json.loads(text)["rows"][0]["name"] == "pio_out_c"


def test_interrupted_the_bar_goes_too() -> None:
    screen, text = Screen(100), ""
    with bench("growth", "exits") as (process, read):
        while "1/" not in re.sub(r"\x1b\[[0-9;]*m", "", text):
            more = read()
            assert more, text
            text += more
        process.send_signal(signal.SIGINT)
        while more := read():
            text += more
        assert process.wait(PATIENCE) == 130
    screen.feed(text)
    assert screen.cursor
    assert not BLOCKS.search("\n".join(screen.lines))
    assert "pyvmm: interrupted" in screen.lines


@pytest.mark.parametrize("noisy", [True, False])
def test_a_machine_that_is_too_noisy_is_said_to_be(
    noisy: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(spec: table.Spec, budget: table.Budget) -> table.Row:
        return replace(spec.row, median=1000.0, mad=1.0, n=5, floor=990.0, ratio=1.01, error=0.0, noisy=noisy)

    monkeypatch.setattr(table, "measure", measure)
    assert cli.main(["bench", "--quick", *ROWS]) == 0
    shown = capsys.readouterr().out
    assert ("this machine is too noisy now: 3 of 3 rows scatter" in shown) == noisy
    assert cli.main(["bench", "--quick", "--json", *ROWS]) == 0
    said = json.loads(capsys.readouterr().out)["noise"]
    assert (said is not None) == noisy


def test_make_bench_takes_arguments() -> None:
    # As a person calls it: within `make test` it would know that, and tell of the folders it enters.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}

    def make(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )

    if not (ROOT / "Makefile").exists() or not shutil.which("make"):
        pytest.skip("no Makefile, or no make")
    arguments = "BENCH_ARGS=--quick pio_out_c"
    plan = make("--dry-run", "bench", arguments)
    assert plan.stdout.splitlines()[-1] == ".venv/bin/pyvmm bench --quick pio_out_c"
    if make("--question", "build", "bench/floor").returncode:
        return  # it would build first, which is no business of a test
    done = make("bench", arguments)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^pio_out_c +C core .* us ", done.stdout, re.M)

# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm debug` in a real terminal, which tmux plays: what is seen, and that the terminal is well at every end."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("textual", reason="textual is not installed: pip install 'pyvmm[debug]'")
pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed: tools/install-test-tools")

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0


class Terminal:
    """A terminal with a shell in it that says how what it ran has ended."""

    def __init__(self, folder: Path, size: tuple[int, int] = (80, 24)) -> None:
        self._tmux = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        width, height = size
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TMUX")}
        environment |= {"PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "PS1": "ready> ", "ENV": ""}
        subprocess.run(
            [*self._tmux, "new-session", "-d", "-x", str(width), "-y", str(height), "sh"], env=environment, check=True
        )

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)

    def type(self, text: str) -> None:
        subprocess.run([*self._tmux, "send-keys", "-l", text], check=True)

    def press(self, *keys: str) -> None:
        subprocess.run([*self._tmux, "send-keys", *keys], check=True)

    def click(self, column: int, row: int) -> None:
        """With the mouse's first button, as xterm tells of it (SGR 1006)."""
        for end in ("M", "m"):
            subprocess.run([*self._tmux, "send-keys", "-l", f"\x1b[<0;{column};{row}{end}"], check=True)

    def show(self, *options: str) -> str:
        done = subprocess.run([*self._tmux, "capture-pane", "-p", *options], check=True, capture_output=True, text=True)
        return done.stdout

    def until(self, holds: str | Callable[[str], bool]) -> str:
        end = time.monotonic() + PATIENCE
        while True:
            text = self.show()
            if holds(text) if callable(holds) else holds in text:
                return text
            assert time.monotonic() < end, f"waited for {holds!r}:\n{text}"
            time.sleep(0.1)

    def run(self, what: str, *, before: str = "") -> None:
        command = f"{shlex.quote(sys.executable)} -m vmm debug {what}; echo status=$?; stty -a | grep -o '[-]*icanon'"
        self.type(f"clear; {before}{command}\n")

    def ended(self, status: int) -> str:
        """It is gone with this status, and lines and echo are the shell's again."""
        text = self.until(f"status={status}")
        text = self.until(lambda shown: "\nicanon" in shown)
        self.type("echo still $((40+2))\n")
        self.until("still 42")
        return text


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_a_person_steps_breaks_looks_goes_back_and_leaves(terminal: Terminal) -> None:
    terminal.run("hello")
    terminal.until("►   9")
    terminal.press("s")
    terminal.until("►  10")
    terminal.type(":break print\r")
    terminal.until("breakpoint 1 at print")
    terminal.press("c")
    terminal.until("breakpoint 1: at print")
    terminal.press("2")
    assert "rsp>" in terminal.until("━━ stack")
    terminal.press("r")
    terminal.until("back at stop 2")
    terminal.press("q")
    assert "left by its debugger" in terminal.ended(0)


def test_a_click_toggles_a_breakpoint_and_a_word_of_the_footer_acts(terminal: Terminal) -> None:
    terminal.run("hello")
    rows = terminal.until(lambda shown: "call  print" in shown and "q quit" in shown).splitlines()
    row = next(n for n, each in enumerate(rows) if "call  print" in each)
    terminal.click(20, row + 1)
    terminal.until("●   10")
    terminal.click(rows[-1].index("cont") + 2, len(rows))
    terminal.until("●►  10")
    terminal.click(20, row + 1)  # what is shown has not moved
    terminal.until(lambda shown: "●" not in shown)
    terminal.press("q")
    terminal.ended(0)


def test_a_guest_that_never_ends_is_left_while_it_runs(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "endless.asm").write_text("start: jmp start\n", encoding="utf-8")
    terminal.run(str(tmp_path / "endless.asm"))
    terminal.until("►   1")
    terminal.press("c")
    terminal.until("running")
    terminal.press("C-c")
    terminal.until("interrupted: at start")
    terminal.press("c")
    terminal.until("running")
    terminal.press("q")
    terminal.ended(0)


def test_without_colour_every_mark_is_there(terminal: Terminal) -> None:
    terminal.run("hello", before="NO_COLOR=1 ")
    terminal.until("►   9")
    terminal.type("sb")
    terminal.until("●►  10")
    assert "*rip" in terminal.show()
    shown = terminal.show("-e")
    assert "\x1b[3" not in shown.replace("\x1b[39m", "")  # no colour of a foreground but the terminal's own
    terminal.press("q")
    terminal.ended(0)


@pytest.mark.parametrize(("name", "status"), [("TERM", 143), ("HUP", 129), ("INT", 130)])
def test_a_signal_ends_it_and_the_terminal_is_well(terminal: Terminal, name: str, status: int) -> None:
    terminal.run("hello")
    terminal.until("►   9")
    found = subprocess.run(["pgrep", "-f", "m vmm debug hello"], capture_output=True, text=True, check=True)
    pid = next(each for each in found.stdout.split() if _descends(int(each), terminal))
    os.kill(int(pid), signal.Signals[f"SIG{name}"])
    terminal.ended(status)


def _descends(pid: int, terminal: Terminal) -> bool:
    shell = subprocess.run(
        [*terminal._tmux, "display-message", "-p", "#{pane_pid}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    parent = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
    return parent == shell


def test_what_cannot_be_run_is_said_as_by_any_command(terminal: Terminal) -> None:
    terminal.run("no_such_payload")
    assert "no payload" in terminal.ended(2)


def test_a_payload_that_does_not_assemble_is_said_on_the_terminal(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "bad.asm").write_text("start: nonsense\n", encoding="utf-8")
    terminal.run(str(tmp_path / "bad.asm"))
    text = terminal.ended(2)
    assert "bad.asm:1" in text.replace("\n", "")  # the folder's name is long
    assert "Traceback" not in text


def test_without_a_terminal_one_line_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vmm", "debug", "hello"], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 2
    assert "terminal" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_without_textual_one_line_says_how_to_get_it() -> None:
    code = "import sys; sys.modules['textual'] = None; from vmm.cli import main; sys.exit(main(['debug', 'hello']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 99
    assert "needs textual" in done.stderr
    assert "pip install 'pyvmm[debug]'" in done.stderr
    assert "Traceback" not in done.stderr

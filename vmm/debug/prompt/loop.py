# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop of a prompt at machines that stand still: lines, errors, ^C, whose Session is meant. It knows no command.

What it shares with gdb's `monitor` is gdb/monitor.py's.
"""

from __future__ import annotations

import cmd
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from vmm.debug.gdb.monitor import Monitor
from vmm.debug.session import Session
from vmm.errors import VmmError
from vmm.machine.x86.registers import names as register_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType
    from typing import Any

    from vmm.debug.values import Stopped
    from vmm.machine.ends import Result
    from vmm.machine.machine import Machine

MOVES = ("step", "over", "line", "finish", "until", "continue")
SHORT = {
    "s": "step", "o": "over", "n": "line", "f": "finish", "u": "until", "c": "continue", "r": "back", "w": "where",
    "regs": "registers", "x": "mem", "l": "list", "p": "print", "b": "break", "d": "delete", "m": "machine",
    "pm": "postmortem", "q": "quit", "h": "help", "?": "help", "py": "python", "EOF": "next",
}  # fmt: skip


class Open(NamedTuple):
    """A machine that may be looked at, the result of its last run if that has ended, and its post-mortem as text."""

    machine: Machine
    result: Result | None = None
    ending: str = ""


class Loop(cmd.Cmd):
    """The loop. `quitting` says that no further test is to run."""

    prompt = "(pyvmm) "

    def __init__(self, opened: Sequence[Open], names: dict[str, Any]) -> None:
        """`names` are what Python sees at this prompt, beside `m`, `s` and `machines`."""
        super().__init__()
        self.opened, self.given = list(opened), names
        self.quitting = False
        self._sessions: dict[int, Session] = {}
        self._ours: list[Session] = []
        self._monitor = Monitor()
        self._choose(len(opened) - 1)

    def _choose(self, number: int) -> None:
        self.number = number
        machine, result, _ = self.opened[number]
        if number not in self._sessions:
            if isinstance(machine.holder, Session):
                self._sessions[number] = machine.holder  # the test's own, or that of a gdb server
                return
            made = self._sessions[number] = Session(machine)
            self._ours.append(made)
            made.keep_interrupts = True
            if result is not None:
                made.stand_at_end(result)

    @property
    def session(self) -> Session:
        """Of the machine that is looked at."""
        return self._sessions[self.number]

    def close(self) -> None:
        """The machines are as they were left, and belong to the test again."""
        for each in self._ours:
            each.close()

    # -- the loop

    def onecmd(self, line: str) -> bool:
        """One line; an error is said in one line, too, and ends nothing."""
        word, _, rest = line.strip().partition(" ")
        if line.lstrip().startswith("!"):
            word, rest = "python", line.lstrip()[1:]
        if word == "EOF":
            self.say("")
        try:
            return bool(super().onecmd(f"{SHORT.get(word, word)} {rest}".strip()))
        except VmmError as error:
            self.say(error.text + (f"; try: {error.hint}" if error.hint else ""))
        except (ValueError, IndexError) as error:
            self.say(f"{word}: {error}; `help {SHORT.get(word, word)}` says what it takes")
        except KeyboardInterrupt:
            self.say("interrupted")
        return False

    def default(self, line: str) -> None:
        """What this prompt does not know, gdb's `monitor` may."""
        self._monitor.serve(self.session, line, self.session.vcpu)
        for text in self._monitor.printed():
            self.say(text.rstrip("\n").replace("monitor command", "command").replace("`monitor help`", "`help`"))

    def cmdloop(self, intro: Any = None) -> None:
        """Until the next test is asked for, or none; ^C at the prompt is a new line."""
        while True:
            try:
                super().cmdloop(intro)
            except KeyboardInterrupt:
                self.say("")
                intro = ""
                continue
            return

    def say(self, text: str) -> None:
        """What a guest wrote is made safe to show."""
        shown = (each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text)
        self.stdout.write("".join(shown) + "\n")
        self.stdout.flush()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """^C stops the guest, and not the tests."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            self.session.interrupt()

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _went(self, run: Callable[[], Stopped], doing: str = "") -> None:
        try:
            with self._interruptible():
                if doing:
                    self.say(doing)
                stopped = run()
        except VmmError:
            raise
        except Exception as error:  # whatever a callback of the test's raises
            self.say(f"a callback raised {type(error).__name__}: {error}")
            self.default("where")
            return
        self.say(str(stopped))
        changed = [f"{name} {old:#x} -> {new:#x}" for name, (old, new) in stopped.changed.items() if name != "rip"]
        if changed:
            self.say("  " + ", ".join(changed))

    def emptyline(self) -> bool:
        """Once more, of what makes the guest go."""
        return self.onecmd(self.lastcmd) if self.lastcmd.partition(" ")[0] in MOVES else False

    def completedefault(self, text: str, *ignored: Any) -> list[str]:
        """Labels and registers."""
        return [each for each in (*self.session.symbols, *register_names()) if each.startswith(text)]

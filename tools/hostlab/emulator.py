# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of an emulator: its console followed line by line, limits, and an end by its process id.

The limits are of wall-clock time, which is not the host's own: until the host is up, for each step, for all of it,
and to power off after the end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import selectors
import time
import tty
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import tools
from .errors import HostFailed, Stopped

FAREWELL = 30.0
BOOT = 600.0  # seconds; an idle machine takes 15 (QEMU) or 30 (Bochs)
WHOLE = 5400.0
LAST = 25  # lines of the console that are shown
MARK = "hostlab:"
PANIC = re.compile(r"Kernel panic|hostlab: failed:")
BEGIN = re.compile(r"step ([\w-]+)")
END = re.compile(r"step [\w-]+ ended: status (\d+)")


@dataclass(frozen=True)
class Disks:
    """Images: the root file system, never written to, and the parcel, written to at its end."""

    root: Path
    parcel: Path
    results_at: int  # in MiB from the parcel's start


@dataclass(frozen=True)
class Limits:
    """In seconds of wall-clock time. `steps` has those of the steps that will run."""

    steps: Mapping[str, float] = field(default_factory=dict)
    boot: float = BOOT
    whole: float = WHOLE

    def times(self, patience: float) -> Limits:
        """All of them for a machine that is slower by this factor."""
        return Limits(
            {name: limit * patience for name, limit in self.steps.items()}, self.boot * patience, self.whole * patience
        )


class _Watch:
    """What the lines of the console mean: which limit counts now, and whether the end was said."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._begin = limits, time.monotonic()
        self.ended = False
        self._until("to come up", limits.boot)

    def _until(self, doing: str, limit: float) -> None:
        self._doing, self._limit, self._since = doing, limit, time.monotonic()

    def hear(self, line: str) -> str | None:
        """The lab's own part of a line, if it is one. Raises: HostFailed, on a panic."""
        if PANIC.search(line):
            raise HostFailed(line)
        if not line.startswith(MARK):
            return None
        said = line.removeprefix(MARK).strip()
        if said == "end":
            self.ended = True
            self._until("to power off", FAREWELL)
        elif found := BEGIN.fullmatch(said):
            self._until(f"for the step {found[1]}", self._limits.steps.get(found[1], self._limits.whole))
        elif END.fullmatch(said):
            took = time.monotonic() - self._since
            self._until("to go on", self._limits.boot)
            return f"{said}, {took:.0f} s"
        return said

    def check(self) -> bool:
        """Whether to go on waiting. Raises: HostFailed, when a limit is over; Stopped."""
        now = time.monotonic()
        if tools.stopping.is_set():
            raise Stopped
        if now - self._since > self._limit:
            if self.ended:
                return False  # the steps are done and the results are written; it need not power off
            raise HostFailed(f"it took more than {self._limit:g} s {self._doing}")
        if now - self._begin > self._limits.whole:
            raise HostFailed(f"it did not end within {self._limits.whole:g} s")
        return True


def run(
    words: Sequence[str],
    console: Path,
    *,
    limits: Limits,
    say: Callable[[str], object],
    began: Callable[[int], object] = lambda pid: None,
) -> float:
    """Start it, write its console into a file, hand each line that begins with "hostlab:" to `say`; seconds it took.
    `began` is told its process id, for who means to end it before.

    Raises:
        HostFailed: it did not come to its end in time, or its kernel panicked; with the console's last lines.
        Stopped: the lab is being ended.
    """
    begin, watch = time.monotonic(), _Watch(limits)
    master, slave = _terminal()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, master)
        file = stack.enter_context(console.open("wb", buffering=0))
        try:
            process = stack.enter_context(tools.started(words, output=slave, grace=3.0))
        finally:
            os.close(slave)  # the emulator has its own: when that is closed too, the console is
        began(process.pid)
        try:
            _follow(master, file.write, watch, say)
        except HostFailed as error:
            raise _failed(str(error), console) from error
        if not watch.ended:
            status = tools.waited(process, 10.0)
            raise _failed(f"the emulator ended early, with status {status}", console)
    return time.monotonic() - begin


def _terminal() -> tuple[int, int]:
    """A pseudo-terminal, (ours, the emulator's): what a program writes into a pipe may lie in its buffer for minutes,
    and Bochs's does; a terminal gets each line.
    """
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    return master, slave


def _follow(console: int, write: Callable[[bytes], object], watch: _Watch, say: Callable[[str], object]) -> None:
    """Until the console is closed or the watch says that it is enough."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(console, selectors.EVENT_READ)
        while watch.check():
            if not selector.select(timeout=0.2):
                continue
            try:
                data = os.read(console, 65536)
            except OSError as error:
                if error.errno != errno.EIO:  # nobody has the other end any more
                    raise
                return
            write(data)
            *lines, pending = (pending + data).split(b"\n")
            for raw in lines:
                if (said := watch.hear(raw.decode(errors="replace").strip())) is not None:
                    say(said)


def _failed(why: str, console: Path) -> HostFailed:
    said = console.read_bytes().decode(errors="replace").splitlines()[-LAST:]
    lines = "\n".join(f"    {line.rstrip()}" for line in said)
    return HostFailed(f"{why}; the console's last lines ({console}):\n{lines}")

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a failed test shows of its guests: consoles and post-mortems as titled text. It knows no test runner.

A machine that is watched remembers how its last run ended, so that it can be looked at after an assertion has failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from vmm.errors import GuestError
from vmm.machine.ends import Result
from vmm.machine.machine import Machine
from vmm.machine.run.call import call
from vmm.observe.postmortem import examine
from vmm.payload.outcome import Outcome
from vmm.report.style import Style, printable
from vmm.report.text import outcome_lines, postmortem_lines

MAX_CONSOLE = 64 << 10  # bytes of a console that anybody reads; the end of it tells most


class WatchedMachine(Machine):
    """A Machine that keeps the Result of its last run; None before the first, or if a hook's exception ended it."""

    last: Result | None = None

    def run(
        self, timeout: float | None = None, *, until: int | str | None = None, exit_limit: int | None = None
    ) -> Result:
        self.last = None
        self.last = super().run(timeout, until=until, exit_limit=exit_limit)
        return self.last

    def call(self, function: str | int, *args: int, timeout: float | None = None) -> int:
        """Call a function of the loaded program; RAX as it returned. See vmm.machine.run.call."""
        __tracebackhide__ = True  # pytest then points at the test's own line
        try:
            return call(self, function, *args, timeout=timeout)
        except GuestError as error:
            raise GuestError(str(error)) from None


def sections(guests: list[WatchedMachine | Outcome]) -> Iterator[tuple[str, str]]:
    """(title, text) of each guest: what it printed, and how it ended. Titles have a number where there are several."""
    for number, guest in enumerate(guests, 1):
        which = f" {number}" if len(guests) > 1 else ""
        if isinstance(guest, Outcome):
            console, title, lines = guest.console, "outcome", outcome_lines(guest, Style())
            which = f" {printable(guest.payload)}"
        else:
            console, (title, lines) = guest.sink.data, _ending(guest)
        if console:
            yield f"guest{which}: console", _text(console)
        if lines:
            yield f"guest{which}: {title}", "\n".join(lines)


def left_open(
    guests: list[WatchedMachine | Outcome], namespaces: list[dict[str, Any]]
) -> tuple[list[tuple[Machine, Result | None, str]], list[str]]:
    """(the machines that a failed test has left open, each with the result of its last run where that is known, and how
    it ended; a sentence of each that can not be looked at any more). Those in the test's variables count, too.
    """
    opened: list[tuple[Machine, Result | None, str]] = []
    gone = []
    found = [each for names in namespaces for each in names.values() if isinstance(each, Machine)]
    for guest in {id(each): each for each in (*guests, *found)}.values():
        if isinstance(guest, Outcome):
            name = printable(guest.payload)
            gone.append(f"the machine of payload {name} went with its run: `pyvmm debug {name}` opens another")
        elif guest.vm.closed:
            gone.append("a machine was closed before the test failed: one of the fixture `machine_factory` stays open")
        else:
            last = guest.last if isinstance(guest, WatchedMachine) else None
            console = [f"console: {_text(guest.sink.data)}"] if guest.sink.data else []
            ending = _ending(guest)[1] if isinstance(guest, WatchedMachine) else []
            opened.append((guest, last, "\n".join([*console, *ending])))
    return opened, gone


def _ending(machine: WatchedMachine) -> tuple[str, list[str]]:
    """The whole post-mortem of a guest that crashed or hung; of one that ended well, its registers and last exits."""
    if machine.vm.closed or machine.last is None:
        return "", []
    found, stop = examine(machine, machine.last), machine.last.stop
    if stop.crashed or stop.limited:
        return "post-mortem", postmortem_lines(found, Style())
    vcpus = tuple(replace(vcpu, code=(), walks=()) for vcpu in found.vcpus)
    _, *lines = postmortem_lines(replace(found, vcpus=vcpus), Style())
    return "end", [printable(stop.text), *lines]


def _text(console: bytes) -> str:
    cut = len(console) - MAX_CONSOLE
    shown = printable(console[-MAX_CONSOLE:].decode("utf-8", "replace"))
    return f"({cut} bytes before this are left out)\n{shown}" if cut > 0 else shown

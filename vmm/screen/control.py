# SPDX-License-Identifier: GPL-2.0-or-later
"""The thread that runs the guest, under a session, while the screen runs on the main one.

What is run (a payload with its host half, an image) begins its machine's runs itself; each is held by a Session, whose
front end this is: it does what the screen asks for, one thing after the other, and tells of each in a Frame.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from vmm.debug.session import Session
from vmm.debug.values import Stopped
from vmm.errors import VmmError
from vmm.machine.machine import Machine
from vmm.screen import actions
from vmm.screen.arrange import Arrangement, arrange
from vmm.screen.commands import Asked
from vmm.screen.desk import Desk
from vmm.screen.frame import Frame
from vmm.screen.lines import Click, Line, one_line
from vmm.screen.panes import lists
from vmm.screen.panes.memory import bytes_per_row
from vmm.screen.scene import Scene

Tell = Callable[[Frame | str, str, bool], object]
Job = Callable[[Desk], str]
PATIENCE = 5.0  # seconds that one who leaves waits for a host half


class Left(BaseException):
    """The screen is gone. It goes through whatever runs machines, and ends it."""


@dataclass
class Seen:
    """What can be seen of a guest that runs."""

    console: tuple[Line, ...]
    exits: tuple[Line, ...]


class Control:
    """`work(watch)` runs what is debugged and gives the lines of its outcome; it calls watch(machine, program) with
    each machine that it makes, before that runs. `describe_end` as of Desk.
    """

    def __init__(
        self,
        work: Callable[[Callable[[Machine, Any], None]], list[str]],
        name: str,
        describe_end: Callable[[Session, Stopped], list[str]],
    ) -> None:
        self._work, self._name, self._describe_end = work, name, describe_end
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._tell: Tell = lambda what, text, bad: None
        self._thread = threading.Thread(target=self._live, name="guest", daemon=True)
        self._arrangement = arrange(80, 24, "registers")
        self._desks: dict[int, Desk] = {}
        self._desk: Desk | None = None
        self._running: Session | None = None
        self._left = self._waiting = False
        self.outcome: list[str] = []
        """Once it is over: how."""
        self.error: BaseException | None = None
        """What it was over by, if that was an error."""

    # -- what the screen asks; none of it waits

    @property
    def running(self) -> bool:
        """The guest runs."""
        return self._running is not None

    @property
    def busy(self) -> bool:
        """Something that was asked for is not done, or not told."""
        return self._thread.is_alive() and (not self._waiting or not self._jobs.empty())

    def start(self, tell: Tell) -> None:
        """Begin."""
        self._tell = tell
        self._thread.start()

    def ask(self, asked: Asked) -> None:
        """Do it, when what is done now is done."""
        self._jobs.put(lambda desk: actions.act(desk, asked, lambda run: self._go(desk, run)))

    def here(self, what: str) -> None:
        """`break` or `until` where the cursor of the source pane is."""

        def job(desk: Desk) -> str:
            at = desk.cursor_at
            if what == "break":
                return actions.toggle(desk, at)
            stopped = self._go(desk, lambda: desk.session.until(at))
            desk.mark(stopped)
            return actions.said(stopped)

        self._jobs.put(job)

    def seen(self, arrangement: Arrangement) -> None:
        """The panes have these places."""
        self._arrangement = arrangement
        self._jobs.put(lambda desk: "")

    def look(self, pane: str, rows: int) -> None:
        """A pane is to show what is `rows` farther."""
        self._jobs.put(lambda desk: moved(desk, pane, rows))

    def clicked(self, pane: str, click: Click) -> None:
        """A line of a pane was chosen."""
        del pane
        self._jobs.put(lambda desk: actions.clicked(desk, click))

    def interrupt(self) -> None:
        """Stop the guest, if it runs."""
        session = self._running
        if session is not None:
            session.interrupt()

    def live(self) -> Seen | None:
        """While the guest runs: what comes from it."""
        desk = self._desk
        if desk is None:
            return None
        place = desk.arrangement.places.get("console")
        scene = Scene((), exits=desk.log.rows, console=desk.console.decode("utf-8", "replace"))
        return Seen(tuple(lists.console(scene, place.width - 1 if place else 79)), tuple(lists.exits(scene)))

    def leave(self, patience: float = PATIENCE) -> bool:
        """The screen is gone: end the guest. False: a host half has not ended in time; the process may all the same."""
        self._left = True
        self._jobs.put(None)
        self.interrupt()
        if self._thread.is_alive():
            self._thread.join(patience)
        return not self._thread.is_alive()

    # -- on the thread that runs the guest

    def _live(self) -> None:
        try:
            self.outcome = self._work(self.watch)
            self._tell("over", "it is over: " + (self.outcome[-1] if self.outcome else "done"), False)
        except Left:
            pass
        except BaseException as error:
            self.error = error
            said = one_line(error) if isinstance(error, VmmError) else f"{type(error).__name__}: {error}"
            self._tell("over", said, True)
        finally:
            for desk in self._desks.values():
                desk.session.close()

    def watch(self, machine: Machine, program: Any = None) -> None:
        """Hold the runs of a machine that was made."""
        session = Session(machine, program, front=self._attend)
        self._desks[id(session)] = Desk(session, self._name, self._describe_end, self._arrangement)

    def _attend(self, session: Session) -> None:
        """A run begins, all vCPUs stand still: do what is asked for until the run has ended, and the screen lets go."""
        desk = self._desks[id(session)]
        before, self._desk = self._desk, desk
        desk.go_on = False
        desk.begins()
        text, bad = "", False
        try:
            while not desk.go_on:
                if self._jobs.empty():
                    self._show(desk, text, bad)
                    text, bad = "", False
                self._waiting = self._jobs.empty()
                job = self._jobs.get()
                self._waiting = False
                if job is None or self._left:
                    raise Left
                try:
                    text, bad = job(desk) or text, False
                except VmmError as error:
                    text, bad = one_line(error), True
                if self._left:
                    raise Left
        finally:
            self._desk = before

    def _show(self, desk: Desk, text: str, bad: bool) -> None:
        desk.arrangement = self._arrangement
        try:
            frame = desk.frame()
        except VmmError as error:
            self._tell("said", one_line(error), True)
            return
        self._tell(frame, text, bad)

    def _go(self, desk: Desk, run: Callable[[], Stopped]) -> Stopped:
        """Run the guest; the screen may interrupt it meanwhile."""
        if self._left:
            raise Left
        self._running = desk.session
        self._tell("running", "", False)
        try:
            return run()
        finally:
            self._running = None


def moved(desk: Desk, pane: str, rows: int) -> str:
    """A pane that shows a part of something endless shows another."""
    view, place = desk.view, desk.arrangement.places.get(pane)
    width = place.width - 1 if place is not None else 79
    match pane:
        case "memory":
            view.memory_moved += rows * bytes_per_row(width)
        case "stack":
            view.stack_moved += rows * 8
        case _:
            desk.move_cursor(rows)
    return ""

# SPDX-License-Identifier: GPL-2.0-or-later
"""A person at the screen of `pyvmm debug`, by textual's pilot: types, clicks, waits until the guest stands still."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from textual import events
from textual.pilot import Pilot

from vmm.cli.debug import control_of
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.screen.app import DebugScreen
from vmm.screen.command_line import CommandLine
from vmm.screen.control import Control
from vmm.screen.widgets import PaneWidget

PATIENCE = 60.0  # seconds, on a loaded machine
STILL = ("stopped", "over")
CHARACTERS = {"space": " ", "colon": ":", "question_mark": "?", "enter": "\r", "tab": "\t", "backspace": "\x7f"}


class Person:
    """`text` is what is on the screen, row by row."""

    def __init__(self, app: DebugScreen, control: Control, pilot: Pilot[int]) -> None:
        self.app, self.control, self.pilot = app, control, pilot

    @property
    def rows(self) -> list[str]:
        strips = self.app.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip).rstrip() for strip in strips]

    @property
    def text(self) -> str:
        return "\n".join(self.rows)

    def pane(self, name: str) -> str:
        return "\n".join(each.text for each in self.app.query_one(f"#{name}", PaneWidget).lines)

    @property
    def title(self) -> str:
        return self.rows[0]

    @property
    def message(self) -> str:
        return self.rows[-2].strip()

    async def until(self, holds) -> None:
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, self.text
            await asyncio.sleep(0.01)

    async def still(self) -> None:
        """Everything that was asked for is done and shown."""
        for _ in range(2):
            await self.heard()
            await self.until(lambda: not self.control.busy and self.app.state in STILL)
        await self.heard()
        await self.pilot.pause(0.02)

    async def sees(self, text: str) -> None:
        """It is on the screen, or will be: what is drawn comes a little later than what is known."""
        await self.until(lambda: text in self.text)

    async def heard(self) -> None:
        """What was typed has come to where it is taken: the app, or the command line and then the app."""
        for target in (self.app, self.app.query_one(CommandLine), self.app):
            if self.app.is_running:
                came = asyncio.Event()
                target.call_later(came.set)
                await asyncio.wait_for(came.wait(), PATIENCE)

    def strike(self, *keys: str) -> None:
        """Keys, without waiting for anything. The pilot's own wait until the process is idle, which it never is while
        a guest runs.
        """
        for key in keys:
            character = CHARACTERS.get(key, key if len(key) == 1 else None)
            self.app.post_message(events.Key(key, character))

    async def press(self, *keys: str) -> None:
        self.strike(*keys)
        await self.still()

    async def type(self, line: str) -> None:
        """A line of the command line, key by key, and Enter."""
        await self.press(":", *line, "enter")

    async def click(self, text: str, *, within: str) -> None:
        """On the first row of a pane that has this text."""
        widget = self.app.query_one(f"#{within}", PaneWidget)
        await self.until(lambda: any(text in each.text for each in widget.lines))
        at = next(n for n, each in enumerate(widget.lines) if text in each.text)
        await self.pilot.click(widget, offset=(4, at - widget.first + 1))
        await self.still()


@contextlib.asynccontextmanager
async def at_the_screen(
    what: str | Path, size: tuple[int, int] = (80, 24), options: Options | None = None
) -> AsyncIterator[Person]:
    """The screen of this payload, stopped where its first run begins; at the end the guest is gone."""
    payload = find(str(what))
    control = control_of(payload, options or Options())
    app = DebugScreen(control, payload.name)
    try:
        async with app.run_test(size=size) as pilot:
            person = Person(app, control, pilot)
            await person.still()
            yield person
    finally:
        assert control.leave(PATIENCE), "the guest's thread has not ended"

# SPDX-License-Identifier: GPL-2.0-or-later
"""The line in which commands are typed: completion by Tab, what was typed before by the arrows. It knows no command."""

from __future__ import annotations

from collections.abc import Callable

from textual import events
from textual.suggester import Suggester
from textual.widgets import Input

MOST = 200  # lines that are remembered


class CommandLine(Input):
    """Hidden until it is opened. `choices` gives the whole lines that a begun one may become. `closed(text, back)` is
    called when it is hidden again: by Enter, with what was typed, or by Esc, with nothing; `back` had the focus before.
    `rest` gets the keys that were typed behind Enter, before anybody else could have them.

    All of that is done where a key is taken, and not by messages: what is typed fast, or pasted, comes in its order.
    """

    def __init__(
        self,
        choices: Callable[[str], list[str]],
        closed: Callable[[str, str], object],
        rest: Callable[[events.Key], object],
    ) -> None:
        super().__init__(id="command", suggester=_Suggests(choices), select_on_focus=False, compact=True)
        self._choices, self._closed_by, self._rest = choices, closed, rest
        self._said: list[str] = []
        self._at = 0
        self._offered: list[str] = []
        self._back = ""

    def open(self, text: str) -> None:
        """Show it, with a beginning."""
        focused = self.screen.focused
        self._back = (focused.id or "") if focused is not None and focused is not self else self._back
        self._at, self._offered = len(self._said), []
        self.value = f":{text}"
        self.cursor_position = len(self.value)
        self.display = True
        self.screen.set_focus(self)

    def _close(self, text: str) -> None:
        self.display = False
        self._closed_by(text, self._back)

    def _complete(self) -> None:
        """The first completion, and again the next."""
        begun = self.value.removeprefix(":")
        if self._offered and begun in self._offered:
            chosen = self._offered[(self._offered.index(begun) + 1) % len(self._offered)]
        else:
            self._offered = self._choices(begun)
            if not self._offered:
                return
            chosen = self._offered[0]
        self.value = f":{chosen}"
        self.cursor_position = len(self.value)

    def _typed(self) -> str:
        text = self.value.removeprefix(":").strip()
        if text and text not in self._said[-1:]:
            self._said = [*self._said[-MOST:], text]
        return text

    def on_key(self, event: events.Key) -> None:
        """Enter, Esc, Tab, and what was typed before; a line that is empty closes with Backspace, too."""
        if not self.display:
            self._rest(event)
        elif event.key == "enter":
            self._close(self._typed())
        elif event.key == "escape" or (event.key == "backspace" and self.value in (":", "")):
            self._close("")
        elif event.key == "tab":
            self._complete()
        elif event.key in ("up", "down"):
            self._at = max(0, min(self._at + (-1 if event.key == "up" else 1), len(self._said)))
            self.value = ":" + (self._said[self._at] if self._at < len(self._said) else "")
            self.cursor_position = len(self.value)
        else:
            return
        event.stop()
        event.prevent_default()


class _Suggests(Suggester):
    """Shows the first completion behind the cursor."""

    def __init__(self, choices: Callable[[str], list[str]]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._choices = choices

    async def get_suggestion(self, value: str) -> str | None:
        """The whole line."""
        begun = value.removeprefix(":")
        found = self._choices(begun) if begun.strip() else []
        return f":{found[0]}" if found else None

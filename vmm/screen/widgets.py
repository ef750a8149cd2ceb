# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of the screen as textual has them: a pane of lines, and a bar of words to click on. They know no guest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from vmm.screen.lines import Click, Line, Span
from vmm.screen.looks import Looks

WHEEL = 3  # rows of one turn of a mouse wheel


class PaneWidget(Widget, can_focus=True):
    """Lines under a title. What it is told by keys and mouse it says to whoever made it."""

    def __init__(
        self,
        name: str,
        looks: Looks,
        chosen: Callable[[str, Click], object] = lambda pane, click: None,
        walked: Callable[[str, int], object] = lambda pane, rows: None,
    ) -> None:
        """`chosen(pane, click)`: a line was clicked on, or Enter pressed at it; `walked(pane, rows)`: of something
        endless the part `rows` farther is to be shown. Calls and no messages: what comes next comes after them.
        """
        super().__init__(id=name)
        self.pane, self.looks, self.on_chosen, self.on_walked = name, looks, chosen, walked
        self.lines: tuple[Line, ...] = ()
        self.title_text, self.walks, self.stale = name, False, False
        self.first = 0
        self.last, self.follows = False, True  # its end is to be seen; nobody has scrolled away from it
        self.chosen: int | None = None

    def show(self, title: str, lines: Sequence[Line], *, walks: bool = False, last: bool = False) -> None:
        """Show these from now on; `last`: their end is to be seen, unless somebody has scrolled away from it."""
        self.title_text, self.lines, self.walks, self.last = title, tuple(lines), walks, last
        self._settle()

    def _settle(self) -> None:
        """What is seen first, of these lines in this size."""
        top = max(0, len(self.lines) - self._rows)
        self.first = top if self.last and self.follows else min(self.first, top)
        self.refresh()

    def on_resize(self) -> None:
        """Another size shows other lines."""
        self._settle()

    @property
    def _rows(self) -> int:
        return max(self.size.height - 1, 1)

    def render_line(self, y: int) -> Strip:
        """A row of it: the title, then the lines."""
        width = self.size.width
        style = self.looks.base()
        if y == 0:
            return self._title(width)
        at = self.first + y - 1
        if not at < len(self.lines):
            return Strip([Segment(" " * width, style)], width)
        row = self.lines[at]
        chosen = self.has_focus and (at == self.chosen if not self.walks else row.here)
        segments = []
        for each in row.spans:
            kind = each.kind if not chosen or each.kind == "break" else ""  # a row of one colour, but for that mark
            segments.append(Segment(each.text, self.looks.style(kind, dim=self.stale, chosen=chosen)))
        return Strip([Segment(" ", style), *segments]).adjust_cell_length(width, self.looks.style("", chosen=chosen))

    def _title(self, width: int) -> Strip:
        more = ""
        if not self.walks and len(self.lines) > self._rows:
            more = f" {self.first + 1}-{min(self.first + self._rows, len(self.lines))} of {len(self.lines)} "
        mark = "━" if self.has_focus else "─"
        text = f"{mark}{mark} {self.title_text} "
        text = text[: max(width - len(more) - 1, 0)]
        rest = mark * max(width - len(text) - len(more) - 1, 0)
        return Strip([Segment(text + rest + more + mark, self.looks.title(self.has_focus))]).adjust_cell_length(width)

    # -- moving

    def move(self, rows: int) -> None:
        """The cursor, or what is shown, goes down by so many rows."""
        if self.walks:
            self.on_walked(self.pane, rows)
            return
        if any(each.click for each in self.lines):
            before = (
                self.chosen
                if self.chosen is not None
                else next((number for number, each in enumerate(self.lines) if each.here), self.first)
            )
            self.chosen = max(0, min(before + rows, len(self.lines) - 1))
            self.first = max(min(self.first, self.chosen), self.chosen - self._rows + 1)
        else:
            self.scroll(rows)
        self.refresh()

    def scroll(self, rows: int) -> None:
        """Without a cursor."""
        top = max(0, len(self.lines) - self._rows)
        self.first = max(0, min(self.first + rows, top))
        self.follows = self.first == top
        self.refresh()

    def press(self, key: str) -> bool:
        """A key of its own: moving, and Enter. False: it has none of that name."""
        page = max(self._rows - 1, 1)
        steps = {
            "up": -1,
            "down": 1,
            "pageup": -page,
            "pagedown": page,
            "home": -len(self.lines),
            "end": len(self.lines),
        }
        if key in steps and not (self.walks and key in ("home", "end")):
            self.move(steps[key])
        elif key == "enter":
            at = self.chosen if not self.walks else next((n for n, row in enumerate(self.lines) if row.here), None)
            click = self.lines[at].click if at is not None and at < len(self.lines) else None
            if click is not None:
                self.on_chosen(self.pane, click)
        else:
            return False
        return True

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(WHEEL)
        event.stop()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(-WHEEL)
        event.stop()

    def _wheel(self, rows: int) -> None:
        if self.walks:
            self.on_walked(self.pane, rows)
        else:
            self.scroll(rows)

    def on_click(self, event: events.Click) -> None:
        at = self.first + event.y - 1
        if event.y < 1 or at >= len(self.lines):
            return
        self.chosen = at
        click = self.lines[at].click
        if click is not None:
            self.on_chosen(self.pane, click)
        self.refresh()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()


class Word(NamedTuple):
    """A piece of a bar; `does` is what a click on it means, nothing for plain text."""

    spans: tuple[Span, ...]
    does: str = ""


class Bar(Widget):
    """One row of words."""

    class Pressed(Message):
        """A word was clicked on."""

        def __init__(self, does: str) -> None:
            super().__init__()
            self.does = does

    def __init__(self, name: str, looks: Looks, *, loud: bool = True) -> None:
        """`loud`: it stands out from the panes."""
        super().__init__(id=name)
        self.looks, self.loud = looks, loud
        self.words: tuple[Word, ...] = ()

    def show(self, words: Sequence[Word]) -> None:
        """Show these."""
        if self.words != tuple(words):
            self.words = tuple(words)
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """The one row."""
        base = self.looks.bar() if self.loud else self.looks.base()
        segments = [
            Segment(each.text, self.looks.style(each.kind) + (base if self.loud else Style.null()))
            for word in self.words
            for each in word.spans
        ]
        return Strip(segments).adjust_cell_length(self.size.width, base)

    def on_click(self, event: events.Click) -> None:
        at = 0
        for word in self.words:
            at += sum(len(each.text) for each in word.spans)
            if event.x < at:
                if word.does:
                    self.post_message(self.Pressed(word.does))
                return

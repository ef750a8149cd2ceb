# SPDX-License-Identifier: GPL-2.0-or-later
"""The screen of `pyvmm debug`: what is typed and clicked becomes lines of the command line, what comes back is shown.

It runs on the main thread; the guest runs on another (control.py), so the screen answers whatever the guest does.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Protocol

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message

from vmm.errors import VmmError
from vmm.screen.arrange import LEAST, PANES, TABS, Arrangement, arrange
from vmm.screen.command_line import CommandLine
from vmm.screen.commands import Asked, complete, help_lines, parse
from vmm.screen.frame import Frame
from vmm.screen.keys import KEYS, footer
from vmm.screen.lines import Click, Line, Span, line, one_line
from vmm.screen.looks import THEMES, Looks
from vmm.screen.widgets import Bar, PaneWidget, Word

TICK = 0.1  # seconds between two looks at a guest that runs
ENDING = (signal.SIGTERM, signal.SIGHUP)
HERE = ("theme", "help", "show", "quit", "interrupt")
"""Commands that the screen does itself, whatever the guest does."""


class Live(Protocol):
    """What can be seen of a guest that runs."""

    console: tuple[Line, ...]
    exits: tuple[Line, ...]


class Behind(Protocol):
    """Whoever runs the guest (control.py). None of its methods waits."""

    @property
    def running(self) -> bool:
        """Does the guest run? Then nothing can be asked of it but to stop."""

    def start(self, tell: Callable[[Frame | str, str, bool], object]) -> None:
        """Begin. `tell(what, text, bad)` is called from any thread: with each Frame and what there is to say of it, and
        with "running", "over" (it can run no more) and "said".
        """

    def ask(self, asked: Asked) -> None:
        """Do what a line of the command line asks for."""

    def here(self, what: str) -> None:
        """`break` or `until`, at the cursor of the source pane."""

    def seen(self, arrangement: Arrangement) -> None:
        """The panes have other places from now on."""

    def look(self, pane: str, rows: int) -> None:
        """A pane that shows a part is to show one `rows` farther."""

    def clicked(self, pane: str, click: Click) -> None:
        """A line was chosen."""

    def interrupt(self) -> None:
        """Stop a guest that runs."""

    def live(self) -> Live | None:
        """What can be seen while it runs."""


class DebugScreen(App[int]):
    """The app. `ended_by` is the number of a signal that ended it, 0 for none."""

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "interrupt_guest", show=False, priority=True),
        Binding("ctrl+q", "leave", show=False, priority=True),
    ]
    CSS = """
    Screen { layers: base over; overflow: hidden; }
    PaneWidget, Bar, CommandLine { position: absolute; }
    CommandLine { height: 1; border: none; padding: 0 1; display: none; }
    #help { layer: over; display: none; }
    Screen:ansi, CommandLine:ansi { background: ansi_default; color: ansi_default; }
    """

    class Told(Message):
        """Whoever runs the guest says something."""

        def __init__(self, what: Frame | str, text: str, bad: bool) -> None:
            super().__init__()
            self.what, self.text, self.bad = what, text, bad

    def __init__(self, behind: Behind, title: str, theme: str = "terminal") -> None:
        super().__init__(ansi_color=theme == "terminal")
        self.behind, self.named, self.looks = behind, title, Looks(theme)
        self._wanted_theme = theme
        self.frame: Frame | None = None
        self.tab = TABS[0]
        self.state, self.message, self.bad = "starting", "", False
        self.over = self._seen_end = False
        self.ended_by = 0
        self.failed: BaseException | None = None

    # -- its parts

    def compose(self) -> ComposeResult:
        """All panes are there at all times; which are seen is `arrange`'s business."""
        yield Bar("title", self.looks)
        for name in PANES:
            yield PaneWidget(name, self.looks, self._chosen, self._walked)
        yield Bar("tabs", self.looks, loud=False)
        yield Bar("message", self.looks, loud=False)
        yield CommandLine(self._complete, self._command_given, self._key)
        yield Bar("footer", self.looks)
        yield PaneWidget("help", self.looks)

    def pane(self, name: str) -> PaneWidget:
        """One of the panes."""
        return self.query_one(f"#{name}", PaneWidget)

    def bar(self, name: str) -> Bar:
        """One of the bars."""
        return self.query_one(f"#{name}", Bar)

    def on_mount(self) -> None:
        """Signals that end the process end the screen first; then the guest begins."""
        self._use(self._wanted_theme)
        loop = asyncio.get_running_loop()
        for number in (*ENDING, signal.SIGINT):
            with suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self._signalled, number)
        self.pane("source").focus()
        self._place()
        self.set_interval(TICK, self._tick)
        self.behind.seen(self.arrangement)
        self.behind.start(lambda what, text, bad: self.post_message(self.Told(what, text, bad)))

    def _signalled(self, number: int) -> None:
        self.ended_by = number
        self.exit(128 + number)

    def _fatal_error(self) -> None:
        """An error of the screen's own: it ends, the terminal is as it was, and one line says what it was."""
        self.failed = self._exception
        self._close_messages_no_wait()

    # -- where the panes lie

    @property
    def arrangement(self) -> Arrangement:
        """For the present size and tab."""
        return arrange(self.size.width, self.size.height, self.tab)

    def on_resize(self, _event: events.Resize) -> None:
        """Another size: other places, and what is in them is made anew."""
        self._place()
        self.behind.seen(self.arrangement)

    def _place(self) -> None:
        places, width, height = self.arrangement, self.size.width, self.size.height
        for name in PANES:
            widget, place = self.pane(name), places.places.get(name)
            widget.display = place is not None
            if place is not None:
                _put(widget, place.x, place.y + 1, place.width, place.height)
        _put(self.bar("title"), 0, 0, width, 1)
        _put(self.bar("tabs"), places.tabs.x, places.tabs.y + 1, places.tabs.width, 1)
        _put(self.bar("message"), 0, height - 2, width, 1)
        _put(self.query_one(CommandLine), 0, height - 2, width, 1)
        _put(self.bar("footer"), 0, height - 1, width, 1)
        _put(self.pane("help"), 0, 1, width, max(height - 3, 1))
        self._draw_bars()

    def _draw_bars(self) -> None:
        kind = {"running": "good", "starting": "dim", "over": "warn"}.get(self.state, "head")
        said = self.frame.state if self.frame is not None and self.state == "stopped" else self.state
        shown = f"{said}" if self.state != "running" else "running: i or ^C interrupts it"
        self.bar("title").show([Word((Span("head", f" {self.named}  "), Span(kind, shown)))])
        words = []
        for name in self.arrangement.tabbed:
            key = (TABS.index(name) + 1) % 10
            chosen = name == self.arrangement.tab
            shown = SHORT.get(name, name) if self.size.width < 100 else name
            text = f"[{key} {shown}]" if chosen else f" {key} {shown} "
            words.append(Word((Span("tab" if chosen else "name", text),), f"show {name}"))
        self.bar("tabs").show(words)
        small = self.size.width < LEAST[0] or self.size.height < LEAST[1]
        message = f"{LEAST[0]}x{LEAST[1]} is needed" if small else self.message
        self.bar("message").show([Word((Span("bad" if self.bad or small else "", f" {message}"),))])
        keys = []
        for each in footer(self.size.width):
            keys.append(Word((Span("head", f" {each.key}"), Span("", f" {each.label}")), each.does))
        self.bar("footer").show(keys)

    # -- what comes back

    def on_debug_screen_told(self, told: Told) -> None:
        """Whoever runs the guest says something."""
        if isinstance(told.what, Frame):
            self.frame, self.state = told.what, "stopped"
            for name, pane in told.what.panes.items():
                widget = self.pane(name)
                widget.stale = False
                widget.show(pane.title, pane.lines, walks=pane.walks, last=name in ("exits", "console", "stops"))
            if told.what.ended and not self._seen_end and "console" in self.arrangement.tabbed:
                self._show("console")
            self._seen_end = told.what.ended
        elif told.what == "running":
            self.state = "running"
            for name in PANES:
                self.pane(name).stale = name not in ("exits", "console")
                self.pane(name).refresh()
        elif told.what == "over":
            self.state, self.over = "over", True
            if told.bad and self.frame is None:  # there was never anything to see: the error is said on the terminal
                self.exit(1)
        if told.text or told.what == "running":
            self.message, self.bad = told.text, told.bad
            if isinstance(told.what, Frame) and told.what.ended and not told.bad:
                self.message = f"{told.text}: c ends it, r goes back, q leaves"
        self._draw_bars()

    def _tick(self) -> None:
        live = self.behind.live() if self.state == "running" else None
        if live is not None:
            self.pane("console").show(self.pane("console").title_text, live.console, last=True)
            self.pane("exits").show(self.pane("exits").title_text, live.exits, last=True)

    # -- what is typed and clicked

    def do(self, text: str) -> None:
        """A line of the command line."""
        try:
            asked = parse(text)
            self._do(asked)
        except VmmError as error:
            self.say(one_line(error), bad=True)

    def say(self, text: str, *, bad: bool = False) -> None:
        """A line of our own, in place of the one before."""
        self.message, self.bad = text, bad
        self._draw_bars()

    def _do(self, asked: Asked) -> None:
        match asked.command.name:
            case "quit":
                self.exit(0)
            case "help":
                self._help(asked.words[0] if asked.words else "")
            case "show":
                self._show(asked.words[0])
            case "theme":
                self._retheme(asked.words[0])
            case "interrupt":
                self.action_interrupt_guest()
            case _:
                if self._free():
                    self.message = ""
                    self.behind.ask(asked)

    def _free(self) -> bool:
        """Can anything be asked of the guest? If not, that is said."""
        if self.over:
            self.say("the guest is gone: q leaves", bad=True)
        elif self.behind.running:
            self.say("the guest runs: i interrupts it, then ask again", bad=True)
        return not self.over and not self.behind.running

    def action_interrupt_guest(self) -> None:
        """^C, i: stop a guest that runs."""
        if self.behind.running:
            self.behind.interrupt()
            self.say("asked it to stop")
        else:
            self.say("it is stopped; c goes on, q leaves")

    def action_leave(self) -> None:
        """^Q."""
        self.exit(0)

    def _show(self, name: str) -> None:
        whole = [each for each in PANES if each.startswith(name)]
        if not whole:
            self.say(f"no pane {name!r}; there are {', '.join(PANES)}", bad=True)
            return
        if whole[0] in TABS:
            self.tab = whole[0]
        self._place()
        self.behind.seen(self.arrangement)
        self.pane(whole[0]).focus()

    def _retheme(self, name: str) -> None:
        if name not in THEMES:
            self.say(f"no theme {name!r}; there are {', '.join(THEMES)}", bad=True)
            return
        self._use(name)
        for widget in self.query("PaneWidget, Bar"):
            widget.refresh()

    def _use(self, name: str) -> None:
        self.looks.theme = name
        self.ansi_color = name == "terminal"
        there = [each for each in THEMES[name] if each in self.available_themes]
        if there:
            self.theme = there[0]

    def _help(self, about: str) -> None:
        rows = [row for text in help_lines(about) for row in text.splitlines()]
        pane = self.pane("help")
        pane.show("help: arrows scroll, Esc closes", [line(each) for each in rows])
        pane.display = True
        pane.focus()

    async def on_event(self, event: events.Event) -> None:
        """Keys are taken here, in the order in which they come: a part that has the focus would have them later, and
        what is typed behind a colon has to find the command line open.
        """
        own = isinstance(event, events.Key) and not event.is_forwarded and not self.typing
        if own and isinstance(event, events.Key) and self._key(event):
            return
        await super().on_event(event)

    def _key(self, event: events.Key) -> bool:
        """Do what a key says. False: it is none of ours."""
        focused, char = self.focused, event.character or event.key
        if self.pane("help").display and (event.key in ("escape", "enter") or char in ("q", "?")):
            self.pane("help").display = False
            self.screen.set_focus(self.pane("source"))
        elif isinstance(focused, PaneWidget) and focused.press(event.key):
            pass
        elif char.isdecimal() and len(char) == 1:
            self._show(TABS[(int(char) - 1) % 10])
        elif char in OPENS:
            self._open(OPENS[char])
        else:
            found = next((each for each in KEYS if char == each.key and char != "tab"), None)
            if found is None:
                return False
            self._press(found.does)
        return True

    def _press(self, does: str) -> None:
        if not does.startswith("["):
            self.do(does)
        elif does == "[command]":
            self._open("")
        elif does == "[pane]":
            self.screen.focus_next()
        elif does == "[vcpu]":
            self.do("vcpu next")
        elif self._free():
            self.message = ""
            self.behind.here(does.strip("[]"))

    def on_bar_pressed(self, event: Bar.Pressed) -> None:
        """A word of a bar was clicked on."""
        self._press(event.does)

    def _walked(self, pane: str, rows: int) -> None:
        """Somebody scrolls."""
        if not self.behind.running and not self.over:
            self.behind.look(pane, rows)

    def _chosen(self, pane: str, click: Click) -> None:
        """A line was clicked on."""
        if self._free():
            self.message = ""
            self.behind.clicked(pane, click)

    # -- the command line

    def _open(self, text: str) -> None:
        self.query_one(CommandLine).open(text)
        self.bar("message").display = False

    @property
    def typing(self) -> bool:
        """The command line is open."""
        return bool(self.query_one(CommandLine).display)

    def _complete(self, text: str) -> list[str]:
        return complete(text, self.frame.names) if self.frame is not None else complete(text, NO_NAMES)

    def _command_given(self, text: str, back: str) -> None:
        """Enter or Esc in the command line."""
        self.bar("message").display = True
        self.screen.set_focus(self.pane(back if back in PANES else "source"))
        if text:
            self.do(text)


OPENS = {"/": "find ", "m": "mem ", "w": "watch ", "g": "goto ", "p": "print "}
"""Keys that open the command line with a beginning."""
SHORT = {"registers": "regs", "memory": "mem", "devices": "dev", "vcpus": "cpu", "console": "cons",
         "breaks": "brk"}  # fmt: skip
"""Names of tabs on a narrow terminal."""
NO_NAMES = Frame("", "", {}).names


def _put(widget: PaneWidget | Bar | CommandLine, x: int, y: int, width: int, height: int) -> None:
    widget.styles.offset = (x, y)
    widget.styles.width, widget.styles.height = width, height

# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe's table on a terminal: rows that stay, and below them what runs now. The only module that imports rich.

Finished rows scroll away like any output, so a terminal of any height shows all of them; only the last line moves.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

from vmm.payload.catalog import Payload
from vmm.payload.proof.prove import Row
from vmm.report.columns import HEAD, KINDS, TOPIC_HEAD, Cells, cells
from vmm.report.table import widths

STYLES = {"good": "green", "bad": "bold red", "warn": "yellow"}
BAR = 24  # columns
BESIDE = BAR + 20  # columns of the last line that are not the description
REFRESH = 8  # times per second: enough for a spinner, and little beside the guests that are measured meanwhile


class Bar:
    """A progress bar below what is printed, for rows that take a while. Use as a context manager."""

    def __init__(self, out: TextIO, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        what = TextColumn("{task.description}", markup=False)
        columns = (BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), what)
        # It is drawn when a row begins and not by a thread of its own, which would disturb what is measured.
        self._progress = Progress(
            *columns, console=Console(file=out, highlight=False), transient=True, auto_refresh=False
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def at(self, done: int, what: str) -> None:
        """So many are done, and this one is next."""
        self._progress.update(self._task, completed=done, description=what[:60])
        self._progress.refresh()

    def print(self, text: str) -> None:
        """A line that stays; it may carry colour."""
        from rich.text import Text

        self._progress.console.print(Text.from_ansi(text), soft_wrap=True)


class Live:
    """Use as a context manager; `title` is printed first."""

    def __init__(self, out: TextIO, title: str, names: Sequence[str], *, topics: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self.console = Console(file=out, highlight=False)
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=BAR),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            refresh_per_second=REFRESH,
        )
        self.title, self.columns, self.topics = title, widths(names), topics
        self.task = self.progress.add_task("", total=len(names))

    def __enter__(self) -> Self:
        from rich.text import Text

        self.console.print(Text(self.title, "dim"))
        self._print(TOPIC_HEAD if self.topics else HEAD, "bold", "bold")
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def running(self, payload: Payload, done: int, total: int) -> None:
        """The line below the table: which payload runs, how many of the rows are there."""
        room = max(20, self.console.width - BESIDE)
        text = textwrap.shorten(f"{payload.name}: {payload.header.summary}", room, placeholder=" ...")
        self.progress.update(self.task, description=text, completed=done)

    def row(self, row: Row) -> None:
        if row.topic and not self.topics:
            self.topics = True
            self.console.print()
            self._print(TOPIC_HEAD, "bold", "bold")
        self._print(cells(row), "cyan", STYLES[KINDS[row.outcome]])
        self.progress.advance(self.task)

    def _print(self, texts: Cells, name_style: str, verdict_style: str) -> None:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        for width in self.columns:
            grid.add_column(width=width, no_wrap=True)
        grid.add_column(ratio=1, overflow="fold")
        styles = (name_style, "", "", verdict_style, "")
        grid.add_row(*(Text(text, style) for text, style in zip(texts, styles, strict=True)))
        self.console.print(grid)


def markdown(out: TextIO, text: str, width: int) -> None:
    """A page of Markdown, with its headings, lists and code."""
    from rich.console import Console
    from rich.markdown import Markdown

    Console(file=out, highlight=False, width=width).print(Markdown(text))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Where each pane lies on a terminal of some size: 80x24 shows the source and one tab, a large one all at once."""

from __future__ import annotations

from typing import NamedTuple

PANES = (
    "source", "registers", "stack", "memory", "walk", "devices", "exits", "vcpus", "console", "stops", "breaks",
)  # fmt: skip
TABS = PANES[1:]
"""In the order of their keys, 1 to 9 and 0."""
LEAST = (60, 16)
MEDIUM, LARGE = (110, 32), (170, 48)
CHROME = 3  # rows of the title, the command line and the footer


class Place(NamedTuple):
    """Columns and rows from the upper left corner of what lies between title and command line."""

    x: int
    y: int
    width: int
    height: int


class Arrangement(NamedTuple):
    """`places` are those that are seen, `tabbed` which of them share one place, of which the chosen tab has it; `tabs`
    is the row that names those.
    """

    name: str
    places: dict[str, Place]
    tabbed: tuple[str, ...]
    tabs: Place

    @property
    def tab(self) -> str:
        """The tab that is seen."""
        return next(each for each in self.tabbed if each in self.places)


def arrange(width: int, height: int, tab: str) -> Arrangement:
    """For a terminal of this size; `tab` is the pane that was asked for last."""
    body = max(height - CHROME, 5)
    if width >= LARGE[0] and height >= LARGE[1]:
        return _large(width, body, tab)
    if width >= MEDIUM[0] and height >= MEDIUM[1]:
        return _medium(width, body, tab)
    return _compact(width, body, tab)


def _compact(width: int, body: int, tab: str) -> Arrangement:
    """The source above, a tab below."""
    lower = max(body // 2 + 1, 3)
    upper = body - lower - 1
    tab = tab if tab in TABS else TABS[0]
    places = {"source": Place(0, 0, width, upper), tab: Place(0, upper + 1, width, lower)}
    return Arrangement("compact", places, TABS, Place(0, upper, width, 1))


def _medium(width: int, body: int, tab: str) -> Arrangement:
    """Source and console at the left, registers and stack at the right, a tab below."""
    right = 48
    left = width - right
    tabbed = tuple(each for each in TABS if each not in ("registers", "stack", "console"))
    tab = tab if tab in tabbed else tabbed[0]
    lower = max(body // 4, 7)
    upper = body - lower - 1
    console = max(upper // 4, 4)
    registers = min(18, upper - 5)
    places = {
        "source": Place(0, 0, left, upper - console),
        "console": Place(0, upper - console, left, console),
        "registers": Place(left, 0, right, registers),
        "stack": Place(left, registers, right, upper - registers),
        tab: Place(0, upper + 1, width, lower),
    }
    return Arrangement("medium", places, tabbed, Place(0, upper, width, 1))


def _large(width: int, body: int, tab: str) -> Arrangement:
    """All of them, but for the page walk and the devices, which take turns."""
    right = 50
    middle = min(82, width - right - 60)
    left = width - right - middle
    tabbed = ("walk", "devices")
    tab = tab if tab in tabbed else tabbed[0]
    console, exits, memory = body // 5, body // 5, body // 3
    registers, small = min(28, body // 2), max(body // 10, 4)
    stack = body - registers - 2 * small - max(body // 6, 5)
    x = left + middle
    places = {
        "source": Place(0, 0, left, body - console - exits),
        "console": Place(0, body - console - exits, left, console),
        "exits": Place(0, body - exits, left, exits),
        "memory": Place(left, 0, middle, memory),
        "stops": Place(left, body - console, middle, console),
        tab: Place(left, memory + 1, middle, body - memory - 1 - console),
        "registers": Place(x, 0, right, registers),
        "stack": Place(x, registers, right, stack),
        "vcpus": Place(x, registers + stack, right, small),
        "breaks": Place(x, registers + stack + small, right, body - registers - stack - small),
    }
    return Arrangement("large", places, tabbed, Place(left, memory, middle, 1))

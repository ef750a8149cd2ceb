# SPDX-License-Identifier: GPL-2.0-or-later
"""A scene as the text of every pane: what the thread that runs the guest hands to the one that draws."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmm.screen.arrange import PANES, Arrangement
from vmm.screen.commands import Names
from vmm.screen.lines import Line
from vmm.screen.panes import lists
from vmm.screen.panes.memory import memory, stack, walk
from vmm.screen.panes.registers import registers
from vmm.screen.panes.source import source
from vmm.screen.panes.source import title as source_title
from vmm.screen.scene import GENERAL_ONES, Scene

HIDDEN = (80, 20)
"""Columns and rows for which a pane that is not seen is made: its tab may be asked for while the guest runs."""


@dataclass(frozen=True)
class Pane:
    """Its title and its lines. `walks`: it shows a part of something endless, and scrolling asks for another."""

    title: str
    lines: tuple[Line, ...]
    walks: bool = False


@dataclass(frozen=True)
class Frame:
    """`title` and `state` are the first row of the screen; `names` what words are completed to."""

    title: str
    state: str
    panes: dict[str, Pane]
    names: Names = field(default_factory=Names)
    ended: bool = False
    """The guest's run has ended."""


def panes(scene: Scene, arrangement: Arrangement) -> dict[str, Pane]:
    """Every pane, in the size that it has."""
    return {name: _pane(scene, name, *_size(arrangement, name)) for name in PANES}


def _size(arrangement: Arrangement, name: str) -> tuple[int, int]:
    place = arrangement.places.get(name)
    if place is None and name in arrangement.tabbed:  # it would have the place of the tab that is seen
        place = next((each for tab, each in arrangement.places.items() if tab in arrangement.tabbed), None)
    width, height = (place.width, place.height) if place is not None else HIDDEN
    return max(width - 1, 1), max(height - 1, 1)  # a column for the edge, a row for the title


def _pane(scene: Scene, name: str, width: int, height: int) -> Pane:
    match name:
        case "source":
            return Pane(source_title(scene), tuple(source(scene, width, height)), walks=True)
        case "registers":
            several = f" of vCPU {scene.vcpu}" if len(scene.cpus) > 1 else ""
            kind = "" if scene.registers == GENERAL_ONES else f", {scene.registers}"
            mode = f", {scene.cpu.mode}" if scene.cpu.bits != 64 else ""
            return Pane(f"registers{several}{kind}{mode}, * changed", tuple(registers(scene, width)))
        case "stack":
            return Pane("stack", tuple(stack(scene, width, height)), walks=True)
        case "memory":
            kind = "physical memory" if scene.physical else "memory"
            follows = f" at {scene.memory_of}" if scene.memory_of else ""
            return Pane(f"{kind}{follows}", tuple(memory(scene, width, height)), walks=True)
        case "walk":
            return Pane("page walk", tuple(walk(scene)))
        case "devices":
            return Pane("devices", tuple(lists.devices(scene)))
        case "exits":
            return Pane("exits, newest last", tuple(lists.exits(scene)))
        case "vcpus":
            return Pane("vCPUs", tuple(lists.vcpus(scene)))
        case "stops":
            return Pane("stops, Enter goes back to one", tuple(lists.stops(scene)))
        case "breaks":
            return Pane("breakpoints, Enter removes one", tuple(lists.breaks(scene)))
        case _:
            return Pane("console of the guest", tuple(lists.console(scene, width) + lists.ending(scene)))

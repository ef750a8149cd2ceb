# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of the screen, as its footer shows them: as many as there is room for, the most needed first."""

from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """`does` is a line of the command line, or a word that the app knows, in brackets."""

    key: str
    label: str
    does: str
    rank: int


KEYS = (
    Key("s", "step", "step", 0),
    Key("o", "over", "over", 1),
    Key("n", "line", "line", 2),
    Key("f", "finish", "finish", 8),
    Key("u", "until", "[until]", 4),
    Key("c", "cont", "continue", 0),
    Key("i", "stop", "interrupt", 3),
    Key("b", "break", "[break]", 4),
    Key("r", "back", "back", 5),
    Key("t", "asm", "code", 9),
    Key("v", "vCPU", "[vcpu]", 10),
    Key("e", "regs", "registers", 12),
    Key("tab", "pane", "[pane]", 11),
    Key(":", "cmd", "[command]", 1),
    Key("?", "help", "help", 2),
    Key("q", "quit", "quit", 0),
)


def footer(width: int) -> list[Key]:
    """Those that have room, in their order."""
    chosen: list[Key] = []
    room = width
    for key in sorted(KEYS, key=lambda each: each.rank):
        need = len(key.key) + len(key.label) + 2
        if need <= room:
            chosen.append(key)
            room -= need
    return [key for key in KEYS if key in chosen]

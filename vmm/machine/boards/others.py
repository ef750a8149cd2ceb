# SPDX-License-Identifier: GPL-2.0-or-later
"""Boards by name, all but pyvmm's own: imported by who asks for one of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from vmm.errors import UsageError

if TYPE_CHECKING:
    from vmm.machine.boards.board import Board

OTHERS = {
    "pc": ("vmm.machine.boards.pc", "PcBoard"),
    "testdev": ("vmm.machine.boards.testdev", "TestdevBoard"),
}
"""Module and class of each."""


def board_class(name: str) -> type[Board]:
    """Its class, which is made with (sink, end, strict, irq).

    Raises:
        UsageError: there is no such board.
    """
    if name not in OTHERS:
        raise UsageError(f"board={name!r}: choose {', '.join(('own', *OTHERS))}")
    module, kind = OTHERS[name]
    made: type[Board] = getattr(import_module(module), kind)
    return made

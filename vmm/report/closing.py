# SPDX-License-Identifier: GPL-2.0-or-later
"""The line that closes a run: how it went, how many exits, how long. It knows numbers and words, and no outcome."""

from __future__ import annotations

from vmm.report.style import Style, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MARKS = {"pass": "good", "fail": "bad", "skip": "warn", "error": "bad", "timeout": "bad"}


def closing(outcome: str, name: str, exits: Mapping[str, int], wall_ms: float, reason: str, style: Style) -> str:
    """`pass  hello  3 exits (2 PortOut, 1 Halt), 0.4 ms: the guest halted`; `outcome` is a key of MARKS."""
    total = sum(exits.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in exits.items())
    ran = f"  {counted(total, 'exit')} ({kinds}), {wall_ms:.1f} ms" if total else ""
    why = f": {printable(reason)}" if reason else ""
    return f"{style(MARKS[outcome], outcome)}  {style('head', printable(name))}{ran}{why}"


def counted(number: int, what: str) -> str:
    """`1 exit`, `2 exits`, `2 accesses`."""
    return f"{number} {what}" + ("" if number == 1 else "es" if what.endswith("s") else "s")

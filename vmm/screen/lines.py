# SPDX-License-Identifier: GPL-2.0-or-later
"""A line of a pane: text in pieces, each of a kind, and what a click on it means. It knows no colour and no terminal.

Kinds are what a piece says, and not how it looks: "here" (where the vCPU is), "break", "changed", "name", "dim",
"good", "bad", "warn", "head", "tab", and "" for plain text. Whatever a kind says, a mark or a word says too: without
colour nothing is lost.
"""

from __future__ import annotations

from typing import NamedTuple

from vmm.errors import VmmError
from vmm.report.style import printable

KINDS = ("", "here", "break", "changed", "name", "dim", "good", "bad", "warn", "head", "tab")


class Span(NamedTuple):
    """A piece of a line."""

    kind: str
    text: str


class Click(NamedTuple):
    """What a click on a line means: `what` is "break", "vcpu", "stop", "memory" or "walk", and `value` an address or a
    number.
    """

    what: str
    value: int


class Line(NamedTuple):
    """One line. `address` is where in the guest it stands, where it does: the source pane's cursor walks these. `here`
    is the line that is to be seen: where the vCPU is, what was selected.
    """

    spans: tuple[Span, ...] = ()
    click: Click | None = None
    address: int | None = None
    here: bool = False

    @property
    def text(self) -> str:
        """Without its kinds."""
        return "".join(span.text for span in self.spans).rstrip()


def line(*pieces: str | tuple[str, str], click: Click | None = None, address: int | None = None,
         here: bool = False) -> Line:  # fmt: skip
    """A line of pieces: text, or (kind, text). What a guest wrote is made safe to show."""
    spans = [Span("", each) if isinstance(each, str) else Span(*each) for each in pieces]
    safe = tuple(Span(each.kind, printable(each.text.expandtabs(8).replace("\n", " "))) for each in spans if each.text)
    return Line(safe, click, address, here)


def one_line(error: VmmError) -> str:
    """An error and what to try, in one line."""
    text = error.text + (f"; try: {error.hint}" if error.hint else "")
    return " ".join(text.split())


def plain(lines: list[Line]) -> str:
    """Their text, for a test or a file."""
    return "\n".join(each.text for each in lines)

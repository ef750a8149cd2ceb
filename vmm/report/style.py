# SPDX-License-Identifier: GPL-2.0-or-later
"""Colour for a terminal, or none; and text of a guest made safe to show. Plain ANSI: start-up is a feature."""

from __future__ import annotations

CODES = {"good": "32", "bad": "31;1", "warn": "33", "dim": "2", "head": "1", "name": "36"}
# C0 and C1 controls but newline and tab, DEL, and the bidirectional overrides: a guest may write anything. Surrogates
# and the two non-characters are no text: UTF-8 cannot carry the first, XML neither.
_UNSAFE = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"


class Style:
    """`style("good", "pass")` is the text, coloured where `colour` is on."""

    def __init__(self, colour: bool = False) -> None:
        self.colour = colour

    def __call__(self, kind: str, text: str) -> str:
        return f"\x1b[{CODES[kind]}m{text}\x1b[0m" if self.colour else text


def printable(text: str) -> str:
    """Guest text without what would move a terminal's cursor or hide text: such characters appear as `\\x1b`."""
    if text.replace("\n", "").isprintable():  # most is; `re` takes longer to import than a short run to end
        return text
    import re

    return re.sub(_UNSAFE, lambda match: f"\\x{ord(match[0]):02x}", text)

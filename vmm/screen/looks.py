# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kind of text looks like: three sets of colours. `terminal` takes the terminal's own, so it is right on a dark
one and on a light one; without colour, bold, reverse and underline are left.
"""

from __future__ import annotations

from rich.style import Style

from vmm.screen.lines import KINDS

_TERMINAL = {
    "": "", "here": "bold yellow", "break": "bold red", "changed": "bold magenta", "name": "cyan", "dim": "dim",
    "good": "green", "bad": "bold red", "warn": "yellow", "head": "bold", "tab": "bold reverse",
}  # fmt: skip
_DARK = {
    "": "#d8d8d8", "here": "bold #ffd866", "break": "bold #ff6188", "changed": "bold #ff9ecb", "name": "#78dce8",
    "dim": "#8a8a8a", "good": "#a9dc76", "bad": "bold #ff6188", "warn": "#fc9867", "head": "bold #ffffff",
    "tab": "bold reverse #ffffff",
}  # fmt: skip
_LIGHT = {
    "": "#202020", "here": "bold #8a5a00", "break": "bold #b00020", "changed": "bold #a0006a", "name": "#005f87",
    "dim": "#6a6a6a", "good": "#1b6e1b", "bad": "bold #b00020", "warn": "#9a4a00", "head": "bold #000000",
    "tab": "bold reverse #000000",
}  # fmt: skip
_GROUNDS = {"terminal": "", "dark": "on #1e1e1e", "light": "on #fafafa"}
_BARS = {"terminal": "reverse", "dark": "#ffffff on #3a3a5a", "light": "#000000 on #d0d8e8"}
_SETS = {"terminal": _TERMINAL, "dark": _DARK, "light": _LIGHT}
THEMES = {"terminal": ("ansi-dark", "textual-ansi"), "dark": ("textual-dark",), "light": ("textual-light",)}
"""By our names, textual's; `terminal` is called otherwise in some releases."""


class Looks:
    """`theme` may be changed at any time."""

    def __init__(self, theme: str = "terminal") -> None:
        self.theme = theme
        self._styles = {
            (theme, kind): Style.parse(f"{_SETS[theme][kind]} {_GROUNDS[theme]}".strip())
            for theme in _SETS
            for kind in KINDS
        }

    def style(self, kind: str, *, dim: bool = False, chosen: bool = False) -> Style:
        """Of a piece of text. `dim`: what is shown is of before; `chosen`: the cursor is at its line."""
        style = self._styles[self.theme, kind]
        if dim:
            style += Style(dim=True)
        return style + Style(reverse=True) if chosen else style

    def base(self) -> Style:
        """Of nothing."""
        return self._styles[self.theme, ""]

    def title(self, focused: bool) -> Style:
        """Of the row above a pane."""
        return self._styles[self.theme, "name" if focused else "dim"] + Style(bold=focused, dim=False)

    def bar(self) -> Style:
        """Of the first row and the last."""
        return Style.parse(_BARS[self.theme])

# SPDX-License-Identifier: GPL-2.0-or-later
"""Our docstrings as Sphinx reads them: they are prose with `code` in it, and signs that mean nothing but themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pygments.lexers.asm import NasmLexer
from pygments.lexers.special import TextLexer
from pygments.token import Error, Text

_CODE = re.compile(r"(``.+?``|`[^`]+`)")
_SIGNS = re.compile(r"([*|\\]|\w_(?!\w))")
FIRST = 400  # before napoleon, which reads `Raises:`


class Assembly(NasmLexer):
    """Text of payloads: NASM's in most, and what it does not know (`NAME = value`, macros) stays without a colour."""

    def get_tokens_unprocessed(self, *args: Any, **options: Any) -> Iterator[tuple[int, Any, str]]:
        for at, kind, text in super().get_tokens_unprocessed(*args, **options):
            yield at, Text if kind is Error else kind, text


def readable(lines: list[str]) -> list[str]:
    """Lines of a docstring as reStructuredText: signs of markup escaped outside of code, indented blocks as code."""
    made: list[str] = []
    for line in lines:
        text = "".join(part if part.startswith("`") else _SIGNS.sub(_escaped, part) for part in _CODE.split(line))
        begins = line.startswith("    ") and made and not made[-1] and _said(made) and not _said(made).startswith(" ")
        if begins and not _said(made).endswith("::"):
            made += ["::", ""]
        made.append(line if line.startswith("    ") and _in_code(made) else text)
    return made


def _escaped(found: re.Match[str]) -> str:
    return f"{found[0][:-1]}\\{found[0][-1]}"


def _said(made: list[str]) -> str:
    """The last line that is not empty."""
    return next((line for line in reversed(made) if line.strip()), "")


def _in_code(made: list[str]) -> bool:
    for line in reversed(made):
        if line.strip() and not line.startswith(" "):
            return line.endswith("::")
    return False


def _process(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    # An empty line first: napoleon takes "Bytes: so many" of an attribute for its type and a text.
    lines[:] = [""] * (what in ("attribute", "property")) + readable(lines)


def setup(app: Any) -> None:
    """Hook into Sphinx."""
    app.add_lexer("asm", Assembly)
    app.add_lexer("keys", TextLexer)
    app.connect("autodoc-process-docstring", _process, priority=FIRST)

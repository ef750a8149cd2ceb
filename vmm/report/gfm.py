# SPDX-License-Identifier: GPL-2.0-or-later
"""GitHub-flavoured Markdown: text that stays text, and tables. Values in, text out."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vmm.report.columns import one_line

# What could start markup inside a line: of a link, an emphasis, a code span, HTML, a mention, a cell.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|~#!@&])")


def escape(text: str) -> str:
    """Text that shows as it is, in one line, also inside a table's cell."""
    return _MARKUP.sub(r"\\\1", one_line(text))


def line(texts: Iterable[str]) -> str:
    """A row of a table; the cells are Markdown already."""
    return f"| {' | '.join(texts)} |"


def head(texts: tuple[str, ...]) -> list[str]:
    """The two lines that begin a table."""
    return [line(texts), "|" + "---|" * len(texts)]

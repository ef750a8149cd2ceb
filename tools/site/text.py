# SPDX-License-Identifier: GPL-2.0-or-later
"""Templates, and text that stays text in Markdown. It knows no fact of pyvmm's."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmm.report import gfm

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).resolve().parent / "templates"
_CODE = re.compile(r"(`[^`\n]+`)")
_MARKUP = re.compile(r"([\\*<>\[\]{}|#$]|(?<!\w)_|_(?!\w))")
_MENTION = re.compile(r"(?<![\w/`(\[])docs/(\w+)\.md\b")


def page(template: str, **values: Any) -> str:
    """The Markdown of a template, templates/NAME.md.j2."""
    return _environment().get_template(f"{template}.md.j2").render(**values)


def prose(text: str) -> str:
    """Sentences of a comment or docstring as Markdown: `code` stays code, other signs of markup mean themselves."""
    parts = _CODE.split(text)
    return "".join(part if part.startswith("`") else _MARKUP.sub(r"\\\1", part) for part in parts)


def cell(text: object) -> str:
    """The same in one line, for a table."""
    return prose(" ".join(str(text).split()))


def slug(name: str) -> str:
    """`KVM_EXIT_IO` -> `kvm-exit-io`: what stands in an address after #."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def target(name: str) -> str:
    """A name that can be pointed to as #slug."""
    return f"[{cell(name)}]{{#{slug(name)}}}"


def table(head: tuple[str, ...], rows: Any) -> str:
    """A table; cells are Markdown already."""
    return "\n".join([*gfm.head(head), *(gfm.line(row) for row in rows)])


def linked(text: str) -> str:
    """Mentions of pages, `docs/debug.md`, as links to them."""
    return _MENTION.sub(r"[docs/\1.md](/\1.md)", text)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    made.filters |= {"prose": prose, "cell": cell, "slug": slug, "target": target}
    return made

# SPDX-License-Identifier: GPL-2.0-or-later
"""The lessons of `pyvmm learn` as pages: the text, where a student begins, and the hint, folded until it is wanted."""

from __future__ import annotations

from collections.abc import Iterator

from vmm.learn.course import lessons

from .text import page


def pages() -> Iterator[tuple[str, str]]:
    """The list of lessons, and each lesson."""
    yield "learn/index.md", page("course", lessons=lessons())
    for each in lessons():
        yield f"learn/{each.name}.md", page("lesson", lesson=each)

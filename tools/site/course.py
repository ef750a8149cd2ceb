# SPDX-License-Identifier: GPL-2.0-or-later
"""The lessons of `pyvmm learn` as pages, by their folders: vmm/learn/lessons/NN-name/lesson.md, where there are any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .text import page

LESSONS = Path(__file__).resolve().parents[2] / "vmm" / "learn" / "lessons"


def there() -> list[Path]:
    """The texts of the lessons, in order."""
    return sorted(LESSONS.glob("[0-9]*/lesson.md"))


def pages() -> Iterator[tuple[str, str]]:
    """The list of lessons, and each lesson with what a student begins with."""
    found = there()
    if not found:
        return
    names = [path.parent.name for path in found]
    yield "learn/index.md", page("course", names=names)
    for path in found:
        starter = path.with_name("starter.asm")
        text = starter.read_text(encoding="utf-8") if starter.exists() else ""
        yield f"learn/{path.parent.name}.md", page("lesson", text=path.read_text(encoding="utf-8"), starter=text)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The lessons in their order, and what each folder of lessons/ holds: text, starter, solution. It runs no guest.

A lesson is lessons/NAME/: lesson.md (the title, the text, and sections `## Task`, `## Hint`, `## Sources`), starter.asm
with one line that has HOLE, solution.asm, mistakes.md, and check.py, which is loaded by who checks.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from vmm.base.names import unknown
from vmm.errors import UsageError

ORDER = (
    "hlt", "console", "loop", "mmio", "idt", "timer", "paging", "ring3", "cpuid", "kvmclock", "two_cpus", "async_pf",
)  # fmt: skip
"""Names of folders; a lesson's number is its place here."""
LESSONS = Path(__file__).parent / "lessons"
HOLE = ">>>"
MARK = re.compile(r"^;\s*lesson:\s*(\w+)", re.M)
"""In a student's file: whose it is."""
NAMED = r"(?:\d+-)?(\w+)"
"""`loop`, or `03-loop` as its file is called."""


class Lesson(NamedTuple):
    """`text` is Markdown, with the task and the sources, without the hint."""

    number: int
    name: str
    title: str
    text: str
    hint: str
    starter: str
    solution: str

    @property
    def file(self) -> str:
        """What a student's file is called."""
        return f"{self.number:02}-{self.name}.asm"

    @property
    def hole(self) -> int:
        """The line of the starter where the student writes."""
        return next(number for number, line in enumerate(self.starter.splitlines(), 1) if HOLE in line)

    @property
    def folder(self) -> Path:
        return LESSONS / self.name

    def __str__(self) -> str:
        return f"lesson {self.number}, {self.name}"


@cache
def lessons() -> tuple[Lesson, ...]:
    """All of them, by number."""
    return tuple(_read(number, name) for number, name in enumerate(ORDER, 1))


def find(word: str) -> Lesson:
    """A lesson by its number or its name.

    Raises:
        UsageError: there is none; the nearest names are offered.
    """
    if word.isascii() and word.isdecimal() and len(word) < 10:
        if 1 <= int(word) <= len(ORDER):
            return lessons()[int(word) - 1]
        raise UsageError(f"there is no lesson {word}: they are 1 to {len(ORDER)}", hint="`pyvmm learn`")
    named = re.fullmatch(NAMED, word)
    if named and named[1] in ORDER:
        return lessons()[ORDER.index(named[1])]
    raise UsageError(unknown("lesson", word, ORDER), hint="`pyvmm learn`, or the path of your .asm file")


def is_lesson(word: str) -> bool:
    """Is it meant as a lesson? A number is, whether there is one or not."""
    named = re.fullmatch(NAMED, word)
    return word.isdecimal() or bool(named and named[1] in ORDER)


def of_text(text: str, file: str) -> Lesson | None:
    """Whose file this is: by its line `; lesson: NAME`, else by its name; None where neither tells.

    Raises:
        UsageError: its line names a lesson that there is not.
    """
    marked = MARK.search(text)
    if marked:
        return find(marked[1])
    named = re.fullmatch(NAMED, Path(file).stem)
    return find(named[1]) if named and named[1] in ORDER else None


def _read(number: int, name: str) -> Lesson:
    folder = LESSONS / name
    page = (folder / "lesson.md").read_text(encoding="utf-8")
    title, _, rest = page.partition("\n")
    before, _, after = rest.partition("\n## Hint\n")
    hint, _, sources = after.partition("\n## Sources\n")
    return Lesson(
        number=number,
        name=name,
        title=title.removeprefix("# ").strip(),
        text=f"{before.strip()}\n\n## Sources\n\n{sources.strip()}\n",
        hint=hint.strip(),
        starter=(folder / "starter.asm").read_text(encoding="utf-8"),
        solution=(folder / "solution.asm").read_text(encoding="utf-8"),
    )

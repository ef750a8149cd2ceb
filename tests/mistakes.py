# SPDX-License-Identifier: GPL-2.0-or-later
"""A lesson's typical mistakes, as its mistakes.md has them: edits of its solution, and words that a student then sees.

    ## NAME
    ```diff
     a line of the solution, beside the edit
    -a line of it that goes
    +a line that comes
    ```
    - words of the verdict

A line with nothing in it parts two edits. An edit has no line numbers: the lines of the solution that it names, one
below the other, must stand there once. It runs no guest.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from vmm.learn.course import Lesson

FILE = "mistakes.md"
ENTRY = re.compile(r"^## (\w+)\n+```diff\n(.*?)^```\n+((?:- [^\n]+\n)+)", re.M | re.S)


class Mistake(NamedTuple):
    """`text` is the whole file of the student; each of `says` is a part of the verdict on it."""

    name: str
    text: str
    says: tuple[str, ...]


def mistakes(lesson: Lesson) -> list[Mistake]:
    """Those of the lesson, in the order of its file.

    Raises:
        ValueError: a part of the file is no such entry, or an edit does not go with the solution.
    """
    page = (lesson.folder / FILE).read_text(encoding="utf-8")
    found = ENTRY.findall(page)
    if len(found) != len(re.findall("^## ", page, re.M)) or not found:
        raise ValueError(f"{lesson}: in {FILE} each `## NAME` has one ```diff block and a list of words below it")
    return [
        Mistake(name, edited(lesson.solution, diff), tuple(row[2:] for row in says.splitlines()))
        for name, diff, says in found
    ]


def edited(solution: str, diff: str) -> str:
    """The solution after these edits.

    Raises:
        ValueError: one names lines that are not there, or are there twice, or changes nothing.
    """
    lines = solution.splitlines()
    for edit in re.split(r"\n(?:[ \t]*\n)+", diff.strip("\n")):
        rows = [(row[0], row[1:]) for row in edit.splitlines()]
        old = [text for sign, text in rows if sign in " -"]
        new = [text for sign, text in rows if sign in " +"]
        if any(sign not in " -+" for sign, _ in rows) or old == new:
            raise ValueError(f"this is no edit:\n{edit}")
        at = [here for here in range(len(lines)) if lines[here : here + len(old)] == old]
        if len(at) != 1:
            raise ValueError(f"these lines are {len(at)} times in the solution, and must be there once:\n{edit}")
        lines[at[0] : at[0] + len(old)] = new
    return "\n".join(lines) + "\n"

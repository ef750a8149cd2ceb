# SPDX-License-Identifier: GPL-2.0-or-later
"""The course in lines for a person: the list with what is done, a verdict, what is different on this host."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from vmm.errors import VmmError
from vmm.kvm.system import Kvm
from vmm.learn import checks
from vmm.learn.attempt import CANNOT, EMPTY, MISSING, RIGHT, WRONG, Verdict
from vmm.learn.course import Lesson, lessons
from vmm.learn.progress import Progress
from vmm.report.style import Style, printable

WORDS = {
    RIGHT: "right",
    WRONG: "not yet",
    EMPTY: "nothing filled in yet",
    CANNOT: "cannot be checked on this host",
    MISSING: "no file",
}
KINDS = {RIGHT: "good", WRONG: "bad", EMPTY: "warn", CANNOT: "warn", MISSING: "warn"}
WIDEST = 100


def state(progress: Progress, lesson: Lesson) -> str:
    """right, begun or open."""
    row = progress.lessons.get(lesson.name, {})
    return "right" if row.get("right") else "begun" if row else "open"


def next_lesson(progress: Progress) -> Lesson | None:
    """The one begun last and not right yet, else the first that is not; None when all are."""
    left = [each for each in lessons() if not progress.is_right(each.name)]
    begun = [each for each in left if progress.lessons.get(each.name, {}).get("started")]
    if begun:
        return max(begun, key=lambda each: str(progress.lessons[each.name]["started"]))
    return left[0] if left else None


def after(progress: Progress, lesson: Lesson) -> Lesson | None:
    """The next one that is not right yet, from this one on; None when all are."""
    ring = (*lessons()[lesson.number :], *lessons()[: lesson.number])
    return next((each for each in ring if not progress.is_right(each.name)), None)


def list_lines(progress: Progress, style: Style) -> Iterator[str]:
    """All lessons, and what comes next."""
    width = max(len(each.name) for each in lessons())
    upcoming = next_lesson(progress)
    for each in lessons():
        now = state(progress, each)
        mark = {"right": style("good", "right"), "begun": style("warn", "begun"), "open": "     "}[now]
        arrow = style("name", ">") if each is upcoming else " "
        yield f"{arrow} {each.number:>2}  {each.name.ljust(width)}  {mark}  {each.title}"
    done = sum(progress.is_right(each.name) for each in lessons())
    yield ""
    if upcoming is None:
        yield f"All {len(lessons())} lessons are right. `pyvmm probe` now shows what else this host's KVM does."
        return
    begun = state(progress, upcoming) == "begun"
    yield f"{done} of {len(lessons())} are right. {upcoming}:"
    yield f"  pyvmm learn show {upcoming.number}   its text"
    if begun:
        yield f"  pyvmm learn check {upcoming.number}  runs your guest, and says what it did"
    else:
        yield f"  pyvmm learn start {upcoming.number}  writes {upcoming.file}, with a place for your code"


def verdict_lines(verdict: Verdict, style: Style, columns: int, upcoming: Lesson | None) -> Iterator[str]:
    """What the check found, and what to do next."""
    lesson = verdict.lesson
    yield f"{lesson}: {style(KINDS[verdict.outcome], WORDS[verdict.outcome])}"
    yield from wrapped(verdict.text, columns)
    for note in verdict.notes:
        yield from wrapped(f"note: {note}", columns)
    if verdict.outcome == RIGHT:
        if upcoming is None:
            yield "  that was the last one: all are right"
        else:
            yield f"  next: pyvmm learn start {upcoming.number}   ({upcoming.title})"
    elif verdict.outcome in (WRONG, EMPTY):
        yield style("dim", f"  the text: pyvmm learn show {lesson.number}   a hint: pyvmm learn hint {lesson.number}")


def wrapped(text: str, columns: int) -> Iterator[str]:
    """Lines of two blanks and text; where it has lines of its own (an assembler's message), these stay."""
    rows = printable(text).splitlines()
    for row in rows:
        if len(rows) > 1:
            yield f"  {row}"
        else:
            yield from textwrap.wrap(
                row, min(columns, WIDEST), initial_indent="  ", subsequent_indent="  ", break_long_words=False,
                break_on_hyphens=False,
            )  # fmt: skip


def here(lesson: Lesson) -> str:
    """What is different on this host, as measured; "" where nothing is."""
    try:
        with Kvm.open():
            pass
        of_lesson = checks.of(lesson.name)
        cannot = of_lesson.cannot()
        return f"This lesson cannot be checked here: {cannot}" if cannot else of_lesson.differs()
    except VmmError as error:
        return f"KVM cannot be used here ({error.text}), and `check` needs it: `pyvmm doctor` says what to do."

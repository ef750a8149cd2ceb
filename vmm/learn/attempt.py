# SPDX-License-Identifier: GPL-2.0-or-later
"""A student's file and its lesson, to a verdict: it is assembled, run in a machine of the lesson's, and looked at.

The machine is the one that the starter's header describes, whatever the student's says. Every run is bounded: in time,
in exits, in output.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vmm.base.record import replace
from vmm.errors import GuestError, MissingCapability, PayloadError, UsageError
from vmm.learn import checks
from vmm.learn.checks import Checks, Wrong
from vmm.learn.course import Lesson, of_text
from vmm.learn.endings import ended
from vmm.learn.seen import Seen, Watcher
from vmm.payload.catalog import Payload, read_source
from vmm.payload.guest import Guest
from vmm.payload.header import MissingResult, parse
from vmm.payload.options import Options

LIMIT = 2.0
"""Seconds of a run: a guest of a lesson needs milliseconds, and time that the host did not give it is not counted."""
EXITS, OUTPUT = 5000, 256
KICKED = "Interrupted"  # an exit that our own clock caused
RIGHT, WRONG, EMPTY, CANNOT, MISSING = "right", "wrong", "empty", "cannot", "missing"


@dataclass(frozen=True)
class Verdict:
    """`outcome`: right, wrong, empty (the hole is as it was), cannot (be checked on this host), missing (no file).
    `text` says what the guest did; `exits` are those of its last run by kind, `seconds` what it all took.
    """

    lesson: Lesson
    outcome: str
    text: str
    file: str = ""
    exits: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "number": self.lesson.number,
            "name": self.lesson.name,
            "title": self.lesson.title,
            "file": self.file,
            "outcome": self.outcome,
            "text": self.text,
            "notes": list(self.notes),
            "exits": dict(self.exits),
            "seconds": round(self.seconds, 3),
        }


def attempt(lesson: Lesson, file: str, text: str, limit: float = LIMIT, *, empty: bool = True) -> Verdict:
    """Run what a student wrote. `limit` is in seconds, for each run; `empty`: run a starter as it is, too.

    Raises:
        HostError: no usable KVM.
    """
    begin = time.monotonic()
    unfilled = _same(text, lesson.starter)
    if unfilled and not empty:
        return Verdict(lesson, EMPTY, f"line {lesson.hole} still waits for your code", file)
    lesson_checks = checks.of(lesson.name)
    outcome, said = WRONG, ""
    exits: Mapping[str, int] = {}
    try:
        header = parse(lesson.starter, lesson.file)
        payload = Payload(lesson.name, file, "", header, text=text)
        if why := lesson_checks.cannot():
            outcome, said = CANNOT, why
        else:
            for params in lesson_checks.runs:
                said, exits = _run(payload, lesson_checks, params, limit)
            outcome = RIGHT
    except PayloadError as error:
        said = f"your text does not assemble: {error}"
    except MissingCapability as error:
        outcome, said = CANNOT, error.one_line
    except _Not as error:
        said, exits = error.text, error.exits
    if outcome == WRONG and unfilled:
        outcome = EMPTY
        said = f"line {lesson.hole} still waits for your code. As it is: {said}"
    notes = ("the header lines at the top were changed: the machine is still the lesson's",)
    changed = outcome != EMPTY and _header(text) != _header(lesson.starter)
    return Verdict(lesson, outcome, said, file, exits, notes if changed else (), time.monotonic() - begin)


def read(file: str) -> str:
    """The text of a student's file.

    Raises:
        UsageError: it cannot be read, is no file, no text, or has nothing in it.
    """
    text = read_source(file, "a lesson is checked as text: the .asm file that you write")
    if not text.strip():
        lesson = of_text("", file)
        which = lesson.number if lesson else "N"
        raise UsageError(
            f"{file} is empty: there is nothing to run", hint=f"`pyvmm learn start {which} --force` writes a starter"
        )
    return text


class _Not(Exception):
    def __init__(self, text: str, exits: Mapping[str, int]) -> None:
        super().__init__(text)
        self.text, self.exits = text, dict(sorted(exits.items()))


def _run(
    payload: Payload, lesson_checks: Checks, params: Mapping[str, int], limit: float
) -> tuple[str, dict[str, int]]:
    """(what the guest did, its exits). _Not: it did something else than its task."""
    given: Mapping[str, Any] = lesson_checks.options(params)
    own = {name: value for name, value in params.items() if name in payload.header.params}
    options = Options(params=own, timeout=limit, exit_limit=EXITS, output_limit=OUTPUT)
    with Guest(payload, options, **given) as guest:
        guest.machine.all_cpus.patient = True
        lesson_checks.before(guest, params)
        watcher = Watcher(guest)
        counts: dict[str, int] = {}
        try:
            lesson_checks.drive(guest)
            result = guest.result
            if result is None:
                raise UsageError(f"the check of {payload.name} never ran its guest")
            counts = {kind: count for kind, count in sorted(result.counts.items()) if kind != KICKED}
            seen = Seen(guest, result, watcher.exits, watcher.last(), params)
            more = "" if result.stop.why is lesson_checks.ends and not result.stop.code else lesson_checks.why(seen)
            if text := ended(seen, lesson_checks.ends, explained=bool(more)):
                raise Wrong(". ".join(each.rstrip(".") for each in (text, more) if each))
            return lesson_checks.check(seen), counts
        except MissingResult as error:
            raise _Not(
                f"your guest ended without storing its result `{error.name}`: `RESULT {error.name}` was never executed",
                counts,
            ) from error
        except (Wrong, GuestError) as error:
            raise _Not(str(error), counts) from error


def _same(text: str, other: str) -> bool:
    """But for blanks and comments?"""
    return _code(text) == _code(other)


def _code(text: str) -> list[str]:
    rows = (" ".join(row.partition(";")[0].split()) for row in text.splitlines())
    return [row for row in rows if row]


def _header(text: str) -> Any:
    try:
        return replace(parse(text, ""), notes=(), summary="")
    except PayloadError:
        return None

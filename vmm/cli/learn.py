# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm learn`: the course. Texts, starters, checks that say what a student's guest did, results for a class."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from vmm.cli.arguments import columns
from vmm.cli.colour import can_colour, style_for
from vmm.errors import EXIT_CANNOT_SHOW, EXIT_FAIL, EXIT_PASS, UsageError
from vmm.learn import folders
from vmm.learn.attempt import CANNOT, MISSING, RIGHT, Verdict, attempt, read
from vmm.learn.course import Lesson, find, is_lesson, lessons, of_text
from vmm.learn.progress import Progress, now
from vmm.learn.text import after, here, list_lines, next_lesson, state, verdict_lines
from vmm.report.style import printable

ACTIONS = {
    "list": "the lessons, and how far you are (so does no action at all)",
    "show": "the text of a lesson, and what is different on this host",
    "start": "write the lesson's starter, NN-NAME.asm, with a place for your code",
    "check": "run your guest, and say what it did; of a lesson, or of a file",
    "hint": "a hint",
    "solution": "a solution",
    "export": "write a folder for a class: all starters and texts, a README.md, a Makefile",
    "reset": "forget how far you are, with a lesson or with all; files stay",
}
HELP = "actions:\n" + "".join(f"  {name:<9} {text}\n" for name, text in ACTIONS.items()) + (
    "\nA lesson is its number or its name; without one it is the one that comes next.\n"
    "check: 0 right, 1 not right, 77 cannot be checked on this host, 99 no usable KVM.\n"
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"{HELP}\n{parser.epilog}"
    parser.add_argument("action", nargs="?", default="list", metavar="ACTION", help="one of those below")
    parser.add_argument("what", nargs="*", metavar="LESSON|FILE", help="a number, a name, or the path of your file")
    parser.add_argument("--dir", metavar="DIR", help="start: where to write; check N: where to look (default: here)")
    parser.add_argument("--watch", action="store_true", help="check: again at each save, until ^C")
    parser.add_argument(
        "--all", metavar="DIR", help="check: every lesson of a student's folder, or of each folder in it"
    )
    parser.add_argument("--junit", metavar="FILE", help="check: write the results as JUnit XML, too")
    parser.add_argument("--json", action="store_true", help="list, check: print one JSON document (schema 1)")
    parser.add_argument("--force", action="store_true", help="start, export: replace files (the old ones become NAME~)")
    parser.add_argument("--no-color", action="store_true", help="plain text, also on a terminal")


def run(args: argparse.Namespace, out: TextIO) -> int:
    _understand(args)
    progress = Progress()
    try:
        return int(globals()[f"_{args.action}"](args, progress, out))
    finally:
        if progress.notice and sys.stderr is not None:
            print(f"pyvmm: {progress.notice}", file=sys.stderr)


def _understand(args: argparse.Namespace) -> None:
    """`learn 3` is `learn show 3`, `learn 03-loop.asm` is `learn check 03-loop.asm`, `learn --watch` checks.

    Raises:
        UsageError: no such action, or an option that has no part in it.
    """
    if args.action not in ACTIONS:
        word = args.action
        if _is_path(word) or is_lesson(word):
            args.what, args.action = [word, *args.what], "check" if _is_path(word) else "show"
        else:
            from vmm.base.names import unknown

            names = (*ACTIONS, *(each.name for each in lessons()))
            raise UsageError(unknown("action or lesson", word, names), hint="`pyvmm learn --help`")
    elif args.action == "list" and (args.watch or args.all or args.junit):
        args.action = "check"
    for option, actions in {
        "watch": ("check",), "all": ("check",), "junit": ("check",), "json": ("list", "check"),
        "force": ("start", "export"), "dir": ("start", "check"),
    }.items():  # fmt: skip
        if getattr(args, option) and args.action not in actions:
            raise UsageError(f"--{option} goes with {' and '.join(actions)}, not with {args.action}")
    most = {"list": 0, "check": None}.get(args.action, 1)
    if most is not None and len(args.what) > most:
        raise UsageError(f"unrecognized arguments: {' '.join(args.what[most:])}", hint="`pyvmm learn --help`")


def _is_path(word: str) -> bool:
    return "/" in word or "." in word or (not word.isdecimal() and Path(word).exists())


def _lesson(args: argparse.Namespace, progress: Progress) -> Lesson:
    """The lesson that is meant; where none is named, the one that comes next."""
    return find(args.what[0]) if args.what else next_lesson(progress) or lessons()[-1]


# -- the actions


def _list(args: argparse.Namespace, progress: Progress, out: TextIO) -> int:
    if args.json:
        return _document(progress, [], out)
    for line in list_lines(progress, style_for(args, out)):
        print(line, file=out)
    return EXIT_PASS


def _show(args: argparse.Namespace, progress: Progress, out: TextIO) -> int:
    lesson = _lesson(args, progress)
    text = folders.page(lesson)
    if differs := here(lesson):
        text += f"\n## On this host\n\n{textwrap.fill(differs, 120)}\n"
    _markdown(args, text, out)
    if state(progress, lesson) == "open":
        print(f"\npyvmm learn start {lesson.number}  writes {lesson.file}, with a place for your code", file=out)
    else:
        print(f"\npyvmm learn check {lesson.number}  runs your guest, and says what it did", file=out)
    return EXIT_PASS


def _start(args: argparse.Namespace, progress: Progress, out: TextIO) -> int:
    lesson = _lesson(args, progress)
    path = folders.start(lesson, args.dir or ".", force=args.force)
    progress.note(lesson.name, file=str(path.absolute()), started=now())
    print(f"{path} is written: {lesson.title}.  Line {lesson.hole} waits for your code.", file=out)
    print(f"  pyvmm learn show {lesson.number}   its text", file=out)
    print(
        f"  pyvmm learn check {lesson.number}  runs your guest, and says what it did; --watch: at each save", file=out
    )
    return EXIT_PASS


def _hint(args: argparse.Namespace, progress: Progress, out: TextIO) -> int:
    lesson = _lesson(args, progress)
    progress.note(lesson.name, hint=True)
    _markdown(args, f"{lesson.hint}\n", out)
    return EXIT_PASS


def _solution(args: argparse.Namespace, progress: Progress, out: TextIO) -> int:
    lesson = _lesson(args, progress)
    progress.note(lesson.name, solution=True)
    print(lesson.solution, end="", file=out)
    return EXIT_PASS


def _export(args: argparse.Namespace, progress: Progress, out: TextIO) -> int:
    if not args.what:
        raise UsageError("learn export: where to?", hint="`pyvmm learn export DIR`")
    count = folders.export(args.what[0], force=args.force)
    print(f"{count} files are written to {args.what[0]}: begin with README.md", file=out)
    return EXIT_PASS


def _reset(args: argparse.Namespace, progress: Progress, out: TextIO) -> int:
    chosen = (find(args.what[0]),) if args.what else lessons()
    names = tuple(each.name for each in chosen if each.name in progress.lessons)
    progress.forget(names)
    said = "nothing was known" if not names else f"forgotten: {', '.join(names)}"
    print(f"{said}; your files stay as they are", file=out)
    return EXIT_PASS


# -- check


def _check(args: argparse.Namespace, progress: Progress, out: TextIO) -> int:
    if args.all:
        if args.watch or args.what or args.dir:
            raise UsageError("--all DIR checks what is in DIR, once: without --watch, --dir and names")
        return _report(args, progress, _class(args, out), out)
    chosen = _chosen(args, progress)
    if args.watch:
        if len(chosen) != 1 or args.json or args.junit:
            raise UsageError("--watch is for one file, and for a person")
        return _watch(args, progress, *chosen[0], out)
    checked = []
    for lesson, file in chosen:
        verdict = attempt(lesson, file, read(file))
        progress.checked(lesson.name, file, verdict.outcome == RIGHT)
        checked.append(("", verdict))
    return _report(args, progress, checked, out)


def _chosen(args: argparse.Namespace, progress: Progress) -> list[tuple[Lesson, str]]:
    """(lesson, file) of each word; a path after a lesson is that lesson's.

    Raises:
        UsageError: a file is not there, or nobody can tell whose it is.
    """
    found: list[tuple[Lesson, str]] = []
    words = [*args.what] or [str(_lesson(args, progress).number)]
    while words:
        word = words.pop(0)
        lesson = None if _is_path(word) else find(word)
        if lesson is None or (words and _is_path(words[0])):
            file = word if lesson is None else words.pop(0)
            whose = of_text(read(file), file)
            if lesson is not None and whose not in (None, lesson):
                raise UsageError(f"{file} says that it is {whose}, and not {lesson}")
            if lesson is None and whose is None:
                raise UsageError(
                    f"{file} does not say whose lesson it is",
                    hint=f"`; lesson: {lessons()[0].name}` as its first line, or `pyvmm learn check N {file}`",
                )
            found.append((lesson or whose or lessons()[0], file))
        else:
            found.append((lesson, _file_of(lesson, args, progress)))
    return found


def _file_of(lesson: Lesson, args: argparse.Namespace, progress: Progress) -> str:
    """Where the student's file of a lesson is: in --dir, here, or where it was begun."""
    begun = progress.lessons.get(lesson.name, {}).get("file", "")
    places = [Path(args.dir) / lesson.file] if args.dir else [Path(lesson.file), *([Path(begun)] if begun else [])]
    for each in places:
        if each.exists():
            return str(each)
    raise UsageError(
        f"{places[0]} is not there" + (f", nor is {begun}, where it was begun" if len(places) > 1 else ""),
        hint=f"`pyvmm learn start {lesson.number}` writes it, or give its path: `pyvmm learn check FILE`",
    )


def _class(args: argparse.Namespace, out: TextIO) -> list[tuple[str, Verdict]]:
    """Every lesson of every student; on a terminal with a bar of how far it is."""
    students = list(folders.students(args.all))
    if args.json or not can_colour(args, out):
        return list(_of_a_class(students))
    from vmm.cli.live import Bar

    checked = []
    with Bar(out, len(students) * len(lessons())) as bar:
        for student, verdict in _of_a_class(students):
            checked.append((student, verdict))
            bar.at(len(checked), f"{student}: {verdict.lesson}")
    return checked


def _of_a_class(students: Sequence[tuple[str, dict[str, Path]]]) -> Iterator[tuple[str, Verdict]]:
    """What cannot be read is theirs to mend, and ends nothing."""
    for student, files in students:
        for lesson in lessons():
            path = files.get(lesson.name)
            if path is None:
                yield student, Verdict(lesson, MISSING, f"there is no {lesson.file}")
                continue
            try:
                yield student, attempt(lesson, str(path), read(str(path)), empty=False)
            except UsageError as error:
                yield student, Verdict(lesson, "wrong", error.one_line, str(path))


def _watch(args: argparse.Namespace, progress: Progress, lesson: Lesson, file: str, out: TextIO) -> int:
    """Until ^C, which ends it with status 130 like everything else."""
    from vmm.base.watch import Watch
    from vmm.cli.watch import wait

    watch = Watch([file])
    while True:
        try:
            verdict = attempt(lesson, file, read(file))
        except UsageError as error:  # half saved, or empty for now
            print(f"{lesson}: {printable(error.one_line)}", file=out)
        else:
            progress.checked(lesson.name, file, verdict.outcome == RIGHT)
            _tell(args, verdict, progress, out)
        print(f"... {printable(file)} is checked again when it is saved; ^C ends this\n", file=out, flush=True)
        wait(watch, out)


def _report(args: argparse.Namespace, progress: Progress, checked: Sequence[tuple[str, Verdict]], out: TextIO) -> int:
    if args.junit:
        from vmm.cli.files import check_outputs, write_file
        from vmm.learn.junit import render

        check_outputs({"--junit": args.junit}, [verdict.file for _, verdict in checked if verdict.file])
        write_file(args.junit, render(checked))
    if args.json:
        _document(progress, checked, out)
    elif args.all:
        _table(args, checked, out)
    else:
        for _, verdict in checked:
            _tell(args, verdict, progress, out)
    outcomes = {verdict.outcome for _, verdict in checked}
    if outcomes <= {RIGHT}:
        return EXIT_PASS
    return EXIT_CANNOT_SHOW if outcomes <= {RIGHT, CANNOT} else EXIT_FAIL


def _tell(args: argparse.Namespace, verdict: Verdict, progress: Progress, out: TextIO) -> None:
    for line in verdict_lines(verdict, style_for(args, out), columns(), after(progress, verdict.lesson)):
        print(line, file=out)


def _table(args: argparse.Namespace, checked: Sequence[tuple[str, Verdict]], out: TextIO) -> None:
    style, last = style_for(args, out), None
    for student, verdict in checked:
        if student != last:
            right = sum(one == student and each.outcome == RIGHT for one, each in checked)
            print(f"{style('head', student)}: {right} of {len(lessons())} are right", file=out)
            last = student
        first, *more = list(verdict_lines(verdict, style, columns() - 2, None))
        print(f"  {first}", file=out)
        if verdict.outcome not in (RIGHT, MISSING):
            for line in more[:-1] if more[-1:] and "pyvmm learn hint" in more[-1] else more:
                print(f"  {line}", file=out)


def _document(progress: Progress, checked: Sequence[tuple[str, Verdict]], out: TextIO) -> int:
    rows = []
    for each in lessons():
        known = progress.lessons.get(each.name, {})
        rows.append(
            {"number": each.number, "name": each.name, "title": each.title, "state": state(progress, each),
             "file": known.get("file", ""), "checks": known.get("checks", 0), "hint": known.get("hint", False),
             "solution": known.get("solution", False)}
        )  # fmt: skip
    upcoming = next_lesson(progress)
    document = {
        "schema": 1,
        "lessons": rows,
        "next": upcoming.name if upcoming else None,
        "checked": [{"student": student} | verdict.as_json() for student, verdict in checked],
    }
    print(json.dumps(document, indent=2), file=out)
    return EXIT_PASS


def _markdown(args: argparse.Namespace, text: str, out: TextIO) -> None:
    """As a terminal shows it, else as it is."""
    if can_colour(args, out):
        from vmm.cli.live import markdown

        markdown(out, text, min(columns(), 100))
    else:
        print(text, end="", file=out)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of the course in a student's and a teacher's folders: starters, what a class gets, whose files are where.

Nothing that is there is overwritten without being told; then the old file stays beside the new one, as NAME~.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from vmm.errors import UsageError, os_reason
from vmm.learn.course import Lesson, lessons

MAKEFILE = """\
# Checks all lessons of this folder: make. One lesson: make 03-loop. At each save: make watch-03-loop.
PYVMM ?= pyvmm

check:
	$(PYVMM) learn check --all .

%: %.asm
	$(PYVMM) learn check ./$<

watch-%: %.asm
	$(PYVMM) learn check --watch ./$<

.PHONY: check FORCE
$(basename $(wildcard *.asm)): FORCE
"""
MAX_STUDENTS = 10_000


def start(lesson: Lesson, folder: str, *, force: bool = False) -> Path:
    """Write the lesson's starter into a folder, which is made if need be: its path.

    Raises:
        UsageError: it is there already, or cannot be written.
    """
    path = Path(folder) / lesson.file
    write({path: lesson.starter}, force=force)
    return path


def export(folder: str, *, force: bool = False) -> int:
    """Write what a class needs: every starter, every text, a README.md, a Makefile. How many files.

    Raises:
        UsageError: one of them is there already, or cannot be written.
    """
    top = Path(folder)
    files = {top / "README.md": _readme(), top / "Makefile": MAKEFILE}
    for lesson in lessons():
        files[top / lesson.file] = lesson.starter
        files[top / "texts" / f"{Path(lesson.file).stem}.md"] = page(lesson)
    write(files, force=force)
    return len(files)


def page(lesson: Lesson) -> str:
    """A lesson as one page of Markdown."""
    return f"# Lesson {lesson.number}: {lesson.title}\n\n{lesson.text}"


def write(files: dict[Path, str], *, force: bool) -> None:
    """All of them, or none where one is there already and is not to be replaced.

    Raises:
        UsageError: as `start`.
    """
    try:
        there = [path for path in files if path.exists() or path.is_symlink()]
        if there and not force:
            more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
            raise UsageError(
                f"{there[0]} is there already, and stays as it is{more}",
                hint=f"--force, which writes it anew and keeps what is there as {there[0].name}~; or --dir",
            )
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path in there:
                path.replace(path.with_name(f"{path.name}~"))
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except (OSError, ValueError) as error:
        where = getattr(error, "filename", None)
        raise UsageError(
            f"writing {os.fspath(where) if where else 'the files of the course'}: {os_reason(error)}"
        ) from error


def students(folder: str) -> Iterator[tuple[str, dict[str, Path]]]:
    """(name, its files by lesson) of whoever has files of lessons there: the folder itself, else each folder in it.

    Raises:
        UsageError: it cannot be read, or nobody has.
    """
    top = Path(folder)
    try:
        own = _files(top)
        found = [(top.resolve().name, own)] if own else []
        if not own:
            for each in sorted(top.iterdir())[:MAX_STUDENTS]:
                if each.is_dir() and not each.name.startswith(".") and (theirs := _files(each)):
                    found.append((each.name, theirs))
    except (OSError, ValueError) as error:
        raise UsageError(f"reading {folder}: {os_reason(error)}") from error
    if not found:
        raise UsageError(
            f"{folder}: no file of a lesson is there, and in no folder of it (they are called {lessons()[0].file} "
            "and so on)",
            hint="`pyvmm learn export DIR` writes them",
        )
    yield from found


def _files(folder: Path) -> dict[str, Path]:
    return {lesson.name: folder / lesson.file for lesson in lessons() if (folder / lesson.file).exists()}


def _readme() -> str:
    rows = "\n".join(
        f"| {each.number} | [{each.title}](texts/{Path(each.file).stem}.md) | `{each.file}` |" for each in lessons()
    )
    return f"""\
# Virtual machines from below: {len(lessons())} lessons

Each lesson is a small guest, in assembly, with one place that is left open. Read the text, fill it in, and let pyvmm
run it on this machine's KVM: it says what your guest did.

| | lesson | file |
|---|---|---|
{rows}

    pyvmm learn check ./{lessons()[0].file}     runs your guest, and says what it did
    pyvmm learn check --watch ./{lessons()[0].file}     again at each save, until ^C
    pyvmm learn hint 1      a hint
    pyvmm learn             the lessons, and how far you are
    make                    checks every lesson of this folder

It needs Linux on x86-64 with a `/dev/kvm` that you may open (`pyvmm doctor` says what is missing), no network, no root.

For a teacher: `pyvmm learn check --all DIR --junit results.xml` checks the files of one student, or of every folder in
DIR; `--json` prints the same for a program. `pyvmm learn solution N` prints a solution.
"""

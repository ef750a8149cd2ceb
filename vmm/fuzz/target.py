# SPDX-License-Identifier: GPL-2.0-or-later
"""What a target is: something that an input can be given to, which says what it reached, and whether it broke.

HostTarget is one of pyvmm's own Python. What it raises that it does not say it raises is a crash, and so is an answer
that `play` finds wrong (Wrong), a loop without end, and memory beyond the process' limit.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import CodeType
from typing import NamedTuple, Protocol

from vmm.fuzz.lines import MOST_LINES, Endless, Lines

LONGEST = 64
"""Bytes of a word that is taken from a target's constants."""


class Crash(NamedTuple):
    """`kind` is the same for all inputs that meet the same bug, as far as can be told; `text` says more of this one."""

    kind: str
    text: str


class Seen(NamedTuple):
    """What an input reached, as numbers, and the crash that it caused."""

    reached: frozenset[int]
    crash: Crash | None = None


class Wrong(Exception):
    """The target took an input and did something that it must not."""


class Target(Protocol):
    """`run` may be called any number of times, and begins with the same state each time."""

    @property
    def name(self) -> str:
        """As `pyvmm fuzz` is given it."""

    @property
    def most(self) -> int:
        """The most bytes of an input that make sense."""

    @property
    def row(self) -> int:
        """An input is rows of so many bytes, each with a meaning of its own; 1 where it is not."""

    @property
    def repeats(self) -> bool:
        """Whether what an input reaches is told each time, and not only the first time that any input does."""

    def seeds(self) -> Sequence[bytes]:
        """Inputs to begin with, at least one."""

    def words(self) -> Sequence[bytes]:
        """Byte strings that mean something to it."""

    def run(self, data: bytes) -> Seen:
        """One input."""

    def told(self, data: bytes, crash: Crash) -> str:
        """All about a crash that this input has caused: asked of one that is kept or shown."""

    def close(self) -> None:
        """Give back what it holds. Idempotent."""


class HostTarget:
    """A part of pyvmm. `files` are those whose lines are its coverage, `allowed` what it raises by its own word.

    A subclass has `play(data)`, and `begin()` where something is to be made once.
    """

    name = ""
    most = 512
    row = 1
    repeats = True
    allowed: tuple[type[BaseException], ...] = ()
    files: tuple[str, ...] = ()
    closely: tuple[str, ...] = ()
    """Of `files`, those of which each bytecode counts."""
    lines = MOST_LINES

    def __init__(self) -> None:
        self._lines = Lines(self.files, self.lines, self.closely)

    def seeds(self) -> Sequence[bytes]:
        return (bytes(16),)

    def words(self) -> Sequence[bytes]:
        return (*constants(self.files), *constants(self.closely) * 4)

    def play(self, data: bytes) -> None:
        """Give it the input; raise Wrong where it answers what it must not."""
        raise NotImplementedError

    def run(self, data: bytes) -> Seen:
        crash = None
        try:
            with self._lines:
                self.play(data)
        except self.allowed:
            pass
        except (Exception, Endless) as error:
            crash = of_error(error)
        return Seen(frozenset(self._lines.seen), crash)

    def told(self, data: bytes, crash: Crash) -> str:
        return crash.text

    def close(self) -> None:
        pass


def of_error(error: BaseException) -> Crash:
    """A crash by the innermost line of ours that the exception came through, and by what it is."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.endswith("/lines.py")]
    last = frames[-1] if frames else None
    where = f"{Path(last.filename).stem}-{last.name}-{last.lineno}" if last else "nowhere"
    if isinstance(error, Endless):  # it may be anywhere in its loop
        return Crash("endless", "".join(traceback.format_list(frames)) + "more lines than any input should need\n")
    return Crash(f"{type(error).__name__}-{where}", "".join(traceback.format_exception(error)))


def constants(files: Sequence[str]) -> tuple[bytes, ...]:
    """The constants that the code of these files has, as an input would hold them: little-endian numbers of the width
    that they need, and text.
    """
    found: dict[bytes, None] = {}
    for file in files:
        for value in _of_code(compile(Path(file).read_bytes(), file, "exec")):
            if isinstance(value, str):
                value = value.encode("utf-8", "replace")
            if isinstance(value, int) and not isinstance(value, bool) and 1 < value < 1 << 64:
                width = next(each for each in (1, 2, 4, 8) if value < 1 << 8 * each)
                value = value.to_bytes(width, "little")
            if isinstance(value, bytes) and 1 <= len(value) <= LONGEST and b" " not in value:
                found[value] = None
    return tuple(found)


def _of_code(code: CodeType) -> list[object]:
    made: list[object] = []
    for each in code.co_consts:
        if isinstance(each, CodeType):
            made += _of_code(each)
        elif isinstance(each, (tuple, frozenset)):
            made += sorted(each, key=repr)
        else:
            made.append(each)
    return made


def files_of(*modules: str) -> tuple[str, ...]:
    """The files of modules by name, which are imported."""
    import importlib

    found = []
    for name in modules:
        importlib.import_module(name)
        file = sys.modules[name].__file__
        assert file is not None
        found.append(file)
    return tuple(found)

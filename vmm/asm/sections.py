# SPDX-License-Identifier: GPL-2.0-or-later
"""Sections: which one a statement belongs to, and in which order they follow each other. It knows no instruction.

A program is one piece of memory: code first, then what is read, written and zero, each in the order written. Debug
information and notes are left out, since nobody loads them. `.comm` and `.lcomm` reserve room in `.bss`.
"""

from __future__ import annotations

from vmm.asm.expand import Label, Statement, split_arguments
from vmm.asm.expression import SourceError

WORDS = frozenset(
    (".text", ".data", ".bss", ".rodata", ".section", ".pushsection", ".popsection", ".previous", ".comm", ".lcomm")
)
_RANKS = (".text", ".rodata", ".data", ".bss")  # others stand between .rodata and .data
_DROPPED = (".debug", ".note", ".comment", ".eh_frame", ".gnu", ".stab", ".discard")


class Sections:
    """The section of each statement as they come; `current` is the one in force."""

    def __init__(self) -> None:
        self.current, self._before = ".text", ".text"
        self._stack: list[tuple[str, str]] = []
        self._seen: dict[str, int] = {}

    def switch(self, statement: Statement) -> None:
        """Follows a directive of WORDS but `.comm` and `.lcomm`. Raises SourceError."""
        word = statement.word
        name = split_arguments(statement.rest)[0][0].strip('"') if statement.rest.strip() else ""
        if word == ".popsection":
            if not self._stack:
                raise SourceError(".popsection without .pushsection", statement.column)
            self.current, self._before = self._stack.pop()
        elif word == ".previous":
            self.current, self._before = self._before, self.current
        else:
            if word in (".section", ".pushsection") and not name:
                raise SourceError(f"{word} wants a name: {word} .data", statement.column)
            if word == ".pushsection":
                self._stack.append((self.current, self._before))
            self._before = self.current
            self.current = name if word in (".section", ".pushsection") else word
        self._seen.setdefault(self.current, len(self._seen))

    @property
    def dropped(self) -> bool:
        """Whether what is here is left out of the program."""
        return self.current.startswith(_DROPPED)

    def key(self, name: str) -> tuple[float, int]:
        """What sections are sorted by."""
        kind = next((rank for rank, stem in enumerate(_RANKS) if name == stem or name.startswith(stem + ".")), 1.5)
        return kind, self._seen.get(name, -1)


def common(statement: Statement) -> list[Label | Statement]:
    """`.comm NAME, SIZE, ALIGNMENT` as an alignment, a label and room. Raises SourceError."""
    parts = split_arguments(statement.rest)
    if not 2 <= len(parts) <= 3:
        raise SourceError(f"{statement.word} wants a name, a size and an alignment", statement.column)

    def made(word: str, part: int) -> Statement:
        text, at = parts[part]
        return Statement(statement.row, word, statement.column, text, statement.rest_column + at, {})

    name, at = parts[0]
    items: list[Label | Statement] = [made(".balign", 2)] if len(parts) > 2 else []
    return [*items, Label(statement.row, name, statement.rest_column + at), made(".skip", 1)]

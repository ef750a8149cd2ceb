# SPDX-License-Identifier: GPL-2.0-or-later
"""Which bytes of an assembled program are code, data or padding, and what each label stands before. It reads
statements; it decodes nothing.

The text does not say it: `.byte` is data after a RET, and an instruction written by hand where the one before it goes
on into it. So a run of data begins where no instruction goes on, or at what no instruction is ever written as.
"""

from __future__ import annotations

from itertools import pairwise

from vmm.asm.directives import ALIGNMENTS, TEXTS, WIDTHS
from vmm.asm.program import Line, Program
from vmm.base.record import Record

CODE, DATA, PAD = "code", "data", "pad"
ENDS = frozenset(
    (
        "jmp",
        "ljmp",
        "ret",
        "retn",
        "retf",
        "retq",
        "lret",
        "retfq",
        "iret",
        "iretd",
        "iretq",
        "hlt",
        "ud2",
        "sysret",
        "sysretq",
        "sysexit",
        "sysexitq",
    )
)
"""After these the CPU is not at the next instruction; after HLT hardly ever."""
BY_HAND = (1, 2, 4)  # bytes of a number in which somebody writes an instruction


class Part(Record):
    """The bytes from `begin` to before `end` are of one kind."""

    begin: int
    end: int
    kind: str


class Named(Record):
    """A label, and the bytes up to the next label or the end of its part. `width` and `text` are of data: bytes of one
    element (1 where they differ), and whether it is text.
    """

    name: str
    address: int
    size: int
    kind: str
    width: int = 0
    text: bool = False
    line: Line | None = None


def parts(program: Program) -> tuple[Part, ...]:
    """All of the program that a statement made, by address; of compiled code what its lines tell of."""
    found: list[Part] = []
    goes_on = False
    for line in program.lines or program.stretches:
        word, kind = _word(line), CODE
        if program.lines and word.startswith("."):
            kind = _kind(word, line.text, goes_on, found[-1].kind if found else DATA)
        elif program.lines:
            goes_on = word not in ENDS
        goes_on = goes_on and kind == CODE
        if found and found[-1].kind == kind and found[-1].end == line.address:
            found[-1] = Part(found[-1].begin, line.address + line.size, kind)
        else:
            found.append(Part(line.address, line.address + line.size, kind))
    return tuple(found)


def _word(line: Line) -> str:
    return (line.text.split(None, 1) or [""])[0].lower()


def _kind(word: str, text: str, goes_on: bool, before: str) -> str:
    """Of a directive, with the kind of the part before it."""
    if word in ALIGNMENTS:
        return CODE if goes_on else DATA if before == DATA else PAD
    by_hand = WIDTHS.get(word) in BY_HAND and '"' not in text and "'" not in text
    return CODE if goes_on and by_hand else DATA


def labels(program: Program, among: tuple[Part, ...]) -> tuple[Named, ...]:
    """Every label of the program, by address; of several at one address all have its size."""
    places = sorted({*program.symbols.values(), *(part.end for part in among), program.end})
    after = dict(pairwise(places))
    found, at = [], 0
    for name, address in sorted(program.symbols.items(), key=lambda row: row[1]):
        while at < len(among) and among[at].end <= address:
            at += 1
        if at == len(among) or address < among[at].begin:  # at the very end, or between what is known
            size = after.get(address, address) - address
            found.append(Named(name, address, size, DATA if size else CODE, line=program.source(address)))
            continue
        size, line = after[address] - address, program.source(address)
        width, text = _elements(program, address, address + size) if among[at].kind == DATA else (0, False)
        kind = CODE if among[at].kind == PAD else among[at].kind
        found.append(Named(name, address, size, kind, width, text, line))
    return tuple(found)


def _elements(program: Program, begin: int, end: int) -> tuple[int, bool]:
    """(bytes of each element, whether it is text) of some data."""
    widths: set[tuple[int, bool]] = set()
    while begin < end and (line := program.line_at(begin)):
        word = _word(line)
        if word not in ALIGNMENTS:
            alone = line.size if word not in TEXTS and line.size in (2, 4, 8) else 1
            widths.add((WIDTHS.get(word, alone), word in TEXTS))
        begin = line.address + line.size
    return widths.pop() if len(widths) == 1 else (1, False)

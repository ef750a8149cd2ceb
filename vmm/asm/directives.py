# SPDX-License-Identifier: GPL-2.0-or-later
"""Directives to bytes: data, texts, filling and alignment. It knows no instruction but NOP.

keystone never sees a directive: `.word 0x10000` gives nothing there, `.skip label - label` neither, `.fill` of labels
never ends, `.quad` of 65 bits never ends, `.text` crashes and `.section` gives None. Sections are sections.py's.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from vmm.asm.expand import Statement, local_name, split_arguments
from vmm.asm.expression import Lookup, Node, Parser, SourceError, evaluate, tokenize, unquote
from vmm.asm.registers import words

MAX_SIZE = 16 << 20  # of one directive and of a program, bytes

WIDTHS = {
    ".byte": 1, ".word": 2, ".short": 2, ".hword": 2, ".2byte": 2, ".value": 2,
    ".long": 4, ".int": 4, ".4byte": 4, ".quad": 8, ".8byte": 8,
}  # fmt: skip
TEXTS = {".ascii": b"", ".asciz": b"\0", ".string": b"\0"}
FILLINGS = (".skip", ".zero", ".space")
ALIGNMENTS = (".p2align", ".align", ".balign")
MODES = {".code16": 16, ".code32": 32, ".code64": 64}
# GNU as and compilers need these; here they change nothing, because there is one syntax, no linker and no debugger.
_IGNORED = frozenset(
    words(
        ".globl .global .intel_syntax .type .size .file .ident .loc .weak .local .hidden .internal .protected "
        ".extern .version .symver .arch .addrsig .addrsig_sym .func .endfunc .att_mnemonic .intel_mnemonic"
    )
)
_REFUSED = {
    ".org": "use .skip, .fill or .p2align: the load address is the host's",
    ".include": 'write %include "name"',
    ".att_syntax": "AT&T syntax is not supported, only Intel syntax",
    ".incbin": "put the bytes in .byte",
    ".float": "write the bits with .long",
    ".double": "write the bits with .quad",
    ".octa": "write two .quad, low half first",
}
NAMES = (*WIDTHS, *TEXTS, *MODES, *FILLINGS, ".fill", *ALIGNMENTS, ".macro",
         ".endm", ".rept", ".irp", ".endr", ".if", ".else", ".elseif", ".endif", ".ifdef", ".ifndef", ".ifb", ".ifnb",
         ".set", ".equ", ".error", ".section", ".text", ".data", ".bss", ".comm")  # fmt: skip

# The recommended multi-byte NOPs (Intel SDM volume 2, NOP), for 32- and 64-bit code.
_NOPS = tuple(
    bytes.fromhex(text)
    for text in (
        "90", "6690", "0f1f00", "0f1f4000", "0f1f440000", "660f1f440000", "0f1f8000000000", "0f1f840000000000",
        "660f1f840000000000",
    )
)  # fmt: skip

Encode = Callable[[Lookup, int, int], bytes]  # (lookup, address, size in the last pass) -> bytes


def ignored(word: str) -> bool:
    """Whether a directive changes nothing here; `.cfi_*` is for unwinders."""
    return word in _IGNORED or word.startswith(".cfi_")


def nops(size: int, mode: int) -> bytes:
    """`size` bytes that do nothing; 16-bit code gets single bytes, whose long forms decode otherwise there."""
    if mode == 16:
        return b"\x90" * size
    return _NOPS[-1] * (size // len(_NOPS)) + (_NOPS[size % len(_NOPS) - 1] if size % len(_NOPS) else b"")


def build(statement: Statement, mode: int, suggest: Callable[[str], list[str]]) -> Encode:
    """The encoder of a directive. Raises SourceError for one that is refused or unknown."""
    word = statement.word
    if word in WIDTHS:
        return _data(statement, WIDTHS[word])
    if word in TEXTS:
        return _text(statement, TEXTS[word])
    if word in FILLINGS:
        return _skip(statement, 1, 2)
    if word == ".fill":
        return _fill(statement)
    if word in ALIGNMENTS:
        return _align(statement, mode)
    if word in _REFUSED:
        raise SourceError(f"{word} is not supported: {_REFUSED[word]}", statement.column)
    found = ", ".join(suggest(word))
    raise SourceError(f"unknown directive {word!r}" + (f"; did you mean {found}?" if found else ""), statement.column)


def _numbers(statement: Statement, low: int, high: int) -> list[tuple[int, Callable[[Lookup], int]]]:
    """The operands as (column, evaluator); their count is checked."""

    def local(label: str, direction: str) -> str | None:
        count = statement.locals_before.get(label, 0)
        if direction == "b":
            return local_name(label, count) if count else None
        return local_name(label, count + 1)

    parts = split_arguments(statement.rest) if statement.rest.strip() else []
    if not low <= len(parts) <= high:
        wants = f"{low}" if low == high else f"{low} to {high}" if high < 1000 else f"at least {low}"
        raise SourceError(f"{statement.word} takes {wants} operands, here are {len(parts)}", statement.column)
    found = []
    for text, at in parts:
        column = statement.rest_column + at
        tokens = tokenize(text, column)
        if tokens and tokens[0].kind == "string" and len(tokens) == 1 and len(unquote(text, column)) != 1:
            raise SourceError("a text goes to .ascii or .asciz", column)
        parser = Parser(tokens, column + len(text), local)
        node = parser.expression()
        parser.finish()
        found.append((column, _evaluator(node)))
    return found


def _evaluator(node: Node) -> Callable[[Lookup], int]:
    return lambda lookup: evaluate(node, lookup).number


def _data(statement: Statement, width: int) -> Encode:
    numbers = _numbers(statement, 1, 1 << 30)

    def encode(lookup: Lookup, address: int, old_size: int) -> bytes:
        out = bytearray()
        for column, value in numbers:
            number = value(lookup)
            if not -(1 << (8 * width - 1)) <= number < 1 << (8 * width):
                raise SourceError(f"{number:#x} does not fit in the {8 * width} bits of {statement.word}", column)
            out += (number & ((1 << 8 * width) - 1)).to_bytes(width, "little")
        return bytes(out)

    return encode


def _text(statement: Statement, end: bytes) -> Encode:
    out = bytearray()
    for text, at in split_arguments(statement.rest):
        column = statement.rest_column + at
        tokens = tokenize(text, column)
        if len(tokens) != 1 or tokens[0].kind != "string" or tokens[0].text[0] != '"':
            raise SourceError(f'{statement.word} wants texts in double quotes: {statement.word} "hello"', column)
        out += unquote(tokens[0].text, column) + end
    return lambda lookup, address, old_size: bytes(out)


def _checked(count: int, size: int, column: int) -> int:
    if not 0 <= count * size <= MAX_SIZE:
        raise SourceError(f"{count:#x} is no sensible count here (0 to {MAX_SIZE:#x} bytes)", column)
    return count


def _skip(statement: Statement, low: int, high: int) -> Encode:
    numbers = _numbers(statement, low, high)

    def encode(lookup: Lookup, address: int, old_size: int) -> bytes:
        fill = numbers[1][1](lookup) if len(numbers) > 1 else 0
        if not -128 <= fill < 256:
            raise SourceError(f"{fill:#x} does not fit in a byte", numbers[1][0])
        return bytes((fill & 0xFF,)) * _checked(numbers[0][1](lookup), 1, numbers[0][0])

    return encode


def _fill(statement: Statement) -> Encode:
    numbers = _numbers(statement, 1, 3)

    def encode(lookup: Lookup, address: int, old_size: int) -> bytes:
        values = [value(lookup) for _, value in numbers]
        size = values[1] if len(values) > 1 else 1
        value = values[2] if len(values) > 2 else 0
        if size not in (1, 2, 4, 8):
            raise SourceError(f".fill: a size of {size} (1, 2, 4 or 8 make sense)", numbers[1][0])
        if not -(1 << (8 * size - 1)) <= value < 1 << (8 * size):
            raise SourceError(f"{value:#x} does not fit in {size} bytes", numbers[2][0])
        count = _checked(values[0], size, numbers[0][0])
        return (value & ((1 << 8 * size) - 1)).to_bytes(size, "little") * count

    return encode


def _align(statement: Statement, mode: int) -> Encode:
    statement, limit = _limit(statement)
    numbers = _numbers(statement, 1, 2)

    def encode(lookup: Lookup, address: int, old_size: int) -> bytes:
        value = numbers[0][1](lookup)
        column = numbers[0][0]
        if statement.word == ".p2align":
            if not 0 <= value <= 20:
                raise SourceError(f".p2align {value}: the operand is a power of two, 0 to 20", column)
            value = 1 << value
        elif value <= 0 or value & (value - 1) or value > MAX_SIZE:
            raise SourceError(f"{statement.word} {value}: the operand is a number of bytes, a power of two", column)
        lookup(".", column)  # this depends on the address
        size = -address % value
        if limit is not None and size > limit:
            return b""
        if len(numbers) == 1:
            return nops(size, mode)
        fill = numbers[1][1](lookup)
        if not -128 <= fill < 256:
            raise SourceError(f"{fill:#x} does not fit in a byte", numbers[1][0])
        return bytes((fill & 0xFF,)) * size

    return encode


def _limit(statement: Statement) -> tuple[Statement, int | None]:
    """`.p2align 4,,10`, as compilers write it: nothing is filled where more than ten bytes would be needed."""
    found = re.fullmatch(r"([^,]+),([^,]*),\s*(\d+)\s*", statement.rest)
    if not found:
        return statement, None
    rest = found[1] + (f",{found[2]}" if found[2].strip() else "")
    column = statement.rest_column
    return Statement(statement.row, statement.word, statement.column, rest, column, {}), int(found[3])

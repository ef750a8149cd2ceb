# SPDX-License-Identifier: GPL-2.0-or-later
"""An assembled program's debug information: lines, labels as subprograms and variables, constants. It knows no file.

DWARF 4, which every debugger reads. Sources: DWARF Debugging Information Format, version 4: 2 and 7.5 (entries), 6.2
(lines), 7.7.1 (DW_OP_addr). A macro's statements stand at the line that used the macro, as in GNU as. Data has no rows
among the lines, so that nobody is offered a breakpoint in it.
"""

from __future__ import annotations

import os
import struct
from itertools import pairwise

from vmm.asm.code_or_data import CODE, DATA, Named, Part
from vmm.asm.program import Line, Program
from vmm.base.bits import MASK64

VERSION = 4
ADDRESS_SIZE = 8
PRODUCER = b"pyvmm"

COMPILE_UNIT, SUBPROGRAM, BASE_TYPE, ARRAY_TYPE, SUBRANGE, VARIABLE = 0x11, 0x2E, 0x24, 0x01, 0x21, 0x34  # DW_TAG_
LOCATION, NAME, BYTE_SIZE, STMT_LIST, LOW_PC, HIGH_PC, LANGUAGE = 0x02, 0x03, 0x0B, 0x10, 0x11, 0x12, 0x13  # DW_AT_
COMP_DIR, CONST_VALUE, AT_PRODUCER, COUNT, DECL_FILE, DECL_LINE = 0x1B, 0x1C, 0x25, 0x37, 0x3A, 0x3B
ENCODING, EXTERNAL, TYPE = 0x3E, 0x3F, 0x49
ADDR, DATA2, DATA8, STRING, DATA1, UDATA, REF4, SEC_OFFSET = 0x01, 0x05, 0x07, 0x08, 0x0B, 0x0F, 0x13, 0x17  # DW_FORM_
EXPRLOC, FLAG_PRESENT = 0x18, 0x19
LANG_ASSEMBLER = 0x8001  # DW_LANG_Mips_Assembler, which GNU as gives: a breakpoint at a label is at its first byte
ATE_UNSIGNED, ATE_UNSIGNED_CHAR = 7, 8
OP_ADDR = 0x03

ABBREVIATIONS = (
    (COMPILE_UNIT, True, ((AT_PRODUCER, STRING), (LANGUAGE, DATA2), (NAME, STRING), (COMP_DIR, STRING), (LOW_PC, ADDR),
                          (HIGH_PC, DATA8), (STMT_LIST, SEC_OFFSET))),
    (SUBPROGRAM, False, ((NAME, STRING), (EXTERNAL, FLAG_PRESENT), (DECL_FILE, UDATA), (DECL_LINE, UDATA),
                         (LOW_PC, ADDR), (HIGH_PC, DATA8))),
    (BASE_TYPE, False, ((NAME, STRING), (BYTE_SIZE, DATA1), (ENCODING, DATA1))),
    (ARRAY_TYPE, True, ((TYPE, REF4),)),
    (SUBRANGE, False, ((COUNT, UDATA),)),
    (VARIABLE, False, ((NAME, STRING), (EXTERNAL, FLAG_PRESENT), (DECL_FILE, UDATA), (DECL_LINE, UDATA), (TYPE, REF4),
                       (LOCATION, EXPRLOC))),
    (VARIABLE, False, ((NAME, STRING), (TYPE, REF4), (CONST_VALUE, DATA8))),
)  # fmt: skip
UNIT, FUNCTION, BASE, ARRAY, RANGE, DATUM, CONSTANT = range(1, len(ABBREVIATIONS) + 1)
BASE_TYPES = {
    (1, False): (b"u8", ATE_UNSIGNED), (2, False): (b"u16", ATE_UNSIGNED), (4, False): (b"u32", ATE_UNSIGNED),
    (8, False): (b"u64", ATE_UNSIGNED), (1, True): (b"char", ATE_UNSIGNED_CHAR),
}  # fmt: skip

COPY, ADVANCE_PC, ADVANCE_LINE, SET_FILE = 1, 2, 3, 4  # DW_LNS_
END_SEQUENCE, SET_ADDRESS = 1, 2  # DW_LNE_
OPERANDS = bytes((0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1))  # of the standard opcodes
LINE_BASE, LINE_RANGE = -5, 14  # of the special opcodes, which are not used


def sections(
    program: Program, among: tuple[Part, ...], labels: tuple[Named, ...], folder: str
) -> tuple[tuple[str, bytes], ...]:
    """(name, contents) of the debug sections. Relative file names are meant from `folder`."""
    files = _Files(program.name)
    line = _lines(program, among, files)
    info = _info(program, labels, files, folder)
    return (
        (".debug_abbrev", _abbreviations()),
        (".debug_info", info),
        (".debug_line", _with_length(struct.pack("<HI", VERSION, len(files.header()) + 5 + 1 + len(OPERANDS))
                                     + _line_head() + files.header() + line)),
    )  # fmt: skip


class _Files:
    """Names of source files, counted from 1 as they come."""

    def __init__(self, first: str) -> None:
        self._numbers = {first: 1}

    def number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers) + 1)

    def header(self) -> bytes:
        """No directories but that of the unit; then each file, without time and length."""
        return b"\0" + b"".join(_text(name) + b"\0\0\0" for name in self._numbers) + b"\0"


def _line_head() -> bytes:
    """Instruction length, operations in one, default_is_stmt; then what special and standard opcodes mean."""
    return struct.pack("<BBBbB", 1, 1, 1, LINE_BASE, LINE_RANGE) + bytes((len(OPERANDS) + 1,)) + OPERANDS


def _lines(program: Program, among: tuple[Part, ...], files: _Files) -> bytes:
    """A sequence for each part that is code: a row wherever another line begins."""
    out = bytearray()
    for part in among:
        if part.kind != CODE:
            continue
        inside = [each for each in program.lines or program.stretches if part.begin <= each.address < part.end]
        at, file, line = part.begin, 1, 1
        out += bytes((0, 1 + ADDRESS_SIZE, SET_ADDRESS)) + struct.pack("<Q", at)
        for row in _changes(inside):
            if number := files.number(row.file) if files.number(row.file) != file else 0:
                out += bytes((SET_FILE,)) + _uleb(number)
                file = number
            out += bytes((ADVANCE_LINE,)) + _sleb(row.line - line)
            out += bytes((ADVANCE_PC,)) + _uleb(row.address - at) + bytes((COPY,))
            at, line = row.address, row.line
        out += bytes((ADVANCE_PC,)) + _uleb(part.end - at) + bytes((0, 1, END_SEQUENCE))
    return bytes(out)


def _changes(lines: list[Line]) -> list[Line]:
    """Those that are of another line than the one before."""
    after = [now for before, now in pairwise(lines) if (now.file, now.line) != (before.file, before.line)]
    return [*lines[:1], *after]


def _info(program: Program, labels: tuple[Named, ...], files: _Files, folder: str) -> bytes:
    head = struct.calcsize("<IHIB")
    out = bytearray()

    def here() -> int:
        return head + len(out)

    out += bytes((UNIT,)) + PRODUCER + b"\0" + struct.pack("<H", LANG_ASSEMBLER) + _text(program.name) + _text(folder)
    out += struct.pack("<QQI", program.base, len(program.code), 0)
    bases = {}
    for key, (called, encoding) in BASE_TYPES.items():
        bases[key] = here()
        out += bytes((BASE,)) + called + b"\0" + bytes((key[0], encoding))
    seen: set[int] = set()
    for each in labels:
        place = _uleb(files.number(each.line.file)) + _uleb(each.line.line) if each.line else _uleb(1) + _uleb(0)
        if each.kind == CODE and each.size and each.address not in seen:
            seen.add(each.address)
            out += bytes((FUNCTION,)) + _text(each.name) + place + struct.pack("<QQ", each.address, each.size)
        elif each.kind == DATA and each.size and each.width:
            kind = bases[each.width, each.text]
            if each.size > each.width:
                array = here()
                out += bytes((ARRAY,)) + struct.pack("<I", kind)
                out += bytes((RANGE,)) + _uleb(each.size // each.width) + b"\0"
                kind = array
            out += bytes((DATUM,)) + _text(each.name) + place + struct.pack("<I", kind)
            out += _uleb(1 + ADDRESS_SIZE) + bytes((OP_ADDR,)) + struct.pack("<Q", each.address)
    taken = {each.name for each in labels}
    for name, value in program.constants.items():
        if name not in taken:
            out += bytes((CONSTANT,)) + _text(name) + struct.pack("<IQ", bases[8, False], value & MASK64)
    return _with_length(struct.pack("<HIB", VERSION, 0, ADDRESS_SIZE) + bytes(out) + b"\0")


def _abbreviations() -> bytes:
    out = bytearray()
    for number, (tag, children, attributes) in enumerate(ABBREVIATIONS, 1):
        out += _uleb(number) + _uleb(tag) + bytes((children,))
        for attribute, form in attributes:
            out += _uleb(attribute) + _uleb(form)
        out += b"\0\0"
    return bytes(out) + b"\0"


def _with_length(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _text(text: str) -> bytes:
    return os.fsencode(text).replace(b"\0", b"?") + b"\0"


def _uleb(value: int) -> bytes:
    """An unsigned number, seven bits a byte (7.6)."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _sleb(value: int) -> bytes:
    """A signed one."""
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value & 0x7F))

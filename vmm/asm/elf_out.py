# SPDX-License-Identifier: GPL-2.0-or-later
"""A program as an ELF file for a debugger: its bytes at their address, labels with sizes and types, source lines.

`gdb FILE` then shows the `.asm` line, `objdump -dl FILE` the listing. Source: System V ABI, chapter 4 (sections,
symbols) and 5 (program headers); what is in the debug sections is dwarf.py's.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from vmm.asm import dwarf
from vmm.asm.code_or_data import CODE, DATA, Named, Part, labels, parts
from vmm.asm.program import Program
from vmm.base.record import Record
from vmm.errors import UsageError

ALIGNMENT = 0x1000  # of the segment, in the file and in memory: a page
HEADER_SIZE, PROGRAM_HEADER_SIZE, SECTION_HEADER_SIZE, SYMBOL_SIZE = 64, 56, 64, 24
EXEC, X86_64, CURRENT = 2, 62, 1  # ET_EXEC, EM_X86_64, EV_CURRENT
LOAD, READ, WRITE, EXECUTE = 1, 4, 2, 1  # PT_LOAD, PF_
PROGBITS, SYMTAB, STRTAB = 1, 2, 3  # SHT_
S_WRITE, S_ALLOC, S_EXEC = 1, 2, 4  # SHF_
LOCAL, GLOBAL = 0, 1  # STB_
OBJECT, FUNC, FILE = 1, 2, 4  # STT_
ABSOLUTE = 0xFFF1  # SHN_ABS


class _Section(Record):
    """A section on its way into the file; `address` 0 and no flags where it is not in memory."""

    name: str
    kind: int
    data: bytes
    flags: int = 0
    address: int = 0
    link: int = 0
    info: int = 0
    align: int = 1
    entry: int = 0


def elf(program: Program, folder: str | None = None) -> bytes:
    """The file's bytes. Of compiled code it is what the compiler has linked, with all that it told.

    Relative names of source files are meant from `folder` (default: the current one), as those of errors are.

    Raises:
        UsageError: nothing of the program's source is known (raw code, or an image that has its own file).
    """
    if program.elf:
        return program.elf
    if not program.lines and not program.stretches:
        raise UsageError(f"an ELF file of {program.name}: it has no text, so there are no lines and no labels")
    among = parts(program)
    named = labels(program, among)
    memory = _memory(program, among)
    debug = dwarf.sections(program, among, named, str(Path.cwd()) if folder is None else folder)
    symbols, names, locals_ = _symbols(program, named, memory)
    found = [
        *memory,
        *(_Section(name, PROGBITS, data) for name, data in debug),
        _Section(".symtab", SYMTAB, symbols, link=len(memory) + len(debug) + 2, info=locals_, align=8,
                 entry=SYMBOL_SIZE),
        _Section(".strtab", STRTAB, names),
    ]  # fmt: skip
    return _file(program, found)


def _memory(program: Program, among: tuple[Part, ...]) -> list[_Section]:
    """`.text` up to the last instruction, `.data` behind it; what lies between instructions stays where it is."""
    end = max((part.end for part in among if part.kind == CODE), default=program.base)
    found = []
    for name, begin, stop, flags in (
        (".text", program.base, end, S_ALLOC | S_EXEC),
        (".data", end, program.end, S_ALLOC | S_WRITE),
    ):
        if stop > begin:
            data = program.code[begin - program.base : stop - program.base]
            found.append(_Section(name, PROGBITS, data, flags, begin))
    return found


def _symbols(program: Program, named: tuple[Named, ...], memory: list[_Section]) -> tuple[bytes, bytes, int]:
    """(symbol table, its names, how many are local): first the local ones, as the ABI wants it."""
    names = bytearray(b"\0")

    def row(name: str, info: int, section: int, value: int, size: int) -> bytes:
        at = len(names)
        names.extend(os.fsencode(name) + b"\0")
        return struct.pack("<IBBHQQ", at, info, 0, section, value, size)

    rows = {LOCAL: [bytes(SYMBOL_SIZE), row(program.name.rpartition("/")[2], FILE, ABSOLUTE, 0, 0)], GLOBAL: []}
    for each in named:
        binding = LOCAL if each.name.startswith(".") else GLOBAL
        section = max(
            (number for number, one in enumerate(memory, 1) if one.address <= each.address), default=ABSOLUTE
        )  # one at the very end is of the last
        kind = OBJECT if each.kind == DATA else FUNC
        rows[binding].append(row(each.name, binding << 4 | kind, section, each.address, each.size))
    return b"".join(rows[LOCAL] + rows[GLOBAL]), bytes(names), len(rows[LOCAL])


def _file(program: Program, found: list[_Section]) -> bytes:
    """Header, one segment with the whole program, which the guest may read, write and execute, and the sections."""
    names = bytearray(b"\0")
    at_name = {}
    for name in (*(each.name for each in found), ".shstrtab"):
        at_name[name] = len(names)
        names += name.encode() + b"\0"
    found = [*found, _Section(".shstrtab", STRTAB, bytes(names))]
    begin = ALIGNMENT + program.base % ALIGNMENT
    out = bytearray(begin)
    out += program.code
    rows = [bytes(SECTION_HEADER_SIZE)]
    for each in found:
        if each.flags & S_ALLOC:
            offset = begin + each.address - program.base
        else:
            out += bytes(-len(out) % each.align)
            offset = len(out)
            out += each.data
        rows.append(
            struct.pack(
                "<IIQQQQIIQQ", at_name[each.name], each.kind, each.flags, each.address, offset, len(each.data),
                each.link, each.info, each.align, each.entry,
            )
        )  # fmt: skip
    out += bytes(-len(out) % 8)
    table = len(out)
    out += b"".join(rows)
    size = len(program.code)
    ident = b"\x7fELF" + bytes((2, 1, CURRENT)) + bytes(9)  # 64 bits, little-endian
    head = ident + struct.pack(
        "<HHIQQQIHHHHHH", EXEC, X86_64, CURRENT, program.entry, HEADER_SIZE, table, 0, HEADER_SIZE,
        PROGRAM_HEADER_SIZE, 1, SECTION_HEADER_SIZE, len(rows), len(rows) - 1,
    )  # fmt: skip
    head += struct.pack(
        "<IIQQQQQQ", LOAD, READ | WRITE | EXECUTE, begin, program.base, program.base, size, size, ALIGNMENT
    )
    out[: len(head)] = head
    return bytes(out)

# SPDX-License-Identifier: GPL-2.0-or-later
"""ELF files: segments at their physical addresses, entry, notes, symbols, source lines. One door to pyelftools.

What is executable and static is read; what needs a linker or an operating system is refused. Sources: System V ABI,
chapters 4 and 5 (ELF), AMD64 supplement; DWARF 5, 6.2.
"""

from __future__ import annotations

import io
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from vmm.errors import ImageError
from vmm.machine.images.image import Segment

MAGIC = b"\x7fELF"
MACHINES = {"EM_386": 32, "EM_X86_64": 64}
HEADER_SIZE = {32: 52, 64: 64}
PROGRAM_HEADER_SIZE = {32: 32, 64: 56}
SECTION_HEADER_SIZE = {32: 40, 64: 64}
ET_REL, ET_CORE = 1, 4
SHT_NULL, SHT_NOBITS = 0, 8
MAX_SEGMENTS = 256
MAX_NOTES = 1 << 16  # bytes of a note segment
MAX_SYMBOLS = 1 << 22
PF_X = 1

T = TypeVar("T")


def is_elf(data: bytes) -> bool:
    return data.startswith(MAGIC)


class Sections(NamedTuple):
    """Section headers as they stand in the file: how many, which of them has their names, and those whose bytes lie in
    no segment (sh_addr is 0): (number, bytes, where in `headers` its sh_addr is).
    """

    headers: bytes
    number: int
    names: int
    unloaded: tuple[tuple[int, bytes, slice], ...]


class Elf:
    """One ELF file for x86. What is looked up is checked when it is looked up; nothing is read behind the file's end.

    Raises:
        ImageError: it is damaged, of another CPU, or not linked to be run as it is.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name = data, name
        self.bits = self._identify()
        self._file = self._guard("the file header", lambda: _elf_file(data))
        header = self._file.header
        machine, kind = header["e_machine"], header["e_type"]
        if MACHINES.get(machine) is None:
            raise self.wrong(f"for another CPU (e_machine at 0x12 is {_shown(machine)}); pyvmm runs x86")
        self.code_bits = MACHINES[machine]
        """Of its instructions: x32 is 64-bit code in an ELF file of 32 bits."""
        if self.bits > self.code_bits:
            raise self.wrong(f"of 64 bits (EI_CLASS at 0x4), and its code of {self.code_bits} (e_machine at 0x12)")
        if kind not in ("ET_EXEC", "ET_DYN"):
            raise self.wrong(f"e_type at 0x10 is {_shown(kind)}, and a program is ET_EXEC (2) or ET_DYN (3)")
        self.dynamic = kind == "ET_DYN"
        self.entry = int(header["e_entry"])

    def wrong(self, what: str, hint: str = "") -> ImageError:
        return ImageError(f"{self.name}: ELF: {what}", hint)

    def _identify(self) -> int:
        """32 or 64. What pyelftools would guess at is checked first."""
        data = self.data
        if len(data) < HEADER_SIZE[32]:
            raise self.wrong(f"cut off inside the file header: it has {len(data)} bytes")
        if data[4] not in (1, 2):
            raise self.wrong(f"EI_CLASS at 0x4 is {data[4]}, and must be 1 (32 bits) or 2 (64 bits)")
        if data[5] != 1:
            raise self.wrong(f"EI_DATA at 0x5 is {data[5]}: x86 is little-endian, which is 1")
        if data[6] != 1:
            raise self.wrong(f"EI_VERSION at 0x6 is {data[6]}, and there is only version 1")
        bits = 32 * data[4]
        if len(data) < HEADER_SIZE[bits]:
            raise self.wrong(f"cut off inside the file header: it has {len(data)} bytes")
        kind = int.from_bytes(data[16:18], "little")
        if kind == ET_REL:  # which has no program headers
            raise self.wrong(
                "an object file, not linked yet (e_type at 0x10 is ET_REL)",
                f"`ld {self.name} -Ttext=0x100000 -e SYMBOL -o kernel.elf`",
            )
        if kind == ET_CORE:
            raise self.wrong("a core dump (e_type at 0x10 is ET_CORE)")
        offset = struct.unpack_from("<Q" if bits == 64 else "<I", data, 32 if bits == 64 else 28)[0]
        size, count = struct.unpack_from("<HH", data, 54 if bits == 64 else 42)
        if not count:
            raise self.wrong("it has no program headers (e_phnum is 0), so nothing says what to load")
        if count > MAX_SEGMENTS:
            raise self.wrong(f"e_phnum is {count}; a kernel has a few, and at most {MAX_SEGMENTS} are read")
        if size != PROGRAM_HEADER_SIZE[bits]:
            raise self.wrong(f"e_phentsize is {size}, and a program header has {PROGRAM_HEADER_SIZE[bits]} bytes")
        if offset + size * count > len(data):
            raise self.wrong(
                f"its program headers at {offset:#x}..{offset + size * count - 1:#x} (e_phoff, e_phnum) lie behind the "
                f"file's {len(data):#x} bytes"
            )
        return bits

    def _guard(self, what: str, read: Callable[[], T]) -> T:
        """pyelftools raises many kinds of errors for damaged input; to a stranger they are one."""
        try:
            return read()
        except ImageError:
            raise
        except (Exception, RecursionError) as error:
            said = str(error) or type(error).__name__
            raise self.wrong(f"{what} cannot be read: {said.splitlines()[0][:120]}") from error

    # -- what is loaded

    @cached_property
    def headers(self) -> tuple[dict[str, Any], ...]:
        """The program headers, by the names of ELF."""
        return self._guard(
            "its program headers", lambda: tuple(dict(each.header) for each in self._file.iter_segments())
        )

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """PT_LOAD, at physical addresses."""
        found = []
        for number, row in enumerate(self.headers):
            where = f"program header {number}"
            if row["p_type"] == "PT_INTERP":
                raise self.wrong(
                    f"{where} is PT_INTERP: a program for an operating system", "link it `-static -nostdlib`"
                )
            if row["p_type"] != "PT_LOAD" or not row["p_memsz"]:
                continue
            offset, count, size, at = (row[key] for key in ("p_offset", "p_filesz", "p_memsz", "p_paddr"))
            if count > size:
                raise self.wrong(f"{where}: p_filesz {count:#x} is more than p_memsz {size:#x}")
            if offset + count > len(self.data):
                raise self.wrong(
                    f"{where}: bytes {offset:#x}..{offset + count - 1:#x} (p_offset, p_filesz) lie behind the file's "
                    f"{len(self.data):#x} bytes"
                )
            if at + size > 1 << self.bits:
                raise self.wrong(f"{where}: {size:#x} bytes at {at:#x} (p_paddr, p_memsz) go beyond all addresses")
            data = self.data[offset : offset + count]
            found.append(Segment(at, data, size, where, executable=bool(row["p_flags"] & PF_X)))
        if not found:
            raise self.wrong("no program header is PT_LOAD: there is nothing to load")
        return tuple(found)

    def physical(self, address: int) -> int | None:
        """The physical address of a virtual one, by the program headers; None outside all."""
        for row in self.headers:
            if row["p_type"] == "PT_LOAD" and 0 <= address - row["p_vaddr"] < row["p_memsz"]:
                return int(row["p_paddr"] + address - row["p_vaddr"])
        return None

    def linked(self, address: int) -> int | None:
        """The virtual address of a virtual or physical one, by the program headers; None outside all."""
        if self.physical(address) is not None:
            return address
        for row in self.headers:
            if row["p_type"] == "PT_LOAD" and 0 <= address - row["p_paddr"] < row["p_memsz"]:
                return int(row["p_vaddr"] + address - row["p_paddr"])
        return None

    @property
    def start(self) -> int:
        """Where it starts, as a physical address: e_entry is either a virtual or a physical one.

        Raises:
            ImageError: it is neither in a segment's virtual addresses nor in its physical ones.
        """
        at = self.physical(self.entry)
        if at is not None:
            return at
        if any(each.gpa <= self.entry < each.end for each in self.segments):
            return self.entry
        raise self.wrong(f"its entry {self.entry:#x} (e_entry at 0x18) lies in none of its segments")

    @property
    def sections(self) -> Sections:
        """Its section headers; none where the file has none.

        Raises:
            ImageError: they, or what they name, lie behind the end of the file.
        """
        wide = self.bits == 64
        offset = struct.unpack_from("<Q" if wide else "<I", self.data, 40 if wide else 32)[0]
        size, count, names = struct.unpack_from("<HHH", self.data, 58 if wide else 46)
        if not count or not offset:
            return Sections(b"", 0, 0, ())
        if size != SECTION_HEADER_SIZE[self.bits] or offset + size * count > len(self.data):
            raise self.wrong(
                f"its section headers at {offset:#x} (e_shoff, e_shentsize {size}, e_shnum {count}) are none, or lie "
                f"behind the file's {len(self.data):#x} bytes"
            )
        headers = self.data[offset : offset + size * count]
        row = struct.Struct("<IIQQQQ" if wide else "<IIIIII")  # sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size
        unloaded = []
        for number in range(count):
            _, kind, _, address, begin, length = row.unpack_from(headers, number * size)
            if address or not length or kind in (SHT_NULL, SHT_NOBITS):
                continue
            if begin + length > len(self.data):
                raise self.wrong(
                    f"section {number}: bytes {begin:#x}..{begin + length - 1:#x} (sh_offset, sh_size) lie behind the "
                    f"file's {len(self.data):#x} bytes"
                )
            field = number * size + (16 if wide else 12)
            unloaded.append((number, self.data[begin : begin + length], slice(field, field + (8 if wide else 4))))
        return Sections(headers, count, names, tuple(unloaded))

    def notes(self, owner: bytes) -> Iterator[tuple[int, bytes]]:
        """(type, contents) of each note of that owner."""
        for number, row in enumerate(self.headers):
            if row["p_type"] != "PT_NOTE":
                continue
            begin, end = row["p_offset"], row["p_offset"] + row["p_filesz"]
            if end > len(self.data) or end - begin > MAX_NOTES:
                raise self.wrong(f"program header {number}: its notes at {begin:#x}..{end:#x} lie outside of the file")
            yield from _notes(self.data[begin:end], owner, 8 if row["p_align"] == 8 else 4)

    def has_section(self, name: str) -> bool:
        """Is there a section of that name? Not where section headers are damaged: nothing needs them to be loaded."""
        try:
            return self._guard("its sections", lambda: self._file.get_section_by_name(name)) is not None
        except ImageError:
            return False

    # -- what its code is called

    @cached_property
    def symbols(self) -> dict[str, int]:
        """Address by name, as linked, without those of files and sections; of one name the global one counts."""
        return self._guard("its symbol table", self._symbols)

    def _symbols(self) -> dict[str, int]:
        found: dict[str, int] = {}
        weak: dict[str, int] = {}
        for text, info, value, _ in self._rows():
            (found if info >> 4 else weak)[text] = value
        return weak | found

    def size_of(self, name: str) -> int:
        """Bytes of the symbol of that name, as its linker has it; 0 where it says nothing."""
        at = self.symbols.get(name)
        rows = self._guard("its symbol table", lambda: tuple(self._rows()))
        return max((size for text, _, value, size in rows if text == name and value == at), default=0)

    def _rows(self) -> Iterator[tuple[str, int, int, int]]:
        """(name, info, value, size) of each symbol that is none of files and sections."""
        table = self._file.get_section_by_name(".symtab")
        if table is None or table.header["sh_type"] != "SHT_SYMTAB":
            return
        names, rows = self._bytes(self._file.get_section(table.header["sh_link"])), self._bytes(table)
        # pyelftools makes an object of each symbol, and a kernel has a hundred thousand of them.
        row = struct.Struct("<IBBHQQ" if self.bits == 64 else "<IIIBBH")
        for fields in row.iter_unpack(rows[: len(rows) // row.size * row.size]):
            if self.bits == 64:
                name, info, _, section, value, size = fields
            else:
                name, value, size, info, _, section = fields
            if not name or not section or info & 0xF > 2:  # NOTYPE, OBJECT, FUNC
                continue
            end = names.find(b"\0", name)
            if text := names[name : end if end >= 0 else name].decode("utf-8", "replace"):
                yield text, info, value, size

    def _bytes(self, section: Any) -> bytes:
        offset, size = section.header["sh_offset"], section.header["sh_size"]
        if section.header["sh_type"] == "SHT_NOBITS" or offset + size > len(self.data):
            raise self.wrong(f"section {section.name!r} lies behind the end of the file")
        return self.data[offset : offset + size]

    def source(self, address: int) -> str:
        """`file.c:12` for an address as linked; empty where nothing says so, or what says so is damaged."""
        try:
            return self._lines.at(address)
        except ImageError:
            return ""

    @property
    def debug_bytes(self) -> int:
        """How large its line programs are."""
        section = self._file.get_section_by_name(".debug_line")
        return 0 if section is None else int(section.header["sh_size"])

    def rows(self) -> Iterator[tuple[int, int, str, int]]:
        """(address, bytes, file, line) of every stretch of code that its debug information tells of, by address. Where
        several lines begin at one, as with inlined calls, all but one have no bytes.
        """
        return self._lines.rows()

    @cached_property
    def _lines(self) -> Lines:
        return self._guard("its debug information", lambda: Lines(self._file))


class Lines:
    """Source lines by DWARF's line programs, one unit at a time, when an address of it is asked for."""

    def __init__(self, file: Any) -> None:
        self._dwarf: Any = file.get_dwarf_info() if file.has_dwarf_info() else None
        self._tables: list[tuple[list[int], list[str]]] = []
        self._units: Iterator[Any] = _undamaged(self._dwarf.iter_CUs()) if self._dwarf else iter(())

    def at(self, address: int) -> str:
        for table in self._tables:
            if found := _row_at(table, address):
                return found
        for unit in self._units:
            table = self._table(unit)
            self._tables.append(table)
            if found := _row_at(table, address):
                return found
        return ""

    def rows(self) -> Iterator[tuple[int, int, str, int]]:
        """(address, bytes, file, line) by address."""
        self._tables.extend(map(self._table, self._units))
        found = []
        for addresses, places in self._tables:
            for (address, end), place in zip(pairwise(addresses), places, strict=False):
                if place:
                    file, _, line = place.rpartition(":")
                    found.append((address, end - address, file, int(line)))
        found.sort(key=lambda row: row[:2])  # of one address, in the order of the compiler
        return iter(found)

    def _table(self, unit: Any) -> tuple[list[int], list[str]]:
        """(addresses, `path:line` from there on) of a unit, in order; "" where a sequence ends."""
        try:
            program = self._dwarf.line_program_for_CU(unit)
            rows = []
            for entry in program.get_entries() if program else ():
                state = entry.state
                if state is not None:
                    rows.append((state.address, "" if state.end_sequence else _place(program, state)))
        except Exception:  # of a damaged unit nothing is told
            return [], []
        rows.sort(key=lambda row: (row[0], row[1] != ""))  # where one sequence ends another may begin
        return [row[0] for row in rows], [row[1] for row in rows]


def _undamaged(units: Iterator[Any]) -> Iterator[Any]:
    """Up to the first that cannot be read: where the next would begin is not known then."""
    try:
        yield from units
    except Exception:  # pyelftools asserts, divides and looks up what the file says
        return


def _place(program: Any, state: Any) -> str:
    """`path:line`; a path that is relative is so to where the compiler ran."""
    files, folders, first = program["file_entry"], program["include_directory"], int(program["version"] < 5)
    index = state.file - first
    if not 0 <= index < len(files):
        return f"?:{state.line}"
    name, folder = files[index].name, files[index].dir_index - first
    if not name.startswith(b"/") and 0 <= folder < len(folders):
        name = folders[folder] + b"/" + name
    return f"{name.decode('utf-8', 'replace')}:{state.line}"


def _row_at(table: tuple[list[int], list[str]], address: int) -> str:
    at = bisect_right(table[0], address) - 1
    return table[1][at] if at >= 0 else ""


def _elf_file(data: bytes) -> Any:
    from elftools.elf.elffile import ELFFile

    return ELFFile(io.BytesIO(data))


def _notes(data: bytes, owner: bytes, align: int) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 12 <= len(data):
        name_size, size, kind = struct.unpack_from("<III", data, at)
        name_at = at + 12
        data_at = name_at + -(-name_size // align) * align if align == 4 else -(-(name_at + name_size) // 8) * 8
        if data[name_at : name_at + name_size].rstrip(b"\0") == owner and data_at + size <= len(data):
            yield kind, data[data_at : data_at + size]
        at = -(-(data_at + size) // align) * align


def _shown(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) else str(value)

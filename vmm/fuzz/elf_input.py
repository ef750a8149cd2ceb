# SPDX-License-Identifier: GPL-2.0-or-later
"""An ELF file with other bytes at an address, so that it is loaded with them. It knows ELF; it knows no fuzzing.

Source: System V ABI, chapter 5 (program headers). Where the address is behind what the file has of its segment, as all
of .bss is, the segment is written anew at the file's end, with the zeros that it was loaded with before.
"""

from __future__ import annotations

import struct

from vmm.abi.x86 import PAGE
from vmm.machine.images.elf import Elf

_FILE_PHOFF = struct.Struct("<32xQ")  # Elf64_Ehdr, e_phoff
_ROW = struct.Struct("<IIQQQQQQ")  # Elf64_Phdr: type, flags, offset, vaddr, paddr, filesz, memsz, align


def with_bytes(file: bytes, at: int, data: bytes) -> bytes | None:
    """The 64-bit ELF file with `data` at physical address `at`; None where no segment has all of that.

    Raises:
        ImageError: it cannot be read.
    """
    elf = Elf(file, "")
    (first,) = _FILE_PHOFF.unpack_from(file)
    made = bytearray(file)
    for number, row in enumerate(elf.headers):
        inside = at - int(row["p_paddr"])
        if elf.bits != 64 or row["p_type"] != "PT_LOAD" or not 0 <= inside <= inside + len(data) <= row["p_memsz"]:
            continue
        offset, count = int(row["p_offset"]), int(row["p_filesz"])
        if inside + len(data) > count:
            whole = file[offset : offset + count].ljust(inside + len(data), b"\0")
            there = first + number * _ROW.size
            kind, flags, _, virtual, physical, _, size, align = _ROW.unpack_from(made, there)
            made += bytes(-len(made) % PAGE + virtual % PAGE)  # offset and address agree, as the ABI has it
            offset = len(made)
            made += whole
            _ROW.pack_into(made, there, kind, flags, offset, virtual, physical, len(whole), size, align)
        made[offset + inside : offset + inside + len(data)] = data
        return bytes(made)
    return None

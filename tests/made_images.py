# SPDX-License-Identifier: GPL-2.0-or-later
"""Images as bytes, made field by field: small ones that run, and any that cannot be. It knows no loader."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass

HLT = b"\xf4"
PRINT_AND_PASS = bytes.fromhex("b04fe6e9b04be6e9b000e6f4f4")  # al='O' out e9; 'K'; out f4 0; hlt: the same in all modes


SECTION_NAMES = b"\0.symtab\0.strtab\0.shstrtab\0"


@dataclass(frozen=True)
class Load:
    """A program header, PT_LOAD if nothing else is said."""

    data: bytes
    paddr: int
    vaddr: int | None = None
    memsz: int | None = None
    flags: int = 7
    kind: int = 1
    align: int = 1


def elf(
    *loads: Load,
    bits: int = 64,
    entry: int = 0x10_0000,
    kind: int = 2,
    machine: int | None = None,
    symbols: dict[str, int] | None = None,
    own_names: bytes = SECTION_NAMES,
) -> bytes:
    """An ELF file with these segments; with symbols also sections for them, of which the last has `own_names`."""
    machine = machine or (62 if bits == 64 else 3)
    head_size, row_size = (64, 56) if bits == 64 else (52, 32)
    at = head_size + row_size * len(loads)
    rows, body = b"", b""
    for each in loads:
        offset, size = at + len(body), len(each.data)
        memsz = size if each.memsz is None else each.memsz
        vaddr = each.paddr if each.vaddr is None else each.vaddr
        if bits == 64:
            rows += struct.pack("<IIQQQQQQ", each.kind, each.flags, offset, vaddr, each.paddr, size, memsz, each.align)
        else:
            rows += struct.pack("<8I", each.kind, offset, vaddr, each.paddr, size, memsz, each.flags, each.align)
        body += each.data
    sections, section_at, count = b"", 0, 0
    if symbols:
        sections, section_at, count = _sections(symbols, at + len(body), bits, own_names)
    ident = b"\x7fELF" + bytes((bits // 32, 1, 1)) + bytes(9)
    word = "Q" if bits == 64 else "I"
    shentsize = 64 if bits == 64 else 40
    head = ident + struct.pack(
        f"<HHI{word}{word}{word}IHHHHHH", kind, machine, 1, entry, head_size, section_at, 0, head_size, row_size,
        len(loads), shentsize, count, count - 1 if count else 0,
    )  # fmt: skip
    return head + rows + body + sections


def _sections(symbols: dict[str, int], at: int, bits: int, own: bytes) -> tuple[bytes, int, int]:
    """(bytes behind the segments, offset of the section headers, how many): null, .symtab, .strtab, .shstrtab."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in symbols)
    rows, offset = bytes(24 if bits == 64 else 16), 1
    for name, value in symbols.items():
        if bits == 64:
            rows += struct.pack("<IBBHQQ", offset, 0x12, 0, 1, value, 0)
        else:
            rows += struct.pack("<IIIBBH", offset, value, 0, 0x12, 0, 1)
        offset += len(name) + 1
    data = rows + names + own
    form = "<IIQQQQIIQQ" if bits == 64 else "<10I"
    entry = 24 if bits == 64 else 16
    table = struct.pack(form, *[0] * 10)
    table += struct.pack(form, 1, 2, 0, 0, at, len(rows), 2, 1, 8, entry)
    table += struct.pack(form, 9, 3, 0, 0, at + len(rows), len(names), 0, 0, 1, 0)
    table += struct.pack(form, 17, 3, 0, 0, at + len(rows) + len(names), len(own), 0, 0, 1, 0)
    return data + table, at + len(data), 4


def multiboot1(flags: int = 3, addresses: tuple[int, int, int, int, int] | None = None) -> bytes:
    """A header; with addresses (header, load, load end, bss end, entry) of the a.out kind."""
    flags |= 1 << 16 if addresses else 0
    head = struct.pack("<III", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFF_FFFF)
    return head + (struct.pack("<5I", *addresses) if addresses else b"")


def multiboot2(
    *tags: tuple[int, int, bytes], architecture: int = 0, length: int | None = None, end: bool = True
) -> bytes:
    """A header with tags (type, flags, body)."""
    body = b""
    for kind, flags, data in (*tags, *([(0, 0, b"")] if end else [])):
        row = struct.pack("<HHI", kind, flags, 8 + len(data)) + data
        body += row.ljust(-(-len(row) // 8) * 8, b"\0")
    size = 16 + len(body) if length is None else length
    return (
        struct.pack("<IIII", 0xE85250D6, architecture, size, -(0xE85250D6 + architecture + size) & 0xFFFF_FFFF) + body
    )


def note(entry: int, *, size: int = 4, owner: bytes = b"Xen\0", kind: int = 18) -> Load:
    """A PT_NOTE with the PVH entry."""
    data = struct.pack("<III", len(owner), size, kind) + owner.ljust(-(-len(owner) // 4) * 4, b"\0")
    data += entry.to_bytes(size, "little").ljust(-(-size // 4) * 4, b"\0")
    return Load(data, 0, memsz=0, kind=4, flags=4, align=4)


def abi_tag(system: int, owner: bytes = b"GNU\0", kind: int = 1) -> Load:
    """A PT_NOTE as a C library's start files have it: NT_GNU_ABI_TAG, of this operating system (0 is Linux) 3.2.0."""
    return Load(struct.pack("<III4s4I", 4, 16, kind, owner, system, 3, 2, 0), 0x300, kind=4, align=4)


SETUP_FIELDS = {
    "setup_sects": (0x1F1, 1), "syssize": (0x1F4, 4), "boot_flag": (0x1FE, 2), "jump": (0x200, 2),
    "header": (0x202, 4), "version": (0x206, 2), "loadflags": (0x211, 1), "code32_start": (0x214, 4),
    "initrd_addr_max": (0x22C, 4), "kernel_alignment": (0x230, 4), "relocatable_kernel": (0x234, 1),
    "min_alignment": (0x235, 1), "xloadflags": (0x236, 2), "cmdline_size": (0x238, 4), "payload_offset": (0x248, 4),
    "payload_length": (0x24C, 4), "pref_address": (0x258, 8), "init_size": (0x260, 4),
}  # fmt: skip
SETUP_DEFAULTS = {
    "setup_sects": 1, "boot_flag": 0xAA55, "jump": 0x6AEB, "header": 0x53726448, "version": 0x020F, "loadflags": 1,
    "code32_start": 0x10_0000, "initrd_addr_max": 0x7FFF_FFFF, "kernel_alignment": 0x20_0000, "relocatable_kernel": 1,
    "min_alignment": 21, "xloadflags": 1, "cmdline_size": 2047, "pref_address": 0x100_0000, "init_size": 0x1_0000,
}  # fmt: skip


def bzimage(
    code32: bytes = PRINT_AND_PASS, code64: bytes = PRINT_AND_PASS, code16: bytes = b"", **fields: int
) -> bytes:
    """A bzImage whose 32-bit entry is `code32` and its 64-bit entry, 0x200 behind it, `code64`; `code16` stands where
    the setup's jump goes.
    """
    kernel = code32.ljust(0x200, HLT) + code64
    kernel = kernel.ljust(-(-len(kernel) // 16) * 16, HLT)
    values = SETUP_DEFAULTS | {"syssize": len(kernel) // 16} | fields
    setup = bytearray((values["setup_sects"] % 256 or 4) * 512 + 512)
    for name, value in values.items():
        at, size = SETUP_FIELDS[name]
        setup[at : at + size] = value.to_bytes(size, "little")
    setup[0x26C : 0x26C + len(code16)] = code16
    return bytes(setup) + kernel


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Multiboot 1: the header in an ELF file or in raw code, and the information structure.

It knows bytes and the World it is given. Source: Multiboot Specification 0.6.96.
"""

from __future__ import annotations

import struct

from vmm.abi import multiboot as abi
from vmm.errors import ImageError
from vmm.machine.images.elf import Elf
from vmm.machine.images.image import Boot, Handover, Image, Segment, World
from vmm.machine.images.modules import LOADER, Handing, with_name

FORMAT = "multiboot 1"
PROTOCOL = "multiboot"
USUAL = 128 << 20
KNOWN = abi.FLAG_PAGE_ALIGN | abi.FLAG_MEMORY_INFO | abi.FLAG_VIDEO_MODE


def find_header(data: bytes) -> int | None:
    """Where a header with a right checksum is, or None."""
    for at in range(0, min(len(data), abi.SEARCH) - abi.HEADER.size + 1, abi.HEADER_ALIGN):
        magic, flags, checksum = struct.unpack_from("<III", data, at)
        if magic == abi.HEADER_MAGIC and not (magic + flags + checksum) & 0xFFFF_FFFF:
            return at
    return None


def read_multiboot1(data: bytes, name: str, at: int, elf: Elf | None) -> Image:
    """The image whose header is at `at`.

    Raises:
        ImageError: it asks for what no loader of this kind has, or is damaged.
    """
    flags = abi.HEADER.unpack(data[at : at + abi.HEADER.size])["flags"]
    if unknown := flags & abi.REQUIRED_FLAGS & ~KNOWN:
        raise ImageError(
            f"{name}: {FORMAT}: flags at {at + 4:#x} ask for {unknown:#x}, which the specification does not define"
        )
    notes = ("it asks for a video mode, and gets none",) if flags & abi.FLAG_VIDEO_MODE else ()
    if flags & abi.FLAG_AOUT_KLUDGE:
        segments, entry = _by_addresses(data, name, at)
        shown = FORMAT
    elif elf is not None:
        segments, entry, shown = elf.segments, elf.start, f"{FORMAT}, ELF{elf.bits}"
    else:
        raise ImageError(
            f"{name}: {FORMAT}: flags at {at + 4:#x} give no load address (bit 16), and the file is no ELF file"
        )
    return Image(
        name, shown, PROTOCOL, segments, entry, "protected", _boot(name, max(each.end for each in segments)),
        board="pc", usual=USUAL, names=elf, bios=True, notes=notes,
    )  # fmt: skip


def _by_addresses(data: bytes, name: str, at: int) -> tuple[tuple[Segment, ...], int]:
    """The segment and the entry that the header's own address fields give."""
    if at + abi.ADDRESSES.size > len(data):
        raise ImageError(f"{name}: {FORMAT}: cut off inside its header, which begins at {at:#x}")
    row = abi.ADDRESSES.unpack(data[at : at + abi.ADDRESSES.size])
    return by_addresses(data, name, at, row, FORMAT), row["entry_addr"]


def by_addresses(data: bytes, name: str, at: int, row: dict[str, int], shown: str) -> tuple[Segment, ...]:
    """Of a header at `at`, in the file, with header_addr, load_addr, load_end_addr and bss_end_addr."""
    header, load, load_end, bss_end = (
        row[key] for key in ("header_addr", "load_addr", "load_end_addr", "bss_end_addr")
    )
    start = at - (header - load)
    if load > header or start < 0:
        raise ImageError(
            f"{name}: {shown}: load_addr {load:#x} and header_addr {header:#x}: with the header at {at:#x} of the file "
            "the image would begin before it"
        )
    count = load_end - load if load_end else len(data) - start
    if count <= 0 or start + count > len(data):
        raise ImageError(
            f"{name}: {shown}: load_end_addr {load_end:#x} less load_addr {load:#x} are {count:#x} bytes from "
            f"{start:#x} on, and the file has {len(data):#x}"
        )
    size = bss_end - load if bss_end else count
    if size < count:
        raise ImageError(f"{name}: {shown}: bss_end_addr {bss_end:#x} lies before the end of its data")
    return (Segment(load, data[start : start + count], size, "its code and data"),)


def _boot(name: str, end: int) -> Boot:
    def boot(world: World) -> Handover:
        handing = Handing(world, end)
        modules = handing.modules()
        rows = b"".join(
            abi.MODULE.pack(
                mod_start=each.at, mod_end=each.at + each.size, cmdline=handing.words(each.words, "a module's words")
            )
            for each in modules
        )
        memory = b"".join(
            abi.MMAP_ENTRY.pack(size=abi.MMAP_ENTRY.size - 4, addr=base, len=size, type=kind)
            for base, size, kind in world.memory_map()
        )
        lower, upper = world.lower_and_upper()
        info = abi.INFO.pack(
            flags=abi.INFO_MEMORY | abi.INFO_CMDLINE | abi.INFO_MODS | abi.INFO_MMAP | abi.INFO_LOADER_NAME,
            mem_lower=lower,
            mem_upper=upper,
            cmdline=handing.words(with_name(name, world.command_line), "the command line"),
            mods_count=len(modules),
            mods_addr=handing.give(rows, "the list of modules") if rows else 0,
            mmap_length=len(memory),
            mmap_addr=handing.give(memory, "the memory map"),
            boot_loader_name=handing.words(LOADER, "the loader's name"),
        )
        at = handing.give(info, "the multiboot information")
        return Handover(tuple(handing.segments), {"rax": abi.BOOTLOADER_MAGIC, "rbx": at})

    return boot

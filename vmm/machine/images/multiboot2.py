# SPDX-License-Identifier: GPL-2.0-or-later
"""Multiboot 2: header tags in an ELF file or in raw code, and the information tags.

It knows bytes and the World it is given. Source: Multiboot2 Specification 2.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vmm.abi import multiboot as abi
from vmm.errors import ImageError
from vmm.machine.images.elf import Elf, Sections
from vmm.machine.images.image import Boot, Handover, Image, Segment, World
from vmm.machine.images.modules import LOADER, Handing, with_name
from vmm.machine.images.multiboot1 import USUAL, by_addresses

FORMAT = "multiboot 2"
PROTOCOL = "multiboot2"
GIVEN = frozenset({
    "end", "command line", "boot loader name", "module", "basic memory", "memory map", "ELF sections", "old RSDP",
    "new RSDP", "load base",
})  # fmt: skip
RSDP_OLD, RSDP_NEW, REVISION = 20, 36, 15  # bytes of ACPI's root pointer, and where its revision is
ADDRESSES = ("header_addr", "load_addr", "load_end_addr", "bss_end_addr")
_TAG = {number: name for name, number in abi.HEADER_TAG.items()}
_INFORMATION = {number: name for name, number in abi.TAG.items()}


def find_header(data: bytes) -> int | None:
    """Where a header with a right checksum is, or None."""
    for at in range(0, min(len(data), abi.SEARCH2) - abi.HEADER2.size + 1, abi.TAG_ALIGN):
        magic, *rest = struct.unpack_from("<4I", data, at)
        if magic == abi.HEADER2_MAGIC and not (magic + sum(rest)) & 0xFFFF_FFFF:
            return at
    return None


def read_multiboot2(data: bytes, name: str, at: int, elf: Elf | None) -> Image:
    """The image whose header is at `at`.

    Raises:
        ImageError: it asks for what this loader does not have, or is damaged.
    """
    header = abi.HEADER2.unpack(data[at : at + abi.HEADER2.size])
    if header["architecture"] != abi.ARCHITECTURE_I386:
        raise ImageError(f"{name}: {FORMAT}: architecture at {at + 4:#x} is {header['architecture']}, and x86 is 0")
    end = at + header["header_length"]
    if header["header_length"] < abi.HEADER2.size or end > len(data):
        raise ImageError(f"{name}: {FORMAT}: header_length at {at + 8:#x} goes to {end:#x}, behind the file's end")
    segments, entry = elf.segments if elf else (), None
    notes, sections = [], Sections(b"", 0, 0, ())
    for where, kind, flags, body in _tags(data, name, at + abi.HEADER2.size, end):
        match _TAG.get(kind):
            case "information request":
                wanted = _requested(name, where, flags, body)
                lacking = sorted(wanted - GIVEN)
                notes += [f"it asks for information that this machine has not: {each}" for each in lacking]
                if "ELF sections" in wanted and elf:
                    sections = elf.sections
            case "address":
                values = dict(zip(ADDRESSES, _words(name, where, body, 4), strict=True))
                segments = by_addresses(data, name, at, values, FORMAT)
            case "entry address":
                entry = _words(name, where, body, 1)[0]
            case "framebuffer" if not flags & abi.HEADER_TAG_OPTIONAL:
                notes.append("it asks for a framebuffer, and gets none")
            case "console flags" | "framebuffer" | "module alignment" | "relocatable":
                pass
            case "EFI boot services" | "EFI i386 entry" | "EFI amd64 entry":
                pass  # for a loader that runs on EFI, which this one is not
            case _:
                if not flags & abi.HEADER_TAG_OPTIONAL:
                    raise ImageError(f"{name}: {FORMAT}: the header tag at {where:#x} has the unknown type {kind}")
    if not segments:
        raise ImageError(f"{name}: {FORMAT}: no address tag, and the file is no ELF file: nothing says where it lies")
    if entry is None:
        if elf is None:
            raise ImageError(f"{name}: {FORMAT}: no entry address tag, and the file is no ELF file")
        entry = elf.start
    shown = f"{FORMAT}, ELF{elf.bits}" if elf else FORMAT
    return Image(
        name, shown, PROTOCOL, segments, entry, "protected", _boot(name, segments, sections),
        board="pc", usual=USUAL, names=elf, bios=True, notes=tuple(notes),
    )  # fmt: skip


def _tags(data: bytes, name: str, at: int, end: int) -> Iterator[tuple[int, int, int, bytes]]:
    """(offset, type, flags, body) of each header tag before the last."""
    while at + 8 <= end:
        kind, flags, size = struct.unpack_from("<HHI", data, at)
        if kind == abi.HEADER_TAG["end"]:
            return
        if size < 8 or at + size > end:
            raise ImageError(f"{name}: {FORMAT}: the header tag at {at:#x} has a size of {size}, which cannot be")
        yield at, kind, flags, data[at + 8 : at + size]
        at += -(-size // abi.TAG_ALIGN) * abi.TAG_ALIGN
    raise ImageError(f"{name}: {FORMAT}: no end tag before the header ends, at {end:#x}")


def _words(name: str, where: int, body: bytes, count: int) -> tuple[int, ...]:
    if len(body) < 4 * count:
        raise ImageError(f"{name}: {FORMAT}: the header tag at {where:#x} is too short")
    return struct.unpack_from(f"<{count}I", body)


def _requested(name: str, where: int, flags: int, body: bytes) -> set[str]:
    """The names of the information that an image must have. As with GRUB, a machine need not have all that the
    specification knows (EFI's, for one, or a network's), but what it does not know is refused.
    """
    if flags & abi.HEADER_TAG_OPTIONAL:
        return set()
    kinds = [kind for (kind,) in struct.iter_unpack("<I", body[: len(body) // 4 * 4])]
    for kind in kinds:
        if kind not in _INFORMATION:
            raise ImageError(
                f"{name}: {FORMAT}: the header tag at {where:#x} demands information of the unknown type {kind}"
            )
    return {_INFORMATION[kind] for kind in kinds}


def _tag(kind: str, body: bytes) -> bytes:
    data = struct.pack("<II", abi.TAG[kind], 8 + len(body)) + body
    return data.ljust(-(-len(data) // abi.TAG_ALIGN) * abi.TAG_ALIGN, b"\0")


def _sections(handing: Handing, sections: Sections) -> list[bytes]:
    """The section headers; what lies in no segment, as a symbol table, is put into memory, and they say where."""
    if not sections.number:
        return []
    table = bytearray(sections.headers)
    for number, data, field in sections.unloaded:
        at = handing.above(data, f"section {number} of the image")
        struct.pack_into("<Q" if field.stop - field.start == 8 else "<I", table, field.start, at)
    head = struct.pack("<3I", sections.number, len(table) // sections.number, sections.names)
    return [_tag("ELF sections", head + table)]


def _boot(name: str, segments: tuple[Segment, ...], sections: Sections) -> Boot:
    end, low = max(each.end for each in segments), min(each.gpa for each in segments)

    def boot(world: World) -> Handover:
        handing = Handing(world, end)
        modules = [
            _tag("module", struct.pack("<II", each.at, each.at + each.size) + each.words + b"\0")
            for each in handing.modules()
        ]
        lower, upper = world.lower_and_upper()
        rows = b"".join(struct.pack("<QQII", *row, 0) for row in world.memory_map())
        tags = [
            _tag("command line", with_name(name, world.command_line) + b"\0"),
            _tag("boot loader name", LOADER + b"\0"),
            *modules,
            _tag("basic memory", struct.pack("<II", lower, upper)),
            _tag("memory map", struct.pack("<II", 24, 0) + rows),
            *_sections(handing, sections),
            *_rsdp(world),
            _tag("load base", struct.pack("<I", low)),
            _tag("end", b""),
        ]
        body = b"".join(tags)
        at = handing.give(struct.pack("<II", 8 + len(body), 0) + body, "the multiboot information")
        return Handover(tuple(handing.segments), {"rax": abi.BOOTLOADER2_MAGIC, "rbx": at})

    return boot


def _rsdp(world: World) -> list[bytes]:
    old, new = world.table(world.rsdp, RSDP_OLD), world.table(world.rsdp, RSDP_NEW)
    if not world.rsdp or not old:
        return []
    return [_tag("old RSDP", old)] if old[REVISION] < 2 or not new else [_tag("new RSDP", new)]

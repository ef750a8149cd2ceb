# SPDX-License-Identifier: GPL-2.0-or-later
"""PVH: an ELF file with the note that names a 32-bit entry, and hvm_start_info.

It knows bytes and the World it is given. Source: Xen, docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h.
"""

from __future__ import annotations

from vmm.abi import pvh as abi
from vmm.machine.images.elf import Elf
from vmm.machine.images.image import Handover, Image, World
from vmm.machine.images.modules import Handing

FORMAT = "PVH"
PROTOCOL = "pvh"
USUAL = 256 << 20


def entry_of(elf: Elf) -> int | None:
    """The physical address of the 32-bit entry, None without the note.

    Raises:
        ImageError: the note holds no address of a segment.
    """
    for kind, body in elf.notes(abi.NOTE_OWNER):
        if kind != abi.XEN_ELFNOTE_PHYS32_ENTRY:
            continue
        if len(body) not in (4, 8):
            raise elf.wrong(f"its note XEN_ELFNOTE_PHYS32_ENTRY has {len(body)} bytes, and an address has 4 or 8")
        at = int.from_bytes(body, "little")
        if not any(each.gpa <= at < each.end for each in elf.segments):
            raise elf.wrong(f"its note XEN_ELFNOTE_PHYS32_ENTRY says {at:#x}, which lies in none of its segments")
        return at
    return None


def read_pvh(elf: Elf, entry: int) -> Image:
    """The image with this entry."""

    def boot(world: World) -> Handover:
        handing = Handing(world, max(each.end for each in elf.segments))
        modules = handing.modules()
        rows = b"".join(
            abi.MODLIST_ENTRY.pack(
                paddr=each.at, size=each.size, cmdline_paddr=handing.words(each.words, "a module's words")
            )
            for each in modules
        )
        memory = world.memory_map()
        table = b"".join(abi.MEMMAP_TABLE_ENTRY.pack(addr=base, size=size, type=kind) for base, size, kind in memory)
        info = abi.START_INFO.pack(
            magic=abi.XEN_HVM_START_MAGIC_VALUE,
            version=abi.VERSION,
            nr_modules=len(modules),
            modlist_paddr=handing.give(rows, "the list of modules") if rows else 0,
            cmdline_paddr=handing.words(world.command_line, "the command line"),
            rsdp_paddr=world.rsdp,
            memmap_paddr=handing.give(table, "the memory map"),
            memmap_entries=len(memory),
        )
        at = handing.give(info, "hvm_start_info")
        return Handover(tuple(handing.segments), {"rbx": at})

    return Image(
        elf.name, f"{FORMAT}, ELF{elf.bits}", PROTOCOL, elf.segments, entry, "protected", boot, board="pc", usual=USUAL,
        names=elf,
    )  # fmt: skip

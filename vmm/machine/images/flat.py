# SPDX-License-Identifier: GPL-2.0-or-later
"""Code without a header: it is told where it lies, where it starts, and in which mode. It knows bytes alone."""

from __future__ import annotations

from vmm.errors import ImageError
from vmm.machine.images.image import NO_PROTOCOL, Handover, Image, Mode, Segment, World, refuse_files
from vmm.machine.memory.layout import FOUR_GIB, REGIONS

FORMAT = "flat"
PROTOCOL = "flat"
BOOT_SECTOR, BOOT_MARK = 512, b"\x55\xaa"
BOOT_SECTOR_AT, FIRST_DISK = 0x7C00, 0x80
REAL_STACK = 0x1000
REAL_END = 0x10_0000
BASES: dict[Mode, int] = {"real": BOOT_SECTOR_AT, "protected": 0x10_0000, "long": REGIONS["code"].base}
"""Where code of a mode lies if nobody says so."""


def is_boot_sector(data: bytes) -> bool:
    """Has its first sector the mark by which a BIOS knows one?"""
    return len(data) >= BOOT_SECTOR and data[BOOT_SECTOR - 2 : BOOT_SECTOR] == BOOT_MARK


def read_flat(data: bytes, name: str, mode: Mode, base: int | None = None, entry: int | str | None = None) -> Image:
    """Code at `base` (by default where BASES has it) that starts at `entry`, by default with its first byte. Real mode
    starts as from a BIOS: DL is the first disk, the stack ends where the code begins.

    Raises:
        ImageError: it cannot lie or start there.
    """
    if not data:
        raise ImageError(f"{name}: it is empty: there is nothing to run")
    base = BASES[mode] if base is None else base
    if isinstance(entry, str):
        raise ImageError(f"{name}: flat code has no symbol {entry!r}", hint="its address, or an ELF file")
    entry = base if entry is None else entry
    limit = {"real": REAL_END, "protected": FOUR_GIB, "long": 1 << 52}[mode]
    if not 0 <= base <= base + len(data) <= limit:
        disk = "a BIOS loads 512 bytes of a disk: `head -c 512`; the disk itself is not there (INT 13h)"
        raise ImageError(
            f"{name}: {len(data):#x} bytes at {base:#x} are not addresses of {mode} mode, below {limit:#x}",
            hint=disk if mode == "real" and is_boot_sector(data) else "",
        )
    if not base <= entry < base + len(data):
        raise ImageError(f"{name}: it would start at {entry:#x}, and lies at {base:#x}..{base + len(data) - 1:#x}")
    code = Segment(base, data, len(data), "the code")
    if mode == "real":
        return _real(name, code, entry)
    return Image(name, f"{FORMAT}, {mode} mode", PROTOCOL, (code,), entry, mode)


def _real(name: str, code: Segment, entry: int) -> Image:
    paragraph = 0 if entry < 1 << 16 else code.gpa >> 4
    offset = entry - (paragraph << 4)
    if offset >= 1 << 16:
        raise ImageError(f"{name}: in real mode nothing starts {offset:#x} bytes behind its segment's begin")

    def boot(world: World) -> Handover:
        refuse_files(name, world.command_line, world.initrd, world.modules, why=NO_PROTOCOL)
        stack = _stack(world, code)
        parts = (Segment(stack, b"", REAL_STACK, "a stack"),)
        return Handover(parts, {"rsp": stack + REAL_STACK, "rdx": FIRST_DISK}, paragraph)

    return Image(name, f"{FORMAT}, real mode", PROTOCOL, (code,), offset, "real", boot, usual=16 << 20, bios=True)


def _stack(world: World, code: Segment) -> int:
    """Below the code, as for a boot sector, or else above it; in the first 64 KiB, for SS is 0."""
    try:
        return world.room.take(REAL_STACK, "a stack", high=min(code.gpa, 1 << 16), top=True)
    except ImageError:
        return world.room.take(REAL_STACK, "a stack", high=1 << 16, top=True)

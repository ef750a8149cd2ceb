# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person should know of an image that is started without a boot protocol: what its author most likely meant.

It knows bytes, and what an ELF file says of itself. Nothing here refuses.
Sources: Multiboot Specification 0.6.96, 3.1.1; Multiboot2 Specification 2.0, 3.1.1; Linux Standard Base 5.0, core
generic, 10.8 (the ABI tag); System V ABI, AMD64 supplement, and Drepper, "ELF Handling For Thread-Local Storage".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vmm.abi import multiboot as abi
from vmm.machine.images.elf import Elf
from vmm.machine.images.flat import BOOT_SECTOR, is_boot_sector

LOOKED_AT = 1 << 20  # bytes of a file in which a header that came to lie elsewhere is looked for
MOST = 64  # places of a magic number that are looked at
XEN_SECTION = "__xen_guest"
TAG_OWNER, TAG_TYPE, TAG_LINUX = b"GNU", 1, 0  # NT_GNU_ABI_TAG, and Linux in its first word


def missed_header(data: bytes) -> str:
    """Why no loader finds the multiboot header that these bytes have, in a sentence; empty where there is none."""
    for magic, words, version, reach, align in (
        (abi.HEADER2_MAGIC, 4, 2, abi.SEARCH2, abi.TAG_ALIGN),
        (abi.HEADER_MAGIC, 3, 1, abi.SEARCH, abi.HEADER_ALIGN),
    ):
        for at in _places(data, struct.pack("<I", magic), 4 * words):
            right = not sum(struct.unpack_from(f"<{words}I", data, at)) & 0xFFFF_FFFF
            what = f"a multiboot {version} header at {at:#x} of the file"
            if right and at % align:
                return f"{what} is at no multiple of {align}, so no loader finds it (`.align {align}`)"
            if right and at + 4 * words > reach:
                return (
                    f"{what} is too late: loaders look through the first {reach} bytes; give its section the first "
                    "place of all in the linker's script, and no build id before it (`-Wl,--build-id=none`)"
                )
            if not right and at % align == 0 and at + 4 * words <= reach:
                return f"{what} has a wrong checksum, so it is none: the sum of its {words} words has to be 0"
    return ""


def missed_mark(data: bytes) -> str:
    """Of what is as long as a boot sector, or as one without its mark: that it was taken for something else."""
    if BOOT_SECTOR - 2 <= len(data) <= BOOT_SECTOR and not is_boot_sector(data):
        return (
            f"{len(data)} bytes without the mark of a boot sector (0x55 0xaa at 510), so they ran as 64-bit code; "
            "--mode real, if they are 16-bit code"
        )
    return ""


def _places(data: bytes, magic: bytes, size: int) -> Iterator[int]:
    """Where the magic number is, with `size` bytes from there on."""
    end, at = min(len(data), LOOKED_AT), -1
    for _ in range(MOST):
        at = data.find(magic, at + 1, end)
        if at < 0 or at + size > len(data):
            return
        yield at


def of_plain(elf: Elf) -> tuple[str, ...]:
    """What its author may have taken for granted, and nobody does for it here."""
    found = [missed_header(elf.data)]
    if any(row["p_type"] == "PT_TLS" for row in elf.headers):
        found.append("it has thread-local storage (PT_TLS), which nobody sets up for it: the base of FS and GS is 0")
    if elf.start != elf.entry:
        found.append(
            f"its entry is linked for {elf.entry:#x} and loaded at {elf.start:#x}: it starts there, where virtual is "
            "physical, until it has made page tables of its own"
        )
    return tuple(each for each in found if each)


def of_another_system(elf: Elf) -> tuple[str, str] | None:
    """(what it is made to run on, with how that is known, what to try), where that is no bare machine: a program, by
    the note of its C library's start files, or a guest of Xen's paravirtual interface, by the section that says so.
    """
    if elf.has_section(XEN_SECTION):
        return f"Xen's paravirtual interface (section {XEN_SECTION})", "a kernel with a note for PVH, or for multiboot"
    for kind, body in elf.notes(TAG_OWNER):
        if kind == TAG_TYPE and len(body) >= 16:
            system, *version = struct.unpack_from("<4I", body)
            if system == TAG_LINUX:
                name = f"Linux {'.'.join(map(str, version))}"
                return f"{name} (the note NT_GNU_ABI_TAG)", "link it `-nostdlib -static`, without the C library"
    return None

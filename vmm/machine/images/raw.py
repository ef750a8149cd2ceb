# SPDX-License-Identifier: GPL-2.0-or-later
"""What bytes plainly are that somebody wants to run as machine code. It looks at bytes alone and opens nothing."""

from __future__ import annotations

ELF, GZIP = b"\x7fELF", b"\x1f\x8b\x08"
MAGICS = {
    b"!<arch>\n": "an archive of object files",
    b"#!": "a script",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"\x04\x22\x4d\x18": "compressed by lz4",
    b"\xcf\xfa\xed\xfe": "a Mach-O file",
    b"QFI\xfb": "a disk image of QEMU",
    b"PK\x03\x04": "a zip archive",
}
UNPACK = {f"compressed by {tool}": f"`{tool} -dc FILE > IMAGE`, and that" for tool in ("bzip2", "xz", "zstd", "lz4")}
BOOT_SECTOR, BOOT_MARK = 512, b"\x55\xaa"
HDRS = slice(0x202, 0x206)
MULTIBOOT = ((b"\x02\xb0\xad\x1b", 8192), (b"\xd6\x50\x52\xe8", 32768))  # magic numbers, and how far they may lie


def refusal(data: bytes, name: str) -> tuple[str, str] | None:
    """(why these bytes cannot be run as they are, what to try); None for what may be code, or an image."""
    for magic, what in MAGICS.items():
        if data.startswith(magic):
            return f"{name} is {what}, not machine code", UNPACK.get(what, "")
    if data.startswith(b"MZ") and _portable(data) and not is_image(data):
        return f"{name} is a PE file, as Windows and UEFI have it, not raw code{_how()}", ""
    return None


def is_image(data: bytes) -> bool:
    """May it be an image with a header, by its first bytes? Whoever reads it says for sure."""
    if data.startswith((ELF, GZIP)) or data[HDRS] == b"HdrS":
        return True
    if data[BOOT_SECTOR - 2 : BOOT_SECTOR] == BOOT_MARK:
        return True
    return any(data.find(magic, 0, reach) % 4 == 0 for magic, reach in MULTIBOOT)


def is_text(data: bytes) -> bool:
    """Does it read as text, to the last byte? Machine code hardly does: HLT, RET, a near call, zero are none."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return len(text) > 1 and all(each.isprintable() or each in "\t\n\r\f" for each in text)


def _how() -> str:
    from vmm.machine.memory.layout import REGIONS

    return f": that runs from its first byte, at {REGIONS['code'].base:#x}, in 64-bit mode"


def _portable(data: bytes) -> bool:
    at = int.from_bytes(data[0x3C:0x40], "little")
    return data[at : at + 4] == b"PE\0\0"

# SPDX-License-Identifier: GPL-2.0-or-later
"""What bytes plainly are that somebody wants to run as machine code. It looks at bytes alone and opens nothing."""

from __future__ import annotations

import struct

from vmm.machine.memory.layout import REGIONS

ELF = b"\x7fELF"
MAGICS = {
    b"!<arch>\n": "an archive of object files",
    b"#!": "a script",
    b"\x1f\x8b\x08": "compressed by gzip",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"\xcf\xfa\xed\xfe": "a Mach-O file",
    b"QFI\xfb": "a disk image of QEMU",
}
EM_386, EM_X86_64 = 3, 62
ET_REL, ET_DYN = 1, 3
PT_LOAD = 1
BOOT_SECTOR, BOOT_MARK = 512, b"\x55\xaa"


def refusal(data: bytes, name: str) -> tuple[str, str] | None:
    """(why these bytes cannot be run as they are, what to try); None for what may be code."""
    if data.startswith(ELF):
        what, hint = _elf(data, name)
        return f"{name} is {what}, not raw code{_how()}", hint
    for magic, what in MAGICS.items():
        if data.startswith(magic):
            return f"{name} is {what}, not machine code", ""
    if data.startswith(b"MZ") and (data[0x202:0x206] == b"HdrS" or _portable(data)):
        what = "a Linux kernel (bzImage)" if data[0x202:0x206] == b"HdrS" else "a PE file, as Windows and UEFI have it"
        return f"{name} is {what}, not raw code{_how()}", ""
    return None


def is_text(data: bytes) -> bool:
    """Does it read as text, to the last byte? Machine code hardly does: HLT, RET, a near call, zero are none."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return len(text) > 1 and all(each.isprintable() or each in "\t\n\r\f" for each in text)


def note(data: bytes, name: str) -> str:
    """What is to be said of code that runs, and hardly as it was meant; mostly nothing."""
    if len(data) >= BOOT_SECTOR and data[BOOT_SECTOR - 2 : BOOT_SECTOR] == BOOT_MARK:
        return f"{name} has the mark of a boot sector, which is 16-bit code for 0x7c00: it {_how()[7:]}"
    return ""


def _how() -> str:
    return f": that runs from its first byte, at {REGIONS['code'].base:#x}, in 64-bit mode"


def _portable(data: bytes) -> bool:
    at = int.from_bytes(data[0x3C:0x40], "little")
    return data[at : at + 4] == b"PE\0\0"


def _elf(data: bytes, name: str) -> tuple[str, str]:
    """What kind of ELF file, and what makes raw code for pyvmm of it."""
    base, own = REGIONS["code"].base, name.rpartition("/")[2]
    out = f"{own.partition('.')[0] or 'code'}.bin"
    out = f"raw-{out}" if out == own else out
    link = f"ld -Ttext={base:#x} -e start --oformat binary -o {out}"
    again = f"link its object files for that address, with the entry first: `{link} FILE.o`"
    try:
        wide = data[4] == 2
        kind, machine = struct.unpack_from("<HH", data, 16)
        entry, headers = struct.unpack_from("<QQ" if wide else "<II", data, 24)
        size, count = struct.unpack_from("<HH", data, 54 if wide else 42)
        at = 16 if wide else 8  # p_vaddr
        loads = [
            struct.unpack_from("<Q" if wide else "<I", data, headers + i * size + at)[0]
            for i in range(count)
            if struct.unpack_from("<I", data, headers + i * size)[0] == PT_LOAD
        ]
    except (struct.error, IndexError):
        return "an ELF file that is cut off", "build it again"
    if machine not in (EM_386, EM_X86_64):
        return f"an ELF file for another CPU (e_machine {machine})", "compile it for x86-64"
    if not wide:
        return "a 32-bit ELF file", "compile it for x86-64 (`-m64`), or begin with code that leaves 64-bit mode"
    if kind == ET_REL:
        return "an ELF object file, not linked yet", f"`{link} {name}`"
    if not loads or (min(loads), entry) != (base, base):
        what = "a position-independent ELF file" if kind == ET_DYN else "an ELF file"
        return f"{what} linked for {min(loads, default=0):#x}, with its entry at {entry:#x}", again
    return f"an ELF file linked for {base:#x}", f"`objcopy -O binary {name} {out}`"

# SPDX-License-Identifier: GPL-2.0-or-later
"""Multiboot, versions 1 and 2: magic numbers, header and information structures, tags.

Sources: Multiboot Specification 0.6.96, 3.1 to 3.4; Multiboot2 Specification 2.0, 3.1 to 3.6. No uapi header has them.
"""

from __future__ import annotations

from vmm.abi.structs import Field, Struct

# --- version 1 -------------------------------------------------------------------------------------------------------

HEADER_MAGIC, BOOTLOADER_MAGIC = 0x1BAD_B002, 0x2BAD_B002
SEARCH, HEADER_ALIGN = 8192, 4
FLAG_PAGE_ALIGN, FLAG_MEMORY_INFO, FLAG_VIDEO_MODE, FLAG_AOUT_KLUDGE = 1 << 0, 1 << 1, 1 << 2, 1 << 16
REQUIRED_FLAGS = 0xFFFF  # a loader that does not know one of these must not load the image

HEADER = Struct(
    "multiboot_header", "MULTIBOOT_HEADER", 12, 4, (
        Field("magic", 0, 4, "HEADER_MAGIC"),
        Field("flags", 4, 4, "what it asks for"),
        Field("checksum", 8, 4, "the sum of the three is 0"),
    ),
)  # fmt: skip
ADDRESSES = Struct(
    "multiboot_header_addresses", "MULTIBOOT_ADDRESSES", 32, 4, (
        Field("header_addr", 12, 4, "where the header itself is loaded"),
        Field("load_addr", 16, 4, "where the image begins"),
        Field("load_end_addr", 20, 4, "where its data end; 0: with the file"),
        Field("bss_end_addr", 24, 4, "where zeros end; 0: there are none"),
        Field("entry_addr", 28, 4, "where it starts"),
    ),
)  # fmt: skip
INFO_MEMORY, INFO_CMDLINE, INFO_MODS, INFO_MMAP, INFO_LOADER_NAME = 1 << 0, 1 << 2, 1 << 3, 1 << 6, 1 << 9
INFO = Struct(
    "multiboot_info", "MULTIBOOT_INFO", 116, 4, (
        Field("flags", 0, 4, "which of the fields are there"),
        Field("mem_lower", 4, 4, "KiB of memory from 0"),
        Field("mem_upper", 8, 4, "KiB of memory from 1 MiB to the first hole"),
        Field("cmdline", 16, 4, "address of the command line"),
        Field("mods_count", 20, 4, "number of modules"),
        Field("mods_addr", 24, 4, "address of the first module's row"),
        Field("mmap_length", 44, 4, "bytes of the memory map"),
        Field("mmap_addr", 48, 4, "address of the memory map"),
        Field("boot_loader_name", 64, 4, "address of the loader's name"),
    ),
)  # fmt: skip
MODULE = Struct(
    "multiboot_mod_list", "MULTIBOOT_MODULE", 16, 4, (
        Field("mod_start", 0, 4, "first address"),
        Field("mod_end", 4, 4, "the address behind its last byte"),
        Field("cmdline", 8, 4, "address of its words"),
    ),
)  # fmt: skip
MMAP_ENTRY = Struct(
    "multiboot_mmap_entry", "MULTIBOOT_MMAP", 24, 4, (
        Field("size", 0, 4, "bytes of the row, without this field"),
        Field("addr", 4, 8, "first address"),
        Field("len", 12, 8, "bytes"),
        Field("type", 20, 4, "1 is usable memory"),
    ),
)  # fmt: skip

# --- version 2 -------------------------------------------------------------------------------------------------------

HEADER2_MAGIC, BOOTLOADER2_MAGIC = 0xE852_50D6, 0x36D7_6289
SEARCH2, TAG_ALIGN = 32768, 8
ARCHITECTURE_I386 = 0
HEADER2 = Struct(
    "multiboot2_header", "MULTIBOOT2_HEADER", 16, 8, (
        Field("magic", 0, 4, "HEADER2_MAGIC"),
        Field("architecture", 4, 4, "0: 32-bit protected mode of i386"),
        Field("header_length", 8, 4, "bytes, with all tags"),
        Field("checksum", 12, 4, "the sum of the four is 0"),
    ),
)  # fmt: skip
HEADER_TAG_OPTIONAL = 1
HEADER_TAG = {
    "end": 0, "information request": 1, "address": 2, "entry address": 3, "console flags": 4, "framebuffer": 5,
    "module alignment": 6, "EFI boot services": 7, "EFI i386 entry": 8, "EFI amd64 entry": 9, "relocatable": 10,
}  # fmt: skip
TAG = {
    "end": 0, "command line": 1, "boot loader name": 2, "module": 3, "basic memory": 4, "boot device": 5,
    "memory map": 6, "VBE": 7, "framebuffer": 8, "ELF sections": 9, "APM": 10, "EFI 32-bit system table": 11,
    "EFI 64-bit system table": 12, "SMBIOS": 13, "old RSDP": 14, "new RSDP": 15, "network": 16, "EFI memory map": 17,
    "EFI boot services": 18, "EFI 32-bit image handle": 19, "EFI 64-bit image handle": 20, "load base": 21,
}  # fmt: skip

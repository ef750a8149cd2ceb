# SPDX-License-Identifier: GPL-2.0-or-later
"""Xen's PVH entry, by which Linux and others start too: the ELF note, hvm_start_info and its lists.

Sources: Xen, docs/misc/pvh.pandoc and xen/include/public/arch-x86/hvm/start_info.h, public/elfnote.h. No uapi header
has them.
"""

from __future__ import annotations

from vmm.abi.structs import Field, Struct

NOTE_OWNER = b"Xen"
XEN_ELFNOTE_PHYS32_ENTRY = 18
XEN_HVM_START_MAGIC_VALUE = 0x336E_C578
VERSION = 1

START_INFO = Struct(
    "hvm_start_info", "HVM_START_INFO", 56, 8, (
        Field("magic", 0, 4, "XEN_HVM_START_MAGIC_VALUE"),
        Field("version", 4, 4, "1: with a memory map"),
        Field("flags", 8, 4, "SIF_*: none"),
        Field("nr_modules", 12, 4, "rows of the module list"),
        Field("modlist_paddr", 16, 8, "address of the module list"),
        Field("cmdline_paddr", 24, 8, "address of the command line"),
        Field("rsdp_paddr", 32, 8, "address of ACPI's root pointer, or 0"),
        Field("memmap_paddr", 40, 8, "address of the memory map"),
        Field("memmap_entries", 48, 4, "rows of it"),
    ),
)  # fmt: skip
MODLIST_ENTRY = Struct(
    "hvm_modlist_entry", "HVM_MODLIST_ENTRY", 32, 8, (
        Field("paddr", 0, 8, "address"),
        Field("size", 8, 8, "bytes"),
        Field("cmdline_paddr", 16, 8, "address of its words, or 0"),
    ),
)  # fmt: skip
MEMMAP_TABLE_ENTRY = Struct(
    "hvm_memmap_table_entry", "HVM_MEMMAP_TABLE_ENTRY", 24, 8, (
        Field("addr", 0, 8, "first address"),
        Field("size", 8, 8, "bytes"),
        Field("type", 16, 4, "XEN_HVM_MEMMAP_TYPE_*, as E820 has them"),
    ),
)  # fmt: skip

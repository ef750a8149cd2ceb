# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux' boot protocol on x86: the header in a bzImage, the zero page, flags, and the map of memory as E820 has it.

Sources: Documentation/arch/x86/boot.rst and zero-page.rst, <asm/bootparam.h>; ACPI specification 6.5, table 15.2.
"""

from __future__ import annotations

from vmm.abi.rows import Named
from vmm.abi.structs import Field, Struct

HEADER = "asm/bootparam.h"

SECTOR = 512
SETUP_HEADER_OFFSET = 0x1F1
JUMP_LENGTH_OFFSET = 0x201  # of the short jump at 0x200: its target is the end of the header
BOOT_FLAG = 0xAA55
HDRS = 0x5372_6448  # "HdrS"
DEFAULT_SETUP_SECTS = 4  # what a setup_sects of 0 means
LOADER_TYPE_UNDEFINED = 0xFF  # "Undefined", for a loader without an assigned id
VID_MODE_NORMAL = 0xFFFF
REAL_MODE_ENTRY = 0x200  # the real-mode entry, from the first byte of the setup
ENTRY_64 = 0x200  # the 64-bit entry, from the first byte of the protected-mode kernel
BOOT_CS, BOOT_DS = 0x10, 0x18  # the selectors that the 32-bit and the 64-bit protocol name

VERSION_MIN = 0x0200
VERSION_CMD_LINE_PTR = 0x0202
VERSION_INITRD_MAX = 0x0203
VERSION_SYSSIZE32 = 0x0204
VERSION_RELOCATABLE = 0x0205
VERSION_CMDLINE_SIZE = 0x0206
VERSION_PAYLOAD = 0x0208
VERSION_INIT_SIZE = 0x020A
VERSION_XLOADFLAGS = 0x020C
OLD_INITRD_ADDR_MAX = 0x37FF_FFFF  # before 2.03
OLD_CMDLINE_SIZE = 255  # before 2.06

SETUP_HEADER = Struct(
    "setup_header", "SETUP_HEADER", 123, 1, (
        Field("setup_sects", 0, 1, "sectors of setup code, after the first"),
        Field("syssize", 3, 4, "16-byte units of protected-mode code"),
        Field("vid_mode", 9, 2, "video mode"),
        Field("boot_flag", 13, 2, "0xaa55"),
        Field("header", 17, 4, "HdrS"),
        Field("version", 21, 2, "of the protocol"),
        Field("kernel_version", 29, 2, "where its text is, less 0x200"),
        Field("type_of_loader", 31, 1, "who loads it"),
        Field("loadflags", 32, 1, "LOADED_HIGH and others"),
        Field("code32_start", 35, 4, "where the 32-bit code is loaded"),
        Field("ramdisk_image", 39, 4, "address of the initrd"),
        Field("ramdisk_size", 43, 4, "bytes of the initrd"),
        Field("heap_end_ptr", 51, 2, "end of the setup's heap, less 0x200"),
        Field("cmd_line_ptr", 55, 4, "address of the command line"),
        Field("initrd_addr_max", 59, 4, "the highest address of a byte of the initrd"),
        Field("kernel_alignment", 63, 4, "alignment of a relocated kernel"),
        Field("relocatable_kernel", 67, 1, "may it be loaded elsewhere"),
        Field("min_alignment", 68, 1, "the least alignment, as a power of two"),
        Field("xloadflags", 69, 2, "XLF_KERNEL_64 and others"),
        Field("cmdline_size", 71, 4, "bytes of a command line, without the NUL"),
        Field("payload_offset", 87, 4, "where the compressed kernel is"),
        Field("payload_length", 91, 4, "bytes of the compressed kernel"),
        Field("setup_data", 95, 8, "list of more data for the kernel"),
        Field("pref_address", 103, 8, "where it wants to be loaded"),
        Field("init_size", 111, 4, "bytes that it needs from there until it knows its memory"),
    ),
)  # fmt: skip
BOOT_PARAMS = Struct(
    "boot_params", "BOOT_PARAMS", 4096, 1, (
        Field("acpi_rsdp_addr", 0x070, 8, "address of ACPI's root pointer"),
        Field("ext_ramdisk_image", 0x0C0, 4, "high half of the initrd's address"),
        Field("ext_ramdisk_size", 0x0C4, 4, "high half of the initrd's size"),
        Field("ext_cmd_line_ptr", 0x0C8, 4, "high half of the command line's address"),
        Field("e820_entries", 0x1E8, 1, "rows of e820_table"),
        Field("sentinel", 0x1EF, 1, "0, as a loader makes it"),
    ),
)  # fmt: skip
E820_TABLE_OFFSET = 0x2D0
E820_MAX_ENTRIES_ZEROPAGE = 128
E820_ENTRY = Struct(
    "boot_e820_entry", "E820_ENTRY", 20, 1, (
        Field("addr", 0, 8, "first address"),
        Field("size", 8, 8, "bytes"),
        Field("type", 16, 4, "what is there"),
    ),
)  # fmt: skip
STRUCTS = (SETUP_HEADER, BOOT_PARAMS, E820_ENTRY)

LOADED_HIGH = Named(1 << 0, "LOADED_HIGH", "the protected-mode code is loaded at 1 MiB", header=HEADER)
CAN_USE_HEAP = Named(1 << 7, "CAN_USE_HEAP", "heap_end_ptr is valid", header=HEADER)
XLF_KERNEL_64 = Named(1 << 0, "XLF_KERNEL_64", "it has the 64-bit entry", header=HEADER)
FLAGS = (LOADED_HIGH, CAN_USE_HEAP, XLF_KERNEL_64)

E820_RAM = Named(1, "E820_TYPE_RAM", "usable memory", header=None)
E820_RESERVED = Named(2, "E820_TYPE_RESERVED", "not to be touched", header=None)
E820_ACPI = Named(3, "E820_TYPE_ACPI", "ACPI tables", header=None)
E820_TYPES = (E820_RAM, E820_RESERVED, E820_ACPI)

EBDA, LOW_MEMORY_END, BIOS_END = 0x9_FC00, 0xA_0000, 0x10_0000
"""A PC's first MiB: memory to the extended BIOS data area, which is reserved as all behind it is, up to 1 MiB."""

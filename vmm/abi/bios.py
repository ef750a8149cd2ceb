# SPDX-License-Identifier: GPL-2.0-or-later
"""What a PC's BIOS leaves in low memory for whoever comes after it: its data area at 0x400.

Source: IBM PC/AT Technical Reference, BIOS data area; Ralf Brown's MEMORY.LST. No uapi header has it.
"""

from __future__ import annotations

from vmm.abi.structs import Field, Struct

BDA_ADDRESS = 0x400
BDA = Struct(
    "bios_data_area", "BDA", 256, 1, (
        Field("com1", 0x00, 2, "port of the first serial port"),
        Field("ebda", 0x0E, 2, "paragraph of the extended data area"),
        Field("equipment", 0x10, 2, "bit 1 a coprocessor, bits 9 to 11 how many serial ports"),
        Field("memory_kib", 0x13, 2, "KiB of memory below the extended data area"),
        Field("video_mode", 0x49, 1, "3: text of 80 columns"),
        Field("columns", 0x4A, 2, "of the screen"),
        Field("crtc", 0x63, 2, "port of the display's controller"),
        Field("ticks", 0x6C, 4, "of the timer, 18.2 a second"),
        Field("last_row", 0x84, 1, "rows of the screen, less one"),
    ),
)  # fmt: skip
ONE_SERIAL_PORT, COPROCESSOR = 1 << 9, 1 << 1
CRTC_COLOUR = 0x3D4

# The services, by interrupt (Ralf Brown's Interrupt List). A guest comes to them by the vector table at address 0.
VIDEO, EQUIPMENT, MEMORY_SIZE, DISK, SERIAL, SYSTEM, KEYBOARD, PRINTER = 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17
BASIC, BOOTSTRAP, TIME = 0x18, 0x19, 0x1A
USER_TIMER = 0x1C
"""Called at each tick of the timer, for whoever puts a handler of its own there."""
VECTORS = 256
SMAP = 0x534D_4150  # "SMAP", of INT 15h AX=E820h

# Where pyvmm's own services stand, in the BIOS area: a stub for each vector, which hands the call to the host.
STUBS, STUB_SEGMENT, STUB_OFFSET, STUB_SIZE = 0xF_D000, 0xF000, 0xD000, 16

TIMER = 0x08
PIC_MASTER_BASE, PIC_SLAVE_BASE = TIMER, 0x70
PIC_MASTER_MASK, PIC_SLAVE_MASK = 0xFA, 0xFF
"""As a BIOS leaves the interrupt controllers: the timer and the cascade are open, and the timer runs at its slowest."""
IRQS = (*range(0x08, 0x0D), 0x0E, 0x0F, *range(0x70, 0x78))
"""Vectors of hardware interrupts as a BIOS places them; 0x0D, IRQ 5, is #GP far more often."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""What an image finds in low memory where a BIOS would have been before it: data areas, and vectors to its services.

Loaders on a PC look there for the end of low memory; Xen puts the code for its other CPUs below what it says.
"""

from __future__ import annotations

import struct

from vmm.abi import bios, ports
from vmm.abi.bootparam import EBDA
from vmm.machine.images.image import Segment, Span, segment

DATA_AREA = "the BIOS data area"


def stub(vector: int) -> bytes:
    """What the vector leads to: OUT to the host; the timer's calls who waits for ticks; for a hardware interrupt its
    end, to the PICs; IRET.
    """
    code = bytes((0xE6, ports.BIOS))
    if vector == bios.TIMER:
        code += bytes((0xCD, bios.USER_TIMER))
    if vector in bios.IRQS:
        eoi = b"\xe6\xa0" if vector >= 0x70 else b""
        code += b"\x50\xb0\x20" + eoi + b"\xe6\x20\x58"  # push ax; mov al, 0x20; out 0xa0, al; out 0x20, al; pop ax
    return (code + b"\xcf").ljust(bios.STUB_SIZE, b"\xf4")


def vector_table() -> bytes:
    """256 far pointers to the stubs."""
    return b"".join(
        struct.pack("<HH", bios.STUB_OFFSET + bios.STUB_SIZE * vector, bios.STUB_SEGMENT)
        for vector in range(bios.VECTORS)
    )


def stubs() -> bytes:
    return b"".join(stub(vector) for vector in range(bios.VECTORS))


def services(taken: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """The vector table and its stubs; nothing, where the image lies there itself."""
    parts = (segment(0, vector_table(), "the vector table"), segment(bios.STUBS, stubs(), "the BIOS"))
    return () if any(_meet(one, other) for one in parts for other in taken) else parts


def data_areas(taken: tuple[Segment, ...], ram: tuple[Span, ...]) -> tuple[Segment, ...]:
    """Both data areas, where the guest has memory there and the image does not lie there itself."""
    area = bios.BDA.pack(
        com1=ports.COM1, ebda=EBDA >> 4, equipment=bios.ONE_SERIAL_PORT | bios.COPROCESSOR, memory_kib=EBDA >> 10,
        video_mode=3, columns=80, crtc=bios.CRTC_COLOUR, last_row=24,
    )  # fmt: skip
    parts = (
        segment(bios.BDA_ADDRESS, area, DATA_AREA),
        segment(EBDA, b"\x01", "the extended BIOS data area"),  # its size in KiB
    )
    return tuple(
        each
        for each in parts
        if any(base <= each.gpa and each.end <= base + size for base, size in ram)
        and not any(_meet(each, other) for other in taken)
    )


def _meet(one: Segment, other: Segment) -> bool:
    return one.gpa < other.end and other.gpa < one.end

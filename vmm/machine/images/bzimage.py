# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux' bzImage: its setup header, and the 64-bit, 32-bit and real-mode boot protocols.

It knows bytes and the World it is given, no machine. Source: Documentation/arch/x86/boot.rst and zero-page.rst.
"""

from __future__ import annotations

from dataclasses import replace

from vmm.abi import bootparam as abi
from vmm.base.bits import MASK64
from vmm.errors import ImageError
from vmm.machine.images.elf import Elf
from vmm.machine.images.image import Handover, Image, Mode, Segment, World, pages, segment
from vmm.machine.memory.layout import FOUR_GIB

FORMAT = "Linux bzImage"
USUAL = 256 << 20
LOAD_HIGH = 0x10_0000  # where a kernel that cannot be moved is loaded
HEADER_END = abi.SETUP_HEADER_OFFSET + abi.SETUP_HEADER.size
PROTOCOLS = ("linux64", "linux32", "linux16")

# Real mode: setup code in the first segment, its stack and heap behind it, the command line behind those.
SETUP_AT, SETUP_ROOM, HEAP_END = 0x1_0000, 0x8000, 0xE000


def is_bzimage(data: bytes) -> bool:
    """Has it a boot sector's mark and the magic number of the setup header?"""
    return data[0x1FE:0x200] == b"\x55\xaa" and data[0x202:0x206] == b"HdrS"


def read_bzimage(data: bytes, name: str, protocol: str | None = None) -> Image:
    """An image of a bzImage; `protocol` is one of PROTOCOLS, None the best that it has.

    Raises:
        ImageError: it is damaged, too old, or lacks that protocol.
    """
    header = _header(data, name)
    setup_size = (header["setup_sects"] + 1) * abi.SECTOR
    kernel = data[setup_size:]
    _check(header, len(data), setup_size, name)
    has64 = header["version"] >= abi.VERSION_XLOADFLAGS and header["xloadflags"] & abi.XLF_KERNEL_64.value
    best = "linux64" if has64 else "linux32" if _has32(header) else "linux16"
    chosen = protocol or best
    if chosen == "linux64" and not has64:
        raise ImageError(
            f"{name}: {FORMAT}: it has no 64-bit entry (version {_version(header)}, xloadflags at 0x236 "
            f"{header['xloadflags']:#x})",
            hint="without --protocol, or --protocol linux32",
        )
    load = LOAD_HIGH
    if chosen != "linux16" and header["relocatable_kernel"] and header["version"] >= abi.VERSION_INIT_SIZE:
        load = header["pref_address"]
    needs = max(header["init_size"] if header["version"] >= abi.VERSION_INIT_SIZE else 0, len(kernel))
    if load < LOAD_HIGH or load + needs > (FOUR_GIB if chosen != "linux64" else 1 << 52):
        raise ImageError(
            f"{name}: {FORMAT}: pref_address at 0x258 is {load:#x}, and init_size at 0x260 {needs:#x}: no kernel "
            "lies there"
        )
    image = Segment(load, kernel, needs if chosen != "linux16" else len(kernel), "the kernel")
    if chosen == "linux16":
        return _real(data[:setup_size], header, image, name)
    entry, mode = (load + abi.ENTRY_64, "long") if chosen == "linux64" else (load, "protected")
    return _flat(data, header, image, name, chosen, entry, mode)  # type: ignore[arg-type]


def _header(data: bytes, name: str) -> dict[str, int]:
    """The setup header's fields, with zeros for what is behind its own end."""
    if len(data) < HEADER_END:
        raise ImageError(f"{name}: {FORMAT}: cut off inside the setup header, at {len(data):#x}")
    end = 0x202 + data[abi.JUMP_LENGTH_OFFSET]
    known = data[abi.SETUP_HEADER_OFFSET : max(min(end, HEADER_END), 0x212)]
    header = abi.SETUP_HEADER.unpack(known.ljust(abi.SETUP_HEADER.size, b"\0"))
    header["setup_sects"] = header["setup_sects"] or abi.DEFAULT_SETUP_SECTS
    if header["version"] < abi.VERSION_CMD_LINE_PTR:
        raise ImageError(
            f"{name}: {FORMAT}: boot protocol {_version(header)} at 0x206 is too old; 2.02 (Linux 2.4) is the oldest "
            "that pyvmm speaks"
        )
    if not header["loadflags"] & abi.LOADED_HIGH.value:
        raise ImageError(f"{name}: {FORMAT}: a zImage (loadflags at 0x211, LOADED_HIGH is 0), and not a bzImage")
    return header


def _check(header: dict[str, int], size: int, setup_size: int, name: str) -> None:
    if size <= setup_size:
        raise ImageError(
            f"{name}: {FORMAT}: {size:#x} bytes, and setup_sects at 0x1f1 puts the kernel behind {setup_size:#x}: "
            "cut off"
        )
    if header["version"] >= abi.VERSION_SYSSIZE32:
        end = setup_size + header["syssize"] * 16
        if size + 15 < end:
            raise ImageError(f"{name}: {FORMAT}: cut off: it has {size:#x} bytes, and syssize at 0x1f4 says {end:#x}")
    if header["version"] >= abi.VERSION_PAYLOAD and header["payload_length"]:
        end = setup_size + header["payload_offset"] + header["payload_length"]
        if end > size:
            raise ImageError(
                f"{name}: {FORMAT}: the compressed kernel (payload_offset at 0x248, payload_length) ends at {end:#x}, "
                f"behind the file's {size:#x} bytes"
            )


def _has32(header: dict[str, int]) -> bool:
    """A kernel says how it wants to be aligned from 2.05 on. What has nothing to say there, or is older, is most
    likely another program, of which only the setup code can be started (iPXE, GRUB's lnxboot, memdisk).
    """
    return header["version"] >= abi.VERSION_RELOCATABLE and header["kernel_alignment"] != 0


def _version(header: dict[str, int]) -> str:
    return f"{header['version'] >> 8}.{header['version'] & 0xFF:02}"


def _command_line(header: dict[str, int], world: World, name: str) -> bytes:
    limit = header["cmdline_size"] if header["version"] >= abi.VERSION_CMDLINE_SIZE else abi.OLD_CMDLINE_SIZE
    if len(world.command_line) > limit:
        raise ImageError(
            f"{name}: {FORMAT}: a command line of {len(world.command_line)} bytes, and this kernel takes {limit} "
            "(cmdline_size at 0x238)"
        )
    return world.command_line + b"\0"


def _initrd(header: dict[str, int], world: World, name: str) -> Segment | None:
    """As high as it may be: there it is in nobody's way."""
    if not world.initrd:
        return None
    limit = header["initrd_addr_max"] if header["version"] >= abi.VERSION_INITRD_MAX else abi.OLD_INITRD_ADDR_MAX
    size = len(world.initrd)
    try:
        at = world.room.take(pages(size), "the initrd", align=0x1000, low=LOAD_HIGH, high=limit + 1, top=True)
    except ImageError as error:
        raise ImageError(f"{name}: {error.text} (initrd_addr_max at 0x22c is {limit:#x})", error.hint) from None
    return segment(at, world.initrd, "the initrd")


def _no_modules(world: World, name: str) -> None:
    if world.modules:
        raise ImageError(f"{name}: {FORMAT}: modules are multiboot's and PVH's; it takes one initrd", hint="--initrd")


def _pointers(initrd: Segment | None, command_line: int) -> dict[str, int]:
    """Fields that every protocol fills, by their low halves."""
    return {
        "type_of_loader": abi.LOADER_TYPE_UNDEFINED,
        "cmd_line_ptr": command_line & 0xFFFF_FFFF,
        "ramdisk_image": initrd.gpa & 0xFFFF_FFFF if initrd else 0,
        "ramdisk_size": initrd.size & 0xFFFF_FFFF if initrd else 0,
    }


def _put(target: bytearray, fields: dict[str, int]) -> None:
    """Fields of the setup header into a zero page, or into a copy of the setup."""
    for name, value in fields.items():
        field = abi.SETUP_HEADER.field(name)
        at = abi.SETUP_HEADER_OFFSET + field.offset
        target[at : at + field.size] = value.to_bytes(field.size, "little")


def zero_page(data: bytes, world: World, initrd: Segment | None, command_line: int, load: int) -> bytes:
    """struct boot_params: the image's own header, and what a loader fills in."""
    end = min(0x202 + data[abi.JUMP_LENGTH_OFFSET], 0x290)
    page = bytearray(abi.BOOT_PARAMS.pack(acpi_rsdp_addr=world.rsdp & MASK64, ext_cmd_line_ptr=command_line >> 32))
    page[abi.SETUP_HEADER_OFFSET : end] = data[abi.SETUP_HEADER_OFFSET : end]
    _put(page, _pointers(initrd, command_line) | {"vid_mode": abi.VID_MODE_NORMAL, "code32_start": load & 0xFFFF_FFFF})
    rows = world.memory_map()[: abi.E820_MAX_ENTRIES_ZEROPAGE]
    page[abi.BOOT_PARAMS.field("e820_entries").offset] = len(rows)
    for number, (base, size, kind) in enumerate(rows):
        at = abi.E820_TABLE_OFFSET + number * abi.E820_ENTRY.size
        page[at : at + abi.E820_ENTRY.size] = abi.E820_ENTRY.pack(addr=base, size=size, type=kind)
    return bytes(page)


def _flat(
    data: bytes, header: dict[str, int], kernel: Segment, name: str, protocol: str, entry: int, mode: Mode
) -> Image:
    """By the 64-bit or the 32-bit protocol: RSI (ESI) holds the zero page, all else of the 32-bit one is zero."""

    def boot(world: World) -> Handover:
        _no_modules(world, name)
        words = _command_line(header, world, name)
        page_at = world.room.take(abi.BOOT_PARAMS.size, "the zero page", align=0x1000)
        words_at = world.room.take(len(words), "the command line")
        initrd = _initrd(header, world, name)
        page = zero_page(data, world, initrd, words_at, kernel.gpa)
        parts = [segment(page_at, page, "the zero page"), segment(words_at, words, "the command line")]
        return Handover((*parts, *([initrd] if initrd else [])), {"rsi": page_at})

    shown = f"{FORMAT}, boot protocol {_version(header)}"
    return Image(name, shown, protocol, (kernel,), entry, mode, boot, board="pc", usual=USUAL)


def read_vmlinux(elf: Elf) -> Image:
    """An uncompressed kernel, started at its 64-bit entry with a zero page that has no header of its own."""
    made = abi.SETUP_HEADER.pack(
        setup_sects=abi.DEFAULT_SETUP_SECTS, boot_flag=abi.BOOT_FLAG, header=abi.HDRS, version=abi.VERSION_XLOADFLAGS,
        loadflags=abi.LOADED_HIGH.value, initrd_addr_max=FOUR_GIB - 1, kernel_alignment=1 << 24,
        cmdline_size=2047, xloadflags=abi.XLF_KERNEL_64.value,
    )  # fmt: skip
    page = bytearray(abi.SETUP_HEADER_OFFSET) + made
    page[abi.JUMP_LENGTH_OFFSET] = HEADER_END - 0x202
    kernel = min(elf.segments, key=lambda each: each.gpa)
    image = _flat(bytes(page), abi.SETUP_HEADER.unpack(made), kernel, elf.name, "linux64", elf.start, "long")
    return replace(image, format=f"Linux vmlinux, ELF{elf.bits}", segments=elf.segments, names=elf)


def _real(setup: bytes, header: dict[str, int], kernel: Segment, name: str) -> Image:
    """By the real-mode protocol: the setup code runs, and asks a BIOS. CS is 0x20 paragraphs behind the other segments,
    the stack ends where the heap does.
    """
    if len(setup) > SETUP_ROOM:
        raise ImageError(
            f"{name}: {FORMAT}: setup_sects at 0x1f1 gives {len(setup):#x} bytes of setup code; {SETUP_ROOM:#x} is the "
            "most that real mode has room for"
        )

    def boot(world: World) -> Handover:
        _no_modules(world, name)
        world.room.reserve(SETUP_AT, 0x1_0000, "setup, heap and stack")
        words = _command_line(header, world, name)
        words_at = world.room.take(len(words), "the command line", low=SETUP_AT + 0x1_0000, high=abi.EBDA)
        initrd = _initrd(header, world, name)
        code = bytearray(setup)
        fields = _pointers(initrd, words_at) | {"heap_end_ptr": HEAP_END - 0x200, "vid_mode": abi.VID_MODE_NORMAL}
        _put(code, fields | {"loadflags": header["loadflags"] | abi.CAN_USE_HEAP.value})
        parts = [Segment(SETUP_AT, bytes(code), 0x1_0000, "setup, heap and stack"),
                 segment(words_at, words, "the command line")]  # fmt: skip
        paragraph = SETUP_AT >> 4
        return Handover(
            (*parts, *([initrd] if initrd else [])),
            {"rsp": HEAP_END},
            code=paragraph + (abi.REAL_MODE_ENTRY >> 4),
            data=paragraph,
        )

    shown = f"{FORMAT}, boot protocol {_version(header)}, 16-bit"
    return Image(name, shown, "linux16", (kernel,), 0, "real", boot, board="pc", usual=USUAL, bios=True)

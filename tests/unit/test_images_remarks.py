# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said of an image that is started without a protocol: the header that no loader finds, and other slips."""

from __future__ import annotations

import re
import struct

import pytest

from tests.made_images import HLT, PRINT_AND_PASS, Load, abi_tag, elf, multiboot1, multiboot2
from vmm.errors import ImageError
from vmm.machine.images import place
from vmm.machine.images.image import Image
from vmm.machine.images.place import plan
from vmm.machine.images.recognise import read_image

MIB, GIB = 1 << 20, 1 << 30
CODE = Load(PRINT_AND_PASS, MIB)
MB1, MB2 = multiboot1(), multiboot2()


def read(data: bytes, **options) -> Image:
    return read_image(data, "k.elf", **options)


def late(header: bytes, size: int) -> bytes:
    """An ELF file whose only segment has the header behind `size` bytes."""
    return elf(Load(HLT.ljust(size, b"\0") + header + HLT, MIB))


def wrong(header: bytes) -> bytes:
    return header[:4] + bytes((header[4] ^ 1,)) + header[5:]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (late(MB1, 8192), "a multiboot 1 header at 0x2078 of the file is too late: .* first 8192 bytes; .*build id"),
        (late(MB1, 8192 - 0x78 - 8), "at 0x1ff8 of the file is too late"),  # its last word is behind
        (late(MB2, 32768), "a multiboot 2 header at 0x8078 of the file is too late: .* first 32768 bytes"),
        (late(MB1, 6), r"a multiboot 1 header at 0x7e of the file is at no multiple of 4, .*\(`\.align 4`\)"),
        (late(MB2, 4), "a multiboot 2 header at 0x7c of the file is at no multiple of 8"),
        (late(wrong(MB1), 8), "a multiboot 1 header at 0x80 .* wrong checksum, .* the sum of its 3 words has to be 0"),
        (late(wrong(MB2), 8), "a multiboot 2 header at 0x80 .* the sum of its 4 words"),
        (HLT + b"\0\0\0" + wrong(MB1), "a multiboot 1 header at 0x4 .* wrong checksum"),  # no ELF file
    ],
)
def test_a_header_that_no_loader_finds_is_told(data: bytes, said: str) -> None:
    image = read(data)
    assert image.protocol in ("elf", "flat")
    (note,) = image.notes
    assert re.search(said, note), note


@pytest.mark.parametrize(
    "data",
    [
        late(b"", 8),
        late(MB1[:8], 8),  # cut off by the file's end
        late(wrong(MB1), 8192),  # a constant in code, far from where a header would be
        late(wrong(MB1), 6),
        late(struct.pack("<I", 0x1BADB002) * 100 + MB1, 8192),
        late(MB1, MIB),
    ],
)
def test_what_is_no_header_is_not_told_of(data: bytes) -> None:
    assert not read(data).notes


@pytest.mark.parametrize("size", [509, 510, 511, 512, 513])
def test_a_boot_sector_without_its_mark_is_told(size: int) -> None:
    data = HLT * size
    assert bool(read(data).notes) == (510 <= size <= 512)
    assert not read(data, mode="real").notes
    assert not read(data, base=MIB).notes
    if size == 512:
        assert "boot sector, by its mark" in read(data[:510] + b"\x55\xaa").notes[0]


def test_a_whole_disk_is_told_what_a_bios_would_load() -> None:
    disk = (HLT * 510 + b"\x55\xaa").ljust(1474560, b"\0")
    with pytest.raises(ImageError, match="are not addresses of real mode") as refused:
        read(disk)
    assert "head -c 512" in refused.value.hint
    with pytest.raises(ImageError, match="are not addresses of real mode") as refused:
        read(disk[512:], mode="real")
    assert not refused.value.hint


def test_who_asks_for_the_protocol_is_told_why_there_is_none() -> None:
    with pytest.raises(ImageError, match="cannot be started by protocol multiboot") as refused:
        read(late(MB1, 8192), protocol="multiboot")
    assert "too late" in refused.value.hint
    with pytest.raises(ImageError, match="cannot be started by protocol pvh") as refused:
        read(elf(CODE), protocol="pvh")
    assert "without --protocol" in refused.value.hint


def test_thread_local_storage_and_a_virtual_entry_are_told() -> None:
    assert "PT_TLS" in read(elf(CODE, Load(bytes(8), MIB, kind=7))).notes[0]
    high = 0xFFFF_FFFF_8010_0000
    (note,) = read(elf(Load(HLT, MIB, vaddr=high), entry=high)).notes
    assert note.startswith("its entry is linked for 0xffffffff80100000 and loaded at 0x100000: it starts there")
    # One with a part for the time before its page tables knows what it does.
    assert not read(elf(CODE, Load(HLT, 2 * MIB, vaddr=high))).notes


def test_a_program_for_linux_is_refused_but_by_name() -> None:
    data = elf(CODE, abi_tag(0))
    with pytest.raises(ImageError, match=r"made for Linux 3\.2\.0 \(the note NT_GNU_ABI_TAG\), and here") as refused:
        read(data)
    assert "--protocol elf" in refused.value.hint
    assert read(data, protocol="elf").protocol == "elf"
    for other in (abi_tag(1), abi_tag(0, b"XYZ\0"), abi_tag(0, kind=3)):
        assert read(elf(CODE, other)).protocol == "elf"
    assert read(elf(Load(MB1 + HLT, MIB), abi_tag(0), entry=MIB)).protocol == "multiboot"


def test_a_guest_of_xen_without_a_note_for_pvh_is_refused_but_by_name() -> None:
    data = elf(CODE, symbols={"start": MIB}, own_names=b"\0.symtab\0.strtab\0__xen_guest\0")
    with pytest.raises(ImageError, match=r"made for Xen's paravirtual interface \(section __xen_guest\)") as refused:
        read(data)
    assert "PVH" in refused.value.hint
    assert read(data, protocol="elf").protocol == "elf"
    damaged = bytearray(data)
    struct.pack_into("<H", damaged, 62, 99)  # e_shstrndx
    assert read(bytes(damaged)).protocol == "elf"


def test_64_bit_code_in_a_file_of_32_bits_starts_in_long_mode() -> None:
    assert read(elf(CODE, bits=32, machine=62)).mode == "long"
    assert read(elf(CODE, bits=32)).mode == "protected"
    with pytest.raises(ImageError, match=r"of 64 bits \(EI_CLASS at 0x4\), and its code of 32 \(e_machine at 0x12\)"):
        read(elf(CODE, machine=3))


def test_an_object_file_has_no_program_headers_and_is_told_as_what_it_is() -> None:
    with pytest.raises(ImageError, match="an object file, not linked yet") as refused:
        read(elf(kind=1))
    assert refused.value.hint == "`ld k.elf -Ttext=0x100000 -e SYMBOL -o kernel.elf`"


def test_a_symbol_that_is_not_there_is_offered_one_like_it() -> None:
    with pytest.raises(ImageError, match="no symbol 'kmian'; did you mean kmain"):
        read(elf(CODE, symbols={"kmain": MIB}), entry="kmian")


@pytest.mark.parametrize(
    ("at", "size", "hint"),
    [
        (300 * MIB, 5, "--memory 301M, or more"),
        (4 * GIB, 5, "--memory 3329M, or more"),
        (0xFEC0_0000, 5, "less of it, or another address: devices of a PC have 0xd0000000..0xffffffff"),
        (MIB, 5 * GIB, "less of it, or another address"),
        (0xFFFF_FFFF_8010_0000, 5, "a physical address: AT"),
        (5 * GIB, 8 * GIB, "less of it, or another host: 8192M is all the memory that this one has"),
    ],
)
def test_what_does_not_fit_is_told_what_would_help(
    at: int, size: int, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "host_memory", lambda: 8 * GIB)
    with pytest.raises(ImageError, match="does not fit into the guest's memory of 64M") as refused:
        plan(read(elf(Load(HLT, at, memsz=size), entry=at)), ((0, 64 * MIB),))
    assert refused.value.hint.startswith(hint)

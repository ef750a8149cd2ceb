# SPDX-License-Identifier: GPL-2.0-or-later
"""Loaders as functions of bytes: what each format gives, what each refuses in which words, and any damage at all."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.made_images import (
    HLT,
    PRINT_AND_PASS,
    SETUP_FIELDS,
    Load,
    abi_tag,
    bzimage,
    elf,
    gzipped,
    multiboot1,
    multiboot2,
    note,
)
from vmm.errors import ImageError
from vmm.machine.images.image import Image, Module
from vmm.machine.images.place import plan
from vmm.machine.images.recognise import MAX_UNPACKED, PROTOCOLS, read_image

MIB = 1 << 20
RAM = ((0, 64 * MIB),)
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a loaded machine makes no test fail
CODE = Load(PRINT_AND_PASS, MIB)
WITH_MB1 = Load(multiboot1() + PRINT_AND_PASS, MIB)
WITH_MB2 = Load(multiboot2((1, 0, struct.pack("<II", 4, 6)), (6, 0, b"")) + PRINT_AND_PASS, MIB)
WITH_SECTIONS = elf(Load(multiboot2((1, 0, struct.pack("<2I", 9, 12))) + HLT, MIB), entry=MIB, symbols={"start": MIB})
KLUDGE = (MIB, MIB, 0, MIB + 0x1000, MIB + 0x20)

MADE = {
    "bzimage": bzimage(),
    "bzimage 32": bzimage(xloadflags=0),
    "bzimage 16": bzimage(version=0x0207, kernel_alignment=0, relocatable_kernel=0, xloadflags=0),
    "bzimage 2.03": bzimage(version=0x0203, xloadflags=0),
    "elf64": elf(CODE, symbols={"start": MIB, "end": MIB + 4}),
    "elf32": elf(CODE, bits=32, symbols={"start": MIB}),
    "multiboot 1": elf(WITH_MB1, bits=32, entry=MIB + 12),
    "multiboot 1 by addresses": multiboot1(3, KLUDGE) + PRINT_AND_PASS,
    "multiboot 2": elf(WITH_MB2, entry=MIB + 40),
    "multiboot 2 by addresses": multiboot2((2, 0, struct.pack("<4I", MIB, MIB, 0, 0)), (3, 0, struct.pack("<I", MIB)))
    + PRINT_AND_PASS,
    "pvh": elf(CODE, note(MIB)),
    "elf x32": elf(CODE, bits=32, machine=62),
    "elf of another system": elf(CODE, abi_tag(2), symbols={"start": MIB}),
    "elf with a late header": elf(Load(HLT.ljust(8192 - 0x78, b"\0") + multiboot1(), MIB)),
    "elf with sections": WITH_SECTIONS,
    "gzip": gzipped(elf(CODE)),
    "boot sector": PRINT_AND_PASS.ljust(510, b"\0") + b"\x55\xaa",
}


def with_sections(at: int, value: int) -> bytes:
    """An image that demands its section headers, with another number in two or four of its bytes."""
    data = bytearray(WITH_SECTIONS)
    struct.pack_into("<H" if 0 < at < 64 and at != 40 else "<I", data, at if at >= 0 else len(data) + at, value)
    return bytes(data)


def read(data: bytes, **options) -> Image:
    return read_image(data, "guest.img", **options)


def placed(image: Image, **given):
    return plan(image, RAM, **given)


# What each gives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "protocol", "mode", "entry", "board"),
    [
        ("bzimage", "linux64", "long", 16 * MIB + 0x200, "pc"),
        ("bzimage 32", "linux32", "protected", 16 * MIB, "pc"),
        ("bzimage 16", "linux16", "real", 0, "pc"),
        ("bzimage 2.03", "linux16", "real", 0, "pc"),
        ("elf64", "elf", "long", MIB, "own"),
        ("elf32", "elf", "protected", MIB, "own"),
        ("multiboot 1", "multiboot", "protected", MIB + 12, "pc"),
        ("multiboot 1 by addresses", "multiboot", "protected", MIB + 0x20, "pc"),
        ("multiboot 2", "multiboot2", "protected", MIB + 40, "pc"),
        ("multiboot 2 by addresses", "multiboot2", "protected", MIB, "pc"),
        ("pvh", "pvh", "protected", MIB, "pc"),
        ("gzip", "elf", "long", MIB, "own"),
        ("boot sector", "flat", "real", 0x7C00, "own"),
    ],
)
def test_a_format_is_recognised_by_its_content(kind, protocol, mode, entry, board):
    image = read(MADE[kind])
    assert (image.protocol, image.mode, image.entry, image.board) == (protocol, mode, entry, board)
    assert image.protocol in PROTOCOLS
    assert placed(image).segments


def test_what_no_format_claims_is_code_where_payloads_are():
    image = read(HLT * 5)
    assert (image.format, image.entry, image.mode) == ("flat, long mode", 0x20000, "long")
    assert placed(image).own


def test_an_elf_file_is_loaded_at_its_physical_addresses_with_zeros_behind():
    high = 0xFFFF_FFFF_8000_0000
    data = elf(Load(b"abc", 2 * MIB, high, memsz=100), entry=high + 1, symbols={"main": high})
    image = read(data)
    (only,) = image.segments
    assert (only.gpa, only.data, only.size) == (2 * MIB, b"abc", 100)
    assert image.entry == 2 * MIB + 1
    assert image.names is not None
    assert dict(image.names.symbols) == {"main": high}
    assert read(data, entry="main").entry == 2 * MIB
    assert read(data, entry=high + 2).entry == 2 * MIB + 2


def test_several_headers_have_an_order_and_a_choice():
    both = Load(multiboot2((1, 1, struct.pack("<I", 99))).ljust(64, b"\0") + multiboot1() + HLT, MIB)
    data = elf(both, note(MIB), entry=MIB)
    assert read(data).protocol == "multiboot2"
    for protocol in ("multiboot2", "multiboot", "pvh", "elf", "linux64"):
        assert read(data, protocol=protocol).protocol == protocol
    assert read(data, protocol="flat").entry == 0x20000
    with pytest.raises(ImageError, match=r"by protocol linux16; it has multiboot2, multiboot, pvh, elf, linux64"):
        read(data, protocol="linux16")


def test_flat_code_lies_and_starts_where_it_is_told():
    real = read(HLT * 16, mode="real", base=0x1_2340, entry=0x1_2344)
    made = placed(real)
    assert (made.code, made.data, made.entry) == (0x1234, 0, 4)
    low = placed(read(HLT, mode="real"))
    assert (low.code, low.entry, low.registers["rsp"], low.registers["rdx"]) == (0, 0x7C00, 0x7C00, 0x80)
    flat = read(HLT, mode="protected")
    assert (flat.segments[0].gpa, flat.entry) == (MIB, MIB)


# Refusals -----------------------------------------------------------------------------------------------------------

BIG = 1 << 60


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (elf(CODE)[:40], "cut off inside the file header: it has 40 bytes"),
        (elf(CODE)[:60], "cut off inside the file header"),
        (elf(CODE)[:100], r"program headers at 0x40..0x77 .* behind the file's 0x64 bytes"),
        (elf(CODE)[:-1], r"program header 0: bytes 0x78..0x84 .* behind the file's 0x84 bytes"),
        (elf(CODE, machine=183), r"another CPU \(e_machine at 0x12 is EM_AARCH64\)"),
        (elf(CODE, machine=4242), r"another CPU \(e_machine at 0x12 is 0x1092\)"),
        (elf(CODE, kind=1), "object file, not linked yet"),
        (elf(CODE, kind=4), "core dump"),
        (elf(CODE, kind=77), "e_type at 0x10 is 0x4d"),
        (elf(), "no program headers"),
        (elf(Load(b"x", 0, kind=7)), "no program header is PT_LOAD"),
        (elf(CODE, entry=3 * MIB), r"its entry 0x300000 \(e_entry at 0x18\) lies in none of its segments"),
        (elf(Load(b"abc", MIB, memsz=2)), "p_filesz 0x3 is more than p_memsz 0x2"),
        (elf(Load(b"abc", (1 << 64) - 2)), "go beyond all addresses"),
        (elf(Load(HLT, 0), kind=3, entry=0), "position-independent"),
        (elf(CODE, Load(b"/lib/ld.so\0", 0, kind=3)), "PT_INTERP: a program for an operating system"),
        (elf(CODE, note(9 * MIB)), "XEN_ELFNOTE_PHYS32_ENTRY says 0x900000, which lies in none"),
        (elf(CODE, note(MIB, size=6)), "has 6 bytes, and an address has 4 or 8"),
        (elf(CODE).replace(b"\x7fELF\x02\x01", b"\x7fELF\x03\x01"), "EI_CLASS at 0x4 is 3"),
        (elf(CODE).replace(b"\x7fELF\x02\x01", b"\x7fELF\x02\x02"), "EI_DATA at 0x5 is 2"),
        (elf(CODE).replace(b"\x7fELF\x02\x01\x01", b"\x7fELF\x02\x01\x07"), "EI_VERSION at 0x6 is 7"),
        (elf(*[CODE] * 300), "e_phnum is 300"),
        (elf(Load(multiboot1(1 << 5) + HLT, MIB)), "flags at 0x7c ask for 0x20"),
        (multiboot1(3) + HLT, r"no load address \(bit 16\), and the file is no ELF file"),
        (multiboot1(3, (MIB, 2 * MIB, 0, 0, MIB)) + HLT, "would begin before it"),
        (multiboot1(3, (MIB, MIB, 9 * MIB, 0, MIB)) + HLT, "load_end_addr 0x900000 less load_addr 0x100000"),
        (multiboot1(3, (MIB, MIB, MIB + 20, MIB + 8, MIB)) + HLT, "bss_end_addr 0x100008 lies before"),
        (multiboot1(3, (MIB, MIB, 0, 0, MIB))[:20].ljust(31), "cut off inside its header"),
        (elf(Load(multiboot2(architecture=4) + HLT, MIB)), "architecture at 0x7c is 4"),
        (elf(Load(multiboot2(length=1 << 20), MIB)), "header_length at 0x80 goes to 0x100078"),
        (elf(Load(multiboot2(end=False), MIB)), "no end tag"),
        (elf(Load(multiboot2((99, 0, b"")), MIB)), "the unknown type 99"),
        (elf(Load(multiboot2((1, 0, struct.pack("<I", 22))), MIB)), "demands information of the unknown type 22"),
        (with_sections(40, 1 << 20), "its section headers at 0x100000"),
        (with_sections(58, 63), "e_shentsize 63"),
        (with_sections(60, 99), "e_shnum 99"),
        (with_sections(-4 * 64 + 64 + 24, 1 << 30), r"section 1: bytes 0x40000000\.\.0x4000002f"),
        (elf(Load(multiboot2((2, 0, b"abc")), MIB)), "is too short"),
        (multiboot2() + HLT, "no address tag, and the file is no ELF file"),
        (multiboot2((2, 0, struct.pack("<4I", MIB, MIB, 0, 0))) + HLT, "no entry address tag"),
        (bzimage()[:0x250], "cut off inside the setup header, at 0x250"),
        (bzimage()[:0x400], r"setup_sects at 0x1f1 puts the kernel behind 0x400: cut off"),
        (bzimage(syssize=1 << 30), r"cut off: it has 0x610 bytes, and syssize at 0x1f4 says 0x400000400"),
        (bzimage(version=0x0201), "boot protocol 2.01 at 0x206 is too old"),
        (bzimage(loadflags=0), "a zImage"),
        (bzimage(pref_address=BIG), "pref_address at 0x258 is 0x1000000000000000"),
        (bzimage(pref_address=0x1000), "pref_address at 0x258 is 0x1000"),
        (bzimage(payload_offset=0xFFFF_0000, payload_length=1), "payload_offset at 0x248"),
        (bzimage(version=0x0207, kernel_alignment=0, setup_sects=100), "setup_sects at 0x1f1 gives"),
        (gzipped(elf(CODE))[:-3], "compressed by gzip, and cut off"),
        (gzipped(elf(CODE))[:10] + b"\xff" * 40, "compressed by gzip, and damaged"),
        (b"\xfd7zXZ\x00" + bytes(40), "compressed by xz"),
        (b"MZ".ljust(0x3C, b"\0") + b"\x40\0\0\0PE\0\0", "a PE file"),
        (b"", "it is empty"),
    ],
)  # fmt: skip
def test_a_damaged_or_foreign_image_is_refused_in_one_line(data, said):
    with pytest.raises(ImageError, match=said) as caught:
        read(data)
    assert "\n" not in caught.value.text
    assert caught.value.text.startswith("guest.img")


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        (bzimage(), {"base": MIB}, "the image itself says where it lies and how it starts, not --base"),
        (bzimage(), {"entry": MIB}, "not --entry"),
        (elf(CODE), {"mode": "long"}, "not --mode"),
        (elf(CODE), {"entry": "main"}, "no symbol 'main': it has none at all"),
        (elf(CODE, symbols={"a": MIB}), {"entry": "main"}, "no symbol 'main'$"),
        (elf(CODE), {"entry": 5}, "would start at 0x5"),
        (elf(CODE), {"protocol": "pvh"}, "cannot be started by protocol pvh; it has elf, linux64"),
        (HLT, {"protocol": "pvh"}, "no header for protocol pvh"),
        (HLT, {"protocol": "nonsense"}, "there are linux64"),
        (bzimage(xloadflags=0), {"protocol": "linux64"}, "no 64-bit entry"),
        (HLT, {"mode": "virtual"}, "there are real, protected, long"),
        (HLT, {"entry": "main"}, "no symbol 'main'"),
        (HLT, {"base": -1}, "are not addresses of long mode"),
        (HLT, {"base": MIB, "mode": "real"}, "are not addresses of real mode, below 0x100000"),
        (HLT, {"entry": 0}, "would start at 0x0"),
        (HLT * 0x1_8000, {"base": 0x1_0000, "entry": 0x2_1000, "mode": "real"}, "behind its segment's begin"),
    ],
)
def test_what_does_not_go_with_an_image_is_refused(data, options, said):
    with pytest.raises(ImageError, match=said):
        read(data, **options)


@pytest.mark.parametrize(("magic", "tool"), [(b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2")])
def test_what_others_have_compressed_is_told_how_to_unpack(magic, tool):
    with pytest.raises(ImageError, match=f"compressed by {tool}") as refused:
        read(magic + bytes(40))
    assert refused.value.hint == f"`{tool} -dc FILE > IMAGE`, and that"


def test_what_unpacks_without_end_is_no_image():
    import zlib

    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(bytes(64 << 20)) * (MAX_UNPACKED // (64 << 20) + 1)
    with pytest.raises(ImageError, match=r"damaged|cut off|more than 1024 MiB"):
        read(bomb)


# Any damage ---------------------------------------------------------------------------------------------------------

ALIEN = (0, 1, 0x80, 0xFF)


def survives(data: bytes) -> bool:
    """Read and planned, with everything in RAM and apart; or refused in one line. Anything else fails the test."""
    refused: ImageError | None = None
    try:
        image = read(data)
        files = {"command_line": b"a b", "initrd": bytes(5000)} if image.boot and image.protocol != "flat" else {}
        if image.protocol in ("multiboot", "multiboot2", "pvh"):
            files["modules"] = (Module(b"one", b"words", "a.img"), Module(bytes(9000)))
        made = placed(image, **files)
        if image.names is not None:
            assert all(isinstance(each, str) for each in image.names.symbols)
            assert isinstance(image.names.source(image.entry), str)
    except ImageError as error:
        refused = error
    if refused is not None:
        assert "\n" not in refused.text
        assert len(refused.text) < 400
        return False
    rows = sorted((each for each in made.segments if each.size), key=lambda each: each.gpa)
    for each in rows:
        assert 0 <= each.gpa < each.end <= RAM[0][1], each
        assert len(each.data) <= each.size
    for before, after in pairwise(rows):
        assert before.end <= after.gpa
    start = made.entry + (made.code << 4 if made.mode == "real" else 0)
    assert any(each.gpa <= start < each.end for each in rows), hex(start)
    return True


HEADER_BYTES = {
    "bzimage": range(0x1F1, 0x26C), "bzimage 32": range(0x1F1, 0x26C), "bzimage 16": range(0x1F1, 0x26C),
    "bzimage 2.03": range(0x1F1, 0x240),
    "elf64": range(0x78), "elf32": range(0x54), "multiboot 1": range(0x54 + 12), "multiboot 1 by addresses": range(32),
    "multiboot 2": range(0x78 + 40), "multiboot 2 by addresses": range(56), "pvh": range(64 + 112 + 33),
    "gzip": range(80), "boot sector": range(500, 512),
    "elf x32": range(0x54), "elf of another system": range(64 + 112 + 14, 64 + 112 + 14 + 32),
    "elf with a late header": range(8192, 8204),
    "elf with sections": range(len(WITH_SECTIONS) - 4 * 64, len(WITH_SECTIONS)),
}  # fmt: skip


def test_every_kind_is_damaged():
    assert HEADER_BYTES.keys() == MADE.keys()


@pytest.mark.parametrize("kind", MADE)
def test_each_byte_of_each_header_may_be_anything(kind):
    fine = 0
    for at in range(HEADER_BYTES[kind].start, min(HEADER_BYTES[kind].stop, len(MADE[kind]))):
        for value in ALIEN:
            data = bytearray(MADE[kind])
            data[at] = value
            fine += survives(bytes(data))
    assert fine  # the bytes that are as they were, at least


@pytest.mark.parametrize("kind", MADE)
@settings(BUSY, max_examples=60)
@given(data=st.data())
def test_any_damage_is_survived(kind, data):
    made = bytearray(MADE[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        size = data.draw(st.sampled_from((1, 2, 4, 8)))
        at = data.draw(st.integers(0, max(len(made) - size, 0)))
        value = data.draw(st.one_of(st.integers(0, (1 << 8 * size) - 1), st.sampled_from(
            (0, 1, (1 << 8 * size) - 1, 1 << 8 * size - 1, (1 << 8 * size - 1) - 1))))  # fmt: skip
        made[at : at + size] = value.to_bytes(size, "little")
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(made))))
    survives(bytes(made[:cut]))


@settings(BUSY, max_examples=150)
@given(st.dictionaries(st.sampled_from(sorted(SETUP_FIELDS)), st.integers(0, (1 << 64) - 1), max_size=5))
def test_any_setup_header_is_survived(fields):
    survives(bzimage(**{name: value % (1 << 8 * SETUP_FIELDS[name][1]) for name, value in fields.items()}))


@settings(BUSY, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1), st.binary(max_size=40)), max_size=4), st.integers(0, 256)
)
def test_any_tags_are_survived(tags, length):
    data = multiboot2(*tags, length=None if length == 256 else length)
    survives(data + HLT * 64)
    survives(elf(Load(data + HLT, MIB), entry=MIB))


@settings(BUSY, max_examples=150)
@given(st.binary(max_size=600))
def test_any_bytes_are_survived(data):
    survives(data)
    survives(b"\x7fELF\x02\x01\x01" + data)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Where an image and all that goes with it come to lie: plans, free places, memory maps, page tables. No device."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.made_images import HLT, Load, bzimage, elf, multiboot1, multiboot2, note
from vmm.abi import bootparam
from vmm.abi.x86 import PTE
from vmm.errors import ImageError
from vmm.machine.images.image import Module, Room, Segment, World, overlap
from vmm.machine.images.place import gdt, identity_map, page_table_bytes, plan
from vmm.machine.images.recognise import read_image
from vmm.machine.memory.layout import FOUR_GIB, GIB, LOW_RAM_END, ram_ranges

MIB = 1 << 20
RAM = ((0, 256 * MIB),)
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a loaded machine makes no test fail


def planned(data: bytes, ram=RAM, **given):
    return plan(read_image(data, "k"), ram, **given)


def part(made, what: str) -> Segment:
    (found,) = [each for each in made.segments if each.what.startswith(what)]
    return found


# Places -------------------------------------------------------------------------------------------------------------

spans = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40)), max_size=6)


@settings(BUSY)
@given(spans, st.integers(1, 60), st.sampled_from((1, 4, 16)), st.booleans())
def test_a_place_is_free_aligned_and_the_outermost(taken, size, align, top):
    room = Room(((0, 100), (120, 130)), tuple(taken))
    free = set(range(100)) | set(range(120, 250))
    for base, count in taken:
        free -= set(range(base, base + count))
    fits = [at for at in range(0, 250, align) if set(range(at, at + size)) <= free]
    if not fits:
        with pytest.raises(ImageError, match="no room"):
            room.take(size, "a thing", align=align, low=0, high=250, top=top)
        return
    assert room.take(size, "a thing", align=align, low=0, high=250, top=top) == (fits[-1] if top else fits[0])


def test_no_place_is_given_twice():
    room = Room(((0, 0x4000),))
    got = [room.take(0x500, "x") for _ in range(9)]
    assert len(set(got)) == 9
    with pytest.raises(ImageError, match="no room"):
        room.take(0x1000, "x")
    with pytest.raises(ImageError, match="not free"):
        room.reserve(got[0], 1, "x")


@pytest.mark.parametrize(
    ("size", "high", "hint"),
    [
        (3 * GIB, FOUR_GIB, "more memory (--memory)"),
        (LOW_RAM_END, FOUR_GIB, "a smaller one: a guest has at most 3488612352 bytes of memory there"),
        (2 * GIB, 2 * GIB, "a smaller one: a guest has at most 2146435072 bytes of memory there"),
        (9 * GIB, 1 << 52, "more memory (--memory)"),
    ],
)
def test_more_memory_is_the_advice_where_it_would_help(size, high, hint):
    with pytest.raises(ImageError, match="no room") as refused:
        Room(((0, 64 * MIB),)).take(size, "a thing", low=MIB, high=high)
    assert refused.value.hint == hint


@settings(BUSY)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=5))
def test_segments_that_share_a_byte_are_found(rows):
    segments = tuple(Segment(base, b"", size) for base, size in rows)
    cells = [set(range(base, base + size)) for base, size in rows]
    shared = any(one & other for n, one in enumerate(cells) for other in cells[:n])
    assert bool(overlap(segments)) == shared


@settings(BUSY)
@given(spans, st.integers(2, 1 << 22))
def test_a_memory_map_is_in_order_and_covers_each_byte_once(reserved, pages):
    ram = ram_ranges(pages * 4096)
    held = tuple((base * 0x10000, size * 0x1000) for base, size in reserved)
    rows = World(ram, Room(ram), held).memory_map()
    for (base, size, _), (after, _, _) in pairwise(rows):
        assert base + size <= after
    usable = sum(size for _, size, kind in rows if kind == 1)
    assert usable <= pages * 4096
    for base, size, kind in rows:
        inside = any(first < base + size and base < first + count for first, count in held)
        assert kind == 2 or not inside
    if pages * 4096 > FOUR_GIB:
        assert (FOUR_GIB, pages * 4096 - LOW_RAM_END, 1) in rows or held


# What each protocol's CPU and memory look like ----------------------------------------------------------------------


def test_the_64_bit_protocol_of_linux():
    made = planned(bzimage(), command_line=b"quiet", initrd=b"i" * 5000)
    assert (made.mode, made.entry, made.code, made.data) == ("long", 16 * MIB + 0x200, 0x10, 0x18)
    page = part(made, "the zero page")
    assert made.registers["rsi"] == page.gpa
    header = bootparam.SETUP_HEADER.unpack(page.data[0x1F1:])
    assert (header["header"], header["boot_flag"], header["type_of_loader"]) == (0x53726448, 0xAA55, 0xFF)
    words = part(made, "the command line")
    assert (words.data, header["cmd_line_ptr"]) == (b"quiet\0", words.gpa)
    initrd = part(made, "the initrd")
    assert (header["ramdisk_image"], header["ramdisk_size"]) == (initrd.gpa, 5000)
    assert initrd.gpa % 4096 == 0
    assert initrd.gpa + 8192 == 256 * MIB  # as high as it may be
    kernel = part(made, "the kernel")
    assert (kernel.gpa, kernel.size) == (16 * MIB, 0x10000)
    assert page.data[0x1EF] == 0
    count = page.data[0x1E8]
    rows = [struct.unpack_from("<QQI", page.data, 0x2D0 + 20 * n) for n in range(count)]
    assert rows == [(0, 0x9FC00, 1), (0x9FC00, 0x60400, 2), (MIB, 255 * MIB, 1)]


@pytest.mark.parametrize("limit", [0x37FF_FFFF, 0x7FF_FFFF, 64 * MIB - 1])
def test_the_initrd_stays_below_its_limit(limit):
    initrd = part(planned(bzimage(initrd_addr_max=limit), initrd=bytes(4096)), "the initrd")
    assert initrd.gpa + 4096 == min(limit + 1, 256 * MIB)
    with pytest.raises(ImageError, match=r"the initrd: no room .* \(initrd_addr_max at 0x22c is 0xfffff\)"):
        planned(bzimage(initrd_addr_max=0xFFFFF), initrd=bytes(4096))


def test_memory_above_4_gib_is_told_and_mapped():
    ram = ram_ranges(16 * GIB)
    made = planned(bzimage(), ram)
    page = part(made, "the zero page").data
    rows = [struct.unpack_from("<QQI", page, 0x2D0 + 20 * n) for n in range(page[0x1E8])]
    assert (FOUR_GIB, 16 * GIB - LOW_RAM_END, 1) in rows
    assert (MIB, LOW_RAM_END - MIB, 1) in rows


def test_the_32_bit_protocols_have_flat_segments_and_no_paging():
    for data, registers in (
        (bzimage(xloadflags=0), {"rsi"}),
        (elf(Load(multiboot1() + HLT, MIB), bits=32, entry=MIB), {"rax", "rbx"}),
        (elf(Load(multiboot2() + HLT, MIB), entry=MIB), {"rax", "rbx"}),
        (elf(Load(HLT, MIB), note(MIB)), {"rbx"}),
    ):
        made = planned(data)
        assert (made.mode, made.code, made.data, made.cr3) == ("protected", 0x10, 0x18, 0)
        assert made.registers.keys() == {"rsp", *registers}
        for name in registers - {"rax"}:
            assert any(each.gpa == made.registers[name] for each in made.segments)


def test_xens_own_words_for_a_start():
    info = part(planned(elf(Load(HLT, MIB), note(MIB)), rsdp=0xE0000), "hvm_start_info").data
    assert struct.unpack_from("<II", info) == (0x336EC578, 1)
    assert struct.unpack_from("<Q", info, 32) == (0xE0000,)


def test_multiboot_2_copies_the_rsdp():
    rsdp = b"RSD PTR " + bytes(7) + b"\x02" + bytes(20)
    image = elf(Load(multiboot2() + HLT, MIB), entry=MIB)
    made = planned(image, tables=(Segment(0xE0000, rsdp, len(rsdp)),), rsdp=0xE0000)
    assert struct.pack("<II", 15, 8 + 36) + rsdp in part(made, "the multiboot information").data


@pytest.mark.parametrize("bits", [32, 64])
def test_multiboot_2_has_the_section_headers_and_what_they_name(bits):
    """A symbol table lies in no segment: it is put into memory, and its header says where."""
    tags = bytes(0 if bits == 64 else 4) + multiboot2((1, 0, struct.pack("<2I", 9, 12)))  # at a multiple of 8
    image = elf(Load(tags + HLT, MIB), bits=bits, entry=MIB, symbols={"start": MIB})
    made = planned(image)
    info = part(made, "the multiboot information").data
    at, wide = 8, bits == 64
    while (row := struct.unpack_from("<II", info, at))[0] != 9:
        at += -(-row[1] // 8) * 8
    count, size, names = struct.unpack_from("<3I", info, at + 8)
    assert (count, size, names, row[1]) == (4, 64 if wide else 40, 3, 20 + 4 * size)
    header = struct.Struct("<IIQQQQ" if wide else "<6I")  # sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size
    contents = []
    for number in range(1, count):
        *_, address, _, length = header.unpack_from(info, at + 20 + number * size)
        (segment,) = [each for each in made.segments if each.gpa == address]
        assert segment.gpa >= MIB + len(tags)
        contents.append(bytes(segment.data[:length]))
    assert contents[1:] == [b"\0start\0", b"\0.symtab\0.strtab\0.shstrtab\0"]
    assert len(contents[0]) == 2 * (24 if wide else 16)


def test_multiboot_2_has_no_section_headers_where_nobody_asks_or_there_are_none():
    for image in (
        elf(Load(multiboot2() + HLT, MIB), entry=MIB, symbols={"start": MIB}),
        elf(Load(multiboot2((1, 1, struct.pack("<I", 9))) + HLT, MIB), entry=MIB),
    ):
        made = planned(image)
        assert not [each for each in made.segments if each.what.startswith("section")]


def test_modules_lie_on_pages_of_their_own_behind_the_image():
    made = planned(multiboot1_image(), modules=(Module(b"a" * 5000), Module(b"b")))
    one, two = part(made, "module 0"), part(made, "module 1")
    assert (one.gpa % 4096, two.gpa % 4096) == (0, 0)
    assert one.gpa >= MIB + 0x1000
    assert two.gpa >= one.gpa + 8192  # nobody shares its last page


def test_nothing_shares_the_last_page_of_a_module():
    """Also where low memory is full, and all else lies above the image, too."""
    image = elf(Load(multiboot1() + HLT, 0x1000, memsz=0x9F000), bits=32, entry=0x1000)
    made = planned(image, modules=(Module(b"a" * 5000),))
    module = part(made, "module 0")
    last = module.gpa + 8192
    assert not [each for each in made.segments if each is not module and module.gpa <= each.gpa < last]
    assert [each for each in made.segments if each.gpa >= last]


def multiboot1_image() -> bytes:
    return elf(Load(multiboot1() + HLT, MIB), bits=32, entry=MIB)


def test_a_bios_data_area_says_where_low_memory_ends():
    area = part(planned(multiboot1_image()), "the BIOS data area")
    assert (area.gpa, struct.unpack_from("<H", area.data, 0x0E), struct.unpack_from("<H", area.data, 0x13)) == (
        0x400, (0x9FC0,), (639,)
    )  # fmt: skip
    there = planned(elf(Load(multiboot1() + HLT, 0x400), bits=32, entry=0x400))
    assert not [each for each in there.segments if each.what == "the BIOS data area"]


def test_the_gdt_has_code_and_data_where_the_protocols_name_them():
    for wide, flag in ((True, 0xAF), (False, 0xCF)):
        rows = struct.unpack("<6Q", gdt(wide, 0x1234))
        assert rows[0] == 0
        assert (rows[2] >> 40 & 0xFF, rows[2] >> 48 & 0xFF) == (0x9B, flag)
        assert (rows[3] >> 40 & 0xFF, rows[3] >> 48 & 0xFF) == (0x93, 0xCF)


@pytest.mark.parametrize("memory", [2 * MIB, 4 * GIB, 16 * GIB, 600 * GIB])
def test_page_tables_map_each_address_to_itself(memory):
    ram, at = ram_ranges(memory), 0x10_0000
    data = identity_map(at, ram)
    assert len(data) == sum(page_table_bytes(ram))
    top = max(base + size for base, size in ram)

    def entry(table: int, index: int) -> int:
        return struct.unpack_from("<Q", data, table - at + 8 * index)[0]

    for address in {0, MIB, 3 * GIB + 5, FOUR_GIB - 1, top - 1, top // 2}:
        table = at
        for shift in (39, 30):
            row = entry(table, address >> shift & 511)
            assert row & PTE.PRESENT
            table = row & ~0xFFF
        row = entry(table, address >> 21 & 511)
        assert row & (PTE.PRESENT | PTE.RW | PTE.PSE) == PTE.PRESENT | PTE.RW | PTE.PSE
        assert not row >> 63  # it may be run
        assert (row & ~0x1FFFFF) + (address & 0x1FFFFF) == address


@pytest.mark.parametrize(
    ("loads", "said"),
    [
        ([Load(b"x", MIB, memsz=1 << 60)], r"program header 0 at 0x100000..0x10000000000fffff does not fit"),
        ([Load(b"x", 1 << 40)], "program header 0 at 0x10000000000..0x10000000000 does not fit"),
        ([Load(b"x" * 16, 256 * MIB - 8)], "program header 0 at 0xffffff8..0x10000007 does not fit"),
        ([Load(b"x" * 16, MIB), Load(b"y", MIB + 15)], r"header 0 at 0x100000..0x10000f and program header 1 at"),
        ([Load(b"x" * 16, 0x20000), Load(b"y", 0x2000F)], "overlap"),  # in pyvmm's own map, too
        ([Load(b"x", 256 * MIB - 0x1000, memsz=0x1000), Load(b"y", MIB, memsz=(1 << 63))], "program header 1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_with_its_addresses(loads, said):
    with pytest.raises(ImageError, match=said):
        planned(elf(*loads, entry=loads[0].paddr))


def test_a_table_of_the_boards_is_not_overwritten():
    table = Segment(0xE0000, bytes(64), 64, "the board's tables")
    with pytest.raises(ImageError, match=r"the board's tables at 0xe0000..0xe003f overlap"):
        planned(elf(Load(multiboot1() + HLT, 0xE0000), bits=32, entry=0xE0000), tables=(table,))


def test_an_image_in_low_memory_is_not_touched():
    """What a 64-bit image needs around it finds a place wherever the image leaves one."""
    made = planned(elf(Load(bytes(0x9_0000), 0x1000), entry=0x1000))
    assert made.idt == (0, 0)  # it lies where the gates would
    assert overlap(made.segments) is None
    assert made.cr3 >= 0x9_1000


def test_memory_that_nobody_asked_for_is_enough():
    image = read_image(bzimage(init_size=300 * MIB), "k")
    assert image.memory() >= 317 * MIB
    assert image.memory(bytes(MIB)) >= 317 * MIB + MIB
    far = read_image(elf(Load(HLT, FOUR_GIB + MIB), entry=FOUR_GIB + MIB), "k")
    ram = ram_ranges(far.memory())
    assert plan(far, ram).entry == FOUR_GIB + MIB

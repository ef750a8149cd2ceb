# SPDX-License-Identifier: GPL-2.0-or-later
"""Page tables against a walker written here from SDM vol. 3A chapter 4, one plain function per paging mode.

The walkers below share nothing with vmm.machine.x86.page_entries: literal masks, one statement per rule. Each returns
(physical address, page size, user, writable, executable), or the word for what stopped it.
"""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.errors import GuestMemoryError, UsageError
from vmm.machine.memory import layout
from vmm.machine.x86 import page_entries as paging
from vmm.machine.x86.page_edits import PageTables
from vmm.machine.x86.page_entries import identity_map
from vmm.machine.x86.page_walk import Fault, paging_mode, render, walk

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
P, RW, US, A, D, PS, G, NX = 1, 2, 4, 0x20, 0x40, 0x80, 0x100, 1 << 63
PG, PSE, PAE, LA57, LMA, NXE = 1 << 31, 1 << 4, 1 << 5, 1 << 12, 1 << 10, 1 << 11

WORDS = {
    Fault.NOT_CANONICAL: "canonical",
    Fault.TOO_WIDE: "canonical",
    Fault.NOT_PRESENT: "absent",
    Fault.RESERVED: "reserved",
    Fault.UNREADABLE: "unreadable",
}


class Ram:
    """`size` bytes from 0. Raises GuestMemoryError beyond them, as guest memory does."""

    def __init__(self, size):
        self.data = bytearray(size)
        self.writes = 0

    def read_u64(self, gpa):
        assert gpa % 8 == 0
        if not 0 <= gpa <= len(self.data) - 8:
            raise GuestMemoryError(f"{gpa:#x} is not RAM")
        return struct.unpack_from("<Q", self.data, gpa)[0]

    def write_u64(self, gpa, value):
        if not 0 <= gpa <= len(self.data) - 8:
            raise GuestMemoryError(f"{gpa:#x} is not RAM")
        self.writes += 1
        struct.pack_into("<Q", self.data, gpa, value)

    def get(self, gpa, size):
        """A little-endian number, or None outside RAM."""
        return int.from_bytes(self.data[gpa : gpa + size], "little") if gpa + size <= len(self.data) else None


# --- the independent walkers -----------------------------------------------------------------------------------------


def naive_long(ram, cr3, va, *, levels=4, nxe=True, maxphyaddr=52, gib_pages=True):
    top = va >> (47 if levels == 4 else 56)
    if top != 0 and top != (0x1FFFF if levels == 4 else 0xFF):
        return "canonical"
    table = cr3 & 0x000FFFFFFFFFF000
    user = writable = executable = True
    for level in range(levels, 0, -1):
        shift = 12 + 9 * (level - 1)
        entry = ram.get(table + 8 * ((va >> shift) % 512), 8)
        if entry is None:
            return "unreadable"
        if entry % 2 == 0:
            return "absent"
        if (entry % (1 << 52)) >> maxphyaddr:
            return "reserved"
        if entry >> 63 and not nxe:
            return "reserved"
        ps = entry & PS
        if level >= 4 and ps:
            return "reserved"
        if level == 3 and ps and not gib_pages:
            return "reserved"
        user = user and bool(entry & US)
        writable = writable and bool(entry & RW)
        executable = executable and not entry >> 63
        if level == 3 and ps:
            if entry & 0x3FFFE000:
                return "reserved"
            return (entry & 0x000FFFFFC0000000) + va % GIB, GIB, user, writable, executable
        if level == 2 and ps:
            if entry & 0x1FE000:
                return "reserved"
            return (entry & 0x000FFFFFFFE00000) + va % (2 * MIB), 2 * MIB, user, writable, executable
        table = entry & 0x000FFFFFFFFFF000
    return table + va % 4096, 4096, user, writable, executable


def naive_pae(ram, cr3, va, *, nxe=True, maxphyaddr=52):
    if va >= 1 << 32:
        return "canonical"
    pdpte = ram.get((cr3 & 0xFFFFFFE0) + 8 * (va >> 30), 8)
    if pdpte is None:
        return "unreadable"
    if not pdpte & 1:
        return "absent"
    if pdpte & 0x1E6 or pdpte >> maxphyaddr:
        return "reserved"
    pde = ram.get((pdpte & 0x000FFFFFFFFFF000) + 8 * (va >> 21 & 511), 8)
    if pde is None:
        return "unreadable"
    if not pde & 1:
        return "absent"
    if (pde & (1 << 63) - 1) >> maxphyaddr or (pde >> 63 and not nxe):
        return "reserved"
    if pde & PS:
        if pde & 0x1FE000:
            return "reserved"
        base = pde & 0x000FFFFFFFE00000
        return base + va % (2 * MIB), 2 * MIB, bool(pde & US), bool(pde & RW), not pde >> 63
    pte = ram.get((pde & 0x000FFFFFFFFFF000) + 8 * (va >> 12 & 511), 8)
    if pte is None:
        return "unreadable"
    if not pte & 1:
        return "absent"
    if (pte & (1 << 63) - 1) >> maxphyaddr or (pte >> 63 and not nxe):
        return "reserved"
    both = pde & pte
    base = pte & 0x000FFFFFFFFFF000
    return base + va % 4096, 4096, bool(both & US), bool(both & RW), not (pde | pte) >> 63


def naive_32(ram, cr3, va, *, pse=True, maxphyaddr=52):
    if va >= 1 << 32:
        return "canonical"
    pde = ram.get((cr3 & 0xFFFFF000) + 4 * (va >> 22), 4)
    if pde is None:
        return "unreadable"
    if not pde & 1:
        return "absent"
    if pde & PS and pse:
        high = pde >> 13 & 0x1FF  # what would be address bits 40:32; of them the processor has min(40, MAXPHYADDR) - 32
        if high >> min(40, maxphyaddr) - 32:
            return "reserved"
        return (high << 32 | pde & 0xFFC00000) + va % (4 * MIB), 4 * MIB, bool(pde & US), bool(pde & RW), True
    pte = ram.get((pde & 0xFFFFF000) + 4 * (va >> 12 & 1023), 4)
    if pte is None:
        return "unreadable"
    if not pte & 1:
        return "absent"
    return (pte & 0xFFFFF000) + va % 4096, 4096, bool(pde & pte & US), bool(pde & pte & RW), True


def seen(translation):
    """A Translation in the walkers' terms."""
    t = translation
    assert (t.gpa is None) == bool(t.fault) == bool(t.failure)
    if t.fault:
        return WORDS[t.fault]
    return t.gpa, t.page_size, t.user, t.writable, t.executable


def walk4(ram, va, cr3=paging.ROOT):
    return walk(ram.read_u64, cr3, PAE, LMA | NXE, PG, va)


def booted(memory=2 * MIB, user=()):
    ram = Ram(max(2 * MIB, min(memory, 4 * MIB)))
    image = identity_map(memory, user)
    ram.data[paging.ROOT : paging.ROOT + len(image)] = image
    return ram, PageTables(ram.read_u64, ram.write_u64, free=paging.ROOT + len(image))


# --- the boot tables -------------------------------------------------------------------------------------------------


def rights_of(va):
    """From the agreed map, by hand: (user, writable, executable), or None where nothing is mapped."""
    table = [
        (0x001000, 0x006000, (False, True, False)),  # gdt, idt
        (0x006000, 0x007000, (False, False, True)),  # gates
        (0x008000, 0x009000, (False, True, True)),  # trampoline
        (0x009000, 0x020000, (False, True, False)),  # results, page tables
        (0x020000, 0x080000, (False, True, True)),  # code
        (0x080000, 0x0A0000, (True, True, False)),  # user
        (0x0A0000, 0x0FF000, (False, True, False)),  # data
    ]
    if 0x100000 <= va < 0x200000:
        return None if va % 0x8000 >= 0x7000 else (False, True, False)
    return next((rights for low, high, rights in table if low <= va < high), None)


def test_first_two_mib_follow_the_map():
    ram, _ = booted()
    for va in range(0, 2 * MIB, 4096):
        rights = rights_of(va)
        expected = "absent" if rights is None else (va + 0x123, 4096, *rights)
        assert naive_long(ram, paging.ROOT, va + 0x123) == expected, hex(va)


def test_user_ranges_add_ring_3_and_nothing_else():
    user = ((0x21000, 0x23000), (0xA0000, 0xA1000))
    ram, _ = booted(user=user)
    for va in range(0, 2 * MIB, 4096):
        rights = rights_of(va)
        if any(low <= va < high for low, high in user):
            assert rights is not None
            rights = (True, *rights[1:])
        assert naive_long(ram, paging.ROOT, va) == ("absent" if rights is None else (va, 4096, *rights)), hex(va)


@given(st.integers(2 * MIB, 4 * GIB - 1))
def test_the_rest_of_4_gib_is_identity_by_2_mib_pages(va):
    ram, _ = booted()
    assert naive_long(ram, paging.ROOT, va) == (va, 2 * MIB, False, True, False)


@pytest.mark.parametrize("va", [4 * GIB, 512 * GIB, 1 << 46, (1 << 64) - 1])
def test_nothing_beyond_4_gib_in_a_small_machine(va):
    ram, _ = booted()
    assert naive_long(ram, paging.ROOT, va) == "absent"


@pytest.mark.parametrize("memory", [layout.LOW_RAM_END + 4096, 6 * GIB, layout.MAX_MEMORY])
def test_ram_above_4_gib_is_mapped(memory):
    ram, tables = booted(memory)
    (_, (base, size)) = layout.ram_ranges(memory)
    assert base == 4 * GIB
    for va in (base, base + size - 1, base + size // 2):
        assert naive_long(ram, paging.ROOT, va) == (va, 2 * MIB, False, True, False)
    assert naive_long(ram, paging.ROOT, base + -(-size // GIB) * GIB) == "absent"
    assert tables.end - tables.free >= layout.SPARE_TABLE_PAGES * 4096


def test_boot_tables_fit_and_are_kept():
    assert len(identity_map(2 * MIB)) == layout.BOOT_TABLE_PAGES * 4096
    assert identity_map(2 * MIB) is identity_map(64 * MIB)  # the same tables, built once
    largest = identity_map(layout.MAX_MEMORY)
    assert len(largest) + layout.SPARE_TABLE_PAGES * 4096 == layout.REGIONS["page_tables"].size
    with pytest.raises(UsageError, match="more page tables"):
        identity_map(64 * GIB)


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ((0x20001, 0x21000), "whole 4 KiB pages"),
        ((0x20000, 0x20800), "whole 4 KiB pages"),
        ((0x21000, 0x21000), "whole 4 KiB pages"),
        ((0x1FF000, 0x201000), "first 2 MiB only"),
        ((-0x1000, 0x1000), "first 2 MiB only"),
        ((0x0, 0x2000), r"page 0x0 \(null\+0x0\) is not mapped"),
        ((0x7000, 0x8000), r"page 0x7000 \(no region\) is not mapped"),
    ],
)
def test_user_range_refused(user, words):
    with pytest.raises(UsageError, match=words):
        identity_map(2 * MIB, (user,))


# --- edits -----------------------------------------------------------------------------------------------------------

# A few places, so that operations meet: in the first 2 MiB, in large pages, unmapped user half, kernel half.
PLACES = st.sampled_from([0x100000, 2 * MIB, 6 * MIB, GIB, 4 * GIB, 1 << 40, 0xFFFF800000000000, (1 << 64) - 4 * MIB])
SMALL = st.tuples(PLACES, st.integers(0, 511)).map(lambda pair: pair[0] + pair[1] * 4096)
LARGE = st.tuples(PLACES, st.integers(0, 1)).map(lambda pair: (pair[0] & -2 * MIB) + pair[1] * 2 * MIB)
RIGHTS = st.fixed_dictionaries({"writable": st.booleans(), "user": st.booleans(), "nx": st.booleans()})
GPA_PAGES = st.integers(0, (1 << 40) - 1024)
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("map"), SMALL, GPA_PAGES, st.integers(1, 3), RIGHTS),
        st.tuples(st.just("large"), LARGE, GPA_PAGES, st.just(1), RIGHTS),
        st.tuples(st.just("unmap"), SMALL, st.just(0), st.integers(1, 600), st.none()),
    ),
    max_size=6,
)


def without_page_size(answer):
    return answer if isinstance(answer, str) else (answer[0], *answer[2:])


@pytest.mark.no_cover  # the same few lines a million times: followed one by one they take thrice as long
@settings(max_examples=60, deadline=None)
@given(EDITS, st.lists(st.one_of(SMALL, st.integers(0, (1 << 64) - 1)), max_size=20))
def test_edits_do_what_a_dictionary_would(edits, probes):
    ram, tables = booted()
    tables.end = len(ram.data)  # room enough: exhaustion has its own test
    tables.free = MIB
    untouched = Ram(len(ram.data))
    untouched.data[:] = ram.data
    model = {}  # page -> (gpa, rights) or None
    for what, va, gpa_page, pages, rights in edits:
        if va + pages * 4096 > 1 << 64:
            continue
        if what == "large":
            gpa, pages = gpa_page // 512 * 2 * MIB, 512
            if tables.leaf(va)[2] == 4096:
                with pytest.raises(UsageError, match="4 KiB pages are in use"):
                    tables.map(va, gpa, 2 * MIB, page_size=2 * MIB, **rights)
                continue
            tables.map(va, gpa, 2 * MIB, page_size=2 * MIB, **rights)
        elif what == "map":
            gpa = gpa_page * 4096
            tables.map(va, gpa, pages * 4096, **rights)
        else:
            tables.unmap(va, pages * 4096)
        for number in range(pages):
            page = va + number * 4096
            model[page] = rights and (
                gpa + number * 4096, rights["user"], rights["writable"], not rights["nx"]
            )  # fmt: skip
    for va in [*model, *probes]:
        page, offset = va & -4096, va & 4095
        found = naive_long(ram, paging.ROOT, va)
        if page in model and model[page] is None:
            assert found == "absent"
        elif page in model:
            gpa, *flags = model[page]
            assert (found[0], *found[2:]) == (gpa + offset, *flags)
        else:
            before = naive_long(untouched, paging.ROOT, va)
            assert without_page_size(found) == without_page_size(before)
        assert seen(walk4(ram, va)) == found


def test_map_uses_large_pages_when_asked():
    ram, tables = booted()
    tables.map(1 << 40, 4 * MIB, 4 * MIB, page_size=2 * MIB, user=True, nx=False)
    assert naive_long(ram, paging.ROOT, (1 << 40) + 2 * MIB + 5) == (6 * MIB + 5, 2 * MIB, True, True, True)
    assert tables.free == paging.ROOT + 9 * 4096  # one PDPT, one PD


def test_splitting_keeps_every_bit_of_the_rest():
    ram, tables = booted()
    address, entry, span = tables.leaf(6 * MIB)
    assert span == 2 * MIB
    ram.write_u64(address, entry | 0x1000 | G | D | 1 << 9)  # PAT, global, dirty, a bit for software
    tables.unmap(6 * MIB, 4096)
    assert naive_long(ram, paging.ROOT, 6 * MIB) == "absent"
    _, neighbour, span = tables.leaf(6 * MIB + 4096)
    assert span == 4096
    assert neighbour == NX | 6 * MIB + 4096 | P | RW | G | D | 1 << 9 | 0x80  # in a PTE, bit 7 is PAT


def test_splitting_a_page_of_1_gib():
    ram, tables = booted()
    ram.write_u64(paging.ROOT + 0x1000 + 8 * 5, 8 * GIB | 0x1000 | P | PS | US)
    tables.map(5 * GIB + 2 * MIB, 0x5000, 4096)
    assert naive_long(ram, paging.ROOT, 5 * GIB) == (8 * GIB, 2 * MIB, True, False, True)
    assert tables.leaf(5 * GIB)[1] == 8 * GIB | 0x1000 | P | PS | US
    assert naive_long(ram, paging.ROOT, 5 * GIB + 2 * MIB) == (0x5000, 4096, False, True, False)
    assert naive_long(ram, paging.ROOT, 5 * GIB + 2 * MIB + 4096)[0] == 8 * GIB + 2 * MIB + 4096


def test_unmapping_nothing_is_quick_and_writes_nothing():
    ram, tables = booted()
    tables.unmap(512 * GIB, (1 << 47) - 512 * GIB)
    assert ram.writes == 0


def test_unmap_of_whole_large_pages_needs_no_table():
    ram, tables = booted()
    free = tables.free
    tables.unmap(4 * MIB, 4 * MIB)
    assert (tables.free, ram.writes) == (free, 2)
    assert naive_long(ram, paging.ROOT, 6 * MIB) == "absent"
    assert naive_long(ram, paging.ROOT, 8 * MIB) != "absent"


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (6 * MIB + 4096, 8 * MIB),
        (6 * MIB, 8 * MIB - 4096),
        (6 * MIB + 4096, 8 * MIB + 4096),
        (6 * MIB + 8192, 6 * MIB + 4 * 4096),
    ],
    ids=["tail", "head", "across", "middle"],
)
def test_unmap_of_parts_of_large_pages(low, high):
    ram, tables = booted()
    tables.unmap(low, high - low)
    for va in range(4 * MIB, 12 * MIB, 4096):
        found = naive_long(ram, paging.ROOT, va)
        assert (found == "absent") if low <= va < high else (found[0] == va), hex(va)


def test_no_page_left():
    ram, tables = booted()
    spare = (tables.end - tables.free) // 4096
    assert spare == 15
    for number in range(spare):
        tables.map(8 * MIB + number * 2 * MIB, 0x1000, 4096)
    with pytest.raises(UsageError, match="no page left for another page table"):
        tables.map(GIB, 0x1000, 4096)
    assert naive_long(ram, paging.ROOT, GIB)[0] == GIB  # the failed one changed nothing
    assert ram.get(tables.end, 8) == 0


@pytest.mark.parametrize(
    ("va", "gpa", "size", "page_size", "words"),
    [
        (0x1001, 0, 4096, 4096, "whole pages"),
        (0x1000, 0, 4095, 4096, "whole pages"),
        (0x1000, 0, 0, 4096, "whole pages"),
        (0x1000, 0, -4096, 4096, "whole pages"),
        (0x201000, 0, 2 * MIB, 2 * MIB, "whole pages"),
        (1 << 47, 0, 4096, 4096, "not canonical"),
        ((1 << 47) - 4096, 0, 8192, 4096, "not canonical"),
        ((1 << 64) - 4096, 0, 8192, 4096, "not canonical"),
        (-4096, 0, 4096, 4096, "not canonical"),
        (0x1000, 0x10, 4096, 4096, "not a physical address"),
        (0x200000, 0x1000, 2 * MIB, 2 * MIB, "not a physical address"),
        (0x1000, 1 << 52, 4096, 4096, "not a physical address"),
        (0x1000, (1 << 52) - 4096, 8192, 4096, "not a physical address"),
        (0x1000, -4096, 4096, 4096, "not a physical address"),
        (0x1000, 0, 4096, 8192, "4 KiB or 2 MiB"),
        (0x0, 0, 2 * MIB, 2 * MIB, "4 KiB pages are in use"),
    ],
)
def test_map_refuses(va, gpa, size, page_size, words):
    ram, tables = booted()
    with pytest.raises(UsageError, match=words):
        tables.map(va, gpa, size, page_size=page_size)
    assert ram.writes == 0


def test_map_reaches_both_ends():
    ram, tables = booted()
    tables.map((1 << 64) - 4096, (1 << 52) - 4096, 4096)
    tables.map((1 << 47) - 4096, 0, 4096)
    assert naive_long(ram, paging.ROOT, (1 << 64) - 1)[0] == (1 << 52) - 1
    assert naive_long(ram, paging.ROOT, (1 << 47) - 1)[0] == 4095


def test_change_one_entry():
    ram, tables = booted()
    old = tables.change(0xA0123, clear_bits=P)
    assert old == 0xA0000 | P | RW | NX
    assert naive_long(ram, paging.ROOT, 0xA0123) == "absent"
    assert tables.change(0xA0123, set_bits=P | US, clear_bits=NX) == old & ~P
    assert naive_long(ram, paging.ROOT, 0xA0123) == (0xA0123, 4096, True, True, True)
    assert naive_long(ram, paging.ROOT, 0xA1000) == (0xA1000, 4096, False, True, False)


def test_change_a_large_page_whole_or_split():
    ram, tables = booted()
    tables.change(6 * MIB + 5, clear_bits=NX)
    assert naive_long(ram, paging.ROOT, 6 * MIB + 4096) == (6 * MIB + 4096, 2 * MIB, False, True, True)
    tables.change(6 * MIB + 5, set_bits=US, split=True)
    assert naive_long(ram, paging.ROOT, 6 * MIB) == (6 * MIB, 4096, True, True, True)
    assert naive_long(ram, paging.ROOT, 6 * MIB + 4096) == (6 * MIB + 4096, 4096, False, True, True)


def test_change_where_nothing_is():
    _, tables = booted()
    with pytest.raises(UsageError, match="nothing is mapped there"):
        tables.change(1 << 40, set_bits=P)


# --- walks of hostile tables -----------------------------------------------------------------------------------------

PAGES = 24
# Entries that mostly lead on inside RAM, with every flag now and then, and sometimes plain noise.
FLAG = st.sampled_from(
    [0, 0, 0, RW, US, PS, G, A, 0x200, NX, 1 << 52, 1 << 58, 1 << 40, 1 << 51, 0x1000, 0x2000, 1 << 29]
)
ENTRY64 = st.one_of(
    st.builds(
        lambda page, present, flags: page * 4096 | present | RW | US | sum(set(flags)) & ~(RW | US),
        st.integers(0, PAGES + 1),
        st.sampled_from([P, P, P, P, 0]),
        st.lists(FLAG, max_size=2),
    ),
    st.builds(lambda page, flags: page * 4096 | P | flags, st.integers(0, PAGES), st.integers(0, 0xFFF)),
    st.integers(0, (1 << 64) - 1),
)
LARGE64 = st.builds(
    lambda number, low, flags: number * GIB | low | P | PS | flags,
    st.integers(0, 1 << 21),
    st.sampled_from([0, 0, 2 * MIB, 0x1000, 0x2000, 1 << 20, 1 << 29]),
    st.sampled_from([0, RW, US, RW | US, NX, G]),
)
TABLES64 = st.lists(st.one_of(ENTRY64, ENTRY64, LARGE64), min_size=8, max_size=8)
LOW_INDEX = st.integers(0, 7)  # tables repeat eight entries, so any index leads somewhere
MAXPHY = st.sampled_from([36, 40, 46, 52])


def filled(entries, form):
    """RAM whose every page repeats these entries, page n starting with entry n."""
    ram = Ram(PAGES * 4096)
    for page in range(PAGES):
        turned = entries[page % len(entries) :] + entries[: page % len(entries)]
        one = struct.pack(f"<{len(turned)}{form}", *turned)
        ram.data[page * 4096 : page * 4096 + 4096] = one * (4096 // len(one))
    return ram


@settings(max_examples=400, deadline=None)
@given(
    entries=TABLES64,
    cr3=st.one_of(st.integers(0, PAGES - 1).map(lambda page: page * 4096 + 0x18), st.integers(0, (1 << 64) - 1)),
    low=st.integers(0, (1 << 57) - 1),
    half=st.sampled_from(["low", "high", "raw"]),
    five=st.booleans(),
    nxe=st.booleans(),
    gib=st.booleans(),
    maxphyaddr=MAXPHY,
)
def test_long_mode_walk(entries, cr3, low, half, five, nxe, gib, maxphyaddr):
    width = 56 if five else 47
    va = {"low": low % (1 << width), "high": (1 << 64) - 1 - low % (1 << width), "raw": low}[half]
    ram = filled(entries, "Q")
    t = walk(
        ram.read_u64, cr3, PAE | LA57 * five, LMA | NXE * nxe, PG, va, maxphyaddr=maxphyaddr, gib_pages=gib
    )  # fmt: skip
    expected = naive_long(
        ram, cr3, va, levels=5 if five else 4, nxe=nxe, maxphyaddr=maxphyaddr, gib_pages=gib
    )  # fmt: skip
    assert seen(t) == expected
    assert t.mode == ("5-level" if five else "4-level")
    assert len(t.levels) <= (5 if five else 4)
    assert render(t)


@settings(max_examples=300, deadline=None)
@given(
    entries=TABLES64,
    pdptes=st.lists(
        st.one_of(st.integers(0, PAGES).map(lambda page: page * 4096 | P), ENTRY64), min_size=4, max_size=4
    ),
    cr3=st.integers(0, PAGES * 128 - 1).map(lambda slot: slot * 32 + 0x1F),
    va=st.integers(0, (1 << 32) + 4),
    nxe=st.booleans(),
    maxphyaddr=MAXPHY,
)
def test_pae_walk(entries, pdptes, cr3, va, nxe, maxphyaddr):
    ram = filled(entries, "Q")
    struct.pack_into("<4Q", ram.data, cr3 & ~0x1F, *pdptes)
    t = walk(ram.read_u64, cr3, PAE, NXE * nxe, PG, va, maxphyaddr=maxphyaddr)
    assert seen(t) == naive_pae(ram, cr3, va, nxe=nxe, maxphyaddr=maxphyaddr)
    assert t.mode == "PAE"
    assert render(t)


@settings(max_examples=300, deadline=None)
@given(
    entries=st.lists(
        st.one_of(
            st.builds(lambda page, flags: page * 4096 | flags | P, st.integers(0, PAGES), st.integers(0, 0xFFF)),
            st.builds(
                lambda base, flags: base << 22 | P | PS | flags, st.integers(0, 1023), st.sampled_from([0, RW, US])
            ),
            st.integers(0, (1 << 32) - 1),
        ),
        min_size=8,
        max_size=8,
    ),
    cr3=st.integers(0, PAGES * 4096 + 4096),
    va=st.integers(0, (1 << 32) + 4),
    pse=st.booleans(),
    maxphyaddr=st.sampled_from([32, 36, 39, 40, 52]),
)
def test_32_bit_walk(entries, cr3, va, pse, maxphyaddr):
    ram = filled(entries, "I")
    t = walk(ram.read_u64, cr3, PSE * pse, 0, PG, va, maxphyaddr=maxphyaddr)
    assert seen(t) == naive_32(ram, cr3, va, pse=pse, maxphyaddr=maxphyaddr)
    assert t.mode == "32-bit"
    assert render(t)


@given(st.integers(0, (1 << 64) - 1), st.sampled_from([0, PAE, LA57]), st.sampled_from([0, LMA]))
def test_paging_off_is_identity(va, cr4, efer):
    t = walk(Ram(0).read_u64, 0x1000, cr4, efer, 0x11, va)
    assert seen(t) == ((va, 4096, True, True, True) if va < 1 << 32 else "canonical")
    assert t.levels == ()


def test_tables_that_point_at_themselves_end():
    ram = Ram(0x2000)
    for slot in range(512):
        ram.write_u64(0x1000 + 8 * slot, 0x1000 | P | RW)
    for cr4, efer, levels in ((PAE, LMA, 4), (PAE | LA57, LMA, 5)):
        t = walk(ram.read_u64, 0x1000, cr4, efer, PG, 0x123)
        assert [level.address for level in t.levels] == [0x1000] * levels
        assert t.gpa == 0x1123


def test_only_our_error_ends_a_walk():
    def broken(gpa):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        walk(broken, 0, PAE, LMA, PG, 0)


@pytest.mark.parametrize(
    ("cr0", "cr4", "efer", "mode"),
    [
        (0x11, PAE, LMA, "off"),
        (PG, 0, 0, "32-bit"),
        (PG, PSE, 0, "32-bit"),
        (PG, PAE, 0, "PAE"),
        (PG, PAE | LA57, 0, "PAE"),
        (PG, PAE, LMA, "4-level"),
        (PG, PAE | LA57, LMA, "5-level"),
    ],
)
def test_mode(cr0, cr4, efer, mode):
    assert paging_mode(cr0, cr4, efer) == mode


def single_bit_cases(levels, entry_bits):
    return [(level, bit) for level in range(levels) for bit in range(entry_bits)]


@pytest.mark.parametrize("nxe", [True, False], ids=["nxe", "no-nxe"])
@pytest.mark.parametrize("maxphyaddr", [36, 40, 52])
@pytest.mark.parametrize("size", [4096, 2 * MIB, GIB], ids=["4K", "2M", "1G"])
def test_each_bit_of_each_long_mode_entry(size, maxphyaddr, nxe):
    levels = {4096: 4, 2 * MIB: 3, GIB: 2}[size]
    for five in (False, True):
        depth = levels + five
        for level, bit in single_bit_cases(depth, 64):
            ram = Ram(8 * 4096)
            for n in range(depth):
                last = n == depth - 1
                ram.write_u64(
                    (n + 1) * 4096, (0 if last else (n + 2) * 4096) | P | RW | US | PS * (last and size > 4096)
                )
            ram.write_u64((level + 1) * 4096, ram.read_u64((level + 1) * 4096) ^ 1 << bit)
            t = walk(ram.read_u64, 0x1000, PAE | LA57 * five, LMA | NXE * nxe, PG, 0x123, maxphyaddr=maxphyaddr)
            assert seen(t) == naive_long(ram, 0x1000, 0x123, levels=4 + five, nxe=nxe, maxphyaddr=maxphyaddr), (
                level,
                bit,
            )


@pytest.mark.parametrize("nxe", [True, False], ids=["nxe", "no-nxe"])
@pytest.mark.parametrize("maxphyaddr", [36, 40, 52])
@pytest.mark.parametrize("large", [False, True], ids=["4K", "2M"])
def test_each_bit_of_each_pae_entry(large, maxphyaddr, nxe):
    for level, bit in single_bit_cases(2 if large else 3, 64):
        ram = Ram(8 * 4096)
        ram.write_u64(0x1000, 0x2000 | P)
        ram.write_u64(0x2000, RW | US | P | (PS if large else 0x3000))
        ram.write_u64(0x3000, RW | US | P)
        ram.write_u64((level + 1) * 4096, ram.read_u64((level + 1) * 4096) ^ 1 << bit)
        t = walk(ram.read_u64, 0x1000, PAE, NXE * nxe, PG, 0x123, maxphyaddr=maxphyaddr)
        assert seen(t) == naive_pae(ram, 0x1000, 0x123, nxe=nxe, maxphyaddr=maxphyaddr), (level, bit)


@pytest.mark.parametrize("maxphyaddr", [32, 36, 39, 40, 52])
@pytest.mark.parametrize("pse", [True, False], ids=["pse", "no-pse"])
@pytest.mark.parametrize("large", [False, True], ids=["4K", "4M"])
def test_each_bit_of_each_32_bit_entry(large, pse, maxphyaddr):
    for level, bit in single_bit_cases(1 if large else 2, 32):
        ram = Ram(8 * 4096)
        ram.write_u64(0x1000, RW | US | P | (PS if large else 0x2000))
        ram.write_u64(0x2000, RW | US | P)
        ram.write_u64((level + 1) * 4096, ram.read_u64((level + 1) * 4096) ^ 1 << bit)
        t = walk(ram.read_u64, 0x1000, PSE * pse, 0, PG, 0x123, maxphyaddr=maxphyaddr)
        assert seen(t) == naive_32(ram, 0x1000, 0x123, pse=pse, maxphyaddr=maxphyaddr), (level, bit)


# --- what a person reads ---------------------------------------------------------------------------------------------


def test_render_of_a_page():
    ram, _ = booted()
    assert render(walk4(ram, 0x20010)) == [
        "0x20010, paging 4-level",
        "  PML4E at 0x00000a000 = 0x000000000000b007  PRESENT|RW|USER",
        "  PDPTE at 0x00000b000 = 0x000000000000c007  PRESENT|RW|USER",
        "  PDE   at 0x00000c000 = 0x0000000000010007  PRESENT|RW|USER",
        "  PTE   at 0x000010100 = 0x0000000000020003  PRESENT|RW",
        "  -> 0x20010 (code+0x10), 4 KiB page, supervisor rwx",
    ]


def test_render_of_failures():
    ram, tables = booted()
    assert render(walk4(ram, 0))[-1] == "  no page: PTE at 0x10000: not present"
    assert render(walk4(ram, 1 << 47))[1:] == ["  no page: the address is not canonical"]
    address, entry, _ = tables.leaf(6 * MIB)
    ram.write_u64(address, entry | 0x2000 | 1 << 60 | 1 << 10)
    *_, last, end = render(walk4(ram, 6 * MIB))
    assert last.endswith("PRESENT|RW|PSE|NX|0x1000000000002400")  # no bit is dropped
    assert end == f"  no page: PDE at {address:#x}: reserved bit set"
    ram.write_u64(address, 1 << 40 | P)
    *_, last, end = render(walk4(ram, 6 * MIB))
    assert last.startswith("  PTE   at 0x10000000000 = ??????????????????")
    assert end == "  no page: PTE at 0x10000000000: no RAM at the entry"


def test_bit_7_is_pat_in_a_pte_and_bit_12_in_a_large_page():
    ram, tables = booted()
    tables.change(0xA0000, set_bits=0x80)
    assert walk4(ram, 0xA0000).levels[-1].flags == "PRESENT|RW|PAT|NX"
    tables.change(6 * MIB, set_bits=0x1000)
    assert walk4(ram, 6 * MIB).levels[-1].flags == "PRESENT|RW|PSE|NX|PAT"
    assert walk4(ram, 6 * MIB).gpa == 6 * MIB

# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest map: regions do not touch, names are unique, sizes are read and refused as documented."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.errors import EXIT_USAGE, UsageError
from vmm.machine.memory import layout
from vmm.machine.memory.layout import CPU_BLOCK, CPU_BLOCK_SIZE, MAP, MAX_CPUS, REGIONS

MIB = 1 << 20


@pytest.mark.parametrize("rows", [MAP, CPU_BLOCK], ids=["MAP", "CPU_BLOCK"])
def test_regions_do_not_touch(rows):
    for a, b in pairwise(sorted(rows, key=lambda row: row.base)):
        assert a.end <= b.base, f"{a.name} runs into {b.name}"


def test_rows_are_whole_pages_with_unique_names_and_a_sentence():
    rows = [*MAP, *CPU_BLOCK]
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert row.base % layout.PAGE == 0, row
        assert row.size > 0, row
        assert row.size % layout.PAGE == 0, row
        assert row.what, row
        assert row.mapped or not (row.writable or row.user or row.executable), row


def test_map_is_the_agreed_one():
    agreed = {
        "null": (0x0, 0x1000),
        "gdt": (0x1000, 0x4000),
        "idt": (0x5000, 0x1000),
        "gates": (0x6000, 0x1000),
        "trampoline": (0x8000, 0x1000),
        "results": (0x9000, 0x1000),
        "page_tables": (0xA000, 0x16000),
        "code": (0x20000, 0x60000),
        "user": (0x80000, 0x20000),
        "data": (0xA0000, 0x5F000),
        "guard": (0xFF000, 0x1000),
        "scratch_mmio": (0xD0000000, 0x1000),
        "ioapic": (0xFEC00000, 0x1000),
        "lapic": (0xFEE00000, 0x1000),
    }
    assert {name: (REGIONS[name].base, REGIONS[name].size) for name in agreed} == agreed
    assert REGIONS["cpus"].base == 0x100000


def test_a_sipi_can_reach_the_trampoline():
    trampoline = REGIONS["trampoline"]
    assert trampoline.base < MIB  # a start-up IPI names a page below 1 MiB
    assert trampoline.base >> 12 <= 0xFF


def test_null_and_guards_are_not_mapped():
    assert [row.name for row in [*MAP, *CPU_BLOCK] if not row.mapped] == ["null", "guard", "cpu_guard"]


def test_cpu_block_is_full():
    assert sum(part.size for part in CPU_BLOCK) == CPU_BLOCK_SIZE
    assert CPU_BLOCK[0].base == 0
    assert all(a.end == b.base for a, b in pairwise(CPU_BLOCK))


def test_below_each_boot_stack_lies_a_guard():
    assert layout.describe(layout.cpu_block(0).base - 1) == "guard+0xfff"
    assert layout.describe(layout.cpu_block(7).base - 1) == "cpus[6].cpu_guard+0xfff"


@pytest.mark.parametrize("index", [0, 1, 31, MAX_CPUS - 1])
def test_cpu_block_addresses(index):
    block = layout.cpu_block(index)
    base = 0x100000 + index * 0x8000
    assert (block.index, block.base) == (index, base)
    assert (block.boot_stack_top, block.ring0_stack_top, block.ist1_stack_top, block.tss) == (
        base + 0x2000,
        base + 0x3000,
        base + 0x4000,
        base + 0x4000,
    )
    for stack, top in (
        ("boot_stack", block.boot_stack_top),
        ("ring0_stack", block.ring0_stack_top),
        ("ist1_stack", block.ist1_stack_top),
    ):
        assert layout.describe(top - 8).startswith(f"cpus[{index}].{stack}+")
    assert layout.describe(block.tss) == f"cpus[{index}].tss+0x0"


@pytest.mark.parametrize("index", [-1, MAX_CPUS])
def test_cpu_block_outside_the_map(index):
    with pytest.raises(UsageError, match=r"blocks 0 to 1019"):
        layout.cpu_block(index)


def test_describe_names_places():
    assert layout.describe(0xA0010) == "data+0x10"
    assert layout.describe(0xFEE000B0) == "lapic+0xb0"
    assert layout.describe(0x7000) == ""
    assert layout.region_at(0x7FFF) is None
    assert layout.region_at(0x8000) is REGIONS["trampoline"]


def test_rows_below_takes_the_cpu_blocks_apart():
    rows = sorted(layout.rows_below(2 * MIB, 32), key=lambda pair: pair[0])
    assert "cpus" not in {row.name for _, row in rows}
    assert sum(row.name == "tss" for _, row in rows) == 32
    for (base, row), (after, _) in pairwise(rows):
        assert base + row.size <= after
    assert all(base < 2 * MIB for base, _ in rows)
    few = [row.name for _, row in layout.rows_below(2 * MIB, 3)]
    assert (few.count("cpu_guard"), few.count("free")) == (3, 29)


def test_asm_constants():
    constants = layout.asm_constants()
    expected = {
        "CODE_BASE": 0x20000,
        "USER_BASE": 0x80000,
        "USER_SIZE": 0x20000,
        "USER_STACK_TOP": 0xA0000,
        "DATA_BASE": 0xA0000,
        "DATA_SIZE": 0x5F000,
        "RESULTS_BASE": 0x9000,
        "TRAMPOLINE_BASE": 0x8000,
        "IDT_BASE": 0x5000,
        "GDT_BASE": 0x1000,
        "CPUS_BASE": 0x100000,
        "CPU_BLOCK_SIZE": 0x8000,
        "CPU_TSS_OFFSET": 0x4000,
        "CPU_GUARD_OFFSET": 0x7000,
        "SCRATCH_MMIO_BASE": 0xD0000000,
        "LAPIC_BASE": 0xFEE00000,
        "IOAPIC_BASE": 0xFEC00000,
        "RESULT_SLOT_SIZE": 16,
    }
    assert {name: constants.get(name) for name in expected} == expected
    assert all(name.isidentifier() and name.isupper() for name in constants)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2M", 2 * MIB),
        ("0x1000", 4096),
        (4096, 4096),
        ("4096", 4096),
        ("1G", 1 << 30),
        ("64k", 65536),
        ("64KiB", 65536),
        (" 3 mb ", 3 * MIB),
        ("1T", 1 << 40),
        ("0", 0),
        (0, 0),
        ("0X20", 32),
    ],
)
def test_parse_size(text, size):
    assert layout.parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "M", "-1", "1.5G", "2MM", "0x", "0x10M", "two", "\N{ARABIC-INDIC DIGIT ONE}M", "9" * 5000, "2M\n3", "1 000"],
)
def test_parse_size_refuses(text):
    with pytest.raises(UsageError, match="is not a size") as caught:
        layout.parse_size(text)
    assert len(str(caught.value)) < 200
    assert caught.value.exit_code == EXIT_USAGE


def test_parse_size_refuses_a_negative_number():
    with pytest.raises(UsageError, match="negative"):
        layout.parse_size(-4096)


@given(st.integers(0, 1 << 60))
def test_format_size_is_read_back(size):
    assert layout.parse_size(layout.format_size(size)) == size


def test_default_memory_is_enough_for_32_cpus():
    assert layout.min_memory(32) <= layout.DEFAULT_MEMORY == 2 * MIB
    assert layout.default_memory(1) == layout.default_memory(32) == 2 * MIB
    assert layout.default_memory(33) == 4 * MIB
    for cpus in (1, 32, 33, 500, MAX_CPUS):
        assert layout.check_memory(layout.default_memory(cpus), cpus, host=1 << 34)
        assert layout.min_memory(cpus) == layout.cpu_block(cpus - 1).base + CPU_BLOCK_SIZE


@pytest.mark.parametrize(
    ("size", "cpus", "words"),
    [
        (0, 1, "memory of 0 is too small: 1 vCPU need"),
        (MIB, 1, "too small: 1 vCPU needs at least 1056K"),
        (2 * MIB, 33, "33 vCPUs need at least 2080K"),
        (2 * MIB + 1, 1, "not a whole number of 4 KiB pages; the next is 2101248"),
        (1 << 40, 1, "memory of 1T is too large: this host has 4096M"),
        (8 << 30, 1, "memory of 8G is too large: this host has 4096M"),
        (2 * MIB, 0, "0 vCPUs: a machine has 1 to 1020"),
        (2 * MIB, 5000, "5000 vCPUs: a machine has 1 to 1020"),
    ],
)
def test_check_memory_refuses(size, cpus, words):
    with pytest.raises(UsageError, match=words):
        layout.check_memory(size, cpus, host=4 << 30)


def test_check_memory_measures_this_host():
    assert layout.check_memory(2 * MIB, 32) == 2 * MIB
    assert layout.host_memory() > 16 * MIB


@given(st.integers(1, layout.MAX_MEMORY // 4096))
def test_ram_ranges_keep_the_amount_and_leave_the_device_hole(pages):
    ranges = layout.ram_ranges(pages * 4096)
    assert sum(size for _, size in ranges) == pages * 4096
    devices = [row for row in MAP if not row.ram]
    for base, size in ranges:
        assert size > 0
        assert not any(base < row.end and row.base < base + size for row in devices)


def test_ram_rows_lie_in_low_ram_and_devices_above_it():
    for row in MAP:
        assert (row.end <= layout.LOW_RAM_END) == row.ram

# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptors against a decoder written here from SDM vol. 3A (3.4.5, 6.14.1, 7.2.3), stubs against capstone."""

import struct

import capstone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.abi import x86
from vmm.errors import GuestMemoryError, UsageError
from vmm.machine.memory.layout import MAX_CPUS, REGIONS, cpu_block
from vmm.machine.x86 import descriptors as d


def field(value, high, low):
    return value >> low & (1 << high - low + 1) - 1


def decode_segment(table, selector):
    """Base, limit in bytes and the attribute bits of a descriptor, straight from SDM figure 3-8."""
    offset = selector & ~7
    (quad,) = struct.unpack_from("<Q", table, offset)
    limit = field(quad, 51, 48) << 16 | field(quad, 15, 0)
    granular = field(quad, 55, 55)
    base = field(quad, 63, 56) << 24 | field(quad, 39, 16)
    system = not field(quad, 44, 44)
    if system:
        upper, zero = struct.unpack_from("<II", table, offset + 8)
        assert zero == 0
        base |= upper << 32
    return {
        "base": base,
        "limit": limit << 12 | 0xFFF if granular else limit,
        "type": field(quad, 43, 40),
        "s": field(quad, 44, 44),
        "dpl": field(quad, 46, 45),
        "present": field(quad, 47, 47),
        "avl": field(quad, 52, 52),
        "l": field(quad, 53, 53),
        "db": field(quad, 54, 54),
        "g": granular,
    }


# selector: type, dpl, l, db, limit. Type 0xb is code execute/read accessed, 0x3 is data read/write accessed.
EXPECTED = {
    0x08: (0xB, 0, 1, 0, 0xFFFFFFFF),
    0x10: (0x3, 0, 0, 1, 0xFFFFFFFF),
    0x1B: (0x3, 3, 0, 1, 0xFFFFFFFF),
    0x23: (0xB, 3, 1, 0, 0xFFFFFFFF),
    0x28: (0xB, 0, 0, 1, 0xFFFFFFFF),
    0x30: (0xB, 0, 0, 0, 0xFFFF),
    0x38: (0x3, 0, 0, 0, 0xFFFF),
}


def test_gdt_starts_with_null_and_has_one_tss_per_cpu():
    assert d.gdt(1)[:8] == bytes(8)
    for cpus in (1, 2, MAX_CPUS):
        assert len(d.gdt(cpus)) == 0x40 + 16 * cpus
    assert len(d.gdt(MAX_CPUS)) == REGIONS["gdt"].size
    with pytest.raises(UsageError):
        d.gdt(MAX_CPUS + 1)


@pytest.mark.parametrize("selector", EXPECTED, ids=hex)
def test_gdt_segment(selector):
    kind, dpl, long, db, limit = EXPECTED[selector]
    row = decode_segment(d.gdt(1), selector)
    assert row == {
        "base": 0, "limit": limit, "type": kind, "s": 1, "dpl": dpl, "present": 1,
        "avl": 0, "l": long, "db": db, "g": int(limit > 0xFFFFF),
    }  # fmt: skip


@pytest.mark.parametrize("selector", EXPECTED, ids=hex)
def test_register_and_descriptor_agree(selector):
    register = d.segment(selector)
    assert register.selector == selector
    row = decode_segment(d.gdt(1), selector)
    del row["avl"]
    assert row == {name: getattr(register, name) for name in row}


@pytest.mark.parametrize("index", [0, 1, MAX_CPUS - 1])
def test_tss_descriptor(index):
    register = d.tss_segment(index)
    assert register.selector == 0x40 + 16 * index
    assert register.type == 0xB  # busy: VM entry refuses anything else
    row = decode_segment(d.gdt(MAX_CPUS), register.selector)
    assert row["type"] == 0x9  # available: LTR refuses anything else
    assert row["base"] == register.base == cpu_block(index).tss
    assert row["limit"] == register.limit == 104 + 8192
    assert (row["s"], row["present"], row["dpl"], row["l"], row["g"]) == (0, 1, 0, 0, 0)


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 0xFFFFF))
def test_system_descriptor_keeps_every_bit_of_base_and_limit(base, limit):
    encoded = d.Segment(0, base, limit, 9, s=0, g=0).encode()
    row = decode_segment(encoded, 0)
    assert (row["base"], row["limit"]) == (base, limit)


def test_syscall_and_sysret_find_their_segments():
    star = x86.STAR_VALUE
    syscall_cs, sysret_base = field(star, 47, 32), field(star, 63, 48)
    assert (syscall_cs, syscall_cs + 8) == (0x08, 0x10)
    assert (sysret_base + 8, sysret_base + 16) == (0x1B, 0x23)
    table = d.gdt(1)
    assert decode_segment(table, syscall_cs)["l"] == 1
    assert decode_segment(table, sysret_base + 16)["l"] == 1
    assert decode_segment(table, sysret_base + 8)["dpl"] == 3


def test_null_segment_is_not_present():
    assert (d.null_segment().selector, d.null_segment().present) == (0, 0)


def test_unknown_selector():
    with pytest.raises(KeyError):
        d.segment(0x48)


def test_tss_fields():
    block = cpu_block(3)
    data = d.tss(block)
    assert len(data) == d.TSS_SIZE == 104 + 8192 + 1
    assert len(data) <= 0x3000
    assert struct.unpack_from("<Q", data, 4) == (block.ring0_stack_top,)
    assert struct.unpack_from("<Q", data, 36) == (block.ist1_stack_top,)
    assert data[0:4] == bytes(4)
    assert data[12:36] == bytes(24)
    assert data[44:102] == bytes(58)
    assert struct.unpack_from("<H", data, 102) == (104,)
    assert data[104:] == b"\xff" * 8193


@given(st.sets(st.integers(0, 0xFFFF), max_size=20))
def test_tss_allows_just_the_ports_asked_for(allowed):
    data = d.tss(cpu_block(0), allowed)
    (base,) = struct.unpack_from("<H", data, 102)
    marked = [at for at in range(8192) if data[base + at] != 0xFF]
    open_ports = {8 * at + bit for at in marked for bit in range(8) if not data[base + at] >> bit & 1}
    assert open_ports == allowed
    assert data[-1] == 0xFF


@pytest.mark.parametrize("port", [-1, 0x10000])
def test_tss_refuses_what_is_no_port(port):
    with pytest.raises(ValueError, match="not an I/O port"):
        d.tss(cpu_block(0), [port])


def decode_gate(table, vector):
    low, high = struct.unpack_from("<QQ", table, 16 * vector)
    assert field(high, 63, 32) == 0
    assert field(low, 44, 44) == 0
    assert field(low, 39, 35) == 0
    return {
        "offset": field(high, 31, 0) << 32 | field(low, 63, 48) << 16 | field(low, 15, 0),
        "selector": field(low, 31, 16),
        "ist": field(low, 34, 32),
        "type": field(low, 43, 40),
        "dpl": field(low, 46, 45),
        "present": field(low, 47, 47),
    }


@pytest.mark.parametrize("vector", range(256))
def test_idt_gate(vector):
    assert decode_gate(d.idt(), vector) == {
        "offset": 0x6000 + 16 * vector,
        "selector": 0x08,
        "ist": 1 if vector in (8, 18) else 0,
        "type": 0xE,
        "dpl": 3 if vector in (3, 4) else 0,
        "present": 1,
    }


def test_idt_can_be_asked_for_other_rights():
    table = d.idt(frozenset({0x80}), frozenset({2}))
    assert len(table) == REGIONS["idt"].size
    assert {v for v in range(256) if decode_gate(table, v)["dpl"] == 3} == {0x80}
    assert {v for v in range(256) if decode_gate(table, v)["ist"] == 1} == {2}


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 7), st.integers(0, 3), st.booleans())
def test_gate_keeps_every_bit(handler, ist, dpl, trap):
    row = decode_gate(d.gate(handler, selector=0x23, ist=ist, dpl=dpl, trap=trap), 0)
    assert row == {
        "offset": handler, "selector": 0x23, "ist": ist, "type": 0xF if trap else 0xE, "dpl": dpl, "present": 1
    }  # fmt: skip


# Vectors on which the CPU pushes an error code: SDM vol. 3A table 6-1, and #VC, #SX of AMD APM vol. 2 table 8-1.
PUSHES_ERROR = {8, 10, 11, 12, 13, 14, 17, 21, 29, 30}


@pytest.mark.parametrize("vector", range(256))
def test_stub_in_capstone(vector):
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    start = d.stub_address(vector)
    code = d.gates()[16 * vector : 16 * vector + 16]
    seen = [(i.address, i.mnemonic, i.op_str) for i in engine.disasm(code, start)]
    assert sum(i.size for i in engine.disasm(code, start)) == 16
    pushes = [] if vector in PUSHES_ERROR else ["0"]
    pushes.append(hex(vector) if vector > 9 else str(vector))
    assert [op for _, mnemonic, op in seen if mnemonic == "push"] == pushes
    assert [m for _, m, _ in seen[: len(pushes)]] == ["push"] * len(pushes)
    out, halt, jump, *rest = seen[len(pushes) :]
    assert out[1:] == ("out", "0xf5, al")
    assert halt[1] == "hlt"
    assert jump[1:] == ("jmp", hex(halt[0]))
    assert {m for _, m, _ in rest} <= {"hlt"}


def test_gates_fill_their_region():
    assert len(d.gates()) == REGIONS["gates"].size


@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=7, max_size=7))
def test_fault_frame(values):
    data = struct.pack("<7Q", *values)
    frame = d.FaultFrame.parse(data + b"more")
    assert [frame.vector, frame.error_code, frame.rip, frame.cs, frame.rflags, frame.rsp, frame.ss] == values
    assert frame.encode() == data
    assert d.FAULT_FRAME_SIZE == len(data)


def test_short_fault_frame():
    with pytest.raises(GuestMemoryError, match="only 55"):
        d.FaultFrame.parse(bytes(55))

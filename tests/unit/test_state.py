# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers, segments and events to the kernel's structures and back; a value that does not fit is refused by name."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.abi.cpuid import CpuidEntry
from vmm.errors import UsageError
from vmm.kvm import buffers, state
from vmm.kvm._kvm import ffi

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))


def built(kind: type, **special: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(kind, **{each.name: special.get(each.name, special["rest"]) for each in fields(kind)})


segments = built(state.Segment, base=u64, limit=u32, selector=u16, rest=u8)
tables = built(state.Table, base=u64, limit=u16, rest=u64)
registers = built(state.Regs, rest=u64)
special = built(
    state.Sregs,
    **dict.fromkeys(state.SEGMENTS, segments),
    gdt=tables,
    idt=tables,
    interrupt_bitmap=st.tuples(u64, u64, u64, u64),
    rest=u64,
)
WIDE = dict.fromkeys(("exception_error_code", "sipi_vector", "flags"), u32)
events = built(state.VcpuEvents, **WIDE, exception_payload=u64, rest=u8)


@given(registers)
def test_registers_come_back(value):
    assert state.Regs.from_c(value.to_c()) == value


@given(special)
def test_segments_and_controls_come_back(value):
    assert state.Sregs.from_c(value.to_c()) == value


@given(events)
def test_events_come_back(value):
    assert state.VcpuEvents.from_c(value.to_c()) == value


@pytest.mark.parametrize(
    ("kind", "raw"),
    [(state.Regs, "struct kvm_regs"), (state.Sregs, "struct kvm_sregs"), (state.VcpuEvents, "struct kvm_vcpu_events")],
)
def test_each_field_has_its_own_place(kind, raw):
    """Setting one field changes those bytes only: no two names share a place, none is dropped."""
    clear = bytes(ffi.buffer(kind().to_c()))
    assert len(clear) == ffi.sizeof(raw)
    places = []
    for each in fields(kind):
        if isinstance(getattr(kind(), each.name), int):
            # 0xa5 differs from every default, RFLAGS's 2 included
            changed = bytes(ffi.buffer(replace(kind(), **{each.name: 0xA5}).to_c()))
            places.append([i for i in range(len(clear)) if changed[i] != clear[i]])
    assert all(len(place) == 1 for place in places)
    assert len({place[0] for place in places}) == len(places)


@pytest.mark.parametrize("value", [-1, 1 << 64, "rip", 1.5, None])
def test_a_register_that_does_not_fit_is_named(value):
    with pytest.raises(UsageError, match=r"rip"):
        state.Regs(rip=value).to_c()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"cs": state.Segment(selector=0x1_0000)}, "cs.selector"),
        ({"tr": state.Segment(limit=1 << 32)}, "tr.limit"),
        ({"ss": state.Segment(dpl=256)}, "ss.dpl"),
        ({"gdt": state.Table(limit=0x1_0000)}, "gdt.limit"),
        ({"idt": state.Table(base=-1)}, "idt.base"),
        ({"cr3": 1 << 64}, "cr3"),
        ({"efer": -1}, "efer"),
        ({"interrupt_bitmap": (0, 0, 0, 1 << 64)}, "interrupt_bitmap"),
        ({"interrupt_bitmap": (0, 0, 0, 0, 0)}, "interrupt_bitmap"),
    ],
)
def test_a_segment_or_control_that_does_not_fit_is_named(change, name):
    with pytest.raises(UsageError, match=name):
        replace(state.Sregs(), **change).to_c()


@pytest.mark.parametrize(
    "name", ["exception_nr", "interrupt_shadow", "nmi_pending", "smi_smm", "exception_has_payload"]
)
def test_an_event_that_does_not_fit_is_named(name):
    with pytest.raises(UsageError, match=name):
        state.VcpuEvents(**{name: 256}).to_c()


@pytest.mark.parametrize("name", WIDE)
def test_a_wide_event_that_does_not_fit_is_named(name):
    with pytest.raises(UsageError, match=name):
        state.VcpuEvents(**{name: 1 << 32}).to_c()


def test_opaque_structures_need_their_exact_length():
    size = ffi.sizeof("struct kvm_fpu")
    assert size == 416
    data = bytes(i & 0xFF for i in range(size))
    assert buffers.to_bytes(buffers.from_bytes("struct kvm_fpu", data)) == data
    for wrong in (b"", data[:-1], data + b"\0"):
        with pytest.raises(UsageError, match="416"):
            buffers.from_bytes("struct kvm_fpu", wrong)


entries = st.builds(CpuidEntry, u32, u32, u32, u32, u32, u32, u32)


@given(st.lists(entries, max_size=20))
def test_cpuid_entries_come_back(rows):
    assert buffers.cpuid_list(buffers.cpuid_buffer(rows)) == rows


@given(st.dictionaries(u32, u64, max_size=20))
def test_msrs_come_back(values):
    raw = buffers.msr_buffer(values)
    assert {raw.entries[i].index: raw.entries[i].data for i in range(raw.nmsrs)} == values


@pytest.mark.parametrize("values", [{1 << 32: 0}, {0x10: 1 << 64}, {0x10: -1}, {-1: 0}])
def test_an_msr_that_does_not_fit_is_refused(values):
    with pytest.raises(UsageError, match="MSR"):
        buffers.msr_buffer(values)


def test_a_cpuid_value_that_does_not_fit_is_refused():
    with pytest.raises(UsageError, match=r"CPUID 0x1\b"):
        buffers.cpuid_buffer([CpuidEntry(1, 0, 0, 1 << 32, 0, 0, 0)])


def test_numbers_are_packed_as_struct_packs_them() -> None:
    import struct

    values = [0, 1, 0x0123456789ABCDEF, (1 << 64) - 1]
    assert buffers.packed_u64(values) == struct.pack("<4Q", *values)
    assert buffers.packed_u64([]) == b""
    with pytest.raises(OverflowError):
        buffers.packed_u64([1 << 64])


def test_a_struct_is_packed_from_its_members() -> None:
    sregs = state.Sregs(cs=state.Segment(base=5, selector=8, l=1), cr3=0x1000)
    assert (
        buffers.packed("struct kvm_sregs", {"cs": {"base": 5, "selector": 8, "l": 1}, "cr3": 0x1000})
        == sregs.to_bytes()
    )

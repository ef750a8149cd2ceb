# SPDX-License-Identifier: GPL-2.0-or-later
"""Structures shared with KVM: layouts without overlap, bytes to numbers and back, clock arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.abi import structs


@pytest.mark.parametrize("struct", structs.STRUCTS, ids=lambda struct: struct.name)
def test_fields_lie_inside_and_apart(struct: structs.Struct) -> None:
    end = 0
    for field in struct.fields:
        assert field.offset >= end, field.name
        assert field.offset % field.size == 0, field.name
        end = field.offset + field.size
    assert end <= struct.size


@given(st.data())
def test_pack_then_unpack(data: st.DataObject) -> None:
    struct = data.draw(st.sampled_from(structs.STRUCTS))
    values = {}
    for field in struct.fields:
        bits = 8 * field.size
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if field.signed else (0, (1 << bits) - 1)
        values[field.name] = data.draw(st.integers(low, high))
    packed = struct.pack(**values)
    assert len(packed) == struct.size
    assert struct.unpack(packed + b"beyond") == values


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="kvm_steal_time takes 64 bytes, got 63"):
        structs.KVM_STEAL_TIME.unpack(bytes(63))
    with pytest.raises(OverflowError):
        structs.KVM_STEAL_TIME.pack(preempted=256)
    with pytest.raises(KeyError, match="nothing"):
        structs.KVM_STEAL_TIME.field("nothing")


def test_one_reading_by_hand() -> None:
    info = structs.PVCLOCK_VCPU_TIME_INFO.pack(
        version=2, tsc_timestamp=1000, system_time=500, tsc_to_system_mul=1 << 31, tsc_shift=-1, flags=1
    )
    assert info[28] == 0xFF
    fields = structs.PVCLOCK_VCPU_TIME_INFO.unpack(info)
    assert fields["tsc_shift"] == -1
    assert structs.pvclock_nanoseconds(fields, 1000 + 8) == 500 + (8 >> 1) // 2
    assert structs.pvclock_nanoseconds(fields | {"tsc_shift": 2}, 1000 + 8) == 500 + (8 << 2) // 2


def test_the_product_has_96_bits() -> None:
    info = {"tsc_timestamp": 0, "system_time": 0, "tsc_to_system_mul": 0xFFFFFFFF, "tsc_shift": 0}
    assert structs.pvclock_nanoseconds(info, 1 << 60) == (1 << 60) * 0xFFFFFFFF >> 32


def test_frequency() -> None:
    assert structs.pvclock_khz(3308717899, -1) == 2596152  # measured on a host whose KVM_GET_TSC_KHZ says the same
    assert structs.pvclock_khz(1 << 31, 1) == 1_000_000
    assert structs.pvclock_khz(0, 0) == 0


def test_constants_for_the_assembler() -> None:
    constants = structs.asm_constants()
    assert constants["STEAL_TIME_preempted"] == 16
    assert constants["STEAL_TIME_SIZE"] == 64
    assert constants["APF_token"] == 4
    assert constants["CLOCK_PAIRING_tsc"] == 16

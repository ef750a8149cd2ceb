# SPDX-License-Identifier: GPL-2.0-or-later
"""The scratch device: bytes stay, widths are counted, its end holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmm.machine.bus.bus import mmio_bus
from vmm.machine.devices.scratch import ScratchMmio

BASE = 0xD000_0000


def test_it_starts_as_zeros_of_its_size():
    assert ScratchMmio().data == bytes(4096)
    assert ScratchMmio(16).data == bytes(16)


@given(st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=8), st.booleans()), max_size=20))
def test_it_is_a_bytearray_whose_end_holds(accesses):
    device, model = ScratchMmio(32), bytearray(32)
    reads: list[int] = []
    writes: list[int] = []
    for offset, data, writing in accesses:
        inside = [i for i in range(len(data)) if offset + i < 32]
        if writing:
            writes.append(len(data))
            device.write(offset, len(data), int.from_bytes(data, "little"))
            for i in inside:
                model[offset + i] = data[i]
        else:
            reads.append(len(data))
            expected = bytes(model[offset + i] if i in inside else 0xFF for i in range(len(data)))
            assert device.read(offset, len(data)).to_bytes(len(data), "little") == expected
    assert device.data == model
    assert {n: device.reads[n] for n in range(1, 9)} == {n: reads.count(n) for n in range(1, 9)}
    assert {n: device.writes[n] for n in range(1, 9)} == {n: writes.count(n) for n in range(1, 9)}


def test_one_wide_access_is_told_from_two_narrow_ones():
    device, bus = ScratchMmio(), mmio_bus()
    bus.claim(BASE, device.size, device)
    bus.write(BASE + 8, bytes(range(8)))
    bus.write(BASE + 16, b"\x01\x02\x03\x04")
    bus.write(BASE + 20, b"\x05\x06\x07\x08")
    assert bus.read(BASE + 16, 8) == b"\x01\x02\x03\x04\x05\x06\x07\x08"
    assert (device.writes, device.reads) == ({8: 1, 4: 2}, {8: 1})
    bus.write(BASE + 4092, bytes(8))
    assert device.writes[1] == 4

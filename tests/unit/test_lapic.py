# SPDX-License-Identifier: GPL-2.0-or-later
"""What KVM_GET_LAPIC gives, taken apart: registers by name, vector sets bit by bit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmm.machine.x86.lapic import in_service, register, vectors

SIZE = 0x400


@given(st.sets(st.integers(0, 255)))
def test_vectors_come_back(wanted: set[int]) -> None:
    state = bytearray(SIZE)
    for vector in wanted:
        state[0x100 + vector // 32 * 0x10 + vector % 32 // 8] |= 1 << vector % 8
    assert vectors(bytes(state), "ISR") == tuple(sorted(wanted))
    assert vectors(bytes(state), "IRR") == vectors(bytes(state), "TMR") == ()
    assert all(in_service(bytes(state), vector) == (vector in wanted) for vector in range(256))


def test_registers_by_name() -> None:
    state = bytearray(SIZE)
    state[0xF0:0xF4] = (0x1FF).to_bytes(4, "little")
    assert register(bytes(state), "SPIV") == 0x1FF
    assert register(bytes(state), "TASKPRI") == 0

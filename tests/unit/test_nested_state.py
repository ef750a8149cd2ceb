# SPDX-License-Identifier: GPL-2.0-or-later
"""struct kvm_nested_state as a value: its header, what it says, and what is no such struct."""

from __future__ import annotations

import struct

import pytest

from vmm.errors import UsageError
from vmm.kvm.nested_state import HEADER, NestedState


def made(*header: int, size: int = HEADER) -> NestedState:
    return NestedState(struct.pack("<HHIQQ", *header).ljust(size, b"\0"))


def test_svm() -> None:
    state = made(0x101, 1, 4224, 0xC5000, 0, size=4224)
    assert (state.guest_mode, state.size, state.area) == (True, 4224, 0xC5000)
    assert state.text == ("KVM_STATE_NESTED_FORMAT_SVM, flags KVM_STATE_NESTED_GUEST_MODE|KVM_STATE_NESTED_GIF_SET")
    assert state.outside == made(0x100, 1, HEADER, 0, 0)


def test_vmx() -> None:
    state = made(0, 0, HEADER, 0xC5000, 0xC6000)
    assert (state.guest_mode, state.area) == (False, 0xC6000)
    assert state.text == "KVM_STATE_NESTED_FORMAT_VMX, flags 0"
    assert state.outside == made(0, 0, HEADER, (1 << 64) - 1, (1 << 64) - 1)


@pytest.mark.parametrize("data", [b"", bytes(HEADER), struct.pack("<HHI", 0, 0, 4224).ljust(HEADER, b"\0")])
def test_bytes_that_are_no_such_struct(data: bytes) -> None:
    with pytest.raises(UsageError, match="kvm_nested_state"):
        NestedState(data)

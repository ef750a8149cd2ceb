# SPDX-License-Identifier: GPL-2.0-or-later
"""struct kvm_nested_state as a value: what a vCPU is as a hypervisor, and of the guest that it runs itself.

Source: Documentation/virt/kvm/api.rst 4.114 and 4.115, <asm/kvm.h>. The data behind the header is KVM's affair.
"""

from __future__ import annotations

import struct

from vmm.abi.flags import NESTED_FORMATS, NESTED_STATE
from vmm.abi.rows import flag_names, value_name, value_of
from vmm.base.bits import MASK64
from vmm.base.record import Record
from vmm.errors import UsageError

HEADER = 128  # flags u16, format u16, size u32, then by format: SVM vmcb_pa u64; VMX vmxon_pa u64, vmcs12_pa u64
_HEADER = struct.Struct("<HHIQQ")
_SVM = value_of(NESTED_FORMATS, "KVM_STATE_NESTED_FORMAT_SVM")
_GUEST_MODE = value_of(NESTED_STATE, "KVM_STATE_NESTED_GUEST_MODE")
_GIF_SET = value_of(NESTED_STATE, "KVM_STATE_NESTED_GIF_SET")
_NOWHERE = MASK64


class NestedState(Record):
    """The bytes of KVM_GET_NESTED_STATE, for KVM_SET_NESTED_STATE."""

    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) < HEADER or self.size != len(self.data):
            raise UsageError(f"a struct kvm_nested_state has {HEADER} bytes or more, and says how many; not this")

    @property
    def flags(self) -> int:
        """KVM_STATE_NESTED_* flags."""
        return int(_HEADER.unpack_from(self.data)[0])

    @property
    def format(self) -> int:
        """KVM_STATE_NESTED_FORMAT_*."""
        return int(_HEADER.unpack_from(self.data)[1])

    @property
    def size(self) -> int:
        """Bytes, with the header."""
        return int(_HEADER.unpack_from(self.data)[2])

    @property
    def guest_mode(self) -> bool:
        """Does the vCPU run a guest of its guest?"""
        return bool(self.flags & _GUEST_MODE)

    @property
    def area(self) -> int:
        """Guest-physical address of the VMCB that was entered, or of the current VMCS."""
        return int(_HEADER.unpack_from(self.data)[3 if self.format == _SVM else 4])

    @property
    def text(self) -> str:
        """Format and flags by their names."""
        return f"{value_name(NESTED_FORMATS, self.format)}, flags {flag_names(NESTED_STATE, self.flags) or '0'}"

    @property
    def outside(self) -> NestedState:
        """A state of the same format in which the vCPU is no hypervisor."""
        svm = self.format == _SVM
        header = (_GIF_SET, self.format, HEADER, 0, 0) if svm else (0, self.format, HEADER, _NOWHERE, _NOWHERE)
        return NestedState(_HEADER.pack(*header).ljust(HEADER, b"\0"))

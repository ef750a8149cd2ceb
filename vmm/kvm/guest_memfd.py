# SPDX-License-Identifier: GPL-2.0-or-later
"""guest_memfd: memory that belongs to a VM, as a file. Source: Documentation/virt/kvm/api.rst, 4.141 (Linux 6.8)."""

from __future__ import annotations

from vmm.abi.x86 import PAGE
from vmm.errors import UsageError
from vmm.kvm._kvm import lib
from vmm.kvm.handle import Handle, new
from vmm.kvm.memory import Mapping
from vmm.kvm.vm import Vm

SHARED = lib.GUEST_MEMFD_FLAG_MMAP | lib.GUEST_MEMFD_FLAG_INIT_SHARED


class GuestMemfd(Handle):
    """`size` bytes for one VM, in whole pages. `flags` are GUEST_MEMFD_FLAG_* (KVM_CAP_GUEST_MEMFD_FLAGS)."""

    what = "the guest_memfd"

    def __init__(self, vm: Vm, size: int, flags: int = 0) -> None:
        """KVM_CREATE_GUEST_MEMFD.

        Raises:
            UsageError: not whole pages.
            KvmCallError: KVM refuses the size or a flag.
        """
        if size <= 0 or size % PAGE:
            raise UsageError(f"a guest_memfd of {size} bytes: give whole pages of {PAGE}")
        raw = new("struct kvm_create_guest_memfd *", [size, flags])
        super().__init__(vm.call("KVM_CREATE_GUEST_MEMFD", raw, f"making a guest_memfd of {size:#x} bytes"))
        self.size, self.flags = size, flags

    def map(self) -> Mapping:
        """The same memory for the host (Linux 6.18).

        Raises:
            UsageError: it was not made with GUEST_MEMFD_FLAG_MMAP and GUEST_MEMFD_FLAG_INIT_SHARED; with the first
                alone the host may map it, and the first touch is a SIGBUS.
        """
        if self.flags & SHARED != SHARED:
            raise UsageError("mapping a guest_memfd: it needs GUEST_MEMFD_FLAG_MMAP and GUEST_MEMFD_FLAG_INIT_SHARED")
        return Mapping(self.size, shared=True, fd=self.fd)

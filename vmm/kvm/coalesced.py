# SPDX-License-Identifier: GPL-2.0-or-later
"""The ring in which KVM collects guest writes (KVM_REGISTER_COALESCED_MMIO): one for a VM, seen through any vCPU.

It takes entries out; which are the console's is _lean.c, who gets the others vmm/machine/run/lean.py.
Source: Documentation/virt/kvm/api.rst, 4.116.
"""

from __future__ import annotations

from vmm.base.light import NamedTuple
from vmm.kvm._kvm import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class CoalescedWrite(NamedTuple):
    """A write that caused no exit, as KVM_EXIT_MMIO or KVM_EXIT_IO would have told it."""

    address: int
    data: bytes
    pio: bool


class CoalescedRing:
    """`ring` is what `Vcpu.coalesced_ring` gives; it must outlive this. One reader at a time."""

    places = lib.VMM_RING

    def __init__(self, ring: Any) -> None:
        self._ring = ring
        self._entries = ffi.cast("struct kvm_coalesced_mmio *", ring + 1)  # they begin where the two indices end

    def first(self) -> CoalescedWrite | None:
        """The oldest write; it stays."""
        if self._ring.first == self._ring.last:
            return None
        one = self._entries[self._ring.first]
        return CoalescedWrite(one.phys_addr, bytes(ffi.buffer(one.data, min(one.len, 8))), bool(one.pio))

    def take(self) -> None:
        """Give the place of `first` back to KVM."""
        self._ring.first = (self._ring.first + 1) % self.places

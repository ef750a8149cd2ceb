# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pages a guest has written: the dirty log of a memslot, and the dirty ring of a vCPU.

It knows the ioctls and the ring's layout; who collects when is vmm/machine/extra/dirty_pages.py.
Source: Documentation/virt/kvm/api.rst, 4.8 (KVM_GET_DIRTY_LOG), 4.117 (KVM_CLEAR_DIRTY_LOG), 8.29 (the dirty ring).
"""

from __future__ import annotations

import mmap
import signal
from typing import NamedTuple

from vmm.errors import HostError, UsageError
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.handle import new
from vmm.kvm.vcpu import Vcpu
from vmm.kvm.vm import Vm

WORD = 64  # pages; KVM_CLEAR_DIRTY_LOG takes whole words of the bitmap
CAPABILITY = "DIRTY_LOG_RING_ACQ_REL"
ENTRY_SIZE: int = ffi.sizeof("struct kvm_dirty_gfn")


class DirtyGfn(NamedTuple):
    """A page that was written: page `offset` (of 4 KiB) of memslot `slot`; the upper 16 bits are the address space."""

    slot: int
    offset: int


def get_dirty_log(vm: Vm, slot: int, pages: int) -> set[int]:
    """KVM_GET_DIRTY_LOG: the pages of a memslot of `pages` pages that were written since they were last protected.

    KVM protects them again, unless KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 leaves that to `clear_dirty_log`.
    """
    bitmap = ffi.new("__u8[]", -(-pages // WORD) * 8)
    raw = new("struct kvm_dirty_log *", {"slot": slot, "dirty_bitmap": bitmap})
    vm.call("KVM_GET_DIRTY_LOG", raw, f"reading the dirty log of memslot {slot}")
    return from_bitmap(bytes(ffi.buffer(bitmap)))


def clear_dirty_log(vm: Vm, slot: int, dirty: set[int], first: int, pages: int) -> None:
    """KVM_CLEAR_DIRTY_LOG: protect the pages of `dirty` (numbers in the slot) in [first, first + pages) again.

    Raises:
        UsageError: `first` is no multiple of 64. So must `pages` be, unless the range goes to the end of the slot.
        KvmCallError: KVM refuses it; EINVAL without KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2.
    """
    if first % WORD:
        raise UsageError(f"clearing the dirty log from page {first}: give a multiple of {WORD}")
    data = to_bitmap({page - first for page in dirty if first <= page < first + pages}, pages)
    bitmap = ffi.new("__u8[]", data)
    raw = new(
        "struct kvm_clear_dirty_log *",
        {"slot": slot, "num_pages": pages, "first_page": first, "dirty_bitmap": bitmap},
    )
    vm.call("KVM_CLEAR_DIRTY_LOG", raw, f"clearing {pages} pages of the dirty log of memslot {slot}")


def from_bitmap(data: bytes) -> set[int]:
    """The numbers of the bits that are set."""
    value, found = int.from_bytes(data, "little"), set()
    while value:
        low = value & -value
        found.add(low.bit_length() - 1)
        value ^= low
    return found


def to_bitmap(bits: set[int], size: int) -> bytes:
    """The reverse: `size` bits, in whole words of 64."""
    return sum(1 << bit for bit in bits).to_bytes(-(-size // WORD) * 8, "little")


def reset_dirty_rings(vm: Vm) -> int:
    """KVM_RESET_DIRTY_RINGS: protect every page that was taken from a ring again; how many there were.

    Signals wait until it is done. A pending one ends the call early without an error, and measured on Linux 6.18 the
    entries that it had just freed are then not all protected: later writes to those pages would go unseen.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        return vm.value("KVM_RESET_DIRTY_RINGS", doing="resetting the dirty rings")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class DirtyRing:
    """The ring of one vCPU: `entries` places, of which KVM fills some and keeps a reserve. `close` before the vCPU."""

    def __init__(self, vm: Vm, vcpu: Vcpu) -> None:
        """Map the ring, whose size the VM knows.

        Raises:
            UsageError: KVM_CAP_DIRTY_LOG_RING_ACQ_REL is not enabled. A ring that is not there can be mapped all the
                same, and the first touch is a SIGBUS.
            HostError: it cannot be mapped.
        """
        if CAPABILITY not in vm.enabled:
            raise UsageError(f"mapping the dirty ring of {vcpu.what}: enable {CAPABILITY} before the vCPU is made")
        (size,) = vm.enabled[CAPABILITY]
        self.entries = size // ENTRY_SIZE
        try:
            self._area = mmap.mmap(vcpu.fd, size, mmap.MAP_SHARED, offset=lib.KVM_DIRTY_LOG_PAGE_OFFSET * mmap.PAGESIZE)
        except OSError as error:
            raise HostError(f"mapping the dirty ring of {vcpu.what}: {error}") from error
        self._view = ffi.from_buffer("struct kvm_dirty_gfn[]", self._area)
        self._next = 0

    def harvest(self) -> list[DirtyGfn]:
        """Take every entry that KVM has filled, oldest first. They are free again after `reset_dirty_rings`.

        KVM stores the DIRTY flag last and we store RESET last; x86 keeps both in order (SDM vol. 3A, 9.2.2).
        """
        found: list[DirtyGfn] = []
        while len(found) < self.entries:
            entry = self._view[self._next]
            if not entry.flags & lib.KVM_DIRTY_GFN_F_DIRTY or entry.flags & lib.KVM_DIRTY_GFN_F_RESET:
                break
            found.append(DirtyGfn(entry.slot, entry.offset))
            entry.flags = lib.KVM_DIRTY_GFN_F_RESET
            self._next = (self._next + 1) % self.entries
        return found

    def close(self) -> None:
        """Unmap. Idempotent."""
        if not self._area.closed:
            ffi.release(self._view)
            self._area.close()

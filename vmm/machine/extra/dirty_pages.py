# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pages a guest writes, for a machine that runs: the log of a memslot, and the rings of all vCPUs.

    rings = DirtyRings.enable(vm, size)     before the vCPUs are made: Machine(before_vcpus=...)
    rings.attach(machine)                   afterwards
    machine.run(); rings.collect()

A vCPU whose ring is nearly full leaves KVM_RUN with KVM_EXIT_DIRTY_RING_FULL, again and again until somebody collects.
`attach` has them collected then.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from vmm.abi.x86 import PAGE
from vmm.errors import KvmCallError, UsageError
from vmm.kvm import dirty
from vmm.kvm.dirty import CAPABILITY, DirtyGfn, DirtyRing
from vmm.kvm.vm import Vm
from vmm.machine.memory.slots import Memslot

if TYPE_CHECKING:
    from vmm.machine.machine import Machine

SMALLEST = 4096  # bytes


class DirtyLog:
    """The dirty log of a memslot that was added with `log_dirty`. Pages are numbers of 4 KiB pages in the slot."""

    def __init__(self, vm: Vm, slot: Memslot) -> None:
        """Raises UsageError: the slot keeps no log."""
        if not slot.log_dirty:
            raise UsageError(f"memslot {slot.slot} keeps no dirty log; add it with log_dirty=True")
        self._vm, self._slot = vm, slot
        self.pages = slot.size // PAGE

    def read(self) -> set[int]:
        """The pages written since they were last protected. Without manual protection that happens by reading."""
        logs = [dirty.get_dirty_log(self._vm, number, self.pages) for number in self._slot.numbers]
        return set().union(*logs)  # what SMM writes is in a log of its own

    def clear(self, pages: set[int]) -> None:
        """Protect these pages again (manual protection): the next write to one counts."""
        for number in self._slot.numbers:
            dirty.clear_dirty_log(self._vm, number, pages, 0, self.pages)


def protect_manually(vm: Vm, *, initially_set: bool = False) -> None:
    """KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, before the memslots: `DirtyLog.read` no longer protects, `clear` does.

    `initially_set`: every page counts as written at first, and is protected piece by piece as it is cleared.

    Raises:
        MissingCapability: this KVM cannot.
    """
    vm.require("MANUAL_DIRTY_LOG_PROTECT2", "protecting pages by hand")
    vm.enable_cap("MANUAL_DIRTY_LOG_PROTECT2", 1 | initially_set << 1)


class DirtyRings:
    """The rings of one machine. `written` are the pages collected so far, `full` how often a ring was full."""

    def __init__(self, vm: Vm, size: int) -> None:
        self._vm, self.size = vm, size
        self._rings: list[DirtyRing] = []
        self.written: list[DirtyGfn] = []
        self.full = 0
        self.resets = 0
        self._lock = threading.RLock()  # the rings of two vCPUs may be full at once, each on its own thread

    @classmethod
    def enable(cls, vm: Vm, size: int | None = None) -> Self:
        """KVM_CAP_DIRTY_LOG_RING_ACQ_REL with rings of `size` bytes (a power of two), or the smallest that KVM takes,
        which depends on what the CPU logs by itself. Before any vCPU; a dirty log cannot be read any more.

        Raises:
            MissingCapability: this KVM has no rings.
            KvmCallError: it refuses the size.
        """
        largest = vm.require(CAPABILITY, "a dirty ring")
        tried = size or SMALLEST
        while True:
            try:
                vm.enable_cap(CAPABILITY, tried)
                return cls(vm, tried)
            except KvmCallError:
                if size is not None or tried >= largest:
                    raise
                tried *= 2

    def attach(self, machine: Machine) -> None:
        """Collect whenever a ring of this machine is full."""
        self._rings = [DirtyRing(self._vm, cpu.vcpu) for cpu in machine.cpus]
        machine.platform.on_ring_full.append(self._on_full)

    def _on_full(self) -> None:
        with self._lock:
            self.full += 1
            self.collect()

    @property
    def entries(self) -> int:
        """Places in one ring; KVM exits before it is quite full."""
        return self.size // dirty.ENTRY_SIZE

    def collect(self) -> list[DirtyGfn]:
        """Take what is in the rings, and let KVM protect those pages again. What was taken, also put into `written`."""
        with self._lock:
            found = [each for ring in self._rings for each in ring.harvest()]
            self.written += found
            self.resets += dirty.reset_dirty_rings(self._vm)
        return found

    def close(self) -> None:
        """Unmap the rings, before the machine is closed. Idempotent."""
        for ring in self._rings:
            ring.close()
        self._rings = []

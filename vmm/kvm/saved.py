# SPDX-License-Identifier: GPL-2.0-or-later
"""The state that KVM has of a VM, taken and put back by one call of C each (_snapshot.c), and its parts as bytes.

It knows which of KVM's calls this VM has; whose memory it is, and which devices there are, is
vmm/machine/snapshot.py. Source: Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping as Map
from collections.abc import Sequence
from typing import Any

from vmm.abi.msrs import MSRS, msr
from vmm.errors import KvmCallError, exhausted
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.stats import Stats
from vmm.kvm.system import Kvm
from vmm.kvm.vcpu import Vcpu
from vmm.kvm.vm import Vm

put_c, NOW, BY_RUN = lib.vmm_saved_put, lib.VMM_PUT_NOW, lib.VMM_PUT_BY_RUN  # each is looked up in `lib` otherwise
XSAVE_BYTES = 4096
# Written 0 before what was there: what was on its way when the guest was left ends with it.
ENDED = ("MSR_KVM_ASYNC_PF_EN", "MSR_KVM_PV_EOI_EN")
PARTS = ("regs", "sregs", "xsave", "xcrs", "debugregs", "events", "msrs", "lapic", "mp_state", "nested")
"""Of each vCPU."""
VM_PARTS = ("chips", "pit", "clock")
SHADOWS = ("mmu_cache_miss", "mmu_unsync")
"""KVM's counts of a VM: shadow pages that were made, and those out of step with the guest's tables (_snapshot.c)."""
FLUSHES = ("tlb_flush", "invlpg")
"""Of a vCPU."""
SYNCED = lib.KVM_SYNC_X86_REGS | lib.KVM_SYNC_X86_SREGS | lib.KVM_SYNC_X86_EVENTS
NUMBERS = {name: int(getattr(lib, f"VMM_SAVED_{name.upper()}")) for name in (*PARTS, *VM_PARTS)}


def copy_touched(to: int, source: int, size: int, pagemap: int) -> int:
    """Copy the pages that the host has, from one address of ours to another; the others are zeros, and stay untouched.
    `pagemap` is a descriptor of /proc/self/pagemap, or -1: each page is looked at. Bytes that were copied.
    """
    return int(lib.vmm_copy_touched(ffi.cast("void *", to), ffi.cast("void *", source), size, pagemap))


def places_of(stats: Stats | None, names: Sequence[str]) -> tuple[int, int, int]:
    """struct vmm_saved_stats: descriptor, places of these two; -1, where this KVM does not count both."""
    if stats is None or not all(name in stats.descriptors for name in names):
        return -1, 0, 0
    first, second = (stats.place_of(name) for name in names)
    return stats.fd, first, second


class SlotCopy(tuple[int, int, int, int, int, Any, Any]):
    """struct vmm_saved_slot: number, spaces, bytes, address now, address of the copy, marks (kvm.memory.Touched)."""

    __slots__ = ()


class Saved:
    """Room for the state of `vm`; `take` fills it.

    Raises:
        HostError: there is no memory for it.
    """

    def __init__(self, kvm: Kvm, vm: Vm, vcpus: Sequence[Vcpu], slots: Sequence[SlotCopy], irqchip: str) -> None:
        self._vm, self._vcpus = vm, list(vcpus)
        listed = kvm.get_msr_index_list()
        self._msrs = ffi.new("__u32[]", list(dict.fromkeys((*listed, *(row.number for row in MSRS)))))
        has_xsave = bool(kvm.check_extension("XSAVE"))
        larger = vm.check_extension("XSAVE2")
        shape = ffi.new("struct vmm_saved_shape *")
        shape.vm, shape.vcpus, shape.msrs = vm.fd, len(vcpus), len(self._msrs)
        shape.xsave_bytes = max(larger, XSAVE_BYTES) if has_xsave else 0
        shape.xsave2 = larger > XSAVE_BYTES
        shape.nested_bytes = kvm.check_extension("NESTED_STATE")
        shape.zeroed = [number for number in (msr(name).number for name in ENDED) if number in listed]
        shape.sregs2 = bool(kvm.check_extension("SREGS2"))
        shape.xcrs = bool(kvm.check_extension("XCRS"))
        shape.lapic, shape.chips, shape.pit = irqchip != "none", irqchip == "kernel", vm.has_pit
        shape.synced = kvm.check_extension("SYNC_REGS") & SYNCED == SYNCED
        shape.stats = places_of(vm.kept_stats(), SHADOWS)
        runs, flushes = [vcpu.kvm_run for vcpu in vcpus], [places_of(vcpu.kept_stats(), FLUSHES) for vcpu in vcpus]
        made = lib.vmm_saved_new(shape, [vcpu.fd for vcpu in vcpus], runs, flushes, list(slots), len(slots))
        if made == ffi.NULL:
            raise exhausted("keeping the state of a machine", "malloc", errno.ENOMEM)
        self._c = ffi.gc(made, lib.vmm_saved_free)
        self.c = self._c
        """For who calls C himself (machine/run/rounds.py)."""
        self.synced = bool(shape.synced)

    def take(self) -> None:
        """Fill it with what KVM has now. No vCPU runs.

        Raises:
            KvmCallError: KVM refuses one of the calls.
        """
        self._done(lib.vmm_saved_take(self._c, self._msrs), "taking the state of a machine")

    def begin(self, other: Saved | None) -> None:
        """Writes to the slots are told from now on, to this one and to all that `other` belongs to.

        Raises:
            KvmCallError: KVM refuses its dirty log.
        """
        c = ffi.NULL if other is None else other._c
        self._done(lib.vmm_saved_begin(self._c, c), "beginning to log what is written")

    def close(self) -> None:
        """Give it back: others hear of its slots no more from it."""
        ffi.release(self._c)

    def put(self) -> int:
        """Make it so again, memory included. No vCPU runs, and none is inside of an exit. Pages that were copied.

        Raises:
            KvmCallError: KVM refuses one of the calls; some of the state has been put back.
        """
        pages: int = put_c(self._c, NOW)
        return pages if pages >= 0 else self.failed(pages)

    def sync(self, on: bool) -> None:
        """From now on each KVM_RUN leaves registers in kvm_run, and takes those that `put_c(c, BY_RUN)` leaves there;
        or (False) no more, and what was left there goes.
        """
        lib.vmm_saved_sync(self._c, on)

    def failed(self, result: int) -> int:
        """What was refused as the machine was put back, with that negative errno: raised."""
        return self._done(result, "putting a machine back")

    def _done(self, result: int, doing: str) -> int:
        if result < 0:
            raise KvmCallError(ffi.string(lib.vmm_saved_failed(self._c)).decode(), -result, doing)
        return result

    def _part(self, name: str, index: int = 0) -> Any:
        size = ffi.new("__u64 *")
        at = lib.vmm_saved_part(self._c, NUMBERS[name], index, size)
        return ffi.buffer(at, size[0]) if at != ffi.NULL else None

    def _all(self) -> dict[str, Any]:
        found = {f"vcpu {index} {name}": self._part(name, index) for index in range(len(self._vcpus)) for name in PARTS}
        found |= {name: self._part(name) for name in VM_PARTS}
        return {name: part for name, part in found.items() if part is not None}

    def parts(self) -> dict[str, bytes]:
        """Each structure as the kernel gave it, by name: "vcpu 0 regs", "clock"."""
        return {name: bytes(part) for name, part in self._all().items()}

    def msrs(self, vcpu: int) -> dict[int, int]:
        """Those of a vCPU, by number; see _snapshot.c on those that are left out after the first `put`."""
        raw = ffi.cast("struct kvm_msrs *", ffi.from_buffer(self._part("msrs", vcpu)))
        return {raw.entries[number].index: raw.entries[number].data for number in range(raw.nmsrs)}

    def fill(self, parts: Map[str, bytes]) -> list[str]:
        """Take these for what was taken; nothing is put back yet. What does not fit, in words; then nothing was."""
        mine = self._all()
        wrong = [f"no {name} here" for name in parts.keys() - mine.keys()]
        wrong += [f"no {name} there" for name in mine.keys() - parts.keys()]
        wrong += [
            f"{name} has {len(parts[name])} bytes there, {len(part)} here"
            for name, part in mine.items()
            if name in parts and len(parts[name]) != len(part)
        ]
        wrong += [
            f"{name} counts beyond its bytes" for name, part in parts.items() if name in mine and _overflows(name, part)
        ]
        if not wrong:
            for name, part in mine.items():
                part[:] = parts[name]
        return sorted(wrong)


def _overflows(name: str, part: bytes) -> bool:
    """A part that says how long it is, and is shorter: C would believe it."""
    if name.endswith(" msrs"):
        return 8 + 16 * int.from_bytes(part[:4], "little") > len(part)  # struct kvm_msrs
    return name.endswith(" nested") and int.from_bytes(part[4:8], "little") > len(part)  # struct kvm_nested_state

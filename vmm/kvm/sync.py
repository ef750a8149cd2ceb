# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers through kvm_run instead of by ioctl (KVM_CAP_SYNC_REGS): KVM writes them there at every exit.

Reading is then a copy in our own memory; what is set is taken at the next entry. Source: api.rst, 6.34 and section 5
(kvm_valid_regs, kvm_dirty_regs).
"""

from __future__ import annotations

from vmm.errors import UsageError
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.state import Regs, Sregs, VcpuEvents
from vmm.kvm.vcpu import Vcpu

PARTS = {"regs": lib.KVM_SYNC_X86_REGS, "sregs": lib.KVM_SYNC_X86_SREGS, "events": lib.KVM_SYNC_X86_EVENTS}


class SyncRegs:
    """Some `PARTS` of a vCPU's registers, kept in kvm_run from the next exit on. `offered`: KVM_CAP_SYNC_REGS' value.

    What is read is of the last exit: an ioctl that sets registers afterwards does not show. What is set here is taken
    by the next KVM_RUN, over what such an ioctl has set, before that completes the exit (an IN or an MMIO read then
    puts its answer into the register that it names).

    Every method of a part that this object does not keep raises UsageError.

    Raises:
        UsageError: a part that is not offered.
    """

    def __init__(self, vcpu: Vcpu, offered: int, *parts: str) -> None:
        for part in parts:
            if not offered & PARTS.get(part, 0):
                raise UsageError(f"synchronised registers of {vcpu.what}: this KVM does not keep {part!r} in kvm_run")
        self._vcpu = vcpu
        self._parts = frozenset(parts)
        vcpu.run_area().kvm_valid_regs = sum(PARTS[part] for part in parts)

    def close(self) -> None:
        """KVM writes them no more."""
        run = self._vcpu.run_area()
        run.kvm_valid_regs = run.kvm_dirty_regs = 0

    def _area(self, part: str) -> object:
        if part not in self._parts:
            raise UsageError(f"{part!r} is not kept in kvm_run; ask for it when making this object")
        return getattr(self._vcpu.run_area().s.regs, part)

    def regs(self) -> Regs:
        """The general registers at the last exit."""
        return Regs.from_c(self._area("regs"))

    def sregs(self) -> Sregs:
        """Segments and control registers at the last exit."""
        return Sregs.from_c(self._area("sregs"))

    def events(self) -> VcpuEvents:
        """Pending events at the last exit."""
        return VcpuEvents.from_c(self._area("events"))

    def _set(self, part: str, value: Regs | Sregs | VcpuEvents) -> None:
        area = self._area(part)
        raw = value.to_c()
        ffi.memmove(ffi.addressof(area), raw, ffi.sizeof(ffi.typeof(raw).item))
        self._vcpu.run_area().kvm_dirty_regs |= PARTS[part]

    def set_regs(self, regs: Regs) -> None:
        """Taken at the next entry."""
        self._set("regs", regs)

    def set_sregs(self, sregs: Sregs) -> None:
        """Taken at the next entry; KVM_RUN fails with EINVAL for a combination that no CPU allows."""
        self._set("sregs", sregs)

    def set_events(self, events: VcpuEvents) -> None:
        """Taken at the next entry."""
        self._set("events", events)

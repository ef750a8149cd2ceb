# SPDX-License-Identifier: GPL-2.0-or-later
"""MSR_KVM_MIGRATION_CONTROL, served by pyvmm: KVM has no such MSR, and the bit that announces it is the VMM's to set.

Bit 0 says that the guest may be migrated now; the others are reserved. Source: Documentation/virt/kvm/x86/msr.rst. An
access comes here in one of two ways, KVM_CAP_X86_USER_SPACE_MSR on with the reason's bit: as an MSR that KVM does not
know, or denied by an MSR filter, which is what the kernel's document asks for.
"""

from __future__ import annotations

from vmm.abi import msrs
from vmm.abi.exits import MSR_EXIT_REASONS
from vmm.abi.rows import value_of
from vmm.kvm.vm import Vm
from vmm.machine.bus.platform import Platform
from vmm.machine.run.handed_over import pass_msr

READY = 1 << 0  # KVM_MIGRATION_READY
UNKNOWN = value_of(MSR_EXIT_REASONS, "KVM_MSR_EXIT_REASON_UNKNOWN")


class MigrationControl:
    """The MSR of one machine. `ready` is its bit 0: True for a plain guest until it says otherwise."""

    def __init__(self, platform: Platform, *, ready: bool = True) -> None:
        self.ready = ready
        platform.msr_reads[number()] = self.read
        platform.msr_writes[number()] = self.write

    def read(self) -> int:
        return READY if self.ready else 0

    def write(self, value: int) -> bool:
        """False refuses a reserved bit: the guest takes #GP."""
        if value & ~READY:
            return False
        self.ready = bool(value & READY)
        return True


def number() -> int:
    """The MSR's number."""
    return msrs.msr("MSR_KVM_MIGRATION_CONTROL").number


def exit_by_filter(vm: Vm) -> None:
    """Let accesses leave KVM because a filter denies them; every other MSR stays as it was."""
    pass_msr(vm, number(), read=True)
    pass_msr(vm, number(), read=False)


def exit_as_unknown(vm: Vm) -> None:
    """Let accesses leave KVM because it does not know the MSR; so does every other that it does not know."""
    vm.enable_bits("X86_USER_SPACE_MSR", UNKNOWN)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What KVM is told to hand over instead of serving it: MSRs by filter, hypercalls by number. It knows no callback.

Source: KVM_CAP_X86_USER_SPACE_MSR, KVM_X86_SET_MSR_FILTER and KVM_CAP_EXIT_HYPERCALL in api.rst. All three may be
changed while the VM lives; vCPUs obey from their next entry on.
"""

from __future__ import annotations

from vmm.abi import exits
from vmm.abi.rows import value_of
from vmm.errors import MissingCapability, UsageError
from vmm.kvm.vm import Vm

X2APIC_MSRS = range(0x800, 0x900)
FILTERED = value_of(exits.MSR_EXIT_REASONS, "KVM_MSR_EXIT_REASON_FILTER")


def pass_msr(vm: Vm, index: int, *, read: bool) -> None:
    """Hand reads, or writes, of this MSR over. Errors as `Hooks.on_msr_read`."""
    if index in X2APIC_MSRS:
        raise UsageError(f"MSR {index:#x} is an x2APIC register: KVM serves those itself, whatever a filter says")
    what = f"a callback for MSR {index:#x}"
    vm.require("X86_USER_SPACE_MSR", what)
    vm.require("X86_MSR_FILTER", what)
    vm.enable_bits("X86_USER_SPACE_MSR", FILTERED)
    try:
        vm.deny_msrs(reads=[index] if read else (), writes=() if read else [index])
    except UsageError as error:
        raise UsageError(f"MSR {index:#x}: {error}") from None


def pass_hypercall(vm: Vm, nr: int) -> None:
    """Hand this hypercall over. Errors as `Hooks.on_hypercall`."""
    offered = vm.require("EXIT_HYPERCALL", f"a callback for hypercall {nr}")
    if nr < 0 or not offered >> nr & 1:
        listed = ", ".join(str(n) for n in range(offered.bit_length()) if offered >> n & 1)
        raise MissingCapability(f"hypercall {nr}: this KVM passes on only {listed or 'none'}")
    vm.enable_bits("EXIT_HYPERCALL", 1 << nr)

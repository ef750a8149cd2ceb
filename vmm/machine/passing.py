# SPDX-License-Identifier: GPL-2.0-or-later
"""What KVM is told to hand over instead of serving it: MSRs by filter, hypercalls by number. It knows no callback.

Source: KVM_CAP_X86_USER_SPACE_MSR, KVM_X86_SET_MSR_FILTER and KVM_CAP_EXIT_HYPERCALL in api.rst. All three may be
changed while the VM lives; vCPUs obey from their next entry on.
"""

from __future__ import annotations

from collections.abc import Iterable

from vmm.abi import exits, flags
from vmm.abi.rows import value_of
from vmm.errors import MissingCapability, UsageError
from vmm.kvm.vm import MsrRange, Vm

X2APIC_MSRS = range(0x800, 0x900)
SPAN = value_of(flags.MSR_FILTER_LIMITS, "KVM_MSR_FILTER_MAX_BITMAP_SIZE") * 8  # MSRs in one range
RANGES = value_of(flags.MSR_FILTER_LIMITS, "KVM_MSR_FILTER_MAX_RANGES")
FILTERED = value_of(exits.MSR_EXIT_REASONS, "KVM_MSR_EXIT_REASON_FILTER")


def ranges(denied: Iterable[int], *, read: bool) -> list[MsrRange]:
    """The fewest ranges in which exactly `denied` are denied, for reads or for writes."""
    groups: list[list[int]] = []
    for index in sorted(set(denied)):
        if groups and index < groups[-1][0] + SPAN:
            groups[-1].append(index)
        else:
            groups.append([index])
    return [
        MsrRange(
            group[0],
            tuple(index not in group for index in range(group[0], group[-1] + 1)),
            read=read,
            write=not read,
        )
        for group in groups
    ]


class Passing:
    """What one VM hands over."""

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self._reads: set[int] = set()
        self._writes: set[int] = set()

    def msr(self, index: int, *, read: bool) -> None:
        """Hand reads, or writes, of this MSR over. Errors as `Hooks.on_msr_read`."""
        if index in X2APIC_MSRS:
            raise UsageError(f"MSR {index:#x} is an x2APIC register: KVM serves those itself, whatever a filter says")
        reads = self._reads | ({index} if read else set())
        writes = self._writes | (set() if read else {index})
        needed = [*ranges(reads, read=True), *ranges(writes, read=False)]
        if len(needed) > RANGES:
            raise UsageError(f"MSR {index:#x}: a filter takes {RANGES} ranges, and these MSRs need {len(needed)}")
        what = f"a callback for MSR {index:#x}"
        self._vm.require("X86_USER_SPACE_MSR", what)
        self._vm.require("X86_MSR_FILTER", what)
        on = self._vm.enabled.get("X86_USER_SPACE_MSR", (0,))[0]
        if not on & FILTERED:
            self._vm.enable_cap("X86_USER_SPACE_MSR", on | FILTERED)
        self._vm.set_msr_filter(needed)
        self._reads, self._writes = reads, writes

    def hypercall(self, nr: int) -> None:
        """Hand this hypercall over. Errors as `Hooks.on_hypercall`."""
        offered = self._vm.require("EXIT_HYPERCALL", f"a callback for hypercall {nr}")
        if nr < 0 or not offered >> nr & 1:
            listed = ", ".join(str(n) for n in range(offered.bit_length()) if offered >> n & 1)
            raise MissingCapability(f"hypercall {nr}: this KVM passes on only {listed or 'none'}")
        on = self._vm.enabled.get("EXIT_HYPERCALL", (0,))[0]
        if not on >> nr & 1:
            self._vm.enable_cap("EXIT_HYPERCALL", on | 1 << nr)

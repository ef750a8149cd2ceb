# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's variable-length arrays (struct kvm_cpuid2, struct kvm_msrs) to and from Python lists."""

from __future__ import annotations

from vmm.abi.cpuid import CpuidEntry
from vmm.base.light import lru_cache
from vmm.kvm._kvm import ffi
from vmm.kvm.state import put

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


uncleared = ffi.new_allocator(should_clear_after_alloc=False)
"""As `ffi.new`, without a look at the memory: what is large costs a VM nothing until it is used."""


def cpuid_list(raw: Any) -> list[CpuidEntry]:
    """The entries of a struct kvm_cpuid2."""
    return [
        CpuidEntry(each.function, each.index, each.flags, each.eax, each.ebx, each.ecx, each.edx)
        for each in raw.entries[0 : raw.nent]
    ]


def cpuid_buffer(entries: Sequence[CpuidEntry]) -> Any:
    """A struct kvm_cpuid2 of these entries, not to be changed. UsageError for a value that does not fit."""
    return _cpuid_buffer(tuple(entries))


@lru_cache(maxsize=16)  # VM after VM of a process is given the same forty entries
def _cpuid_buffer(entries: tuple[CpuidEntry, ...]) -> Any:
    # The members stand in the order of CpuidEntry, so that an entry is one step.
    try:
        return ffi.new("struct kvm_cpuid2 *", [len(entries), 0, entries])
    except (OverflowError, TypeError):
        raw = ffi.new("struct kvm_cpuid_entry2 *")
        for entry in entries:
            for name, value in zip(CpuidEntry._fields, entry, strict=True):
                put(raw, name, value, f"CPUID {entry.function:#x}, {name}")
        raise


def msr_buffer(values: dict[int, int]) -> Any:
    """A struct kvm_msrs of index -> value. UsageError for one that does not fit."""
    raw = ffi.new("struct kvm_msrs *", {"nmsrs": len(values), "entries": len(values)})
    for slot, (index, value) in zip(raw.entries[0 : len(values)], values.items(), strict=True):
        put(slot, "index", index, f"the number of MSR {index:#x}")
        put(slot, "data", value, f"the value of MSR {index:#x}")
    return raw

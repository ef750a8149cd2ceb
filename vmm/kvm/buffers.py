# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's variable-length arrays (struct kvm_cpuid2, struct kvm_msrs) to and from Python lists."""

from __future__ import annotations

from typing import Any

from vmm.abi.cpuid import CpuidEntry
from vmm.kvm._kvm import ffi
from vmm.kvm.state import put


def cpuid_list(raw: Any) -> list[CpuidEntry]:
    """The entries of a struct kvm_cpuid2."""
    return [
        CpuidEntry(each.function, each.index, each.flags, each.eax, each.ebx, each.ecx, each.edx)
        for each in raw.entries[0 : raw.nent]
    ]


def cpuid_buffer(entries: list[CpuidEntry]) -> Any:
    """A struct kvm_cpuid2 of these entries. UsageError for a value that does not fit."""
    raw = ffi.new("struct kvm_cpuid2 *", {"nent": len(entries), "entries": len(entries)})
    for slot, entry in zip(raw.entries[0 : len(entries)], entries, strict=True):
        for name, value in zip(CpuidEntry._fields, entry, strict=True):
            put(slot, name, value, f"CPUID {entry.function:#x}, {name}")
    return raw


def msr_buffer(values: dict[int, int]) -> Any:
    """A struct kvm_msrs of index -> value. UsageError for one that does not fit."""
    raw = ffi.new("struct kvm_msrs *", {"nmsrs": len(values), "entries": len(values)})
    for slot, (index, value) in zip(raw.entries[0 : len(values)], values.items(), strict=True):
        put(slot, "index", index, f"the number of MSR {index:#x}")
        put(slot, "data", value, f"the value of MSR {index:#x}")
    return raw

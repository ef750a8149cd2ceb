# SPDX-License-Identifier: GPL-2.0-or-later
"""Arrays in memory as C has them, the kernel's (struct kvm_cpuid2, struct kvm_msrs) above all, to and from lists."""

from __future__ import annotations

from vmm.abi.cpuid_entry import CpuidEntry
from vmm.errors import UsageError
from vmm.kvm._kvm import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


uncleared = ffi.new_allocator(should_clear_after_alloc=False)
"""As `ffi.new`, without a look at the memory: what is large costs a VM nothing until it is used."""


def put(raw: Any, member: str, value: Any, what: str) -> None:
    """Set one member of a C struct; `what` names it in the message.

    Raises:
        UsageError: the value does not fit.
    """
    try:
        setattr(raw, member, value)
    except (OverflowError, TypeError, IndexError) as error:
        raise UsageError(f"{what}: {value!r} does not fit: {error}") from error


def from_bytes(kind: str, data: bytes) -> Any:
    """A C struct of `kind` holding exactly `data`.

    Raises:
        UsageError: the length is not the struct's.
    """
    raw = ffi.new(f"{kind} *")
    if len(data) != ffi.sizeof(kind):
        raise UsageError(f"{kind} is {ffi.sizeof(kind)} bytes, and {len(data)} were given")
    ffi.memmove(raw, data, len(data))
    return raw


def to_bytes(raw: Any) -> bytes:
    """The bytes of a C struct that `ffi.new` made."""
    return bytes(ffi.buffer(raw))


def packed(kind: str, values: dict[str, Any]) -> bytes:
    """The bytes of a C struct of `kind` with these members, structs in it as dicts; all others are zero."""
    return bytes(ffi.buffer(ffi.new(f"{kind} *", values)))


def packed_u64(values: Sequence[int]) -> bytes:
    """Numbers of 64 bits one after the other, as x86 has them in memory. The module `struct` would be another file to
    load for every run. OverflowError for one that does not fit.
    """
    return bytes(ffi.buffer(ffi.new("__u64[]", list(values))))


def counted_up(first: int, step: int, count: int) -> bytes:
    """`count` numbers of 64 bits from `first` on, as `packed_u64` has them: every start makes some thousand of them."""
    made = uncleared("__u64[]", count)
    lib.vmm_counted_up(made, first, step, count)
    return bytes(ffi.buffer(made))


def cpuid_list(raw: Any) -> list[CpuidEntry]:
    """The entries of a struct kvm_cpuid2."""
    return [
        CpuidEntry(each.function, each.index, each.flags, each.eax, each.ebx, each.ecx, each.edx)
        for each in raw.entries[0 : raw.nent]
    ]


def cpuid_buffer(entries: Sequence[CpuidEntry]) -> Any:
    """A struct kvm_cpuid2 of these entries. UsageError for a value that does not fit."""
    # The members stand in the order of CpuidEntry, so that an entry is one step.
    try:
        return ffi.new("struct kvm_cpuid2 *", [len(entries), 0, list(entries)])
    except (OverflowError, TypeError):
        raw = ffi.new("struct kvm_cpuid_entry2 *")
        for entry in entries:
            for name, value in zip(CpuidEntry._fields, entry, strict=True):
                put(raw, name, value, f"CPUID {entry.function:#x}, {name}")
        raise


def cpuid_copy(raw: Any) -> Any:
    """A struct kvm_cpuid2 of its own with the same entries."""
    copy = ffi.new("struct kvm_cpuid2 *", {"nent": raw.nent, "entries": raw.nent})
    ffi.memmove(copy.entries, raw.entries, raw.nent * ffi.sizeof("struct kvm_cpuid_entry2"))
    return copy


def cpuid_bytes(raw: Any) -> bytes:
    """A struct kvm_cpuid2 with its entries, as KVM takes it."""
    used = ffi.sizeof("struct kvm_cpuid2") + raw.nent * ffi.sizeof("struct kvm_cpuid_entry2")
    return bytes(ffi.buffer(raw, used))


def msr_buffer(values: dict[int, int]) -> Any:
    """A struct kvm_msrs of index -> value. UsageError for one that does not fit."""
    raw = ffi.new("struct kvm_msrs *", {"nmsrs": len(values), "entries": len(values)})
    for slot, (index, value) in zip(raw.entries[0 : len(values)], values.items(), strict=True):
        put(slot, "index", index, f"the number of MSR {index:#x}")
        put(slot, "data", value, f"the value of MSR {index:#x}")
    return raw

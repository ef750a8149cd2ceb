# SPDX-License-Identifier: GPL-2.0-or-later
"""MSRs that a filter denies beside what it says of others: the fewest ranges. It knows numbers; it knows no VM.

Of the ranges that hold an MSR the first decides (kvm_msr_allowed in arch/x86/kvm/x86.c), so a range that denies two
MSRs has to repeat what the rest of the filter says of those between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vmm.abi import flags
from vmm.abi.rows import value_of

SPAN = value_of(flags.MSR_FILTER_LIMITS, "KVM_MSR_FILTER_MAX_BITMAP_SIZE") * 8  # MSRs in one range


def denying(denied: Iterable[int], allowed: Callable[[int], bool]) -> list[tuple[int, tuple[bool, ...]]]:
    """(base, allowed) of each range in which `denied` are denied, and every other MSR is as `allowed` says."""
    groups: list[list[int]] = []
    for index in sorted(set(denied)):
        if groups and index < groups[-1][0] + SPAN:
            groups[-1].append(index)
        else:
            groups.append([index])
    return [
        (group[0], tuple(index not in group and allowed(index) for index in range(group[0], group[-1] + 1)))
        for group in groups
    ]

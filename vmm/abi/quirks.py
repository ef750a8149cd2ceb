# SPDX-License-Identifier: GPL-2.0-or-later
"""Old behaviours of KVM on x86 that KVM_CAP_DISABLE_QUIRKS2 can switch off. Source: <asm/kvm.h>, api.rst 7.31."""

from __future__ import annotations

from vmm.abi.rows import Named
from vmm.base import names

HEADER = "asm/kvm.h"
PREFIX = "KVM_X86_QUIRK_"


def _quirk(bit: int, name: str, meaning: str, since: str | None = None) -> Named:
    return Named(1 << bit, PREFIX + name, meaning, since, HEADER)


QUIRKS = (
    _quirk(0, "LINT0_REENABLED", "LINT0 of the boot vCPU's local APIC starts enabled"),
    _quirk(1, "CD_NW_CLEARED", "CR0.CD and CR0.NW are ignored, caching stays on"),
    _quirk(2, "LAPIC_MMIO_HOLE", "the local APIC's page answers MMIO although x2APIC mode is on"),
    _quirk(3, "OUT_7E_INC_RIP", "OUT to port 0x7e steps RIP before the exit"),
    _quirk(4, "MISC_ENABLE_NO_MWAIT", "MSR_IA32_MISC_ENABLE bit 18 changes the CPUID bit of MONITOR/MWAIT"),
    _quirk(5, "FIX_HYPERCALL_INSN", "a hypercall instruction of the other vendor is rewritten in guest memory"),
    _quirk(6, "MWAIT_NEVER_UD_FAULTS", "MONITOR and MWAIT do nothing instead of raising #UD when hidden in CPUID"),
    _quirk(7, "SLOT_ZAP_ALL", "removing a memslot drops all shadow pages of the VM", "6.12"),
    _quirk(8, "STUFF_FEATURE_MSRS", "feature MSRs start with the most that KVM can offer", "6.14"),
    _quirk(9, "IGNORE_GUEST_PAT", "the guest's memory types are ignored on Intel", "6.16"),
    _quirk(10, "VMCS12_ALLOW_FREEZE_IN_SMM", "a nested VMCS may set FREEZE_IN_SMM", "7.0"),
    _quirk(11, "NESTED_SVM_SHARED_PAT", "a nested SVM guest shares the PAT of its hypervisor", "7.2"),
)
_BY_NAME = {row.name.removeprefix(PREFIX): row for row in QUIRKS}


def find(name: str) -> Named | None:
    """The row of a quirk by name, with or without KVM_X86_QUIRK_; None if there is none."""
    return _BY_NAME.get(names.strip_prefix(name, PREFIX))


def quirk(name: str) -> Named:
    """The row of a quirk that our own text names. KeyError: there is none."""
    row = find(name)
    if row is None:
        raise KeyError(name)
    return row


def unknown(name: str) -> str:
    """The sentence for a name that `find` does not know."""
    return names.unknown("quirk", names.strip_prefix(name, PREFIX), _BY_NAME)

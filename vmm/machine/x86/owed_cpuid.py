# SPDX-License-Identifier: GPL-2.0-or-later
"""From the CPUID that KVM offers to the one that a guest gets: what a VMM owes it besides, each with its reason.

KVM_GET_SUPPORTED_CPUID says what KVM can do; some bits it leaves to the VMM, because only the VMM knows the machine.
The rows here are asked of KVM, or of the machine that is being made, never of a version. What nobody edits stays in
KVM's own form, one struct kvm_cpuid2 for all machines of a process; who edits it gets a model (cpuid.py) of that.
Source: Documentation/virt/kvm/api.rst, KVM_GET_SUPPORTED_CPUID.
"""

from __future__ import annotations

from vmm.abi.cpuid_entry import APIC_ID_AT, HYPERVISOR, PV_UNHALT, SIGNATURE, SIGNATURE_BASES, TSC_DEADLINE, X2APIC
from vmm.base.light import lru_cache
from vmm.kvm.buffers import cpuid_copy, cpuid_list
from vmm.kvm.plain import offered_cpuid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmm.kvm.system import Kvm
    from vmm.machine.x86.cpuid import CpuidModel

# HYPERVISOR: leaf 1 ECX[31], which no CPU sets: by it software knows that CPUID 0x40000000 is worth asking (AMD APM
# vol. 3, E.3.2). A guest that does not find it looks for no KVM. KVM itself offers it since Linux 6.14 only.
# TSC_DEADLINE: leaf 1 ECX[24], a mode of the local APIC's timer. KVM announces it by KVM_CAP_TSC_DEADLINE_TIMER, for
# machines whose local APIC is KVM's; in CPUID it offers it since Linux 6.14 only, and then for any machine.
OF_THE_LAPIC = (TSC_DEADLINE, X2APIC, PV_UNHALT)
"""Offered by KVM for any machine, and to be had only where the local APIC is KVM's (api.rst, "Local APIC features")."""


def complete(offer: Any, *, lapic: bool, deadline_timer: bool) -> None:
    """Change KVM's offer, a struct kvm_cpuid2, to what a guest of pyvmm gets.

    `lapic`: KVM has the local APICs (irqchip kernel or split). `deadline_timer`: what KVM_CAP_TSC_DEADLINE_TIMER says.
    """
    leaves = {each.function: each for each in offer.entries[0 : offer.nent] if not each.index}
    changes = [(HYPERVISOR, True)]
    if not lapic:
        changes += [(feature, False) for feature in OF_THE_LAPIC]
    elif deadline_timer:
        changes.append((TSC_DEADLINE, True))
    for feature, on in changes:
        entry = leaves.get(_kvm_base(leaves) + 1 if feature.is_kvm else feature.leaf)
        if entry is not None:
            value = getattr(entry, feature.register)
            setattr(entry, feature.register, value | feature.mask if on else value & ~feature.mask)


def _kvm_base(leaves: dict[int, Any]) -> int:
    """The leaf of KVM's signature, as a guest finds it; below all leaves if there is none."""
    held = ((base, leaves[base]) for base in SIGNATURE_BASES if base in leaves)
    return next((base for base, row in held if (row.ebx, row.ecx, row.edx) == SIGNATURE), -2)


_offers: dict[bool, Any] = {}  # by `lapic`


def _offer(kvm: Kvm, lapic: bool) -> Any:
    """KVM is asked once per process: its answer takes as long as making a VM."""
    if lapic not in _offers:
        offer = kvm.offered_cpuid()
        complete(offer, lapic=lapic, deadline_timer=bool(lapic and kvm.check_extension("TSC_DEADLINE_TIMER")))
        _offers[lapic] = offer
    return _offers[lapic]


def exposed(kvm: Kvm, *, lapic: bool) -> CpuidModel:
    """What a guest of pyvmm gets where nobody edits it, a model to be edited."""
    from vmm.machine.x86.cpuid import CpuidModel

    return CpuidModel(cpuid_list(_offer(kvm, lapic)))


def unedited(kvm: Kvm, apic_id: int, *, lapic: bool) -> Any:
    """What the vCPU with this APIC id gets where nobody edits CPUID, for KVM_SET_CPUID2: a struct kvm_cpuid2, one for
    every machine of a process, and not to be changed.
    """
    return with_apic_id(_offer(kvm, lapic), apic_id)


def of_first_vcpu(kvm: int | None) -> Any | None:
    """As `unedited` without a LAPIC of KVM's, for APIC id 0; `kvm` is the descriptor of /dev/kvm, or None: what is
    known. None: KVM does not answer at once, and `unedited` says why, or asks it again; or nothing is known yet.
    """
    if False not in _offers:
        if kvm is None:
            return None
        offer = offered_cpuid(kvm)
        if offer is None:
            return None
        complete(offer, lapic=False, deadline_timer=False)
        _offers[False] = offer
    return with_apic_id(_offers[False], 0)


@lru_cache(maxsize=64)
def with_apic_id(offer: Any, apic_id: int) -> Any:
    """A copy of a struct kvm_cpuid2 in which each place of the APIC id holds this one."""
    own = cpuid_copy(offer)
    for entry in own.entries[0 : own.nent]:
        if entry.function in APIC_ID_AT:
            register, lowest, width = APIC_ID_AT[entry.function]
            mask = (1 << width) - 1 << lowest
            setattr(entry, register, getattr(entry, register) & ~mask | apic_id << lowest & mask)
    return own

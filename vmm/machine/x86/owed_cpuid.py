# SPDX-License-Identifier: GPL-2.0-or-later
"""From the CPUID that KVM offers to the one that a guest gets: what a VMM owes it besides, each with its reason.

KVM_GET_SUPPORTED_CPUID says what KVM can do; some bits it leaves to the VMM, because only the VMM knows the machine.
The rows here are asked of KVM, or of the machine that is being made, never of a version. What belongs to one vCPU (its
APIC id) is CpuidModel.set_apic_id's. Source: Documentation/virt/kvm/api.rst, KVM_GET_SUPPORTED_CPUID.
"""

from __future__ import annotations

from vmm.base.light import lru_cache
from vmm.kvm.system import Kvm
from vmm.machine.x86.cpuid import CpuidModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmm.abi.cpuid import CpuidEntry

HYPERVISOR = "hypervisor"
"""Leaf 1 ECX[31], which no CPU sets: by it software knows that CPUID 0x40000000 is worth asking (AMD APM vol. 3,
E.3.2). A guest that does not find it looks for no KVM. KVM itself offers it since Linux 6.14 only."""
TSC_DEADLINE = "tsc_deadline_timer"
"""Leaf 1 ECX[24], a mode of the local APIC's timer. KVM announces it by KVM_CAP_TSC_DEADLINE_TIMER, for machines whose
local APIC is KVM's; in CPUID it offers it since Linux 6.14 only, and then for any machine."""
OF_THE_LAPIC = (TSC_DEADLINE, "x2apic", "PV_UNHALT")
"""Offered by KVM for any machine, and to be had only where the local APIC is KVM's (api.rst, "Local APIC features")."""


def complete(model: CpuidModel, *, lapic: bool, deadline_timer: bool) -> CpuidModel:
    """The model of KVM's offer, changed to what a guest of pyvmm gets, and given back.

    `lapic`: KVM has the local APICs (irqchip kernel or split). `deadline_timer`: what KVM_CAP_TSC_DEADLINE_TIMER says.
    """
    model.enable(HYPERVISOR)
    if not lapic:
        model.disable(*OF_THE_LAPIC)
    elif deadline_timer:
        model.enable(TSC_DEADLINE)
    return model


_models: dict[bool, CpuidModel] = {}  # by `lapic`


def exposed(kvm: Kvm, *, lapic: bool) -> CpuidModel:
    """What a guest of pyvmm gets where nobody edits it, a copy to be edited. KVM is asked once per process: its answer
    takes as long as making a VM.
    """
    if lapic not in _models:
        offered = CpuidModel(kvm.get_supported_cpuid())
        deadline_timer = bool(lapic and kvm.check_extension("TSC_DEADLINE_TIMER"))
        _models[lapic] = complete(offered, lapic=lapic, deadline_timer=deadline_timer)
        _models[lapic].wanted.clear()  # that was ours
    return _models[lapic].copy()


@lru_cache(maxsize=64)
def unedited(apic_id: int, *, lapic: bool) -> tuple[CpuidEntry, ...]:
    """What the vCPU with this APIC id gets where nobody edits CPUID: the same in every machine of a process. `exposed`
    has been called before.
    """
    return _models[lapic].of_vcpu(apic_id)

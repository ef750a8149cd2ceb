# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest has switched on of KVM's paravirtual MSRs, and what stands in the memory that it gave for them: of one
vCPU, as it is now. An operating system says so nowhere else than here.

Source: Documentation/virt/kvm/x86/msr.rst. It changes nothing, and prints nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.abi.msrs import KVM_MSRS
from vmm.abi.structs import KVM_STEAL_TIME
from vmm.errors import VmmError

if TYPE_CHECKING:
    from vmm.machine.machine import Machine
    from vmm.machine.run.cpu import Cpu

# The clock's old MSR, 0x12, reads as its new one does: they are one to KVM.
SWITCHES = (
    "MSR_KVM_SYSTEM_TIME_NEW", "MSR_KVM_ASYNC_PF_EN", "MSR_KVM_STEAL_TIME", "MSR_KVM_PV_EOI_EN",
    "MSR_KVM_MIGRATION_CONTROL",
)  # fmt: skip
ADDRESS = ~0x3F
"""Of the steal-time MSR: what lies below is its switch, and reserved."""


def used(machine: Machine, cpu: Cpu) -> dict[str, int]:
    """The MSRs that are not 0, by name; `steal` in ns and `preempted` besides, where there is such a page.

    KVM refuses an MSR that this guest's CPUID does not offer, or this kernel does not have: that one is left out.
    """
    found = {}
    for row in KVM_MSRS:
        if row.name in SWITCHES and (value := _value(cpu, row.number)):
            found[row.name] = value
    if page := found.get("MSR_KVM_STEAL_TIME"):
        try:
            data = machine.memory.read(page & ADDRESS, KVM_STEAL_TIME.size)
        except VmmError:
            return found  # not in memory: KVM found no page there either
        fields = KVM_STEAL_TIME.unpack(data)
        found["steal"], found["preempted"] = fields["steal"], fields["preempted"]
    return found


def _value(cpu: Cpu, index: int) -> int:
    try:
        return cpu.vcpu.get_msrs([index]).get(index, 0)
    except VmmError:
        return 0

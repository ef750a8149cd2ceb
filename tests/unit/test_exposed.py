# SPDX-License-Identifier: GPL-2.0-or-later
"""What a VMM adds to KVM's offer and takes from it, for offers of old kernels and of new ones."""

import pytest

from vmm.abi.cpuid import CpuidEntry
from vmm.machine.x86.cpuid import CpuidModel
from vmm.machine.x86.owed_cpuid import complete

OLD = ("x2apic", "PV_UNHALT", "STEAL_TIME", "pni")  # before 6.14 KVM offers neither of the next two
NEW = (*OLD, "hypervisor", "tsc_deadline_timer")


def offer(*features: str) -> CpuidModel:
    model = CpuidModel([CpuidEntry(1)])
    model.set_kvm_signature()
    model.enable(*features)
    return model


@pytest.mark.parametrize("features", [OLD, NEW], ids=["old", "new"])
@pytest.mark.parametrize("lapic", [True, False])
@pytest.mark.parametrize("deadline_timer", [True, False])
def test_what_is_owed(features, lapic, deadline_timer):
    got = complete(offer(*features), lapic=lapic, deadline_timer=deadline_timer)
    assert got.has("hypervisor")
    assert got.has("tsc_deadline_timer") == (lapic and (deadline_timer or features == NEW))
    assert got.has("x2apic") == got.has("PV_UNHALT") == lapic
    assert got.has("STEAL_TIME")
    assert got.has("pni")


def test_nothing_else_changes():
    before = offer(*NEW)
    assert complete(before.copy(), lapic=True, deadline_timer=True) == before


def test_without_kvms_leaves():
    model = complete(CpuidModel([CpuidEntry(1)]), lapic=False, deadline_timer=False)
    assert [entry.ecx for entry in model] == [1 << 31]

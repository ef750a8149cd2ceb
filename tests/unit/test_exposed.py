# SPDX-License-Identifier: GPL-2.0-or-later
"""What a VMM adds to KVM's offer and takes from it, for offers of old kernels and of new ones."""

import pytest

from vmm.abi.cpuid import CpuidEntry
from vmm.kvm.buffers import cpuid_buffer, cpuid_list
from vmm.machine.x86 import owed_cpuid
from vmm.machine.x86.cpuid import CpuidModel

OLD = ("x2apic", "PV_UNHALT", "STEAL_TIME", "pni")  # before 6.14 KVM offers neither of the next two
NEW = (*OLD, "hypervisor", "tsc_deadline_timer")


def offer(*features: str) -> CpuidModel:
    model = CpuidModel([CpuidEntry(1)])
    model.set_kvm_signature()
    model.enable(*features)
    return model


def complete(model: CpuidModel, *, lapic: bool, deadline_timer: bool) -> CpuidModel:
    raw = cpuid_buffer(model.entries())
    owed_cpuid.complete(raw, lapic=lapic, deadline_timer=deadline_timer)
    return CpuidModel(cpuid_list(raw))


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


def test_kvms_features_are_found_where_its_signature_is():
    """Behind those of Hyper-V, whose own leaf of features has other bits at 0x40000001."""
    model = offer(*OLD)
    model.set_kvm_signature(0x40000100)
    other = CpuidEntry(0x40000001, eax=0xFFFFFFFF)
    model.put(other)
    got = complete(model, lapic=False, deadline_timer=False)
    assert not got.has("PV_UNHALT")
    assert got.has("STEAL_TIME")
    assert got.get(0x40000001) == other


def test_a_vcpu_has_its_own_apic_id_and_nobody_elses():
    """The rule of the model, which the tests of cpuid.py hold, in the form that nobody edits."""
    leaves = [CpuidEntry(each, eax=0x1234, ebx=0xFF00FF00, edx=0x77) for each in (0, 1, 0xB, 0x8000001E, 0x80000026)]
    model = CpuidModel([*leaves, CpuidEntry(0x1F, 1, 1, edx=3)])
    raw = cpuid_buffer(model.entries())
    for apic_id in (0, 5, 0x123):
        assert tuple(cpuid_list(owed_cpuid.with_apic_id(raw, apic_id))) == model.of_vcpu(apic_id)
    assert cpuid_list(raw) == model.entries()

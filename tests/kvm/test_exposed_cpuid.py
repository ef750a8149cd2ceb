# SPDX-License-Identifier: GPL-2.0-or-later
"""The CPUID that KVM keeps for a vCPU of pyvmm: what KVM offers, and what a VMM owes besides."""

import os
from collections.abc import Iterator

import pytest

from vmm.kvm.system import Kvm
from vmm.machine.machine import Machine
from vmm.machine.x86.cpuid import CpuidModel
from vmm.machine.x86.owed_cpuid import OF_THE_LAPIC

pytestmark = [pytest.mark.kvm, pytest.mark.every_host]


@pytest.mark.parametrize("irqchip", ["none", "kernel", "split"])
def test_a_guest_gets_what_it_is_owed(irqchip):
    with Machine(irqchip=irqchip) as m:
        offered = CpuidModel(m.kvm.get_supported_cpuid())
        announced = bool(m.kvm.check_extension("TSC_DEADLINE_TIMER"))
        got = CpuidModel(m.cpus[0].vcpu.get_cpuid2())
    assert got.has("hypervisor")
    assert got.has("tsc_deadline_timer") == (irqchip != "none" and (announced or offered.has("tsc_deadline_timer")))
    for name in (feature.name for feature in OF_THE_LAPIC[1:]):
        assert got.has(name) == (irqchip != "none" and offered.has(name))


def test_the_guest_sees_the_hypervisor_bit():
    with Machine() as m:
        m.load("mov eax, 1; xor ecx, ecx; cpuid; mov eax, ecx; shr eax, 31; out 0x80, al; hlt")
        seen = []
        m.on_port_write(0x80, seen.append)
        m.run(timeout=20)
    assert seen == [1]


def test_each_vcpu_has_its_own_apic_id_in_every_leaf_that_tells_it():
    """0x80000026 is in no offer yet: a VMM that puts it gets it right too."""

    def amd(model: CpuidModel) -> None:
        for leaf, index in ((0x8000001E, 0), (0x80000026, 0), (0x80000026, 1)):
            model.set_register(leaf, index, "ebx", 0x100)
        model.set_register(0x80000000, 0, "eax", 0x80000026)

    with Machine(irqchip="split", cpus=[0, 3, 7], cpuid=amd) as m:
        for runner, apic_id in zip(m.cpus, (0, 3, 7), strict=True):
            got = CpuidModel(runner.vcpu.get_cpuid2())
            assert got.register(1, 0, "ebx") >> 24 == apic_id
            assert got.register(0x8000001E, 0, "eax") == apic_id
            assert [got.register(0x80000026, index, "edx") for index in (0, 1)] == [apic_id] * 2
            assert {entry.edx for entry in got if entry.function in (0xB, 0x1F)} <= {apic_id}


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """What KVM says it supports has the APIC ID of the CPU that asked."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


def test_what_kvm_offers_stays_what_kvm_says(kvm: Kvm, one_cpu: None):
    before = kvm.get_supported_cpuid()
    with Machine(irqchip="kernel"):
        assert kvm.get_supported_cpuid() == before

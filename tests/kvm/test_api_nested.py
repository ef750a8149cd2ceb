# SPDX-License-Identifier: GPL-2.0-or-later
"""nested_svm, nested_vmx and what they leave behind, on the device: works where KVM offers it, else absent."""

from __future__ import annotations

from functools import cache

import pytest

from vmm.kvm import Kvm
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import supported
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict

pytestmark = [pytest.mark.kvm, pytest.mark.every_host]
FEATURES = {"nested_svm": "svm", "nested_vmx": "vmx"}


@cache  # the proof as it should be is looked at by two tests, and takes half a minute where the CPU is emulated
def rows(name: str, mask: tuple[str, ...] = ()) -> list[Row]:
    return prove(find(name), Options(mask=mask))


@pytest.mark.on_demand  # a host's probe has the same rows and refusals, which the lab judges
@pytest.mark.parametrize("name", FEATURES)
def test_as_kvm_offers_it(name: str, kvm: Kvm) -> None:
    basics, state = rows(name)
    if not supported().has(FEATURES[name]):
        for row in (basics, state):
            assert row.verdict is Verdict.ABSENT
            assert f"does not offer {FEATURES[name]}" in row.finding.reason
        return
    assert basics.verdict is Verdict.WORKS, basics.finding.reason
    wanted = Verdict.WORKS if kvm.check_extension("NESTED_STATE") else Verdict.ABSENT
    assert state.verdict is wanted, state.finding.reason


@pytest.mark.parametrize("name", FEATURES)
def test_masked_it_is_absent(name: str) -> None:
    if not supported().has(FEATURES[name]):
        pytest.skip(f"this KVM does not offer {FEATURES[name]}")
    for row in rows(name, (FEATURES[name],)):
        assert (row.verdict, row.finding.reason) == (Verdict.ABSENT, "masked")


@pytest.mark.on_demand
@pytest.mark.parametrize("name", FEATURES)
def test_a_guest_that_does_not_see_it_cannot(name: str) -> None:
    if not supported().has(FEATURES[name]):
        pytest.skip(f"this KVM does not offer {FEATURES[name]}")
    refusals = rows(name)[0].refusals
    assert [each.kind for each in refusals] == ["control", "masked"]
    assert all(each.holds for each in refusals), refusals


def test_nested_state_of_a_vcpu_that_never_was_a_hypervisor(kvm: Kvm) -> None:
    size = kvm.check_extension("NESTED_STATE")
    if not size:
        pytest.skip("this KVM has no KVM_CAP_NESTED_STATE")
    with kvm.create_vm() as vm, vm.create_vcpu(0) as vcpu:
        vcpu.set_cpuid2(kvm.get_supported_cpuid())
        state = vcpu.get_nested_state(size)
        assert not state.guest_mode
        vcpu.set_nested_state(state)
        vcpu.set_nested_state(state.outside)
        assert vcpu.get_nested_state(size).flags == state.outside.flags

# SPDX-License-Identifier: GPL-2.0-or-later
"""/dev/kvm itself: each system ioctl by its effect, and what is said when the device cannot be used."""

from __future__ import annotations

import errno
import struct

import pytest

from vmm.abi import irq
from vmm.abi.caps import CAPS
from vmm.abi.cpuid import SIGNATURE
from vmm.errors import EXIT_CANNOT_SHOW, HINTS, HostError, KvmCallError, MissingCapability, UsageError
from vmm.kvm import Kvm
from vmm.kvm.irqchip import setup_mce

pytestmark = pytest.mark.every_host


def test_the_api_and_the_size_of_kvm_run(kvm):
    assert kvm.get_api_version() == 12
    size = kvm.get_vcpu_mmap_size()
    assert size >= 4096
    assert size % 4096 == 0


def test_a_missing_device_says_what_to_try(tmp_path):
    with pytest.raises(KvmCallError) as caught:
        Kvm.open(str(tmp_path / "kvm"))
    assert (caught.value.call, caught.value.errno) == ("open", errno.ENOENT)
    assert "try: `pyvmm doctor`" in str(caught.value)
    assert "ENOENT" in str(caught.value)
    assert HINTS["open", errno.ENOENT] in str(caught.value)


def test_a_device_that_is_not_kvm_is_named(tmp_path):
    with pytest.raises(HostError, match=r"/dev/null is not KVM.*\n *try:"):
        Kvm.open("/dev/null")


@pytest.mark.parametrize("err", [errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENODEV, errno.ENXIO])
def test_every_way_the_device_fails_has_a_hint(err):
    assert "try:" in str(KvmCallError("open", err, "opening /dev/kvm"))


def test_every_capability_can_be_asked_for_on_both_descriptors(kvm, vm):
    for row in CAPS:
        assert kvm.check_extension(row.name) >= 0
        assert vm.check_extension(row.kernel_name) >= 0


@pytest.mark.parametrize("spelling", ["USER_MEMORY", "KVM_CAP_USER_MEMORY", "user-memory"])
def test_a_capability_answers_to_its_names(kvm, vm, spelling):
    for handle in (kvm, vm):
        assert handle.check_extension(spelling) == handle.require(spelling, "this test") == 1


def test_a_capability_that_nobody_knows_offers_the_nearest(kvm, vm):
    for handle in (kvm, vm):
        with pytest.raises(UsageError, match="STEAL_TIME"):
            handle.check_extension("STEEL_TIME")


def test_a_missing_capability_has_name_number_and_need(kvm, vm):
    for handle in (kvm, vm):
        row = next(row for row in CAPS if handle.check_extension(row.name) == 0)
        with pytest.raises(MissingCapability) as caught:
            handle.require(row.name, "payload x")
        for part in (row.kernel_name, f"({row.number})", "payload x needs"):
            assert part in str(caught.value)
        assert caught.value.exit_code == EXIT_CANNOT_SHOW


def test_a_vm_type_that_does_not_exist_is_refused(kvm):
    with pytest.raises(KvmCallError) as caught:
        kvm.create_vm(0x1234)
    assert (caught.value.call, caught.value.errno) == ("KVM_CREATE_VM", errno.EINVAL)
    assert "creating a VM" in str(caught.value)


def test_supported_cpuid_has_the_processor_and_kvm(kvm):
    leaves = {entry.function: entry for entry in kvm.get_supported_cpuid()}
    vendor = struct.pack("<III", leaves[0].ebx, leaves[0].edx, leaves[0].ecx)
    assert vendor in (b"GenuineIntel", b"AuthenticAMD", b"HygonGenuine", b"CentaurHauls")
    pv = leaves[0x4000_0000]
    assert (pv.ebx, pv.ecx, pv.edx) == SIGNATURE
    assert pv.eax >= 0x4000_0001
    assert leaves[0x4000_0001].eax


def test_emulated_cpuid_is_a_list_of_its_own(kvm):
    emulated = kvm.get_emulated_cpuid()
    assert emulated
    assert emulated != kvm.get_supported_cpuid()


def test_the_machine_checks_that_a_vcpu_may_have_are_those_that_setup_mce_takes(kvm, vm):
    supported = kvm.get_mce_cap_supported()
    assert supported & irq.MCG_CTL_P
    setup_mce(vm.create_vcpu(0), supported | 1)  # one bank
    with pytest.raises(KvmCallError, match="KVM_X86_SETUP_MCE"):
        setup_mce(vm.create_vcpu(1), ~supported & 0xFFFF_FF00 | 1)


def test_msr_lists_and_feature_msrs(kvm):
    state, features = kvm.get_msr_index_list(), kvm.get_msr_feature_index_list()
    assert 0x10 in state  # MSR_IA32_TSC
    assert len(state) == len(set(state))
    assert features
    assert list(kvm.get_feature_msrs(features)) == features


def test_feature_msrs_end_at_the_first_that_kvm_refuses(kvm):
    features = kvm.get_msr_feature_index_list()
    assert list(kvm.get_feature_msrs([features[0], 0xDEAD_0000, features[-1]])) == [features[0]]


def test_a_number_that_fits_nowhere_is_a_usage_error(kvm):
    for wrong in (-1, 1 << 64):
        with pytest.raises(UsageError, match="64 bits"):
            kvm.create_vm(wrong)


def test_after_close_nothing_can_be_asked(kvm):
    kvm.close()
    kvm.close()
    assert kvm.closed
    for ask in (kvm.get_api_version, kvm.create_vm, kvm.get_supported_cpuid, lambda: kvm.check_extension("HLT")):
        with pytest.raises(HostError, match="/dev/kvm has been closed"):
            ask()

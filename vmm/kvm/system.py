# SPDX-License-Identifier: GPL-2.0-or-later
"""/dev/kvm itself: what the host's KVM is and offers, and the way to a VM. One method per system ioctl.

Methods carry the kernel's names without the KVM_ prefix; Documentation/virt/kvm/api.rst says what each does.
"""

from __future__ import annotations

import errno
import gc
import os

from vmm.errors import HostError, KvmCallError
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.buffers import cpuid_list, msr_buffer
from vmm.kvm.capabilities import check_extension, require
from vmm.kvm.handle import Handle
from vmm.kvm.vm import Vm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmm.abi.cpuid_entry import CpuidEntry

DEVICE = "/dev/kvm"
MAX_LIST = 4096  # far above any list KVM gives; bounds the growth on E2BIG


class Kvm(Handle):
    """The system descriptor. `with Kvm.open() as kvm, kvm.create_vm() as vm: ...`"""

    what = "/dev/kvm"

    @classmethod
    def open(cls, path: str = DEVICE) -> Kvm:
        """Open the device and check that it speaks the API this binding was built for (version 12).

        Raises:
            KvmCallError: it cannot be opened (ENOENT, EACCES, ...); the message says what to try.
            HostError: it is not KVM, or another API version.
        """
        fd = lib.vmm_open(os.fsencode(path), os.O_RDWR)
        if fd == -errno.EMFILE and gc.collect():  # machines that were dropped may still hold some
            fd = lib.vmm_open(os.fsencode(path), os.O_RDWR)
        if fd < 0:
            raise KvmCallError("open", -fd, f"opening {path}")
        kvm = cls(fd)
        try:
            version = kvm.get_api_version()
        except KvmCallError as error:
            kvm.close()
            raise HostError(
                f"{path} is not KVM: {error}", hint=f"`ls -l {path}`; the node may be stale: `pyvmm doctor`"
            ) from error
        if version != lib.KVM_API_VERSION:
            kvm.close()
            raise HostError(
                f"{path} speaks KVM API version {version}, and pyvmm needs {lib.KVM_API_VERSION}",
                hint="a Linux kernel from 2.6.22 on",
            )
        return kvm

    def get_api_version(self) -> int:
        """KVM_GET_API_VERSION: the number 12."""
        return self.value("KVM_GET_API_VERSION", doing="asking for the API version")

    def get_vcpu_mmap_size(self) -> int:
        """KVM_GET_VCPU_MMAP_SIZE, in bytes."""
        return self.value("KVM_GET_VCPU_MMAP_SIZE", doing="asking for the size of kvm_run")

    def check_extension(self, capability: str) -> int:
        """KVM_CHECK_EXTENSION by name (`STEAL_TIME`); 0 means absent, other values are the capability's own."""
        return check_extension(self, capability)

    def require(self, capability: str, needed_by: str) -> int:
        """The capability's value.

        Raises:
            MissingCapability: it is 0; names it, its number and what needs it.
        """
        return require(self, capability, needed_by)

    def create_vm(self, vm_type: int = 0) -> Vm:
        """KVM_CREATE_VM; `vm_type` is a KVM_X86_*_VM, 0 for the default one."""
        run_size = self.get_vcpu_mmap_size()
        for attempts_left in range(15, -1, -1):
            try:
                return Vm(self.value("KVM_CREATE_VM", vm_type, "creating a VM"), run_size)
            except KvmCallError as error:
                # A signal came while the kernel set the VM up; it is safe to ask again.
                if error.errno != errno.EINTR or not attempts_left:
                    raise
        raise AssertionError("the last attempt returned or raised")

    def _cpuid(self, call: str) -> Any:
        size = 128
        while size <= MAX_LIST:
            raw = ffi.new("struct kvm_cpuid2 *", {"nent": size, "entries": size})
            try:
                self.call(call, raw, "listing CPUID")
            except KvmCallError as error:
                if error.errno != errno.E2BIG:
                    raise
                size *= 2
                continue
            return raw
        raise HostError(f"{call} wants more than {MAX_LIST} entries")

    def offered_cpuid(self) -> Any:
        """KVM_GET_SUPPORTED_CPUID as KVM filled it, a struct kvm_cpuid2 of the caller's own.

        Raises:
            HostError: KVM has more than 4096 entries.
        """
        return self._cpuid("KVM_GET_SUPPORTED_CPUID")

    def get_supported_cpuid(self) -> list[CpuidEntry]:
        """KVM_GET_SUPPORTED_CPUID: what KVM can offer, PV leaves included. Errors as `offered_cpuid`."""
        return cpuid_list(self.offered_cpuid())

    def get_emulated_cpuid(self) -> list[CpuidEntry]:
        """KVM_GET_EMULATED_CPUID: features that KVM emulates although the CPU lacks them. Errors as `offered_cpuid`."""
        return cpuid_list(self._cpuid("KVM_GET_EMULATED_CPUID"))

    def _msr_list(self, call: str) -> list[int]:
        size = 512
        while size <= MAX_LIST:
            raw = ffi.new("struct kvm_msr_list *", {"nmsrs": size, "indices": size})
            try:
                self.call(call, raw, "listing MSRs")
            except KvmCallError as error:
                if error.errno != errno.E2BIG:
                    raise
                size *= 2
                continue
            return list(raw.indices[0 : raw.nmsrs])
        raise HostError(f"{call} wants more than {MAX_LIST} entries")

    def get_msr_index_list(self) -> list[int]:
        """KVM_GET_MSR_INDEX_LIST: the numbers of the MSRs that belong to a vCPU's state.

        Raises:
            HostError: KVM has more than 4096 of them.
        """
        return self._msr_list("KVM_GET_MSR_INDEX_LIST")

    def get_msr_feature_index_list(self) -> list[int]:
        """KVM_GET_MSR_FEATURE_INDEX_LIST: the numbers of the MSRs that describe CPU features. Errors as
        `get_msr_index_list`.
        """
        return self._msr_list("KVM_GET_MSR_FEATURE_INDEX_LIST")

    def get_mce_cap_supported(self) -> int:
        """KVM_X86_GET_MCE_CAP_SUPPORTED: the bits of MCG_CAP that KVM_X86_SETUP_MCE takes, banks aside."""
        raw = ffi.new("__u64 *")
        self.call("KVM_X86_GET_MCE_CAP_SUPPORTED", raw, "asking for machine-check support")
        return int(raw[0])

    def get_feature_msrs(self, indices: list[int]) -> dict[int, int]:
        """KVM_GET_MSRS on the system descriptor: number -> value of the feature MSRs `indices`; ends at the first that
        KVM refuses.
        """
        raw = msr_buffer(dict.fromkeys(indices, 0))
        count = self.call("KVM_GET_MSRS", raw, "reading feature MSRs")
        return {raw.entries[i].index: raw.entries[i].data for i in range(count)}

# SPDX-License-Identifier: GPL-2.0-or-later
"""Flags and small enumerations of KVM's ioctls, by their kernel names. Which ioctl takes them is vmm.kvm's business.

Sources: <linux/kvm.h>, <asm/kvm.h>, Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

from vmm.abi.rows import Named

_ASM = "asm/kvm.h"

MEMORY_REGION = (
    Named(1 << 0, "KVM_MEM_LOG_DIRTY_PAGES", "record the pages that the guest writes"),
    Named(1 << 1, "KVM_MEM_READONLY", "guest writes exit as MMIO"),
    Named(1 << 2, "KVM_MEM_GUEST_MEMFD", "private pages come from a guest_memfd", "6.8"),
)
MEMORY_ATTRIBUTES = (Named(1 << 3, "KVM_MEMORY_ATTRIBUTE_PRIVATE", "the page is private to the guest", "6.8"),)
VM_TYPES = (
    Named(0, "KVM_X86_DEFAULT_VM", "an ordinary VM", "6.8", _ASM),
    Named(1, "KVM_X86_SW_PROTECTED_VM", "private memory without hardware help, for development", "6.8", _ASM),
    Named(2, "KVM_X86_SEV_VM", "AMD SEV", "6.10", _ASM),
    Named(3, "KVM_X86_SEV_ES_VM", "AMD SEV-ES", "6.10", _ASM),
    Named(4, "KVM_X86_SNP_VM", "AMD SEV-SNP", "6.11", _ASM),
    Named(5, "KVM_X86_TDX_VM", "Intel TDX", "6.16", _ASM),
)
CLOCK = (
    Named(1 << 1, "KVM_CLOCK_TSC_STABLE", "one TSC drives the clocks of all vCPUs"),
    Named(1 << 2, "KVM_CLOCK_REALTIME", "`realtime` is valid"),
    Named(1 << 3, "KVM_CLOCK_HOST_TSC", "`host_tsc` is valid"),
)
X2APIC_API = (
    Named(1 << 0, "KVM_X2APIC_API_USE_32BIT_IDS", "MSI routes and KVM_GET_LAPIC carry 32-bit ids"),
    Named(1 << 1, "KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK", "0xff is an id, not a broadcast, in x2APIC mode"),
)
DISABLE_EXITS = (
    Named(1 << 0, "KVM_X86_DISABLE_EXITS_MWAIT", "MWAIT runs on the CPU"),
    Named(1 << 1, "KVM_X86_DISABLE_EXITS_HLT", "HLT runs on the CPU"),
    Named(1 << 2, "KVM_X86_DISABLE_EXITS_PAUSE", "PAUSE loops do not exit"),
    Named(1 << 3, "KVM_X86_DISABLE_EXITS_CSTATE", "the C-state counters are readable"),
    Named(1 << 4, "KVM_X86_DISABLE_EXITS_APERFMPERF", "APERF and MPERF are readable", "6.17"),
)
MSR_FILTER = (
    Named(1 << 0, "KVM_MSR_FILTER_READ", "the range concerns reads", None, _ASM),
    Named(1 << 1, "KVM_MSR_FILTER_WRITE", "the range concerns writes", None, _ASM),
)
MSR_FILTER_DEFAULT = (
    Named(0, "KVM_MSR_FILTER_DEFAULT_ALLOW", "MSRs outside every range are allowed", None, _ASM),
    Named(1, "KVM_MSR_FILTER_DEFAULT_DENY", "MSRs outside every range are denied", None, _ASM),
)
MSR_FILTER_LIMITS = (
    Named(16, "KVM_MSR_FILTER_MAX_RANGES", "ranges in one filter", None, _ASM),
    Named(0x600, "KVM_MSR_FILTER_MAX_BITMAP_SIZE", "bytes in one range's bitmap", None, _ASM),
)
GUEST_DEBUG = (
    Named(1 << 0, "KVM_GUESTDBG_ENABLE", "debugging is on"),
    Named(1 << 1, "KVM_GUESTDBG_SINGLESTEP", "exit after each instruction"),
    Named(1 << 16, "KVM_GUESTDBG_USE_SW_BP", "INT3 exits", None, _ASM),
    Named(1 << 17, "KVM_GUESTDBG_USE_HW_BP", "the debug registers are the VMM's", None, _ASM),
    Named(1 << 18, "KVM_GUESTDBG_INJECT_DB", "raise #DB in the guest", None, _ASM),
    Named(1 << 19, "KVM_GUESTDBG_INJECT_BP", "raise #BP in the guest", None, _ASM),
    Named(1 << 20, "KVM_GUESTDBG_BLOCKIRQ", "deliver no interrupts", None, _ASM),
)
VCPU_EVENTS = (
    Named(1 << 0, "KVM_VCPUEVENT_VALID_NMI_PENDING", "nmi.pending is valid", None, _ASM),
    Named(1 << 1, "KVM_VCPUEVENT_VALID_SIPI_VECTOR", "sipi_vector is valid", None, _ASM),
    Named(1 << 2, "KVM_VCPUEVENT_VALID_SHADOW", "interrupt.shadow is valid", None, _ASM),
    Named(1 << 3, "KVM_VCPUEVENT_VALID_SMM", "smi is valid", None, _ASM),
    Named(1 << 4, "KVM_VCPUEVENT_VALID_PAYLOAD", "exception payload is valid", None, _ASM),
    Named(1 << 5, "KVM_VCPUEVENT_VALID_TRIPLE_FAULT", "triple_fault is valid", None, _ASM),
)
CPUID_ENTRY = (
    Named(1 << 0, "KVM_CPUID_FLAG_SIGNIFCANT_INDEX", "the answer depends on ECX", None, _ASM),
    Named(1 << 1, "KVM_CPUID_FLAG_STATEFUL_FUNC", "historic", None, _ASM),
    Named(1 << 2, "KVM_CPUID_FLAG_STATE_READ_NEXT", "historic", None, _ASM),
)
RUN_FLAGS = (
    Named(1 << 0, "KVM_RUN_X86_SMM", "the vCPU is in system management mode", None, _ASM),
    Named(1 << 1, "KVM_RUN_X86_BUS_LOCK", "the run ended at a bus lock", None, _ASM),
    Named(1 << 2, "KVM_RUN_X86_GUEST_MODE", "a nested guest ran", "6.11", _ASM),
)
DIRTY_LOG = (
    Named(1 << 0, "KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE", "pages are protected again by KVM_CLEAR_DIRTY_LOG"),
    Named(1 << 1, "KVM_DIRTY_LOG_INITIALLY_SET", "every page counts as dirty at first"),
)
GUEST_MEMFD = (
    Named(1 << 0, "GUEST_MEMFD_FLAG_MMAP", "the host may map it", "6.18"),
    Named(1 << 1, "GUEST_MEMFD_FLAG_INIT_SHARED", "the host may touch it from the first", "6.18"),
)
NESTED_STATE = (
    Named(1 << 0, "KVM_STATE_NESTED_GUEST_MODE", "a guest of the guest runs", None, _ASM),
    Named(1 << 1, "KVM_STATE_NESTED_RUN_PENDING", "it was entered and has not begun", None, _ASM),
    Named(1 << 2, "KVM_STATE_NESTED_EVMCS", "its VMCS is an enlightened one", None, _ASM),
    Named(1 << 3, "KVM_STATE_NESTED_MTF_PENDING", "a monitor trap is pending", None, _ASM),
    Named(1 << 8, "KVM_STATE_NESTED_GIF_SET", "SVM: the global interrupt flag is set", None, _ASM),
)
NESTED_FORMATS = (
    Named(0, "KVM_STATE_NESTED_FORMAT_VMX", "a VMCS, as KVM keeps it", None, _ASM),
    Named(1, "KVM_STATE_NESTED_FORMAT_SVM", "a VMCB", None, _ASM),
)
VCPU_TSC = (
    Named(0, "KVM_VCPU_TSC_CTRL", "attribute group of the TSC", None, _ASM),
    Named(0, "KVM_VCPU_TSC_OFFSET", "attribute: guest TSC minus host TSC", None, _ASM),
)

TABLES = (
    MEMORY_REGION,
    MEMORY_ATTRIBUTES,
    VM_TYPES,
    CLOCK,
    X2APIC_API,
    DISABLE_EXITS,
    MSR_FILTER,
    MSR_FILTER_DEFAULT,
    MSR_FILTER_LIMITS,
    GUEST_DEBUG,
    VCPU_EVENTS,
    CPUID_ENTRY,
    RUN_FLAGS,
    DIRTY_LOG,
    GUEST_MEMFD,
    NESTED_STATE,
    NESTED_FORMATS,
    VCPU_TSC,
)

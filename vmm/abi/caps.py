# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM capabilities: number, name, what one gives. It asks no kernel.

Numbers: <linux/kvm.h>, without those that only other architectures have; meanings: Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

from typing import NamedTuple

from vmm.base import names

HEADER = "linux/kvm.h"


class Cap(NamedTuple):
    """One capability; `name` is without KVM_CAP_.

    `enable` is the descriptor that takes KVM_ENABLE_CAP for it: "vm", "vcpu", or "" where there is nothing to enable.
    `since` is the kernel release for those that the Linux 6.1 header lacks.
    """

    number: int
    name: str
    what: str
    enable: str = ""
    since: str | None = None

    @property
    def kernel_name(self) -> str:
        return f"KVM_CAP_{self.name}"

    def __str__(self) -> str:
        return f"KVM_CAP_{self.name} ({self.number})"


CAPS = (
    Cap(0, "IRQCHIP", "KVM_CREATE_IRQCHIP: interrupt controllers in the kernel"),
    Cap(1, "HLT", "HLT exits to the VMM when no local APIC is in the kernel"),
    Cap(2, "MMU_SHADOW_CACHE_CONTROL", "KVM_SET_NR_MMU_PAGES: limit of the shadow page cache"),
    Cap(3, "USER_MEMORY", "KVM_SET_USER_MEMORY_REGION: guest memory is the VMM's memory"),
    Cap(4, "SET_TSS_ADDR", "KVM_SET_TSS_ADDR: where Intel's real-mode TSS lies"),
    Cap(6, "VAPIC", "KVM_SET_VAPIC_ADDR: task-priority register mirrored in memory"),
    Cap(7, "EXT_CPUID", "KVM_GET_SUPPORTED_CPUID and KVM_SET_CPUID2"),
    Cap(8, "CLOCKSOURCE", "paravirtual clock offered to guests"),
    Cap(9, "NR_VCPUS", "recommended number of vCPUs"),
    Cap(10, "NR_MEMSLOTS", "number of memslots"),
    Cap(11, "PIT", "i8254 timer in the kernel (obsolete call)"),
    Cap(12, "NOP_IO_DELAY", "guests need no delay by port 0x80"),
    Cap(13, "PV_MMU", "paravirtual MMU (removed from kernels)"),
    Cap(14, "MP_STATE", "KVM_GET_MP_STATE and KVM_SET_MP_STATE"),
    Cap(15, "COALESCED_MMIO", "MMIO writes collected in a ring; value: its page offset"),
    Cap(16, "SYNC_MMU", "changes of the VMM's mapping reach the guest at once"),
    Cap(18, "IOMMU", "device assignment of old kernels"),
    Cap(21, "DESTROY_MEMORY_REGION_WORKS", "memslots can be removed"),
    Cap(22, "USER_NMI", "KVM_NMI: inject a non-maskable interrupt"),
    Cap(23, "SET_GUEST_DEBUG", "KVM_SET_GUEST_DEBUG: breakpoints and single steps"),
    Cap(24, "REINJECT_CONTROL", "KVM_REINJECT_CONTROL: missed PIT ticks"),
    Cap(25, "IRQ_ROUTING", "KVM_SET_GSI_ROUTING; value: number of routes"),
    Cap(26, "IRQ_INJECT_STATUS", "KVM_IRQ_LINE_STATUS: was the interrupt taken"),
    Cap(29, "ASSIGN_DEV_IRQ", "device assignment of old kernels"),
    Cap(30, "JOIN_MEMORY_REGIONS_WORKS", "memslots may touch each other"),
    Cap(31, "MCE", "machine-check emulation; value: number of banks"),
    Cap(32, "IRQFD", "KVM_IRQFD: an eventfd raises an interrupt"),
    Cap(33, "PIT2", "KVM_CREATE_PIT2: i8254 timer in the kernel"),
    Cap(34, "SET_BOOT_CPU_ID", "KVM_SET_BOOT_CPU_ID: which vCPU boots"),
    Cap(35, "PIT_STATE2", "KVM_GET_PIT2 and KVM_SET_PIT2"),
    Cap(36, "IOEVENTFD", "KVM_IOEVENTFD: a guest write signals an eventfd"),
    Cap(37, "SET_IDENTITY_MAP_ADDR", "KVM_SET_IDENTITY_MAP_ADDR: page table for Intel's real mode"),
    Cap(38, "XEN_HVM", "Xen hypercall page and calls; value: flags"),
    Cap(39, "ADJUST_CLOCK", "KVM_GET_CLOCK and KVM_SET_CLOCK; value: flags"),
    Cap(40, "INTERNAL_ERROR_DATA", "internal errors carry data"),
    Cap(41, "VCPU_EVENTS", "KVM_GET_VCPU_EVENTS and KVM_SET_VCPU_EVENTS"),
    Cap(44, "HYPERV", "Hyper-V MSRs and hypercalls"),
    Cap(45, "HYPERV_VAPIC", "Hyper-V synthetic APIC page"),
    Cap(46, "HYPERV_SPIN", "Hyper-V long-spin notification"),
    Cap(47, "PCI_SEGMENT", "device assignment with PCI segments, of old kernels"),
    Cap(49, "INTR_SHADOW", "interrupt shadow in the vCPU events"),
    Cap(50, "DEBUGREGS", "KVM_GET_DEBUGREGS and KVM_SET_DEBUGREGS"),
    Cap(51, "X86_ROBUST_SINGLESTEP", "single stepping leaves RFLAGS.TF alone"),
    Cap(54, "ENABLE_CAP", "KVM_ENABLE_CAP on a vCPU"),
    Cap(55, "XSAVE", "KVM_GET_XSAVE and KVM_SET_XSAVE"),
    Cap(56, "XCRS", "KVM_GET_XCRS and KVM_SET_XCRS"),
    Cap(59, "ASYNC_PF", "asynchronous page faults"),
    Cap(60, "TSC_CONTROL", "KVM_SET_TSC_KHZ by hardware scaling"),
    Cap(61, "GET_TSC_KHZ", "KVM_GET_TSC_KHZ"),
    Cap(66, "MAX_VCPUS", "greatest number of vCPUs"),
    Cap(70, "ONE_REG", "KVM_GET_ONE_REG and KVM_SET_ONE_REG"),
    Cap(72, "TSC_DEADLINE_TIMER", "TSC-deadline mode of the local APIC's timer"),
    Cap(74, "SYNC_REGS", "registers inside kvm_run; value: which sets"),
    Cap(75, "PCI_2_3", "device assignment with shared interrupts, of old kernels"),
    Cap(76, "KVMCLOCK_CTRL", "KVM_KVMCLOCK_CTRL: tell a guest it was stopped"),
    Cap(77, "SIGNAL_MSI", "KVM_SIGNAL_MSI: send a message-signalled interrupt"),
    Cap(81, "READONLY_MEM", "memslots that the guest cannot write"),
    Cap(82, "IRQFD_RESAMPLE", "KVM_IRQFD for level-triggered interrupts"),
    Cap(89, "DEVICE_CTRL", "KVM_CREATE_DEVICE and device attributes"),
    Cap(95, "EXT_EMUL_CPUID", "KVM_GET_EMULATED_CPUID"),
    Cap(96, "HYPERV_TIME", "Hyper-V reference counter and TSC page"),
    Cap(97, "IOAPIC_POLARITY_IGNORED", "the in-kernel IOAPIC ignores polarity"),
    Cap(98, "ENABLE_CAP_VM", "KVM_ENABLE_CAP on a VM"),
    Cap(100, "IOEVENTFD_NO_LENGTH", "KVM_IOEVENTFD matches writes of any length on MMIO"),
    Cap(101, "VM_ATTRIBUTES", "device attributes on a VM"),
    Cap(105, "CHECK_EXTENSION_VM", "KVM_CHECK_EXTENSION on a VM"),
    Cap(116, "DISABLE_QUIRKS", "old behaviours can be switched off, unchecked", "vm"),
    Cap(117, "X86_SMM", "system management mode"),
    Cap(118, "MULTI_ADDRESS_SPACE", "number of address spaces for memslots"),
    Cap(121, "SPLIT_IRQCHIP", "local APIC in the kernel, IOAPIC and PIC in the VMM", "vm"),
    Cap(122, "IOEVENTFD_ANY_LENGTH", "KVM_IOEVENTFD with length 0 on ports too"),
    Cap(123, "HYPERV_SYNIC", "Hyper-V synthetic interrupt controller", "vcpu"),
    Cap(127, "VCPU_ATTRIBUTES", "device attributes on a vCPU"),
    Cap(128, "MAX_VCPU_ID", "greatest vCPU id, plus one", "vm"),
    Cap(129, "X2APIC_API", "32-bit APIC ids in MSI routes and KVM_GET_LAPIC; value: flags", "vm"),
    Cap(131, "MSI_DEVID", "MSI routes carry a device id"),
    Cap(136, "IMMEDIATE_EXIT", "kvm_run.immediate_exit"),
    Cap(143, "X86_DISABLE_EXITS", "MWAIT, HLT, PAUSE need not exit; value: which", "vm"),
    Cap(148, "HYPERV_SYNIC2", "Hyper-V synthetic interrupt controller, second form", "vcpu"),
    Cap(149, "HYPERV_VP_INDEX", "Hyper-V virtual processor index can be set"),
    Cap(153, "GET_MSR_FEATURES", "KVM_GET_MSRS on /dev/kvm: feature MSRs"),
    Cap(154, "HYPERV_EVENTFD", "KVM_HYPERV_EVENTFD: Hyper-V signals as eventfds"),
    Cap(155, "HYPERV_TLBFLUSH", "Hyper-V TLB flush hypercalls"),
    Cap(157, "NESTED_STATE", "KVM_GET_NESTED_STATE; value: greatest size in bytes"),
    Cap(159, "MSR_PLATFORM_INFO", "guest access to MSR_PLATFORM_INFO can be forbidden", "vm"),
    Cap(161, "HYPERV_SEND_IPI", "Hyper-V IPI hypercalls"),
    Cap(162, "COALESCED_PIO", "port writes collected in the coalesced ring"),
    Cap(163, "HYPERV_ENLIGHTENED_VMCS", "Hyper-V enlightened VMCS for nested guests", "vcpu"),
    Cap(164, "EXCEPTION_PAYLOAD", "exception payloads in the vCPU events", "vm"),
    Cap(166, "MANUAL_DIRTY_LOG_PROTECT", "obsolete; see MANUAL_DIRTY_LOG_PROTECT2"),
    Cap(167, "HYPERV_CPUID", "KVM_GET_SUPPORTED_HV_CPUID on a vCPU"),
    Cap(168, "MANUAL_DIRTY_LOG_PROTECT2", "KVM_CLEAR_DIRTY_LOG; value: flags", "vm"),
    Cap(173, "PMU_EVENT_FILTER", "KVM_SET_PMU_EVENT_FILTER"),
    Cap(175, "HYPERV_DIRECT_TLBFLUSH", "nested Hyper-V TLB flush served by the lower hypervisor", "vcpu"),
    Cap(182, "HALT_POLL", "limit of halt polling, in nanoseconds", "vm"),
    Cap(183, "ASYNC_PF_INT", "asynchronous page faults report readiness by interrupt"),
    Cap(184, "LAST_CPU", "a failed entry names the physical CPU"),
    Cap(185, "SMALLER_MAXPHYADDR", "guests may have fewer physical address bits than the host"),
    Cap(187, "STEAL_TIME", "stolen time offered to guests"),
    Cap(188, "X86_USER_SPACE_MSR", "failed MSR accesses exit to the VMM; value: which kinds", "vm"),
    Cap(189, "X86_MSR_FILTER", "KVM_X86_SET_MSR_FILTER: the VMM denies MSRs"),
    Cap(190, "ENFORCE_PV_FEATURE_CPUID", "paravirtual features hidden in CPUID are refused", "vcpu"),
    Cap(191, "SYS_HYPERV_CPUID", "KVM_GET_SUPPORTED_HV_CPUID on /dev/kvm"),
    Cap(192, "DIRTY_LOG_RING", "ring of dirtied pages per vCPU; value: greatest size in bytes", "vm"),
    Cap(193, "X86_BUS_LOCK_EXIT", "bus locks exit to the VMM; value: modes", "vm"),
    Cap(195, "SET_GUEST_DEBUG2", "which KVM_SET_GUEST_DEBUG flags are supported"),
    Cap(196, "SGX_ATTRIBUTE", "privileged SGX attributes for a guest", "vm"),
    Cap(197, "VM_COPY_ENC_CONTEXT_FROM", "share an encryption context with a mirror VM", "vm"),
    Cap(199, "HYPERV_ENFORCE_CPUID", "Hyper-V features hidden in CPUID are refused", "vcpu"),
    Cap(200, "SREGS2", "KVM_GET_SREGS2 and KVM_SET_SREGS2"),
    Cap(201, "EXIT_HYPERCALL", "hypercalls served by the VMM; value: mask of them", "vm"),
    Cap(203, "BINARY_STATS_FD", "KVM_GET_STATS_FD: statistics of a VM and a vCPU"),
    Cap(204, "EXIT_ON_EMULATION_FAILURE", "emulation failures exit instead of raising #UD", "vm"),
    Cap(206, "VM_MOVE_ENC_CONTEXT_FROM", "move an encryption context to another VM", "vm"),
    Cap(207, "VM_GPA_BITS", "guest-physical address bits"),
    Cap(208, "XSAVE2", "KVM_GET_XSAVE2; value: size in bytes"),
    Cap(209, "SYS_ATTRIBUTES", "device attributes on /dev/kvm"),
    Cap(212, "PMU_CAPABILITY", "the virtual PMU can be switched off", "vm"),
    Cap(213, "DISABLE_QUIRKS2", "old behaviours can be switched off; value: which", "vm"),
    Cap(214, "VM_TSC_CONTROL", "KVM_SET_TSC_KHZ on a VM"),
    Cap(215, "SYSTEM_EVENT_DATA", "system events carry data"),
    Cap(218, "X86_TRIPLE_FAULT_EVENT", "a pending triple fault in the vCPU events", "vm"),
    Cap(219, "X86_NOTIFY_VMEXIT", "an exit when the guest opens no event window for long", "vm"),
    Cap(220, "VM_DISABLE_NX_HUGE_PAGES", "the NX huge page mitigation can be switched off for a VM", "vm"),
    Cap(
        223,
        "DIRTY_LOG_RING_ACQ_REL",
        "ring of dirtied pages with acquire and release; value: greatest size in bytes",
        "vm",
    ),
    Cap(225, "DIRTY_LOG_RING_WITH_BITMAP", "ring of dirtied pages plus a bitmap", "vm", since="6.2"),
    Cap(226, "PMU_EVENT_MASKED_EVENTS", "masked events in KVM_SET_PMU_EVENT_FILTER", since="6.3"),
    Cap(231, "USER_MEMORY2", "KVM_SET_USER_MEMORY_REGION2", since="6.8"),
    Cap(232, "MEMORY_FAULT_INFO", "KVM_EXIT_MEMORY_FAULT explains EFAULT and EHWPOISON", since="6.8"),
    Cap(233, "MEMORY_ATTRIBUTES", "KVM_SET_MEMORY_ATTRIBUTES; value: which", since="6.8"),
    Cap(234, "GUEST_MEMFD", "KVM_CREATE_GUEST_MEMFD: memory that only the guest maps", since="6.8"),
    Cap(235, "VM_TYPES", "kinds of VM for KVM_CREATE_VM; value: mask of them", since="6.8"),
    Cap(236, "PRE_FAULT_MEMORY", "KVM_PRE_FAULT_MEMORY: populate guest memory ahead", since="6.11"),
    Cap(237, "X86_APIC_BUS_CYCLES_NS", "length of an APIC bus cycle, in nanoseconds", "vm", since="6.11"),
    Cap(238, "X86_GUEST_MODE", "kvm_run.flags tells whether a nested guest ran", since="6.11"),
    Cap(244, "GUEST_MEMFD_FLAGS", "flags of KVM_CREATE_GUEST_MEMFD; value: which", since="6.18"),
)
_BY_NUMBER = {row.number: row for row in CAPS}
_BY_NAME = {row.name: row for row in CAPS}


def find(name: str | int) -> Cap | None:
    """The row of a capability by number or by name, with or without KVM_CAP_, in any case; None if there is none."""
    if isinstance(name, int):
        return _BY_NUMBER.get(name)
    return _BY_NAME.get(names.strip_prefix(name, "KVM_CAP_", "CAP_"))


def unknown(name: str) -> str:
    """The sentence for a name that `find` does not know, with the nearest ones."""
    return names.unknown("capability", names.strip_prefix(name, "KVM_CAP_", "CAP_"), _BY_NAME)


def cap_name(number: int) -> str:
    """`KVM_CAP_SIGNAL_MSI (77)`; a number alone reads `capability 999`. Never fails."""
    row = _BY_NUMBER.get(number)
    return str(row) if row else f"capability {number}"

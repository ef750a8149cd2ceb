# SPDX-License-Identifier: GPL-2.0-or-later
"""Model-specific registers that guests of KVM use, by Linux's names. It reads none.

Sources: <asm/kvm_para.h>; Linux's arch/x86/include/asm/msr-index.h; Intel SDM vol. 4; AMD APM vol. 2, appendix A.
"""

from __future__ import annotations

from vmm.abi import apic
from vmm.base import names
from vmm.base.light import NamedTuple

HEADER = "asm/kvm_para.h"
KVM_FIRST, KVM_LAST = 0x4B564D00, 0x4B564DFF


class Msr(NamedTuple):
    """One MSR. `header` is the uapi header that names it; only KVM's own are in one."""

    number: int
    name: str
    what: str
    header: str | None = None


KVM_MSRS = (
    Msr(0x11, "MSR_KVM_WALL_CLOCK", "address of a pvclock_wall_clock, written at once", HEADER),
    Msr(0x12, "MSR_KVM_SYSTEM_TIME", "address of a pvclock_vcpu_time_info; bit 0 enables", HEADER),
    Msr(0x4B564D00, "MSR_KVM_WALL_CLOCK_NEW", "address of a pvclock_wall_clock, written at once", HEADER),
    Msr(0x4B564D01, "MSR_KVM_SYSTEM_TIME_NEW", "address of a pvclock_vcpu_time_info; bit 0 enables", HEADER),
    Msr(0x4B564D02, "MSR_KVM_ASYNC_PF_EN", "address of a kvm_vcpu_pv_apf_data; bits 3:0 are flags", HEADER),
    Msr(0x4B564D03, "MSR_KVM_STEAL_TIME", "address of a kvm_steal_time; bit 0 enables", HEADER),
    Msr(0x4B564D04, "MSR_KVM_PV_EOI_EN", "address of the PV EOI word; bit 0 enables", HEADER),
    Msr(0x4B564D05, "MSR_KVM_POLL_CONTROL", "bit 0: the host may poll before it halts this vCPU", HEADER),
    Msr(0x4B564D06, "MSR_KVM_ASYNC_PF_INT", "vector that tells a page is ready", HEADER),
    Msr(0x4B564D07, "MSR_KVM_ASYNC_PF_ACK", "write 1: the token is consumed", HEADER),
    Msr(0x4B564D08, "MSR_KVM_MIGRATION_CONTROL", "bit 0: the guest may be migrated; served by the VMM", HEADER),
)
ARCHITECTURAL = (
    Msr(0x10, "MSR_IA32_TSC", "time-stamp counter"),
    Msr(0x17, "MSR_IA32_PLATFORM_ID", "platform id"),
    Msr(0x1B, "MSR_IA32_APICBASE", "local APIC: base, enable, x2APIC mode"),
    Msr(0x34, "MSR_SMI_COUNT", "system management interrupts taken"),
    Msr(0x3A, "MSR_IA32_FEAT_CTL", "locks and enables VMX, SGX"),
    Msr(0x3B, "MSR_IA32_TSC_ADJUST", "offset of the TSC"),
    Msr(0x48, "MSR_IA32_SPEC_CTRL", "speculation control"),
    Msr(0x49, "MSR_IA32_PRED_CMD", "prediction command (write only)"),
    Msr(0x8B, "MSR_IA32_UCODE_REV", "microcode revision"),
    Msr(0x9E, "MSR_IA32_SMBASE", "base of SMRAM"),
    Msr(0xC1, "MSR_IA32_PERFCTR0", "performance counter 0"),
    Msr(0xC2, "MSR_IA32_PERFCTR1", "performance counter 1"),
    Msr(0xCE, "MSR_PLATFORM_INFO", "frequency ratios, CPUID faulting"),
    Msr(0xE1, "MSR_IA32_UMWAIT_CONTROL", "limit of UMWAIT"),
    Msr(0xFE, "MSR_MTRRcap", "memory-type ranges: number and kinds"),
    Msr(0x10A, "MSR_IA32_ARCH_CAPABILITIES", "immunity to speculation attacks"),
    Msr(0x122, "MSR_IA32_TSX_CTRL", "switches TSX off"),
    Msr(0x140, "MSR_MISC_FEATURES_ENABLES", "CPUID faulting"),
    Msr(0x174, "MSR_IA32_SYSENTER_CS", "SYSENTER: code segment"),
    Msr(0x175, "MSR_IA32_SYSENTER_ESP", "SYSENTER: stack"),
    Msr(0x176, "MSR_IA32_SYSENTER_EIP", "SYSENTER: entry"),
    Msr(0x179, "MSR_IA32_MCG_CAP", "machine check: number of banks"),
    Msr(0x17A, "MSR_IA32_MCG_STATUS", "machine check: in progress"),
    Msr(0x17B, "MSR_IA32_MCG_CTL", "machine check: enable"),
    Msr(0x186, "MSR_P6_EVNTSEL0", "performance event 0"),
    Msr(0x187, "MSR_P6_EVNTSEL1", "performance event 1"),
    Msr(0x198, "MSR_IA32_PERF_STATUS", "current frequency"),
    Msr(0x1A0, "MSR_IA32_MISC_ENABLE", "assorted switches, MONITOR/MWAIT among them"),
    Msr(0x1C4, "MSR_IA32_XFD", "extended state that raises #NM"),
    Msr(0x1C5, "MSR_IA32_XFD_ERR", "which extended state raised #NM"),
    Msr(0x1D9, "MSR_IA32_DEBUGCTLMSR", "last-branch and bus-lock debugging"),
    Msr(0x1DB, "MSR_IA32_LASTBRANCHFROMIP", "last branch: from"),
    Msr(0x1DC, "MSR_IA32_LASTBRANCHTOIP", "last branch: to"),
    Msr(0x1DD, "MSR_IA32_LASTINTFROMIP", "last exception: from"),
    Msr(0x1DE, "MSR_IA32_LASTINTTOIP", "last exception: to"),
    Msr(0x1FC, "MSR_IA32_POWER_CTL", "power management switches"),
    Msr(0x250, "MSR_MTRRfix64K_00000", "memory types of the first 512 KiB"),
    Msr(0x258, "MSR_MTRRfix16K_80000", "memory types from 0x80000"),
    Msr(0x259, "MSR_MTRRfix16K_A0000", "memory types from 0xa0000"),
    Msr(0x277, "MSR_IA32_CR_PAT", "page attribute table"),
    Msr(0x2FF, "MSR_MTRRdefType", "memory types: default and enable"),
    Msr(0x309, "MSR_CORE_PERF_FIXED_CTR0", "fixed performance counter 0"),
    Msr(0x345, "MSR_IA32_PERF_CAPABILITIES", "what the performance unit can"),
    Msr(0x38D, "MSR_CORE_PERF_FIXED_CTR_CTRL", "fixed performance counters: control"),
    Msr(0x38E, "MSR_CORE_PERF_GLOBAL_STATUS", "performance counters: overflow"),
    Msr(0x38F, "MSR_CORE_PERF_GLOBAL_CTRL", "performance counters: enable"),
    Msr(0x390, "MSR_CORE_PERF_GLOBAL_OVF_CTRL", "performance counters: clear overflow"),
    Msr(0x480, "MSR_IA32_VMX_BASIC", "VMX: revision of the VMCS, and what is reported where"),
    Msr(0x481, "MSR_IA32_VMX_PINBASED_CTLS", "VMX: allowed pin-based controls"),
    Msr(0x482, "MSR_IA32_VMX_PROCBASED_CTLS", "VMX: allowed processor-based controls"),
    Msr(0x483, "MSR_IA32_VMX_EXIT_CTLS", "VMX: allowed exit controls"),
    Msr(0x484, "MSR_IA32_VMX_ENTRY_CTLS", "VMX: allowed entry controls"),
    Msr(0x485, "MSR_IA32_VMX_MISC", "VMX: assorted limits"),
    Msr(0x486, "MSR_IA32_VMX_CR0_FIXED0", "VMX: bits of CR0 that must be one"),
    Msr(0x487, "MSR_IA32_VMX_CR0_FIXED1", "VMX: bits of CR0 that may be one"),
    Msr(0x488, "MSR_IA32_VMX_CR4_FIXED0", "VMX: bits of CR4 that must be one"),
    Msr(0x489, "MSR_IA32_VMX_CR4_FIXED1", "VMX: bits of CR4 that may be one"),
    Msr(0x48A, "MSR_IA32_VMX_VMCS_ENUM", "VMX: highest index of a VMCS field"),
    Msr(0x48B, "MSR_IA32_VMX_PROCBASED_CTLS2", "VMX: allowed secondary controls"),
    Msr(0x48C, "MSR_IA32_VMX_EPT_VPID_CAP", "VMX: what EPT and VPID can"),
    Msr(0x48D, "MSR_IA32_VMX_TRUE_PINBASED_CTLS", "VMX: the same, without the bits that were once always one"),
    Msr(0x48E, "MSR_IA32_VMX_TRUE_PROCBASED_CTLS", "VMX: the same"),
    Msr(0x48F, "MSR_IA32_VMX_TRUE_EXIT_CTLS", "VMX: the same"),
    Msr(0x490, "MSR_IA32_VMX_TRUE_ENTRY_CTLS", "VMX: the same"),
    Msr(0x491, "MSR_IA32_VMX_VMFUNC", "VMX: allowed functions of VMFUNC"),
    Msr(0x6A0, "MSR_IA32_U_CET", "control-flow enforcement in ring 3"),
    Msr(0x6A2, "MSR_IA32_S_CET", "control-flow enforcement in rings 0-2"),
    Msr(0x6A4, "MSR_IA32_PL0_SSP", "shadow stack of ring 0"),
    Msr(0x6A7, "MSR_IA32_PL3_SSP", "shadow stack of ring 3"),
    Msr(0x6A8, "MSR_IA32_INT_SSP_TAB", "shadow stacks of interrupts"),
    Msr(0x6E0, "MSR_IA32_TSC_DEADLINE", "TSC at which the local APIC's timer fires"),
    Msr(0xDA0, "MSR_IA32_XSS", "supervisor state saved by XSAVES"),
    Msr(0x40000000, "HV_X64_MSR_GUEST_OS_ID", "Hyper-V: the guest's identity"),
    Msr(0x40000001, "HV_X64_MSR_HYPERCALL", "Hyper-V: hypercall page"),
    Msr(0x40000002, "HV_X64_MSR_VP_INDEX", "Hyper-V: virtual processor index"),
    Msr(0x40000020, "HV_X64_MSR_TIME_REF_COUNT", "Hyper-V: time in 100 ns"),
    Msr(0x40000021, "HV_X64_MSR_REFERENCE_TSC", "Hyper-V: TSC page"),
    Msr(0xC0000080, "MSR_EFER", "extended features: SCE, LME, LMA, NX"),
    Msr(0xC0000081, "MSR_STAR", "SYSCALL and SYSRET: segments"),
    Msr(0xC0000082, "MSR_LSTAR", "SYSCALL: entry from 64-bit code"),
    Msr(0xC0000083, "MSR_CSTAR", "SYSCALL: entry from compatibility mode"),
    Msr(0xC0000084, "MSR_SYSCALL_MASK", "SYSCALL: RFLAGS bits to clear"),
    Msr(0xC0000100, "MSR_FS_BASE", "base of FS"),
    Msr(0xC0000101, "MSR_GS_BASE", "base of GS"),
    Msr(0xC0000102, "MSR_KERNEL_GS_BASE", "base that SWAPGS brings"),
    Msr(0xC0000103, "MSR_TSC_AUX", "what RDTSCP and RDPID put into ECX"),
    Msr(0xC0000104, "MSR_AMD64_TSC_RATIO", "scaling of a nested guest's TSC"),
    Msr(0xC0010010, "MSR_AMD64_SYSCFG", "memory encryption, MTRR extensions"),
    Msr(0xC0010015, "MSR_K7_HWCR", "hardware configuration"),
    Msr(0xC0010058, "MSR_FAM10H_MMIO_CONF_BASE", "PCI configuration space in memory"),
    Msr(0xC0010114, "MSR_VM_CR", "SVM: lock and disable"),
    Msr(0xC0010117, "MSR_VM_HSAVE_PA", "SVM: host state"),
    Msr(0xC001011F, "MSR_AMD64_VIRT_SPEC_CTRL", "virtual speculation control"),
    Msr(0xC0010140, "MSR_AMD64_OSVW_ID_LENGTH", "how many errata MSR_AMD64_OSVW_STATUS tells of"),
    Msr(0xC0010141, "MSR_AMD64_OSVW_STATUS", "errata that an operating system must see to"),
    Msr(0xC0011029, "MSR_AMD64_DE_CFG", "decoder; bit 1 makes LFENCE serializing"),
)
ALIASES = {
    "MSR_FMASK": "MSR_SYSCALL_MASK",
    "MSR_SFMASK": "MSR_SYSCALL_MASK",
    "MSR_IA32_EFER": "MSR_EFER",
    "MSR_TSC": "MSR_IA32_TSC",
    "MSR_APIC_BASE": "MSR_IA32_APICBASE",
    "MSR_IA32_APIC_BASE": "MSR_IA32_APICBASE",
    "MSR_PAT": "MSR_IA32_CR_PAT",
    "MSR_IA32_PAT": "MSR_IA32_CR_PAT",
    "MSR_TSC_ADJUST": "MSR_IA32_TSC_ADJUST",
    "MSR_TSC_DEADLINE": "MSR_IA32_TSC_DEADLINE",
    "MSR_IA32_TSCDEADLINE": "MSR_IA32_TSC_DEADLINE",
}
_BANK = ("CTL", "STATUS", "ADDR", "MISC")


def _ranges() -> list[Msr]:
    """MSRs that come in rows: machine-check banks, variable memory ranges, fixed 4 KiB ranges, the x2APIC."""
    rows = [
        Msr(0x400 + 4 * bank + number, f"MSR_IA32_MC{bank}_{what}", f"machine check bank {bank}: {what}")
        for bank in range(32)
        for number, what in enumerate(_BANK)
    ]
    for pair in range(8):
        rows.append(Msr(0x200 + 2 * pair, f"MSR_MTRRphysBase{pair}", f"memory type range {pair}: base"))
        rows.append(Msr(0x201 + 2 * pair, f"MSR_MTRRphysMask{pair}", f"memory type range {pair}: mask"))
    for number in range(8):
        start = 0xC0000 + number * 0x8000
        rows.append(Msr(0x268 + number, f"MSR_MTRRfix4K_{start:05X}", f"memory types from {start:#x}"))
    rows += [Msr(row.msr, f"X2APIC_{row.name}", f"x2APIC: {row.what}") for row in apic.REGISTERS if row.msr]
    for name in ("ISR", "TMR", "IRR"):
        first = next(row.msr for row in apic.REGISTERS if row.name == name) or 0
        rows += [Msr(first + n, f"X2APIC_{name}{n}", f"x2APIC: {name}, word {n}") for n in range(1, 8)]
    return rows


MSRS = (*KVM_MSRS, *ARCHITECTURAL, *_ranges())
_BY_NUMBER = {row.number: row for row in MSRS}
_BY_NAME = {row.name.upper(): row for row in MSRS}


def find(name: str | int) -> Msr | None:
    """An MSR by number or by name (any case, `MSR_` may be left out), or None."""
    if isinstance(name, int):
        return _BY_NUMBER.get(name)
    plain = names.strip_prefix(name)
    for candidate in (plain, f"MSR_{plain}", f"MSR_IA32_{plain}", f"MSR_KVM_{plain}"):
        candidate = ALIASES.get(candidate, candidate)
        if candidate in _BY_NAME:
            return _BY_NAME[candidate]
    return None


def msr(name: str) -> Msr:
    """The row of an MSR that our own text names. KeyError: there is none."""
    row = find(name)
    if row is None:
        raise KeyError(name)
    return row


def unknown(name: str) -> str:
    """The sentence for a name that `find` does not know."""
    return names.unknown("MSR", name, [row.name for row in MSRS])


def msr_name(number: int) -> str:
    """`MSR_EFER` for 0xc0000080, `MSR 0x123` for one without a row. Never fails."""
    row = _BY_NUMBER.get(number)
    return row.name if row else f"MSR {number:#x}"


def asm_constants() -> dict[str, int]:
    """Every MSR by name, aliases included."""
    table = {row.name: row.number for row in MSRS}
    return table | {alias: table[name] for alias, name in ALIASES.items()}

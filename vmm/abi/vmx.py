# SPDX-License-Identifier: GPL-2.0-or-later
"""VMX as a hypervisor sees it: VMCS fields, controls, exit reasons, errors of instructions. It knows no guest.

Sources: Intel SDM vol. 3 (325384): 24 (VMCS, controls), 27.2 (what an exit records), 30.4 (VM-instruction errors),
appendix A (capability MSRs), appendix B (encodings of fields), appendix C (basic exit reasons). Exit reasons have the
names of <asm/vmx.h>, all else those of arch/x86/include/asm/vmx.h, which is no uapi header. The MSRs are rows of
msrs.py, CR4.VMXE one of x86.py.
"""

from __future__ import annotations

from vmm.abi.rows import Named, value_of
from vmm.base.light import NamedTuple

HEADER = "asm/vmx.h"
INTERNAL = None  # what no uapi header holds


class Field(NamedTuple):
    """A field of the VMCS by its encoding; `what` where the name does not say it."""

    value: int
    name: str
    what: str = ""


# The encoding of a field: index in bits 9:1, type in 11:10 (control, read-only, guest, host), width in 14:13 (16, 64,
# 32 bits, natural).
FIELDS = (
    Field(0x0800, "GUEST_ES_SELECTOR"),
    Field(0x0802, "GUEST_CS_SELECTOR"),
    Field(0x0804, "GUEST_SS_SELECTOR"),
    Field(0x0806, "GUEST_DS_SELECTOR"),
    Field(0x0808, "GUEST_FS_SELECTOR"),
    Field(0x080A, "GUEST_GS_SELECTOR"),
    Field(0x080C, "GUEST_LDTR_SELECTOR"),
    Field(0x080E, "GUEST_TR_SELECTOR"),
    Field(0x0C00, "HOST_ES_SELECTOR"),
    Field(0x0C02, "HOST_CS_SELECTOR"),
    Field(0x0C04, "HOST_SS_SELECTOR"),
    Field(0x0C06, "HOST_DS_SELECTOR"),
    Field(0x0C08, "HOST_FS_SELECTOR"),
    Field(0x0C0A, "HOST_GS_SELECTOR"),
    Field(0x0C0C, "HOST_TR_SELECTOR", "must not be null"),
    Field(0x2000, "IO_BITMAP_A", "ports 0 to 0x7fff, a bit each"),
    Field(0x2002, "IO_BITMAP_B", "ports from 0x8000"),
    Field(0x2004, "MSR_BITMAP", "a page: reads low, reads high, writes low, writes high"),
    Field(0x2800, "VMCS_LINK_POINTER", "all ones where there is no shadow VMCS"),
    Field(0x2802, "GUEST_IA32_DEBUGCTL"),
    Field(0x4000, "PIN_BASED_VM_EXEC_CONTROL"),
    Field(0x4002, "CPU_BASED_VM_EXEC_CONTROL"),
    Field(0x4004, "EXCEPTION_BITMAP", "a bit per vector"),
    Field(0x4006, "PAGE_FAULT_ERROR_CODE_MASK", "which error codes of #PF count"),
    Field(0x4008, "PAGE_FAULT_ERROR_CODE_MATCH"),
    Field(0x400A, "CR3_TARGET_COUNT"),
    Field(0x400C, "VM_EXIT_CONTROLS"),
    Field(0x400E, "VM_EXIT_MSR_STORE_COUNT"),
    Field(0x4010, "VM_EXIT_MSR_LOAD_COUNT"),
    Field(0x4012, "VM_ENTRY_CONTROLS"),
    Field(0x4014, "VM_ENTRY_MSR_LOAD_COUNT"),
    Field(0x4016, "VM_ENTRY_INTR_INFO_FIELD", "an event to be delivered first"),
    Field(0x4400, "VM_INSTRUCTION_ERROR", "why the last VMX instruction failed"),
    Field(0x4402, "VM_EXIT_REASON"),
    Field(0x4404, "VM_EXIT_INTR_INFO", "an exception's vector and type"),
    Field(0x4406, "VM_EXIT_INTR_ERROR_CODE", "its error code"),
    Field(0x440C, "VM_EXIT_INSTRUCTION_LEN", "of the instruction that was left at"),
    Field(0x4800, "GUEST_ES_LIMIT"),
    Field(0x4802, "GUEST_CS_LIMIT"),
    Field(0x4804, "GUEST_SS_LIMIT"),
    Field(0x4806, "GUEST_DS_LIMIT"),
    Field(0x4808, "GUEST_FS_LIMIT"),
    Field(0x480A, "GUEST_GS_LIMIT"),
    Field(0x480C, "GUEST_LDTR_LIMIT"),
    Field(0x480E, "GUEST_TR_LIMIT"),
    Field(0x4810, "GUEST_GDTR_LIMIT"),
    Field(0x4812, "GUEST_IDTR_LIMIT"),
    Field(0x4814, "GUEST_ES_AR_BYTES"),
    Field(0x4816, "GUEST_CS_AR_BYTES"),
    Field(0x4818, "GUEST_SS_AR_BYTES"),
    Field(0x481A, "GUEST_DS_AR_BYTES"),
    Field(0x481C, "GUEST_FS_AR_BYTES"),
    Field(0x481E, "GUEST_GS_AR_BYTES"),
    Field(0x4820, "GUEST_LDTR_AR_BYTES"),
    Field(0x4822, "GUEST_TR_AR_BYTES"),
    Field(0x4824, "GUEST_INTERRUPTIBILITY_INFO"),
    Field(0x4826, "GUEST_ACTIVITY_STATE", "0 active, 1 halted"),
    Field(0x482A, "GUEST_SYSENTER_CS"),
    Field(0x4C00, "HOST_IA32_SYSENTER_CS"),
    Field(0x6000, "CR0_GUEST_HOST_MASK", "bits of CR0 that the host owns"),
    Field(0x6002, "CR4_GUEST_HOST_MASK"),
    Field(0x6004, "CR0_READ_SHADOW"),
    Field(0x6006, "CR4_READ_SHADOW"),
    Field(0x6400, "EXIT_QUALIFICATION", "address of a page fault, port of an I/O, ..."),
    Field(0x6800, "GUEST_CR0"),
    Field(0x6802, "GUEST_CR3"),
    Field(0x6804, "GUEST_CR4"),
    Field(0x6806, "GUEST_ES_BASE"),
    Field(0x6808, "GUEST_CS_BASE"),
    Field(0x680A, "GUEST_SS_BASE"),
    Field(0x680C, "GUEST_DS_BASE"),
    Field(0x680E, "GUEST_FS_BASE"),
    Field(0x6810, "GUEST_GS_BASE"),
    Field(0x6812, "GUEST_LDTR_BASE"),
    Field(0x6814, "GUEST_TR_BASE"),
    Field(0x6816, "GUEST_GDTR_BASE"),
    Field(0x6818, "GUEST_IDTR_BASE"),
    Field(0x681A, "GUEST_DR7"),
    Field(0x681C, "GUEST_RSP"),
    Field(0x681E, "GUEST_RIP"),
    Field(0x6820, "GUEST_RFLAGS"),
    Field(0x6822, "GUEST_PENDING_DBG_EXCEPTIONS"),
    Field(0x6824, "GUEST_SYSENTER_ESP"),
    Field(0x6826, "GUEST_SYSENTER_EIP"),
    Field(0x6C00, "HOST_CR0"),
    Field(0x6C02, "HOST_CR3"),
    Field(0x6C04, "HOST_CR4"),
    Field(0x6C06, "HOST_FS_BASE"),
    Field(0x6C08, "HOST_GS_BASE"),
    Field(0x6C0A, "HOST_TR_BASE"),
    Field(0x6C0C, "HOST_GDTR_BASE"),
    Field(0x6C0E, "HOST_IDTR_BASE"),
    Field(0x6C10, "HOST_IA32_SYSENTER_ESP"),
    Field(0x6C12, "HOST_IA32_SYSENTER_EIP"),
    Field(0x6C14, "HOST_RSP"),
    Field(0x6C16, "HOST_RIP", "where an exit arrives"),
)

CONTROLS = (
    Named(1 << 0, "PIN_BASED_EXT_INTR_MASK", "leave the guest at an external interrupt", None, INTERNAL),
    Named(1 << 3, "PIN_BASED_NMI_EXITING", "leave the guest at an NMI", None, INTERNAL),
    Named(1 << 7, "CPU_BASED_HLT_EXITING", "leave the guest at HLT", None, INTERNAL),
    Named(1 << 24, "CPU_BASED_UNCOND_IO_EXITING", "leave at every IN and OUT; bitmaps win", None, INTERNAL),
    Named(1 << 25, "CPU_BASED_USE_IO_BITMAPS", "leave at the ports that the bitmaps say", None, INTERNAL),
    Named(1 << 28, "CPU_BASED_USE_MSR_BITMAPS", "leave at the MSRs that the bitmap says", None, INTERNAL),
    Named(1 << 9, "VM_EXIT_HOST_ADDR_SPACE_SIZE", "the host is in 64-bit mode", None, INTERNAL),
    Named(1 << 9, "VM_ENTRY_IA32E_MODE", "the guest is in IA-32e mode", None, INTERNAL),
)

EXITS = (
    Named(0, "EXIT_REASON_EXCEPTION_NMI", "an exception, or an NMI", None, HEADER),
    Named(1, "EXIT_REASON_EXTERNAL_INTERRUPT", "an interrupt is pending", None, HEADER),
    Named(2, "EXIT_REASON_TRIPLE_FAULT", "a triple fault", None, HEADER),
    Named(10, "EXIT_REASON_CPUID", "CPUID", None, HEADER),
    Named(12, "EXIT_REASON_HLT", "HLT", None, HEADER),
    Named(18, "EXIT_REASON_VMCALL", "VMCALL", None, HEADER),
    Named(30, "EXIT_REASON_IO_INSTRUCTION", "IN or OUT", None, HEADER),
    Named(31, "EXIT_REASON_MSR_READ", "RDMSR", None, HEADER),
    Named(33, "EXIT_REASON_INVALID_STATE", "the entry found guest state that is not valid", None, HEADER),
    Named(34, "EXIT_REASON_MSR_LOAD_FAIL", "the entry could not load an MSR", None, HEADER),
    Named(41, "EXIT_REASON_MCE_DURING_VMENTRY", "a machine check came during the entry", None, HEADER),
    Named(
        48, "EXIT_REASON_EPT_VIOLATION", "EPT does not allow the access: no memslot, or a page to be made", None, HEADER
    ),
    Named(49, "EXIT_REASON_EPT_MISCONFIG", "an EPT entry that cannot be: KVM marks MMIO by it", None, HEADER),
    Named(0x8000_0000, "VMX_EXIT_REASONS_FAILED_VMENTRY", "the entry failed; added to the reason", None, HEADER),
)

# VM_INSTRUCTION_ERROR (30.4). Only the first has no number: CF is set then, and nothing is recorded.
ERRORS = (
    Named(2, "VMXERR_VMCLEAR_INVALID_ADDRESS", "VMCLEAR of an address that is not valid", None, INTERNAL),
    Named(3, "VMXERR_VMCLEAR_VMXON_POINTER", "VMCLEAR of the VMXON region", None, INTERNAL),
    Named(4, "VMXERR_VMLAUNCH_NONCLEAR_VMCS", "VMLAUNCH of a VMCS that was launched", None, INTERNAL),
    Named(5, "VMXERR_VMRESUME_NONLAUNCHED_VMCS", "VMRESUME of a VMCS that was never launched", None, INTERNAL),
    Named(7, "VMXERR_ENTRY_INVALID_CONTROL_FIELD", "entry with a control that is not allowed", None, INTERNAL),
    Named(8, "VMXERR_ENTRY_INVALID_HOST_STATE_FIELD", "entry with host state that is not valid", None, INTERNAL),
    Named(10, "VMXERR_VMPTRLD_VMXON_POINTER", "VMPTRLD of the VMXON region", None, INTERNAL),
    Named(12, "VMXERR_UNSUPPORTED_VMCS_COMPONENT", "VMREAD or VMWRITE of a field that is not there", None, INTERNAL),
    Named(15, "VMXERR_VMXON_IN_VMX_ROOT_OPERATION", "VMXON, again", None, INTERNAL),
    Named(26, "VMXERR_ENTRY_EVENTS_BLOCKED_BY_MOV_SS", "entry while MOV SS holds events off", None, INTERNAL),
)
CONSTANTS = (
    Named(1 << 0, "FEAT_CTL_LOCKED", "MSR_IA32_FEAT_CTL cannot be written until reset", None, INTERNAL),
    Named(1 << 2, "FEAT_CTL_VMX_ENABLED_OUTSIDE_SMX", "VMXON may be executed", None, INTERNAL),
    Named(
        55, "VMX_BASIC_TRUE_CTLS_BIT", "bit of MSR_IA32_VMX_BASIC: the TRUE MSRs exist (the name is ours)", None, None
    ),
    Named(0x7FFF_FFFF, "VMX_BASIC_REVISION_MASK", "MSR_IA32_VMX_BASIC: revision of a VMCS (ours)", None, None),
    Named(1 << 31, "INTR_INFO_VALID_MASK", "VM_EXIT_INTR_INFO: there was an event", None, INTERNAL),
    Named(1 << 11, "INTR_INFO_DELIVER_CODE_MASK", "VM_EXIT_INTR_INFO: it has an error code", None, INTERNAL),
    Named(3 << 8, "INTR_TYPE_HARD_EXCEPTION", "VM_EXIT_INTR_INFO: an exception of hardware", None, INTERNAL),
    Named(16, "VMX_IO_PORT_SHIFT", "EXIT_QUALIFICATION of an I/O: where the port begins (ours)", None, None),
    Named(1 << 6, "VMX_IO_IMMEDIATE_MASK", "EXIT_QUALIFICATION of an I/O: the port is in the code (ours)", None, None),
    # access rights: bits 7:0 and 15:12 as in a descriptor, bit 16: the register is not usable (24.4.1)
    Named(0xA09B, "VMX_AR_CODE64", "flat code, ring 0, 64 bits, accessed (the name is ours)", None, None),
    Named(0xC093, "VMX_AR_DATA", "flat data, writable, ring 0, accessed (ours)", None, None),
    Named(0x008B, "VMX_AR_TSS64_BUSY", "a busy 64-bit TSS (ours)", None, None),
    Named(1 << 16, "VMX_AR_UNUSABLE_MASK", "the register is not usable", None, INTERNAL),
)
_TABLES = (CONTROLS, EXITS, ERRORS, CONSTANTS)
_FAILED = value_of(EXITS, "VMX_EXIT_REASONS_FAILED_VMENTRY")


def exit_name(reason: int) -> str:
    """`EXIT_REASON_CPUID`, the same with `failed entry: ` before it, or the number for one without a row."""
    if reason & _FAILED and reason != _FAILED:
        return f"failed entry: {exit_name(reason & ~_FAILED)}"
    return next((row.name for row in EXITS if row.value == reason), f"{reason:#x}")


def asm_constants() -> dict[str, int]:
    """Every row by name."""
    return {row.name: row.value for row in FIELDS} | {row.name: row.value for table in _TABLES for row in table}

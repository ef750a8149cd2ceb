# SPDX-License-Identifier: GPL-2.0-or-later
"""SVM as a hypervisor sees it: the VMCB's layout, intercept bits, exit codes. It knows no guest and makes no VMCB.

Sources: AMD APM vol. 2 (24593), 15.5 (VMRUN), 15.9 to 15.11 (intercepts), 15.12 (exceptions), 15.30 (MSRs), appendix B
(layout of the VMCB), appendix C (exit codes). Exit codes have the names of <asm/svm.h>; fields and intercepts those of
arch/x86/include/asm/svm.h, which is no uapi header. The MSRs are rows of msrs.py, EFER.SVME one of x86.py.
"""

from __future__ import annotations

from vmm.abi.rows import Named
from vmm.abi.structs import Field, Struct

HEADER = "asm/svm.h"

# One structure of a page: the control area fills its first 1024 bytes, the state save area follows. A segment register
# takes 16 bytes, whose parts are those of VMCB_SEG.
VMCB = Struct(
    "vmcb", "VMCB", 0x1000, 0x1000, (
        Field("intercept_exceptions", 0x008, 4, "a bit per vector"),
        Field("intercept_word3", 0x00C, 4, "INTERCEPT_* 0 to 31 of ours: interrupts, CPUID, HLT, I/O, MSRs, ..."),
        Field("intercept_word4", 0x010, 4, "VMRUN, VMMCALL and the other instructions of SVM"),
        Field("iopm_base_pa", 0x040, 8, "12 KiB, a bit per port"),
        Field("msrpm_base_pa", 0x048, 8, "8 KiB, two bits per MSR: read, write"),
        Field("tsc_offset", 0x050, 8, "added to the TSC that the guest reads"),
        Field("asid", 0x058, 4, "address-space tag of the TLB; 0 is the host's"),
        Field("tlb_ctl", 0x05C, 1, "1: flush the whole TLB at VMRUN"),
        Field("int_ctl", 0x060, 4, "virtual interrupts, and V_INTR_MASKING_MASK"),
        Field("exit_code", 0x070, 8, "why the guest was left"),
        Field("exit_info_1", 0x078, 8, "error code of an exception; port and size of an I/O; 1 for a WRMSR"),
        Field("exit_info_2", 0x080, 8, "address of a page fault; RIP after an I/O instruction"),
        Field("exit_int_info", 0x088, 4, "an event whose delivery was cut off by the exit"),
        Field("nested_ctl", 0x090, 8, "bit 0: nested paging"),
        Field("event_inj", 0x0A8, 4, "an event to be delivered first"),
        Field("clean", 0x0C0, 4, "what the host has not changed since the last VMRUN; 0: all may have changed"),
        Field("next_rip", 0x0C8, 8, "RIP after the intercepted instruction, where CPUID says NRIPS"),
        Field("es", 0x400, 16),
        Field("cs", 0x410, 16),
        Field("ss", 0x420, 16),
        Field("ds", 0x430, 16),
        Field("gdtr", 0x460, 16),
        Field("idtr", 0x480, 16),
        Field("tr", 0x490, 16),
        Field("cpl", 0x4CB, 1),
        Field("efer", 0x4D0, 8),
        Field("cr4", 0x548, 8),
        Field("cr3", 0x550, 8),
        Field("cr0", 0x558, 8),
        Field("dr7", 0x560, 8),
        Field("dr6", 0x568, 8),
        Field("rflags", 0x570, 8),
        Field("rip", 0x578, 8),
        Field("rsp", 0x5D8, 8),
        Field("rax", 0x5F8, 8, "the one general register that VMRUN switches, with RSP"),
        Field("cr2", 0x640, 8),
        Field("g_pat", 0x668, 8, "used with nested paging only"),
    ),
)  # fmt: skip
VMCB_SEG = Struct(
    "vmcb_seg", "VMCB_SEG", 16, 8, (
        Field("selector", 0, 2),
        Field("attrib", 2, 2, "bits 55:52 and 47:40 of a descriptor, joined"),
        Field("limit", 4, 4, "in bytes"),
        Field("base", 8, 8),
    ),
)  # fmt: skip

# Masks, of intercept_word3 (INTERCEPT_* is a bit's number in the kernel, counted over all words; the mask is ours) ...
INTERCEPTS_WORD3 = (
    Named(1 << 0, "SVM_INTERCEPT_INTR", "a physical interrupt", None, None),
    Named(1 << 1, "SVM_INTERCEPT_NMI", "a physical NMI", None, None),
    Named(1 << 18, "SVM_INTERCEPT_CPUID", "CPUID", None, None),
    Named(1 << 24, "SVM_INTERCEPT_HLT", "HLT", None, None),
    Named(1 << 27, "SVM_INTERCEPT_IOIO_PROT", "I/O on the ports that the bitmap says", None, None),
    Named(1 << 28, "SVM_INTERCEPT_MSR_PROT", "RDMSR and WRMSR that the bitmap says", None, None),
    Named(1 << 31, "SVM_INTERCEPT_SHUTDOWN", "a triple fault: without this it takes the host down", None, None),
)
# ... and of intercept_word4.
INTERCEPTS_WORD4 = (
    Named(1 << 0, "SVM_INTERCEPT_VMRUN", "VMRUN; must be set, or VMRUN refuses the VMCB (15.5.1)", None, None),
    Named(1 << 1, "SVM_INTERCEPT_VMMCALL", "VMMCALL; #UD where it is clear", None, None),
)

EXITS = (
    Named(0x040, "SVM_EXIT_EXCP_BASE", "an exception: 0x40 + vector", None, HEADER),
    Named(0x060, "SVM_EXIT_INTR", "a physical interrupt is pending", None, HEADER),
    Named(0x061, "SVM_EXIT_NMI", "an NMI is pending", None, HEADER),
    Named(0x072, "SVM_EXIT_CPUID", "CPUID", None, HEADER),
    Named(0x078, "SVM_EXIT_HLT", "HLT", None, HEADER),
    Named(0x07B, "SVM_EXIT_IOIO", "IN or OUT", None, HEADER),
    Named(0x07C, "SVM_EXIT_MSR", "RDMSR or WRMSR", None, HEADER),
    Named(0x07F, "SVM_EXIT_SHUTDOWN", "a triple fault", None, HEADER),
    Named(0x080, "SVM_EXIT_VMRUN", "VMRUN", None, HEADER),
    Named(0x081, "SVM_EXIT_VMMCALL", "VMMCALL", None, HEADER),
    Named(
        0x400, "SVM_EXIT_NPF", "nested paging does not allow the access: no memslot, or a page to be made", None, HEADER
    ),
    Named(0xFFFF_FFFF_FFFF_FFFF, "SVM_EXIT_ERR", "VMRUN refused the VMCB (VMEXIT_INVALID)", None, None),
)
CONSTANTS = (
    Named(1 << 24, "V_INTR_MASKING_MASK", "int_ctl: RFLAGS.IF of the host masks interrupts", None, None),
    Named(1 << 4, "SVM_VM_CR_SVM_DISABLE", "MSR_VM_CR: EFER.SVME cannot be set", None, None),
    Named(1 << 0, "SVM_IOIO_TYPE_MASK", "exit_info_1 of an I/O: 1 for IN, 0 for OUT", None, None),
    Named(1 << 4, "SVM_IOIO_SIZE8_MASK", "exit_info_1 of an I/O: one byte (SVM_IOIO_SIZE_SHIFT is 4)", None, None),
    Named(16, "SVM_IOIO_PORT_SHIFT", "exit_info_1 of an I/O: where the port begins (the name is ours)", None, None),
    Named(0x3000, "SVM_IOPM_SIZE", "bytes of the I/O permission map", None, None),
    Named(0x2000, "SVM_MSRPM_SIZE", "bytes of the MSR permission map", None, None),
    # attrib of flat segments in 64-bit code; type, S, DPL, P, L, D, G (appendix B, note on segment attributes)
    Named(0xA9B, "SVM_ATTRIB_CODE64", "code, present, ring 0, 64 bits, accessed", None, None),
    Named(0xC93, "SVM_ATTRIB_DATA", "data, present, writable, ring 0, accessed", None, None),
)
_TABLES = (INTERCEPTS_WORD3, INTERCEPTS_WORD4, EXITS, CONSTANTS)


def exit_name(code: int) -> str:
    """`SVM_EXIT_CPUID`, `SVM_EXIT_EXCP_BASE + 14`, or the number for one without a row."""
    for row in EXITS:
        if row.value == code and row.name != "SVM_EXIT_EXCP_BASE":
            return row.name
    vector = code - EXITS[0].value
    return f"SVM_EXIT_EXCP_BASE + {vector}" if 0 <= vector < 32 else f"{code:#x}"


def asm_constants() -> dict[str, int]:
    """Every row by name; the VMCB's fields as VMCB_<field>, parts of a segment register as VMCB_SEG_<part>."""
    constants = {row.name: row.value for table in _TABLES for row in table}
    for struct in (VMCB, VMCB_SEG):
        constants[f"{struct.asm}_SIZE"] = struct.size
        constants |= {f"{struct.asm}_{field.name}": field.offset for field in struct.fields}
    return constants

# SPDX-License-Identifier: GPL-2.0-or-later
"""The processor's own bits: control registers, EFER, RFLAGS, exceptions, page tables, selectors. Nothing of KVM.

Sources: Intel SDM vol. 3A, 2.5 (control registers), 4.5 (paging), 4.7 (page-fault error code), 6.3 (exceptions);
AMD APM vol. 2, 3.1 and 8.2 (exceptions 28-30). Names are those of Linux (X86_CR0_PE, EFER_LME, _PAGE_RW, X86_PF_WRITE).
"""

from __future__ import annotations

from vmm.base.bits import describe
from vmm.base.light import NamedTuple

PAGE_SHIFT = 12
PAGE = 1 << PAGE_SHIFT
LARGE_PAGE = 1 << 21  # of 64-bit and PAE paging

# KVM may write the one over the other: KVM_X86_QUIRK_FIX_HYPERCALL_INSN.
HYPERCALL_INSTRUCTIONS = {"vmcall": b"\x0f\x01\xc1", "vmmcall": b"\x0f\x01\xd9"}  # Intel's, AMD's


class CR0:
    PE = 1 << 0
    MP = 1 << 1
    EM = 1 << 2
    TS = 1 << 3
    ET = 1 << 4
    NE = 1 << 5
    WP = 1 << 16
    AM = 1 << 18
    NW = 1 << 29
    CD = 1 << 30
    PG = 1 << 31


class CR4:
    VME = 1 << 0
    PVI = 1 << 1
    TSD = 1 << 2
    DE = 1 << 3
    PSE = 1 << 4
    PAE = 1 << 5
    MCE = 1 << 6
    PGE = 1 << 7
    PCE = 1 << 8
    OSFXSR = 1 << 9
    OSXMMEXCPT = 1 << 10
    UMIP = 1 << 11
    LA57 = 1 << 12
    VMXE = 1 << 13
    SMXE = 1 << 14
    FSGSBASE = 1 << 16
    PCIDE = 1 << 17
    OSXSAVE = 1 << 18
    SMEP = 1 << 20
    SMAP = 1 << 21
    PKE = 1 << 22
    CET = 1 << 23


class EFER:
    SCE = 1 << 0
    LME = 1 << 8
    LMA = 1 << 10
    NX = 1 << 11
    SVME = 1 << 12
    LMSLE = 1 << 13
    FFXSR = 1 << 14


class RFLAGS:
    CF = 1 << 0
    FIXED = 1 << 1  # always one
    PF = 1 << 2
    AF = 1 << 4
    ZF = 1 << 6
    SF = 1 << 7
    TF = 1 << 8
    IF = 1 << 9
    DF = 1 << 10
    OF = 1 << 11
    IOPL = 3 << 12  # a field of two bits: the ring that may use ports
    NT = 1 << 14
    RF = 1 << 16
    VM = 1 << 17
    AC = 1 << 18
    VIF = 1 << 19
    VIP = 1 << 20
    ID = 1 << 21


class DR6:
    """What a #DB came of (SDM vol. 3B, 17.2.3)."""

    BS = 1 << 14  # RFLAGS.TF


class PTE:
    """Bits of a page-table entry at any level; PSE (a large page) counts only where a level has large pages."""

    PRESENT = 1 << 0
    RW = 1 << 1
    USER = 1 << 2
    PWT = 1 << 3
    PCD = 1 << 4
    ACCESSED = 1 << 5
    DIRTY = 1 << 6
    PSE = 1 << 7
    GLOBAL = 1 << 8
    NX = 1 << 63


class PF:
    """Error code of a page fault. PROT clear means: the page was not present."""

    PROT = 1 << 0
    WRITE = 1 << 1
    USER = 1 << 2
    RSVD = 1 << 3
    INSTR = 1 << 4
    PK = 1 << 5
    SHSTK = 1 << 6
    SGX = 1 << 15


PTE_ADDRESS_MASK = 0x000F_FFFF_FFFF_F000  # bits 51:12; the low bits of a large page's address are zero or PAT

# Selectors of the guest's GDT. The order of the user pair is what SYSRET demands: STAR[63:48] + 8 is SS, + 16 is CS.
KERNEL_CS = 0x08
KERNEL_DS = 0x10
USER_DS = 0x18 | 3
USER_CS = 0x20 | 3
CODE32_CS = 0x28
CODE16_CS = 0x30
DATA16_DS = 0x38
FIRST_TSS = 0x40  # one 16-byte descriptor per vCPU from here on
STAR_VALUE = (KERNEL_DS | 3) << 48 | KERNEL_CS << 32  # SYSCALL loads CS 0x08, SS 0x10; SYSRET loads CS 0x23, SS 0x1b


class ExceptionRow(NamedTuple):
    """One exception vector; `error_code` says whether the CPU pushes one."""

    vector: int
    mnemonic: str
    name: str
    error_code: bool = False


EXCEPTIONS = (
    ExceptionRow(0, "DE", "divide error"),
    ExceptionRow(1, "DB", "debug exception"),
    ExceptionRow(2, "NMI", "non-maskable interrupt"),
    ExceptionRow(3, "BP", "breakpoint"),
    ExceptionRow(4, "OF", "overflow"),
    ExceptionRow(5, "BR", "BOUND range exceeded"),
    ExceptionRow(6, "UD", "invalid opcode"),
    ExceptionRow(7, "NM", "device not available"),
    ExceptionRow(8, "DF", "double fault", True),
    ExceptionRow(9, "CSO", "coprocessor segment overrun"),
    ExceptionRow(10, "TS", "invalid TSS", True),
    ExceptionRow(11, "NP", "segment not present", True),
    ExceptionRow(12, "SS", "stack-segment fault", True),
    ExceptionRow(13, "GP", "general protection", True),
    ExceptionRow(14, "PF", "page fault", True),
    ExceptionRow(16, "MF", "x87 floating-point error"),
    ExceptionRow(17, "AC", "alignment check", True),
    ExceptionRow(18, "MC", "machine check"),
    ExceptionRow(19, "XM", "SIMD floating-point exception"),
    ExceptionRow(20, "VE", "virtualization exception"),
    ExceptionRow(21, "CP", "control-protection exception", True),
    ExceptionRow(28, "HV", "hypervisor injection exception"),
    ExceptionRow(29, "VC", "VMM communication exception", True),
    ExceptionRow(30, "SX", "security exception", True),
)
BY_VECTOR = {row.vector: row for row in EXCEPTIONS}
VECTOR_OF = {row.mnemonic: row.vector for row in EXCEPTIONS}
HAS_ERROR_CODE = frozenset(row.vector for row in EXCEPTIONS if row.error_code)

# Which of them <asm/kvm.h> spells as XX_VECTOR.
_IN_HEADER = frozenset((0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20))


def vectors_in_header() -> dict[str, int]:
    """DE_VECTOR ... VE_VECTOR, as <asm/kvm.h> has them."""
    return {f"{row.mnemonic}_VECTOR": row.vector for row in EXCEPTIONS if row.vector in _IN_HEADER}


def vector_name(vector: int) -> str:
    """`#PF (page fault)` for 14, `vector 0x40` for one that is no exception."""
    row = BY_VECTOR.get(vector)
    if row is None:
        return f"vector {vector:#x}"
    return f"{'' if row.mnemonic == 'NMI' else '#'}{row.mnemonic} ({row.name})"


def flag_rows(flags: type) -> list[tuple[int, str]]:
    """(mask, name) of each member, lowest bit first."""
    return [(mask, name) for name, mask in vars(flags).items() if not name.startswith("_")]


def describe_flags(value: int, flags: type) -> str:
    """`PE|ET|PG` for 0x80000011 and CR0; bits without a name stay as hex."""
    if flags is RFLAGS and (level := value >> 12 & 3):
        rest = value & ~RFLAGS.IOPL
        plain = describe(rest, [row for row in flag_rows(flags) if row[1] != "IOPL"])
        return f"{plain}|IOPL={level}" if rest else f"IOPL={level}"
    return describe(value, flag_rows(flags))


def page_fault_words(code: int) -> str:
    """A page fault's error code in words: `user write to a page that is not present`."""
    who = "user" if code & PF.USER else "supervisor"
    what = "instruction fetch from" if code & PF.INSTR else "write to" if code & PF.WRITE else "read from"
    if not code & PF.PROT:
        why = "a page that is not present"
    elif code & PF.RSVD:
        why = "a page whose entry has a reserved bit set"
    elif code & PF.PK:
        why = "a page whose protection key forbids it"
    else:
        why = "a present page that does not allow it"
    rest = code & ~(PF.PROT | PF.WRITE | PF.USER | PF.RSVD | PF.INSTR | PF.PK)
    return f"{who} {what} {why}" + (f" ({describe(rest, flag_rows(PF))})" if rest else "")


def asm_constants() -> dict[str, int]:
    """Everything above by the names that Linux uses, for the assembler."""
    constants: dict[str, int] = {}
    for prefix, flags in (
        ("X86_CR0_", CR0),
        ("X86_CR4_", CR4),
        ("EFER_", EFER),
        ("X86_EFLAGS_", RFLAGS),
        ("_PAGE_", PTE),
        ("X86_PF_", PF),
    ):
        constants |= {f"{prefix}{name}": mask for mask, name in flag_rows(flags)}
    constants |= {f"{row.mnemonic}_VECTOR": row.vector for row in EXCEPTIONS}
    selectors = ("KERNEL_CS", "KERNEL_DS", "USER_DS", "USER_CS", "CODE32_CS", "CODE16_CS", "DATA16_DS", "FIRST_TSS")
    for name in (*selectors, "STAR_VALUE"):
        constants[name] = globals()[name]
    return constants

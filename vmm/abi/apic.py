# SPDX-License-Identifier: GPL-2.0-or-later
"""The local APIC's registers and the format of interrupt messages, as pure numbers. It touches no APIC.

Sources: Intel SDM vol. 3A, 11.4 (registers), 11.6 (ICR), 11.11 (MSI), 11.12 (x2APIC); names of Linux's <asm/apicdef.h>.
The extended destination id is KVM's: Documentation/virt/kvm/x86/cpuid.rst, KVM_FEATURE_MSI_EXT_DEST_ID.
"""

from __future__ import annotations

from vmm.base.light import NamedTuple

DEFAULT_BASE = 0xFEE00000
IOAPIC_BASE = 0xFEC00000
X2APIC_BASE_MSR = 0x800


class Register(NamedTuple):
    """A local APIC register: `offset` in the MMIO page; `x2apic` is None where x2APIC mode has no such MSR."""

    offset: int
    name: str
    what: str
    in_x2apic: bool = True

    @property
    def msr(self) -> int | None:
        """The register's MSR in x2APIC mode."""
        return X2APIC_BASE_MSR + (self.offset >> 4) if self.in_x2apic else None


REGISTERS = (
    Register(0x20, "ID", "APIC id: bits 31:24 in xAPIC mode, all 32 in x2APIC mode"),
    Register(0x30, "LVR", "version and number of LVT entries"),
    Register(0x80, "TASKPRI", "task priority"),
    Register(0x90, "ARBPRI", "arbitration priority", False),
    Register(0xA0, "PROCPRI", "processor priority"),
    Register(0xB0, "EOI", "end of interrupt"),
    Register(0xC0, "RRR", "remote read", False),
    Register(0xD0, "LDR", "logical destination"),
    Register(0xE0, "DFR", "destination format", False),
    Register(0xF0, "SPIV", "spurious vector; bit 8 enables the APIC"),
    Register(0x100, "ISR", "in service, first of eight"),
    Register(0x180, "TMR", "trigger mode, first of eight"),
    Register(0x200, "IRR", "requested, first of eight"),
    Register(0x280, "ESR", "errors"),
    Register(0x2F0, "LVTCMCI", "LVT: corrected machine checks"),
    Register(0x300, "ICR", "interrupt command, low word (x2APIC: all 64 bits)"),
    Register(0x310, "ICR2", "interrupt command, destination", False),
    Register(0x320, "LVTT", "LVT: timer"),
    Register(0x330, "LVTTHMR", "LVT: thermal sensor"),
    Register(0x340, "LVTPC", "LVT: performance counters"),
    Register(0x350, "LVT0", "LVT: LINT0"),
    Register(0x360, "LVT1", "LVT: LINT1"),
    Register(0x370, "LVTERR", "LVT: errors"),
    Register(0x380, "TMICT", "timer: initial count"),
    Register(0x390, "TMCCT", "timer: current count"),
    Register(0x3E0, "TDCR", "timer: divider"),
    Register(0x3F0, "SELF_IPI", "x2APIC only: send to self"),
)

# Delivery modes, as they stand in bits 10:8 of an ICR or MSI data word.
DM_FIXED = 0x000
DM_LOWEST = 0x100
DM_SMI = 0x200
DM_REMRD = 0x300  # KVM: the kick of KVM_HC_KICK_CPU
DM_NMI = 0x400
DM_INIT = 0x500
DM_STARTUP = 0x600
DM_EXTINT = 0x700
DM_MASK = 0x700
VECTOR_MASK = 0xFF  # bits 7:0; of a start-up IPI the number of a page
DELIVERY_MODES = {
    DM_FIXED: "fixed",
    DM_LOWEST: "lowest priority",
    DM_SMI: "SMI",
    DM_REMRD: "remote read",
    DM_NMI: "NMI",
    DM_INIT: "INIT",
    DM_STARTUP: "start-up",
    DM_EXTINT: "external",
}

DEST_LOGICAL = 0x800
ICR_BUSY = 0x1000
INT_ASSERT = 0x4000
INT_LEVELTRIG = 0x8000
DEST_SELF = 0x40000
DEST_ALLINC = 0x80000
DEST_ALLBUT = 0xC0000

SPIV_APIC_ENABLED = 1 << 8
LVT_MASKED = 1 << 16
LVT_TIMER_PERIODIC = 1 << 17
LVT_TIMER_TSCDEADLINE = 1 << 18
TDR_DIV_1 = 0xB
BASE_BSP = 1 << 8  # bits of MSR_IA32_APICBASE
BASE_X2APIC_ENABLE = 1 << 10
BASE_ENABLE = 1 << 11

MSI_REMAPPABLE = 1 << 4  # address in the interrupt-remapping format: not a plain destination
_EXT_DEST_BITS = 0xFE0  # address bits 11:5 hold bits 14:8 of an extended destination id
_EXT_DEST_SHIFT = 35  # KVM wants them at bits 46:40 of the 64-bit address


def msi_address(destination: int, *, logical: bool = False, extended: bool = False) -> int:
    """The 64-bit MSI address for an APIC id.

    `extended` gives the 15-bit form a guest writes under KVM_FEATURE_MSI_EXT_DEST_ID; without it the id's upper 24 bits
    go where KVM_SIGNAL_MSI wants them (KVM_CAP_X2APIC_API with 32-bit ids). ValueError for an id that does not fit.
    """
    if not 0 <= destination < (1 << 15 if extended else 1 << 32):
        raise ValueError(f"APIC id {destination:#x} does not fit in {15 if extended else 32} bits")
    address = DEFAULT_BASE | (destination & 0xFF) << 12 | logical << 2
    if extended:
        return address | (destination >> 8) << 5
    return address | (destination & ~0xFF) << 32


def msi_data(vector: int, delivery_mode: int = DM_FIXED, *, level: bool = False) -> int:
    """The MSI data word: vector in bits 7:0, delivery mode in 10:8, asserted level trigger in 14 and 15."""
    if not 0 <= vector <= 0xFF:
        raise ValueError(f"vector {vector:#x} does not fit in 8 bits")
    return vector | delivery_mode | (INT_ASSERT | INT_LEVELTRIG if level else 0)


def translate_ext_dest_id(address: int) -> int:
    """A guest's MSI address under KVM_FEATURE_MSI_EXT_DEST_ID, as KVM_SIGNAL_MSI wants it.

    KVM ignores address bits 11:5, so they move to bits 46:40. An address in remappable format stays as it is.
    """
    if address & MSI_REMAPPABLE:
        return address
    return (address & ~_EXT_DEST_BITS) | (address & _EXT_DEST_BITS) << _EXT_DEST_SHIFT


def msi_destination(address: int) -> int:
    """The APIC id that KVM takes from a 64-bit MSI address with 32-bit ids on."""
    return address >> 12 & 0xFF | address >> 32 & 0xFFFFFF00


def ioapic_destination(entry: int, *, extended: bool = False) -> int:
    """The APIC id in a 64-bit IOAPIC redirection entry: bits 63:56, and 55:49 above them if `extended`."""
    low = entry >> 56 & 0xFF
    return low | (entry >> 49 & 0x7F) << 8 if extended else low


def icr(vector: int, delivery_mode: int = DM_FIXED, *, destination: int = 0, shorthand: int = 0) -> int:
    """The 64-bit x2APIC ICR value: destination in bits 63:32."""
    return destination << 32 | shorthand | delivery_mode | vector


def asm_constants() -> dict[str, int]:
    """Linux's names: APIC_EOI = 0xb0, APIC_DM_NMI = 0x400. The x2APIC's MSRs are in vmm.abi.msrs."""
    return {f"APIC_{row.name}": row.offset for row in REGISTERS} | {
        "APIC_DEFAULT_PHYS_BASE": DEFAULT_BASE,
        "IOAPIC_DEFAULT_PHYS_BASE": IOAPIC_BASE,
        "APIC_BASE_MSR": X2APIC_BASE_MSR,
        "APIC_DM_FIXED": DM_FIXED,
        "APIC_DM_LOWEST": DM_LOWEST,
        "APIC_DM_SMI": DM_SMI,
        "APIC_DM_REMRD": DM_REMRD,
        "APIC_DM_NMI": DM_NMI,
        "APIC_DM_INIT": DM_INIT,
        "APIC_DM_STARTUP": DM_STARTUP,
        "APIC_DM_EXTINT": DM_EXTINT,
        "APIC_DEST_LOGICAL": DEST_LOGICAL,
        "APIC_ICR_BUSY": ICR_BUSY,
        "APIC_INT_ASSERT": INT_ASSERT,
        "APIC_INT_LEVELTRIG": INT_LEVELTRIG,
        "APIC_DEST_SELF": DEST_SELF,
        "APIC_DEST_ALLINC": DEST_ALLINC,
        "APIC_DEST_ALLBUT": DEST_ALLBUT,
        "APIC_SPIV_APIC_ENABLED": SPIV_APIC_ENABLED,
        "APIC_LVT_MASKED": LVT_MASKED,
        "APIC_LVT_TIMER_PERIODIC": LVT_TIMER_PERIODIC,
        "APIC_LVT_TIMER_TSCDEADLINE": LVT_TIMER_TSCDEADLINE,
        "APIC_TDR_DIV_1": TDR_DIV_1,
        "MSR_IA32_APICBASE_BSP": BASE_BSP,
        "X2APIC_ENABLE": BASE_X2APIC_ENABLE,
        "MSR_IA32_APICBASE_ENABLE": BASE_ENABLE,
    }

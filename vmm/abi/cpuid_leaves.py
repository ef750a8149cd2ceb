# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUID leaf by leaf: what each is about, and the numbers in it that are no feature bits. It knows no value.

Sources: Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E; Documentation/virt/kvm/x86/cpuid.rst. Feature bits are in
vmm.abi.cpuid.
"""

from __future__ import annotations

from typing import NamedTuple

from vmm.abi.cpuid_entry import FEATURES_LEAF, SIGNATURE_LEAF

LEAVES = {
    0x0: "highest basic leaf, vendor",
    0x1: "family and model, features",
    0x2: "caches and TLBs, as descriptors",
    0x3: "processor serial number",
    0x4: "caches, one per sub-leaf",
    0x5: "MONITOR and MWAIT",
    0x6: "thermal and power management",
    0x7: "extended features",
    0x9: "direct cache access",
    0xA: "performance monitoring",
    0xB: "topology by x2APIC id, one level per sub-leaf",
    0xD: "extended state: XCR0 and XSAVE areas, one per sub-leaf",
    0xF: "resource monitoring",
    0x10: "resource allocation",
    0x12: "SGX enclaves",
    0x14: "processor trace",
    0x15: "TSC and core crystal clock",
    0x16: "processor frequencies",
    0x17: "system-on-chip vendor",
    0x18: "address translation parameters",
    0x19: "key locker",
    0x1A: "hybrid information",
    0x1B: "PCONFIG",
    0x1C: "last branch records",
    0x1D: "AMX tiles",
    0x1E: "AMX tile multiplication",
    0x1F: "topology by x2APIC id, with dies and modules",
    0x20: "history reset",
    0x21: "TDX",
    0x24: "AVX10",
    SIGNATURE_LEAF: "KVM: highest leaf, signature",
    FEATURES_LEAF: "KVM: paravirtual features (EAX) and hints (EDX)",
    0x40000010: "hypervisor timing, where the VMM offers it",
    0x80000000: "highest extended leaf, vendor",
    0x80000001: "extended features",
    0x80000002: "brand string, first part",
    0x80000003: "brand string, second part",
    0x80000004: "brand string, third part",
    0x80000005: "first-level caches and TLBs",
    0x80000006: "second- and third-level caches, TLBs",
    0x80000007: "power management and reliability",
    0x80000008: "address sizes, more features",
    0x8000000A: "SVM features",
    0x80000019: "TLBs of 1 GiB pages",
    0x8000001A: "performance optimization",
    0x8000001B: "instruction-based sampling",
    0x8000001D: "cache topology, one per sub-leaf",
    0x8000001E: "processor topology",
    0x8000001F: "memory encryption",
    0x80000020: "resource allocation, AMD",
    0x80000021: "extended features, second leaf",
    0x80000022: "performance monitoring, AMD",
    0x80000026: "extended topology, AMD",
    0xC0000000: "highest Centaur leaf",
    0xC0000001: "Centaur features",
}


class CpuidField(NamedTuple):
    """`width` bits from bit `lo` up in a register; `index` None means every sub-leaf."""

    leaf: int
    index: int | None  # type: ignore[assignment]  # as in CpuidEntry
    register: str
    lo: int
    width: int
    what: str


FIELDS = (
    CpuidField(0x0, 0, "eax", 0, 32, "highest basic leaf"),
    CpuidField(0x1, 0, "eax", 0, 4, "stepping"),
    CpuidField(0x1, 0, "eax", 4, 4, "model"),
    CpuidField(0x1, 0, "eax", 8, 4, "family"),
    CpuidField(0x1, 0, "eax", 16, 4, "extended model"),
    CpuidField(0x1, 0, "eax", 20, 8, "extended family"),
    CpuidField(0x1, 0, "ebx", 8, 8, "CLFLUSH line / 8"),
    CpuidField(0x1, 0, "ebx", 16, 8, "APIC ids reserved"),
    CpuidField(0x1, 0, "ebx", 24, 8, "APIC id"),
    CpuidField(0x7, 0, "eax", 0, 32, "highest sub-leaf"),
    CpuidField(0xA, 0, "eax", 0, 8, "version"),
    CpuidField(0xA, 0, "eax", 8, 8, "counters"),
    CpuidField(0xA, 0, "eax", 16, 8, "counter bits"),
    CpuidField(0xB, None, "eax", 0, 5, "APIC id shift to the next level"),
    CpuidField(0xB, None, "ebx", 0, 16, "logical processors"),
    CpuidField(0xB, None, "ecx", 8, 8, "level type"),
    CpuidField(0xB, None, "edx", 0, 32, "x2APIC id"),
    CpuidField(0xD, 0, "ebx", 0, 32, "bytes for what XCR0 has on"),
    CpuidField(0xD, 0, "ecx", 0, 32, "bytes for all of XCR0"),
    CpuidField(0x15, 0, "eax", 0, 32, "denominator"),
    CpuidField(0x15, 0, "ebx", 0, 32, "numerator"),
    CpuidField(0x15, 0, "ecx", 0, 32, "crystal clock, Hz"),
    CpuidField(0x16, 0, "eax", 0, 16, "base MHz"),
    CpuidField(0x16, 0, "ebx", 0, 16, "maximum MHz"),
    CpuidField(0x16, 0, "ecx", 0, 16, "bus MHz"),
    CpuidField(0x1F, None, "eax", 0, 5, "APIC id shift to the next level"),
    CpuidField(0x1F, None, "ebx", 0, 16, "logical processors"),
    CpuidField(0x1F, None, "ecx", 8, 8, "level type"),
    CpuidField(0x1F, None, "edx", 0, 32, "x2APIC id"),
    CpuidField(SIGNATURE_LEAF, 0, "eax", 0, 32, "highest KVM leaf"),
    CpuidField(0x80000000, 0, "eax", 0, 32, "highest extended leaf"),
    CpuidField(0x80000008, 0, "eax", 0, 8, "physical address bits"),
    CpuidField(0x80000008, 0, "eax", 8, 8, "linear address bits"),
    CpuidField(0x80000008, 0, "eax", 16, 8, "guest physical address bits"),
    CpuidField(0x80000008, 0, "ecx", 0, 8, "cores - 1"),
    CpuidField(0x8000000A, 0, "eax", 0, 8, "SVM revision"),
    CpuidField(0x8000000A, 0, "ebx", 0, 32, "address space ids"),
    CpuidField(0x8000001F, 0, "ebx", 0, 6, "encryption bit of a page-table entry"),
)
# Leaves whose registers are text, and in which order: a vendor's letters, a brand's.
TEXT = {
    0x0: ("ebx", "edx", "ecx"),
    0x80000000: ("ebx", "edx", "ecx"),
    SIGNATURE_LEAF: ("ebx", "ecx", "edx"),
    0x80000002: ("eax", "ebx", "ecx", "edx"),
    0x80000003: ("eax", "ebx", "ecx", "edx"),
    0x80000004: ("eax", "ebx", "ecx", "edx"),
}


def fields(leaf: int, index: int, register: str) -> list[CpuidField]:
    """The numbers of one register."""
    return [row for row in FIELDS if (row.leaf, row.register) == (leaf, register) and row.index in (None, index)]

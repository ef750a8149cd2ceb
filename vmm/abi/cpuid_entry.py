# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUID: the value types of an entry and of a feature bit, and what every start of a machine asks for.

It knows no more names than that: features by name are cpuid.py's. Sources: Intel SDM vol. 2A, CPUID; AMD APM vol. 3,
appendix E; Documentation/virt/kvm/x86/cpuid.rst.
"""

from __future__ import annotations

from vmm.base.light import NamedTuple

FLAG_SIGNIFCANT_INDEX = 1 << 0  # KVM_CPUID_FLAG_SIGNIFCANT_INDEX, in the header's spelling: ECX selects the answer
REGISTERS = ("eax", "ebx", "ecx", "edx")

# KVM's own leaves. A guest looks for the signature at these bases, in this order (0x40000100 when Hyper-V is first).
SIGNATURE_LEAF = 0x40000000
FEATURES_LEAF = 0x40000001
SIGNATURE_BASES = range(0x40000000, 0x40010000, 0x100)
SIGNATURE = (0x4B4D564B, 0x564B4D56, 0x0000004D)  # EBX, ECX, EDX: "KVMKVMKVM\0\0\0"

# AMD and Hygon repeat these bits of 1.EDX in 0x80000001.EDX: fpu ... apic, mtrr ... pse36, mmx, fxsr.
AMD_REPEATED_1_EDX = 0x0183F3FF


class CpuidEntry(NamedTuple):
    """One answer of CPUID, as struct kvm_cpuid_entry2: leaf (`function`), sub-leaf (`index`), flags, four registers."""

    function: int
    index: int = 0  # type: ignore[assignment]  # the kernel's name; it hides tuple.index, which no row needs
    flags: int = 0
    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0

    @property
    def indexed(self) -> bool:
        """Whether the answer depends on the sub-leaf in ECX."""
        return bool(self.flags & FLAG_SIGNIFCANT_INDEX)


class CpuidFeature(NamedTuple):
    """One feature bit. KVM's own features stand at leaf 0x40000001; the real leaf follows the signature."""

    name: str
    leaf: int
    index: int  # type: ignore[assignment]  # as in CpuidEntry
    register: str
    bit: int

    @property
    def mask(self) -> int:
        return 1 << self.bit

    @property
    def is_kvm(self) -> bool:
        return self.leaf == FEATURES_LEAF

    def __str__(self) -> str:
        index = f".{self.index}" if self.leaf in _WITH_INDEX else ""
        return f"{self.name} ({self.leaf:#x}{index}:{self.register.upper()}[{self.bit}])"


_WITH_INDEX = frozenset((0x7, 0xD, 0x12, 0x14, 0x24))

# Of the feature bits, those that every start of a machine asks for; all others are in cpuid_bits.py.
X2APIC = CpuidFeature("x2apic", 0x1, 0, "ecx", 21)
TSC_DEADLINE = CpuidFeature("tsc_deadline_timer", 0x1, 0, "ecx", 24)
HYPERVISOR = CpuidFeature("hypervisor", 0x1, 0, "ecx", 31)
PV_UNHALT = CpuidFeature("PV_UNHALT", FEATURES_LEAF, 0, "eax", 7)

APIC_ID_AT = {
    0x1: ("ebx", 24, 8),
    0xB: ("edx", 0, 32),
    0x1F: ("edx", 0, 32),
    0x8000001E: ("eax", 0, 32),
    0x80000026: ("edx", 0, 32),
}
"""Where CPUID tells the APIC id: leaf -> (register, lowest bit, width); in every sub-leaf. Intel SDM vol. 2A, CPUID;
AMD APM vol. 3, E.4.16 and E.4.24."""

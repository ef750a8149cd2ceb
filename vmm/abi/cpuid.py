# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUID: the value type of one entry, and features by name. What is done with them is vmm.machine.x86.cpuid's business.

Feature names are those of /proc/cpuinfo, else Linux's X86_FEATURE_ name in lower case; `ALIASES` holds other spellings.
Sources: Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E; Linux's asm/cpufeatures.h and kvm/reverse_cpuid.h.
"""

from __future__ import annotations

from vmm.base.light import NamedTuple, cache

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


@cache
def features() -> dict[str, CpuidFeature]:
    """Every feature by its name: the CPU's in lower case, KVM's own in upper case (`STEAL_TIME`)."""
    from vmm.abi import pv
    from vmm.abi.cpuid_bits import TABLE

    table = {
        name: CpuidFeature(name, leaf, index, register, bit)
        for (leaf, index, register), bits in TABLE.items()
        for bit, name in bits.items()
    }
    return table | {row.name: CpuidFeature(row.name, FEATURES_LEAF, 0, row.register, row.bit) for row in pv.FEATURES}


def find(name: str) -> CpuidFeature | None:
    """A feature, or None, by `x2apic`, `X86_FEATURE_X2APIC`, `sse4.1`, `STEAL_TIME`, `KVM_FEATURE_PV_EOI`."""
    from vmm.abi.cpuid_bits import ALIASES

    plain = name.strip().lower().removeprefix("x86_feature_").replace("-", "_")
    plain = ALIASES.get(plain, plain)
    if plain in features():
        return features()[plain]
    from vmm.abi import pv

    feature = pv.find(name)
    return features()[feature.name] if feature else None


def unknown(name: str) -> str:
    """The sentence for a name that `find` does not know, with the nearest ones."""
    from vmm.abi.cpuid_bits import ALIASES
    from vmm.base import names

    plain = name.strip().lower().removeprefix("x86_feature_").removeprefix("kvm_feature_")
    return names.unknown("CPUID feature", plain, [*features(), *ALIASES])


def in_register(leaf: int, index: int, register: str) -> list[CpuidFeature]:
    """The named features of one register, lowest bit first; 0x80000001.EDX with those that AMD repeats there."""
    where = (leaf, index, register)
    found = [row for row in features().values() if row[1:4] == where]
    if where == (0x80000001, 0, "edx"):
        repeated = [row for row in in_register(1, 0, "edx") if row.mask & AMD_REPEATED_1_EDX]
        found += [row._replace(leaf=leaf) for row in repeated]
    return sorted(found, key=lambda row: row.bit)


def describe(leaf: int, index: int, register: str, value: int) -> str:
    """Names of the set bits of one register; bits without a name stay as hex, so none is lost."""
    from vmm.base.bits import describe as describe_bits

    return describe_bits(value, [(row.mask, row.name) for row in in_register(leaf, index, register)])

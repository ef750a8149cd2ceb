# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUID features by name. What is done with them is vmm.machine.x86.cpuid's business.

Feature names are those of /proc/cpuinfo, else Linux's X86_FEATURE_ name in lower case; `ALIASES` holds other spellings.
The types, and what a start of a machine needs without all these names, are those of cpuid_entry.py.
"""

from __future__ import annotations

from vmm.abi import pv
from vmm.abi.cpuid_bits import ALIASES as ALIASES
from vmm.abi.cpuid_bits import TABLE
from vmm.abi.cpuid_entry import AMD_REPEATED_1_EDX as AMD_REPEATED_1_EDX
from vmm.abi.cpuid_entry import APIC_ID_AT as APIC_ID_AT
from vmm.abi.cpuid_entry import FEATURES_LEAF as FEATURES_LEAF
from vmm.abi.cpuid_entry import FLAG_SIGNIFCANT_INDEX as FLAG_SIGNIFCANT_INDEX
from vmm.abi.cpuid_entry import HYPERVISOR as HYPERVISOR
from vmm.abi.cpuid_entry import PV_UNHALT as PV_UNHALT
from vmm.abi.cpuid_entry import REGISTERS as REGISTERS
from vmm.abi.cpuid_entry import SIGNATURE as SIGNATURE
from vmm.abi.cpuid_entry import SIGNATURE_BASES as SIGNATURE_BASES
from vmm.abi.cpuid_entry import SIGNATURE_LEAF as SIGNATURE_LEAF
from vmm.abi.cpuid_entry import TSC_DEADLINE as TSC_DEADLINE
from vmm.abi.cpuid_entry import X2APIC as X2APIC
from vmm.abi.cpuid_entry import CpuidEntry as CpuidEntry
from vmm.abi.cpuid_entry import CpuidFeature as CpuidFeature
from vmm.base import names
from vmm.base.light import cache


@cache
def features() -> dict[str, CpuidFeature]:
    """Every feature by its name: the CPU's in lower case, KVM's own in upper case (`STEAL_TIME`)."""
    table = {
        name: CpuidFeature(name, leaf, index, register, bit)
        for (leaf, index, register), bits in TABLE.items()
        for bit, name in bits.items()
    }
    return table | {row.name: CpuidFeature(row.name, FEATURES_LEAF, 0, row.register, row.bit) for row in pv.FEATURES}


def find(name: str) -> CpuidFeature | None:
    """A feature, or None, by `x2apic`, `X86_FEATURE_X2APIC`, `sse4.1`, `STEAL_TIME`, `KVM_FEATURE_PV_EOI`."""
    plain = name.strip().lower().removeprefix("x86_feature_").replace("-", "_")
    plain = ALIASES.get(plain, plain)
    if plain in features():
        return features()[plain]
    feature = pv.find(name)
    return features()[feature.name] if feature else None


def unknown(name: str) -> str:
    """The sentence for a name that `find` does not know, with the nearest ones."""
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

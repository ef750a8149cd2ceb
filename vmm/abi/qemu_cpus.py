# SPDX-License-Identifier: GPL-2.0-or-later
"""CPU models of QEMU by the features that they show to a guest, in the names of vmm.abi.cpuid. No I/O.

Rows are those of the models that kvm-unit-tests' x86 tests name, as QEMU has them with KVM, which takes svm away from
each: a test asks QEMU itself (query-cpu-model-expansion), where the host has one.
"""

from __future__ import annotations

WHOLE = ("", "host", "max")
"""Models that show all that KVM offers; without -cpu QEMU has qemu64, and tests are written for any CPU then."""

_PENTIUM_PRO = (
    "fpu de pse tsc msr pae mce cx8 apic sep pge cmov pat mmx fxsr sse sse2"
)  # fmt: skip
_K8 = f"{_PENTIUM_PRO} mtrr clflush mca pse36 pni lm syscall nx"

MODELS: dict[str, frozenset[str]] = {
    "qemu64": frozenset(f"{_K8} cx16 lahf_lm".split()),
    "kvm64": frozenset(f"{_K8} cx16 vme".split()),
    "Opteron_G1": frozenset(f"{_K8} vme".split()),
}

BESIDE = frozenset(["x2apic", "hypervisor", "osxsave", "ospke", "tsc_deadline_timer"])
"""What a model does not decide: QEMU with KVM adds x2apic and hypervisor to each, the CPU itself sets osxsave and
ospke, and the timer of the LAPIC is asked for by name where a test needs to be without."""

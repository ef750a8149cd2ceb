# SPDX-License-Identifier: GPL-2.0-or-later
"""An MSR behind a feature bit: what becomes of it when the bit is hidden, without enforcement and with it."""

from __future__ import annotations

from vmm.abi import cpuid as facts
from vmm.abi import msrs, pv
from vmm.payload.proof.accesses import GP, OK, cpuid, perform, rdmsr, wrmsr
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Refusal


def hidden_msr(lab: Lab, feature: pv.Feature, msr: msrs.Msr, value: int) -> list[Refusal]:
    """Two guests that do not see `feature`, and write `value` to the MSR and read it all the same.

    Without KVM_CAP_ENFORCE_PV_FEATURE_CPUID nothing but the bit is gone; with it, both accesses are #GP.
    """
    found = []
    for kind, enforce, want in (("masked", False, OK), ("enforced", True, GP)):
        with lab.guest(payload="accesses", mask=(feature.name,), enforce=enforce) as guest:
            leaf, write, read = perform(
                guest, [cpuid(facts.FEATURES_LEAF), wrmsr(msr.number, value), rdmsr(msr.number)]
            )
        bit = "set" if leaf.words[0] & feature.mask else "clear"
        found += [
            Refusal(kind, f"bit {feature.bit} in the guest's CPUID", "clear", bit),
            Refusal(kind, f"WRMSR {msr.name}", want, write.text),
            Refusal(kind, f"RDMSR {msr.name}", want, read.text),
        ]
    return found

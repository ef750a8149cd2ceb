# SPDX-License-Identifier: GPL-2.0-or-later
"""ASYNC_PF_VMEXIT: the MSR takes its bit with the feature and refuses it without. What the bit does needs nesting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vmm.abi import pv
from vmm.machine.layout import REGIONS
from vmm.payload.accesses import GP, OK
from vmm.payload.ending import run_to_pass
from vmm.payload.lab import Lab
from vmm.payload.verdict import Finding, Refusal, Verdict

FEATURES = ("ASYNC_PF_VMEXIT",)
NEEDED = ("ASYNC_PF", "ASYNC_PF_INT")
_FACTS = {row.name: row.value for row in pv.CONSTANTS}
PLAIN = _FACTS["KVM_ASYNC_PF_ENABLED"] | _FACTS["KVM_ASYNC_PF_DELIVERY_AS_INT"]
WRITTEN = REGIONS["data"].base | PLAIN | _FACTS["KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT"]
BIT = "bit 2 of MSR_KVM_ASYNC_PF_EN"


@dataclass(frozen=True)
class Evidence:
    """What one guest saw: the feature and VMX or SVM in its CPUID, #GP or not, and what the MSR held afterwards."""

    feature: int
    nesting: int
    refused: int
    read_back: int
    refused_without: int


def judge(shown: Evidence, hidden: Evidence) -> Finding:
    """`shown` with the feature, `hidden` with it masked; both with KVM_CAP_ENFORCE_PV_FEATURE_CPUID."""
    evidence = {
        "accepted_with_feature": int(not shown.refused),
        "read_back": f"{shown.read_back:#x}",
        "refused_when_enforced": hidden.refused,
        "guest_sees_feature": shown.feature,
        "guest_sees_feature_masked": hidden.feature,
        "guest_sees_vmx_or_svm": shown.nesting,
    }
    wrong = _wrong(shown, hidden)
    if wrong:
        return Finding(Verdict.BROKEN, wrong, evidence)
    gate = f"{BIT} is accepted with the feature and refused without"
    if shown.nesting:
        return Finding(
            Verdict.UNPROVEN,
            f"{gate}; the #PF exit needs a hypervisor in the guest, which pyvmm does not bring",
            evidence,
        )
    return Finding(
        Verdict.INERT,
        f"{gate}; the #PF exit needs a guest in the guest, and this KVM offers neither VMX nor SVM",
        evidence,
    )


def _wrong(shown: Evidence, hidden: Evidence) -> str:
    if not shown.feature or hidden.feature:
        return f"CPUID bit 10 reads {shown.feature} when exposed and {hidden.feature} when masked"
    if shown.refused:
        return f"{BIT} raised #GP although the guest has the feature"
    if shown.read_back != WRITTEN:
        return f"the MSR reads {shown.read_back:#x} after {WRITTEN:#x} was written"
    if not hidden.refused:
        return f"{BIT} was accepted although the feature is hidden and enforced"
    if hidden.refused_without:
        return "the MSR was refused without bit 2 too, so the refusal says nothing of the bit"
    return ""


def prove(lab: Lab) -> Finding:
    """Two guests."""
    absent = lab.absent("ASYNC_PF_VMEXIT")
    if absent:
        return absent
    for needed in NEEDED:
        if not lab.offered(needed):
            return Finding(Verdict.INERT, f"without {needed} there is no asynchronous page fault to deliver")
    return judge(_ask(lab, (), True), _ask(lab, FEATURES, True))


def refusals(lab: Lab) -> list[Refusal]:
    """The matrix of one bit, with its positive control."""
    if not all(lab.offered(needed) for needed in NEEDED):
        return []  # the MSR is refused for another reason
    shown, masked, enforced = _ask(lab, (), True), _ask(lab, FEATURES, False), _ask(lab, FEATURES, True)
    return [
        Refusal("control", f"{BIT}, feature present and enforced", OK, GP if shown.refused else OK),
        Refusal("masked", f"{BIT}, masked and not enforced", OK, GP if masked.refused else OK),
        Refusal("enforced", f"{BIT}, masked and enforced", GP, GP if enforced.refused else OK),
        Refusal(
            "control", "bits 0 and 3 without bit 2, masked and enforced", OK, GP if enforced.refused_without else OK
        ),
    ]


def _ask(lab: Lab, mask: Iterable[str], enforce: bool) -> Evidence:
    with lab.guest(mask=mask, enforce=enforce) as guest:
        run_to_pass(guest)
        return Evidence(guest["feature"], guest["nesting"], guest["with"], guest["read_back"], guest["without"])

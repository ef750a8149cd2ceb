# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of mmu_op: absent means that KVM neither offers the bit nor answers the hypercall.

Source: Documentation/virt/kvm/x86/cpuid.rst (KVM_FEATURE_MMU_OP, deprecated), hypercalls.rst (KVM_HC_MMU_OP).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vmm.abi import pv
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict


@dataclass(frozen=True)
class Evidence:
    """`offered` by KVM; `seen` by the guest; what its two hypercalls gave, and whether pyvmm answered them."""

    offered: bool
    seen: bool
    poll: int
    result: int
    served: bool

    def numbers(self) -> dict[str, Any]:
        return {
            "offered": self.offered,
            "seen": self.seen,
            "vapic_poll_irq": self.poll,
            "mmu_op": self.result,
            "served_by_pyvmm": self.served,
        }


def judge(evidence: Evidence) -> Finding:
    """`absent`, which is right; `unproven` on a KVM so old that it has it; `broken` where the two do not fit."""
    numbers = evidence.numbers()
    if evidence.offered:
        return Finding(Verdict.UNPROVEN, "this KVM is old enough to offer it, and pyvmm has no proof for it", numbers)
    if evidence.seen:
        return Finding(Verdict.BROKEN, "KVM does not offer bit 2, and the guest sees it", numbers)
    if evidence.poll != 0:
        return Finding(Verdict.BROKEN, f"KVM_HC_VAPIC_POLL_IRQ gives {pv.return_words(evidence.poll)}", numbers)
    if evidence.result != -pv.KVM_ENOSYS:
        return Finding(Verdict.BROKEN, f"hypercall 2 gives {pv.return_words(evidence.result)}", numbers)
    who = "pyvmm" if evidence.served else "KVM"
    return Finding(Verdict.ABSENT, f"removed: not offered, and {who} answers hypercall 2 with -KVM_ENOSYS", numbers)


def prove(lab: Lab) -> Finding:
    """One guest, two calls."""
    row = pv.feature("MMU_OP")
    with lab.guest() as guest:
        run_to_pass(guest)
        return judge(
            Evidence(
                offered=lab.offered("MMU_OP"),
                seen=bool(guest["features"] & row.mask),
                poll=guest["poll"],
                result=guest["result"],
                served=bool(guest.hypercalls and guest.hypercalls.served),
            )
        )

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of tlb_flush: plays the vCPU that wants a flush, and counts what KVM flushed.

While the guest's vCPU is out of KVM_RUN, the host writes 0, 1, 2 or 3 into its `preempted` byte, as another vCPU would,
and compares the statistic `tlb_flush` before the entry and after it. KVM flushes for other reasons too: each value is
tried several times, the least rise counts, and the entries with 0 are what the others are compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vmm.abi import ports, pv
from vmm.abi.structs import KVM_STEAL_TIME
from vmm.machine.memory.layout import REGIONS
from vmm.payload.guest import Guest
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Unproven, Verdict

PREEMPTED = REGIONS["data"].base + KVM_STEAL_TIME.field("preempted").offset
STATISTIC = "tlb_flush"
VALUES = (0, 1, 2, 3)
FLUSH = 2  # KVM_VCPU_FLUSH_TLB
REFUSAL_ROUNDS = 4


@dataclass(frozen=True)
class Evidence:
    """`rises`: how much the statistic rose over each entry with a value. The rest are the guest's results."""

    rises: Mapping[int, Sequence[int]]
    seen: int
    requests: int
    left: int
    stale: int
    fresh: int

    def flushes(self, value: int) -> int:
        """Flushes for this value, above those of an entry without any request."""
        return min(self.rises[value]) - min(self.rises[0])


def gather(guest: Guest) -> Evidence:
    """Run the guest, and answer its OUTs."""
    memory, rises = guest.machine.memory, {value: list[int]() for value in VALUES}
    with guest.machine.cpus[0].vcpu.get_stats() as stats:
        if STATISTIC not in stats:
            raise Unproven(f"this KVM has no statistic {STATISTIC}")
        before = 0
        measured = guest.constant("MEASURED")  # what the guest adds to a value when its entry is over

        def answer(value: int) -> None:
            nonlocal before
            if value in rises:
                memory.write(PREEMPTED, bytes((value,)))
                before = stats[STATISTIC]
            else:
                rises[value - measured].append(stats[STATISTIC] - before)

        guest.machine.on_port_write(ports.DELAY, answer)
        run_to_pass(guest)
    return Evidence(rises, guest["seen"], guest["requests"], guest["left"], guest["stale"], guest["fresh"])


def prove(lab: Lab) -> Finding:
    absent = lab.absent("PV_TLB_FLUSH") or lab.absent("STEAL_TIME")
    if absent:
        return absent
    with lab.guest() as guest:
        return judge(gather(guest))


def judge(evidence: Evidence) -> Finding:
    """The byte is consumed whatever it holds; a flush comes for bit 1 alone; after it, the new page is read."""
    numbers = {f"tlb_flush_rise_for_{value}": min(evidence.rises[value]) for value in VALUES}
    numbers |= {
        "entries_for_each": len(evidence.rises[0]),
        "byte_left": evidence.left,
        "requests": evidence.requests,
        "stale_before": evidence.stale,
        "fresh_after": evidence.fresh,
    }
    wrong = _wrong(evidence)
    if wrong:
        return Finding(Verdict.BROKEN, wrong, numbers)
    rises = ", ".join(f"{value}: +{numbers[f'tlb_flush_rise_for_{value}']}" for value in VALUES)
    summary = (
        f"tlb_flush for preempted = {rises}; new page read after {evidence.fresh} of {evidence.requests} requests, "
        f"the old one {evidence.stale} time{'s' * (evidence.stale != 1)} before"
    )
    return Finding(Verdict.WORKS, "", numbers, summary)


def _wrong(evidence: Evidence) -> str:
    """The first contradiction to the ABI; empty if there is none."""
    for name in ("STEAL_TIME", "PV_TLB_FLUSH"):
        feature = pv.feature(name)
        if not evidence.seen & feature.mask:
            return f"the guest does not see {name} in {evidence.seen:#x}, and it was exposed"
    if evidence.left:
        return f"preempted held {evidence.left:#x} after an entry, and KVM makes it 0"
    for value in VALUES:
        flushes = evidence.flushes(value)
        if value & FLUSH and flushes < 1:
            return f"preempted = {value} asks for a flush; it was consumed, and nothing was flushed"
        if not value & FLUSH and flushes:
            return f"preempted = {value} asks for no flush, and {STATISTIC} rose by {flushes}"
    if not evidence.requests or evidence.fresh != evidence.requests:
        return f"after {evidence.requests} flushes the new page was read {evidence.fresh} times"
    return ""


def refusals(lab: Lab) -> list[Refusal]:
    """Hidden and enforced, the request is dropped: the byte becomes 0 and nothing is flushed."""
    found = []
    for kind, mask, enforce, want in (
        ("masked", lab.proves, False, "flushed"),
        ("enforced", lab.proves, True, "not flushed"),
        ("control", (), True, "flushed"),
    ):
        with lab.guest(mask=mask, enforce=enforce, params={"rounds": REFUSAL_ROUNDS}) as guest:
            seen = gather(guest)
        for value in (2, 3):
            flushed = "flushed" if seen.flushes(value) > 0 else "not flushed"
            found.append(Refusal(kind, f"flush request, preempted = {value}", want, flushed))
        found.append(Refusal(kind, "the byte after an entry", "0", f"{seen.left:#x}" if seen.left else "0"))
    return found

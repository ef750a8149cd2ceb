# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of sched_yield: two busy vCPUs on one CPU, and KVM's count of the yields that the first one asked for.

KVM counts every call in directed_yield_attempted, and in directed_yield_successful those that gave the CPU away. Where
the hypercall never reaches KVM, pyvmm serves it, and there is nothing that could be counted.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from vmm.abi import ports, pv
from vmm.abi.cpuid import FEATURES_LEAF
from vmm.abi.ports import HANDED_OVER
from vmm.host.hog import any_cpu, pinned
from vmm.payload.proof.accesses import cpuid, hypercall, perform
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.lab import evidence as numbers_of
from vmm.payload.proof.verdict import Finding, Refusal, Verdict

ATTEMPTED, SUCCESSFUL = "directed_yield_attempted", "directed_yield_successful"


@dataclass(frozen=True, slots=True)
class Calls:
    """One phase: calls that the guest made and how many did not return 0; what KVM's statistics rose by meanwhile.

    The statistics are None where KVM does not have them.
    """

    made: int
    refused: int
    attempted: int | None = None
    successful: int | None = None


@dataclass(frozen=True)
class Evidence:
    """`target`: calls that named a busy vCPU; `nobody`: the caller itself, and an id without a vCPU.

    `kind` is the guest's; `served` how many calls pyvmm answered, the first one that finds the instruction included.
    """

    target: Calls
    nobody: Calls
    seen: int
    kind: int
    served: int


def prove(lab: Lab) -> Finding:
    absent = lab.absent("PV_SCHED_YIELD")
    if absent:
        return absent
    with lab.guest() as guest, ExitStack() as stack:
        vcpu = guest.machine.cpus[0].vcpu
        stats = stack.enter_context(vcpu.get_stats()) if guest.machine.kvm.check_extension("BINARY_STATS_FD") else {}
        if lab.param("contend"):
            stack.enter_context(pinned(any_cpu()))  # the thread of vCPU 1 inherits it
        marks: list[tuple[int | None, int | None]] = []

        def mark(value: int) -> None:
            marks.append((stats.get(ATTEMPTED), stats.get(SUCCESSFUL)))

        guest.machine.on_port_write(ports.DELAY, mark)
        run_to_pass(guest)
        assert guest.hypercalls is not None
        return judge(
            Evidence(
                target=Calls(guest["made"], guest["refused"], *_rise(marks[0], marks[1])),
                nobody=Calls(guest["idle_made"], guest["idle_refused"], *_rise(marks[1], marks[2])),
                seen=guest["seen"],
                kind=guest["kind"],
                served=guest.hypercalls.served[_call().nr],
            )
        )


def _feature() -> pv.Feature:
    return pv.feature("PV_SCHED_YIELD")


def _call() -> pv.Hypercall:
    return pv.hypercall("SCHED_YIELD")


def _rise(
    earlier: tuple[int | None, int | None], later: tuple[int | None, int | None]
) -> tuple[int | None, int | None]:
    """By how much each statistic rose."""
    rises = [None if old is None or new is None else new - old for old, new in zip(earlier, later, strict=True)]
    return rises[0], rises[1]


def judge(evidence: Evidence) -> Finding:
    """Always 0 in RAX; every call attempted; some successful where the other vCPU waits, none where nobody does."""
    target, nobody = evidence.target, evidence.nobody
    numbers = numbers_of(
        calls=target.made,
        refused=target.refused,
        attempted=target.attempted,
        successful=target.successful,
        calls_to_nobody=nobody.made,
        refused_to_nobody=nobody.refused,
        attempted_to_nobody=nobody.attempted,
        successful_to_nobody=nobody.successful,
        transport=evidence.kind,
        served=evidence.served,
    )
    if not evidence.seen & _feature().mask:
        reason = f"the guest does not see PV_SCHED_YIELD in {evidence.seen:#x}, and it was exposed"
        return Finding(Verdict.BROKEN, reason, numbers)
    refused = target.refused + nobody.refused
    if refused:
        reason = f"{refused} of {target.made + nobody.made} calls did not return 0"
        return Finding(Verdict.BROKEN, reason, numbers)
    if evidence.kind == HANDED_OVER or evidence.served:
        return _served(evidence, numbers)
    return _counted(target, nobody, numbers)


def _served(evidence: Evidence, numbers: dict[str, object]) -> Finding:
    made = evidence.target.made + evidence.nobody.made
    if evidence.served < made:
        reason = f"pyvmm served {evidence.served} of {made} calls, and nobody the others"
        return Finding(Verdict.BROKEN, reason, numbers)
    return Finding(
        Verdict.SERVICED,
        f"the hypercall never reaches KVM here; pyvmm answered {made} calls with 0, and KVM can count no yield",
        numbers,
    )


def _counted(target: Calls, nobody: Calls, numbers: dict[str, object]) -> Finding:
    for calls in (target, nobody):
        if calls.attempted is None or calls.successful is None:
            return Finding(Verdict.UNPROVEN, f"every call returned 0; this KVM has no statistic {ATTEMPTED}", numbers)
        if calls.attempted != calls.made:
            reason = f"{ATTEMPTED} rose by {calls.attempted} over {calls.made} calls"
            return Finding(Verdict.BROKEN, reason, numbers)
    if nobody.successful:
        reason = f"{SUCCESSFUL} rose by {nobody.successful} over calls that named nobody else"
        return Finding(Verdict.BROKEN, reason, numbers)
    if not target.successful:
        reason = f"none of {target.made} yields gave the CPU away, though the other vCPU had just lost it"
        return Finding(Verdict.UNPROVEN, reason, numbers)
    summary = (
        f"{target.made} calls, {target.attempted} attempted, {target.successful} successful; "
        f"of {nobody.made} to itself or nobody, {nobody.successful}"
    )
    return Finding(Verdict.WORKS, "", numbers, summary)


def refusals(lab: Lab) -> list[Refusal]:
    """Hidden, the call is answered; hidden and enforced, it is not."""
    call, found = _call(), []
    for kind, mask, enforce, want in (
        ("masked", lab.proves, False, "0"),
        ("enforced", lab.proves, True, f"-KVM_ENOSYS ({-pv.KVM_ENOSYS})"),
        ("control", (), True, "0"),
    ):
        with lab.guest(payload="accesses", mask=mask, enforce=enforce) as guest:
            leaf, answer = perform(guest, [cpuid(FEATURES_LEAF), hypercall(call.nr, 0)])
        bit = "set" if leaf.words[0] & _feature().mask else "clear"
        found += [
            Refusal(kind, "bit 13 in the guest's CPUID", "clear" if mask else "set", bit),
            Refusal(kind, call.kernel_name, want, pv.return_words(answer.value)),
        ]
    return found

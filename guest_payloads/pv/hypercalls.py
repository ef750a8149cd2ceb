# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of hypercalls: who answered. KVM counts its hypercalls; an answer that it did not count is somebody else's.

That happens: where the instruction is not intercepted, a hypervisor below this KVM may answer, and it sees the guest as
ring 3 of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmm.abi import pv, x86
from vmm.abi.ports import DELAY, HANDED_OVER
from vmm.machine.x86.cpuid import CpuidModel
from vmm.payload.proof.accesses import hypercall, perform
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict

POLL, UNKNOWN, RING3 = "KVM_HC_VAPIC_POLL_IRQ", "unknown hypercall", "hypercall from ring 3"
NR = next(row for row in pv.HYPERCALLS if row.name == "VAPIC_POLL_IRQ").nr
STATISTIC = "hypercalls"
INSTRUCTIONS = ("vmcall", "vmmcall")


@dataclass(frozen=True)
class Try:
    """One instruction in ring 3: the exception it raised (0: none), RAX afterwards, what KVM counted (None: no
    statistic). With an exception, RAX is pyvmm's answer.
    """

    instruction: str
    fault: int
    rax: int
    counted: int | None

    @property
    def words(self) -> str:
        if self.fault:
            return f"{self.instruction} raises {'#' + x86.BY_VECTOR[self.fault].mnemonic}"
        counted = "not counted" if self.counted is None else f"counted {self.counted} times"
        return f"{self.instruction} gives {pv.return_words(self.rax)}, {counted} by KVM"


@dataclass(frozen=True)
class Evidence:
    """Results of ring 0, each with what KVM counted meanwhile (None: no statistic), and the two tries of ring 3."""

    poll: int
    changed: int
    poll_counted: int | None
    unknown: int
    refused: int
    unknown_counted: int | None
    kind: int
    tries: tuple[Try, ...]


def prove(lab: Lab) -> dict[str, Finding]:
    with lab.guest() as guest:
        vcpu = guest.machine.cpus[0].vcpu
        marks: dict[int, int | None] = {}
        has_stats = bool(guest.machine.kvm.check_extension("BINARY_STATS_FD"))
        stats = vcpu.get_stats() if has_stats else None
        try:
            guest.machine.on_port_write(
                DELAY, lambda place: marks.update({place: None if stats is None else stats.get(STATISTIC)})
            )
            run_to_pass(guest)
        finally:
            if stats is not None:
                stats.close()

        def counted(begin: int) -> int | None:
            before, after = marks[begin], marks[begin + 1]
            return None if before is None or after is None else after - before

        tries = tuple(
            Try(name, guest[f"{name}_fault"], guest[name], counted(4 + n)) for n, name in enumerate(INSTRUCTIONS)
        )
        evidence = Evidence(
            poll=guest["poll"],
            changed=guest["changed"],
            poll_counted=counted(1),
            unknown=guest["unknown"],
            refused=guest["refused"],
            unknown_counted=counted(2),
            kind=guest["kind"],
            tries=tries,
        )
    return judge(evidence)


def judge(evidence: Evidence) -> dict[str, Finding]:
    """One finding for each row."""
    return {POLL: judge_poll(evidence), UNKNOWN: judge_unknown(evidence), RING3: judge_ring3(evidence)}


def judge_poll(evidence: Evidence) -> Finding:
    numbers = {"RAX": evidence.poll, "other registers changed": evidence.changed, "counted": evidence.poll_counted}
    if evidence.poll_counted == 0 and evidence.kind != HANDED_OVER:
        text = f"RAX is {pv.return_words(evidence.poll)}, but KVM counted no hypercall: somebody else answered"
        return Finding(Verdict.UNPROVEN, text, numbers)
    if evidence.poll:
        return Finding(Verdict.BROKEN, f"RAX is {pv.return_words(evidence.poll)}, and should be 0", numbers)
    if evidence.changed:
        return Finding(Verdict.BROKEN, "the hypercall changed a register other than RAX", numbers)
    return _by(evidence, numbers, "RAX 0, no other register changed")


def judge_unknown(evidence: Evidence) -> Finding:
    numbers = {
        "numbers tried": evidence.unknown,
        "answered -KVM_ENOSYS": evidence.refused,
        "counted": evidence.unknown_counted,
    }
    if evidence.unknown_counted == 0 and evidence.kind != HANDED_OVER:
        return Finding(Verdict.UNPROVEN, "KVM counted no hypercall: somebody else answered", numbers)
    if evidence.refused != evidence.unknown or not evidence.unknown:
        text = f"{evidence.refused} of {evidence.unknown} numbers without a meaning gave -KVM_ENOSYS"
        return Finding(Verdict.BROKEN, text, numbers)
    return _by(evidence, numbers, f"{evidence.unknown} numbers without a meaning gave -KVM_ENOSYS (-1000)")


def _by(evidence: Evidence, numbers: dict[str, int | None], summary: str) -> Finding:
    """Works, or serviced where pyvmm gave the answers."""
    if evidence.kind == HANDED_OVER:
        text = f"no hypercall reaches this KVM from ring 0; pyvmm answered: {summary}"
        return Finding(Verdict.SERVICED, text, numbers, summary)
    return Finding(Verdict.WORKS, "", numbers, summary)


def judge_ring3(evidence: Evidence) -> Finding:
    """KVM must refuse what it counted. What it did not count says nothing of it; an exception goes to pyvmm, which
    must refuse it too.
    """
    numbers = {
        each.instruction: each.words + (f"; pyvmm answers {each.rax}" if each.fault else "") for each in evidence.tries
    }
    refused = pv.return_words(-pv.KVM_EPERM)
    for each in evidence.tries:
        if (each.counted or each.fault) and each.rax != -pv.KVM_EPERM:
            who = "pyvmm" if each.fault else "KVM"
            text = f"{who} answered {each.instruction} from ring 3 with {pv.return_words(each.rax)}, not {refused}"
            return Finding(Verdict.BROKEN, text, numbers)
    for each in evidence.tries:
        if each.counted and not each.fault:
            return Finding(Verdict.WORKS, "", numbers, f"{each.instruction} gives {refused}, and KVM counted it")
    silent = [each for each in evidence.tries if not each.fault]
    elsewhere = "".join(f"{each.words}, so a hypervisor below answered; " for each in silent if each.counted == 0)
    raised = [each for each in evidence.tries if each.fault]
    if raised:
        handed = " and ".join(each.words for each in raised)
        return Finding(Verdict.SERVICED, f"{elsewhere}{handed}: pyvmm answers {refused}", numbers)
    if any(each.counted is None for each in silent):
        text = "this KVM has no statistic `hypercalls`, so who answered cannot be told"
        return Finding(Verdict.UNPROVEN, text, numbers)
    return Finding(Verdict.UNPROVEN, f"{elsewhere}no call from ring 3 reaches this KVM", numbers)


def refusals(lab: Lab) -> dict[str, list[Refusal]]:
    """No feature gates these: they are the same without KVM's CPUID leaves, and enforced."""
    with lab.guest(payload="accesses", enforce=True, cpuid=CpuidModel.remove_kvm_leaves) as guest:
        poll, unknown = perform(guest, [hypercall(NR), hypercall(99)])
    return {
        POLL: [Refusal("control", "no leaves, enforced: still served", "0", pv.return_words(poll.value))],
        UNKNOWN: [
            Refusal(
                "control",
                "no leaves, enforced: number 99",
                pv.return_words(-pv.KVM_ENOSYS),
                pv.return_words(unknown.value),
            )
        ],
    }

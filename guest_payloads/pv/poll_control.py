# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of poll_control: KVM's own count of how often it polled, over three phases of HLTs.

A poll is one of halt_attempted_poll: whether it succeeds depends on what else the CPU has to do. KVM_CAP_HALT_POLL
gives this VM a limit of its own, so that the host's kvm.halt_poll_ns does not matter. The first HLT finds a window of 0
and only makes it grow. A HLT whose timer has ended before KVM halts the vCPU is no chance to poll, though halt_exits
counts it; that a vCPU was halted shows in a poll, or in halt_wait_ns. So HLTs are made until enough of them count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vmm.abi import msrs, ports, pv
from vmm.machine.machine import Machine
from vmm.payload.guest import Guest
from vmm.payload.proof.accesses import GP, OK, perform, rdmsr, wrmsr
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.msr_gate import hidden_msr
from vmm.payload.proof.verdict import Finding, Refusal, Unproven, Verdict

# Longest poll, nanoseconds. After a HLT that took longer, a late awakening on a busy host included, KVM stops polling
# for a while; none takes so long. The timer ends each poll much sooner.
LONGEST_POLL = 2_000_000_000
STATISTICS = ("halt_exits", "halt_attempted_poll", "halt_wait_ns")
FORBIDDEN = 1  # the phase with 0


@dataclass(frozen=True)
class Phase:
    """What the statistics rose by in a phase, and how many of its HLTs waited."""

    halts: int
    polls: int
    waits: int = 0


@dataclass(frozen=True)
class Evidence:
    """The phases (as at reset, with 0, with 1 again), and the guest's results; `wanted` HLTs of each phase."""

    phases: Sequence[Phase]
    seen: int
    reset: int
    off: int
    on: int
    slept: int
    woken: int


def prove(lab: Lab) -> Finding:
    absent = lab.absent("POLL_CONTROL")
    if absent:
        return absent
    with lab.guest(before_vcpus=_allow_polling) as guest:
        phases = _watch(guest, lab.param("halts"))
        results = {name: guest[name] for name in ("seen", "reset", "off", "on", "slept", "woken")}
        return judge(Evidence(phases, **results))


def _allow_polling(machine: Machine) -> None:
    machine.vm.enable_cap("HALT_POLL", LONGEST_POLL)


def _watch(guest: Guest, wanted: int) -> list[Phase]:
    """Run the guest; after each HLT tell it whether that counted, and whether enough have."""
    with guest.machine.cpus[0].vcpu.get_stats() as stats:
        for name in STATISTICS:
            if name not in stats:
                raise Unproven(f"this KVM has no statistic {name}")
        counts: list[Count] = []
        longer, enough = guest.constant("LONGER"), guest.constant("ENOUGH")

        def begin(value: int) -> None:
            counts.append(Count(may_poll=len(counts) != FORBIDDEN, now=[stats[name] for name in STATISTICS]))

        def halted(value: int) -> None:
            counted = counts[-1].add([stats[name] for name in STATISTICS])
            guest.machine.memory.write(longer, bytes([not counted]))
            guest.machine.memory.write(enough, bytes([counts[-1].counted >= wanted]))

        guest.machine.on_port_write(ports.DELAY, begin)
        guest.machine.on_port_write(ports.DELAY + 1, halted)
        run_to_pass(guest)
    return [Phase(each.halts, each.polls, each.waits) for each in counts]


class Count:
    """The HLTs of one phase, one by one, from the statistics after each."""

    def __init__(self, *, may_poll: bool, now: Sequence[int]) -> None:
        self.may_poll, self.now = may_poll, now
        self.halts = self.polls = self.waits = 0

    def add(self, now: Sequence[int]) -> bool:
        """Did the HLT count that ended with these statistics?"""
        halts, polls, waited = (after - before for before, after in zip(self.now, now, strict=True))
        self.now = now
        self.halts += halts
        self.polls += polls
        self.waits += waited > 0
        return polls > 0 if self.may_poll else waited > 0

    @property
    def counted(self) -> int:
        return self.polls if self.may_poll else self.waits


def judge(evidence: Evidence) -> Finding:
    """Polls with 1, before and after, and none with 0, over HLTs that KVM really took."""
    names = ("at_reset", "with_0", "with_1")
    numbers = {f"halt_attempted_poll_{name}": each.polls for name, each in zip(names, evidence.phases, strict=True)}
    numbers |= {f"halt_exits_{name}": each.halts for name, each in zip(names, evidence.phases, strict=True)}
    numbers |= {f"waited_{name}": each.waits for name, each in zip(names, evidence.phases, strict=True)}
    numbers |= {"reset": evidence.reset, "read_back_0": evidence.off, "read_back_1": evidence.on}
    at_reset, forbidden, allowed = evidence.phases
    wrong = _wrong(evidence, forbidden)
    if wrong:
        return Finding(Verdict.BROKEN, wrong, numbers)
    if not all(each.halts for each in evidence.phases):
        return Finding(Verdict.UNPROVEN, "KVM took no HLT of this guest, so it had nothing to poll for", numbers)
    if not all(each.waits or each.polls for each in evidence.phases):
        text = "every timer ended before KVM had halted the vCPU, so there was nothing to poll for"
        return Finding(Verdict.UNPROVEN, text, numbers)
    if not at_reset.polls and not allowed.polls:
        return Finding(Verdict.INERT, "accepted, and this host never polls for a halted vCPU", numbers)
    if not at_reset.polls or not allowed.polls:
        return Finding(Verdict.BROKEN, "polling is allowed at reset and after 1, and came in only one of them", numbers)
    summary = (
        f"halt_attempted_poll +{at_reset.polls} in {at_reset.halts} HLTs at reset, +{forbidden.polls} in "
        f"{forbidden.halts} with 0, +{allowed.polls} in {allowed.halts} with 1 again"
    )
    return Finding(Verdict.WORKS, "", numbers, summary)


def _wrong(evidence: Evidence, forbidden: Phase) -> str:
    """The first contradiction to the ABI; empty if there is none."""
    if not evidence.seen & _feature().mask:
        return f"the guest does not see POLL_CONTROL in {evidence.seen:#x}, and it was exposed"
    for what, got, want in (
        ("at reset the MSR", evidence.reset, 1),
        ("after 0 the MSR", evidence.off, 0),
        ("after 1 the MSR", evidence.on, 1),
    ):
        if got != want:
            return f"{what} reads {got:#x}, and should be {want}"
    if evidence.woken < evidence.slept:
        return f"{evidence.woken} timer interrupts, and each of {evidence.slept} HLTs needs one"
    if forbidden.polls:
        return f"the guest forbade polling, and KVM attempted it {forbidden.polls} times in {forbidden.halts} HLTs"
    return ""


def _feature() -> pv.Feature:
    return pv.feature("POLL_CONTROL")


def refusals(lab: Lab) -> list[Refusal]:
    """The matrix: hidden, enforced, present; every bit but bit 0 is reserved."""
    row = msrs.msr("MSR_KVM_POLL_CONTROL")
    msr = row.number
    hidden = hidden_msr(lab, _feature(), row, 0)
    with lab.guest(payload="accesses", enforce=True) as guest:
        write, read, two, three, top, after = perform(
            guest,
            [wrmsr(msr, 0), rdmsr(msr), wrmsr(msr, 2), wrmsr(msr, 3), wrmsr(msr, 1 << 63 | 1), rdmsr(msr)],
        )
    return [
        *hidden,
        Refusal("control", f"WRMSR {row.name}", OK, write.text),
        Refusal("control", f"RDMSR {row.name}", "0x0", f"{read.value:#x}"),
        Refusal("reserved", "WRMSR of 2", GP, two.text),
        Refusal("reserved", "WRMSR of 3", GP, three.text),
        Refusal("reserved", "WRMSR with bits 63 and 0", GP, top.text),
        Refusal("reserved", "RDMSR after those", "0x0", f"{after.value:#x}"),
    ]

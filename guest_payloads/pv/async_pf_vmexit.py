# SPDX-License-Identifier: GPL-2.0-or-later
"""ASYNC_PF_VMEXIT: the MSR's bit 2 with the feature and without, and a nested guest whose page the host holds back."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vmm.abi import cpuid as cpuid_facts
from vmm.abi import ports, pv, svm, vmx, x86
from vmm.abi.x86 import PAGE
from vmm.base.bits import MASK64
from vmm.kvm.userfaultfd import NoUserfaultfd
from vmm.machine.memory.layout import REGIONS
from vmm.payload.guest import Guest
from vmm.payload.proof.accesses import GP, OK, cpuid, perform, rdmsr, wrmsr
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.held_back import held_back
from vmm.payload.proof.lab import Lab, supported
from vmm.payload.proof.verdict import Deviation, Finding, Refusal, Unproven, Verdict

NEEDED = ("ASYNC_PF", "ASYNC_PF_INT")
NESTING = ("svm", "vmx")
_FACTS = {row.name: row.value for row in pv.CONSTANTS}
PLAIN = _FACTS["KVM_ASYNC_PF_ENABLED"] | _FACTS["KVM_ASYNC_PF_DELIVERY_AS_INT"]
AS_VMEXIT = _FACTS["KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT"]
SEND_ALWAYS = _FACTS["KVM_ASYNC_PF_SEND_ALWAYS"]
BROADCAST = _FACTS["ASYNC_PF_BROADCAST_TOKEN"]
SHARED = REGIONS["data"].base + REGIONS["data"].size - PAGE  # far behind the table of accesses
WRITTEN = SHARED | PLAIN | AS_VMEXIT
BIT = "bit 2 of MSR_KVM_ASYNC_PF_EN"
CONTENT = 0x0123456789ABCDEF
TOKEN_ID_BITS = 12  # a token is (number << 12) | vCPU id
VCPU = 0
GUESTS = 3  # each meets one page
ALONE, NO_EXIT = (  # the words of vmm/abi/deviations.py
    "a missing page of the nested guest, and nothing else to deliver",
    "flags 1 in the shared page, and no exit",
)
PAGE_NOT_PRESENT = _FACTS["KVM_PV_REASON_PAGE_NOT_PRESENT"]
_PF = x86.vectors_in_header()["PF_VECTOR"]
_SVM = {row.name: row.value for row in svm.EXITS}
_VMX = {row.name: row.value for row in (*vmx.EXITS, *vmx.CONSTANTS)}


@dataclass(frozen=True)
class Gate:
    """What one guest saw: the feature in its CPUID, #GP or not, and what the MSR held afterwards (None: #GP)."""

    feature: bool
    refused: bool
    read_back: int | None
    refused_without: bool


@dataclass(frozen=True)
class By:
    """How SVM or VMX says it: exit at the load, its event, and the exit at HLT; and the name of an exit."""

    name: str
    exit: int
    event: int
    halted: int

    def exit_name(self, code: int) -> str:
        return svm.exit_name(code) if self.name == "SVM" else vmx.exit_name(code)


BY = {
    1: By("SVM", _SVM["SVM_EXIT_EXCP_BASE"] + _PF, 0, _SVM["SVM_EXIT_HLT"]),
    2: By(
        "VMX",
        _VMX["EXIT_REASON_EXCEPTION_NMI"],
        _VMX["INTR_INFO_VALID_MASK"] | _VMX["INTR_TYPE_HARD_EXCEPTION"] | _VMX["INTR_INFO_DELIVER_CODE_MASK"] | _PF,
        _VMX["EXIT_REASON_HLT"],
    ),
}


@dataclass(frozen=True)
class Seen:
    """What the hypervisor in one guest saw (its results, by their names) and what the host did.

    `load` is where L2's load lies; `asked` and `fetched` count pages that the userfaultfd reported and that were copied
    in, `untold` those that came before L1 had told of them.
    """

    hypervisor: int
    broadcast: int
    exit: int
    event: int
    error: int
    token: int
    rip: int
    flags: int
    early: int
    ready: int
    readies: int
    last: int
    loaded: int
    others: int
    load: int
    asked: int
    fetched: int
    untold: int

    @property
    def by(self) -> By:
        return BY[self.hypervisor]

    @property
    def left(self) -> bool:
        """Was L2 left at its load, with a #PF exit?"""
        return (self.exit, self.event) == (self.by.exit, self.by.event)

    @property
    def lost(self) -> bool:
        """Did KVM say in the shared page that it tells of a page, and not tell?"""
        return self.flags == PAGE_NOT_PRESENT and not self.left

    @property
    def late(self) -> bool:
        """Was the host out of patience before L1 could tell? Then the page-ready interrupt may come at any time."""
        return self.left and bool(self.untold)


def observe(guest: Guest, *, prompt: bool = False) -> Seen:
    """Run one guest to its end; with `prompt` its page is fetched once it is asked for. GuestBroke for another end."""
    content = struct.pack("<Q", CONTENT) * (PAGE // 8)
    vcpu = guest.machine.cpus[0].vcpu
    page_is_missing, ask_for_window = guest.constant("PAGE_IS_MISSING"), guest.constant("ASK_FOR_WINDOW")
    with held_back(guest, guest.params["page"], [content], prompt=prompt) as pager:

        def told(word: int) -> None:
            vcpu.request_interrupt_window(word == ask_for_window)
            if word == page_is_missing:
                pager.tell(0)

        guest.machine.on_port_write(ports.DELAY, told)
        run_to_pass(guest)
    return Seen(
        **{name: guest[name] for name in guest.header.results},
        load=guest.symbol("l2_load"),
        asked=len(pager.asked),
        fetched=len(pager.fetched),
        untold=len(pager.fetched - pager.told),
    )


# -- the judgement


def judge(shown: Gate, hidden: Gate, seen: Sequence[Seen] | None, helped: Sequence[Seen] = ()) -> Finding:
    """`shown` with the feature, `hidden` with it masked, both with KVM_CAP_ENFORCE_PV_FEATURE_CPUID; `seen` by the
    guests that have a guest of their own, None where KVM offers neither SVM nor VMX; `helped` by those for which the
    interrupt window was asked for meanwhile.
    """
    evidence = {
        "accepted_with_feature": int(not shown.refused),
        "read_back": "#GP" if shown.read_back is None else f"{shown.read_back:#x}",
        "refused_when_enforced": int(hidden.refused),
        "guest_sees_feature": int(shown.feature),
        "guest_sees_feature_masked": int(hidden.feature),
        "guest_sees_vmx_or_svm": int(seen is not None),
    }
    wrong = _wrong_gate(shown, hidden)
    if wrong:
        return Finding(Verdict.BROKEN, wrong, evidence)
    if seen is None:
        gate = f"{BIT} is accepted with the feature and refused without"
        reason = f"{gate}; the #PF exit needs a guest in the guest, and this KVM offers neither VMX nor SVM"
        return Finding(Verdict.INERT, reason, evidence)
    found = judge_seen(seen, evidence)
    return judge_helped(found, seen, helped) if helped else found


def judge_helped(alone: Finding, seen: Sequence[Seen], helped: Sequence[Seen]) -> Finding:
    """Where exits were lost: `helped` shows whether KVM has them after all, and only forgets to look. Then the feature
    works, with a deviation.
    """
    found = judge_seen(helped, {})
    evidence = {**alone.evidence, **{f"window.{name}": value for name, value in found.evidence.items()}}
    if found.verdict is not Verdict.WORKS or not all(each.left for each in helped):
        return replace(alone, evidence=evidence)
    summary = f"{found.summary}; so with the interrupt window asked for: alone, {_lost(seen)} of {len(seen)} were lost"
    return Finding(Verdict.WORKS, "", evidence, summary, (Deviation(ALONE, "an exit at once", NO_EXIT),))


def _lost(seen: Sequence[Seen]) -> int:
    return sum(each.lost for each in seen)


def judge_seen(seen: Sequence[Seen], evidence: dict[str, Any]) -> Finding:
    """Works if every guest whose host was in time was told by a #PF exit, and never told in vain."""
    evidence = evidence | numbers(seen)
    if not any(each.asked for each in seen):
        return Finding(Verdict.UNPROVEN, "the userfaultfd was never asked for the page of the nested guest", evidence)
    for each in seen:
        if each.loaded != CONTENT:
            text = f"the nested guest loaded {each.loaded:#x}, and the page holds {CONTENT:#x}"
            return Finding(Verdict.BROKEN, text, evidence)
    lost = _lost(seen)
    if lost:
        text = (
            f"KVM wrote flags {PAGE_NOT_PRESENT} (page not present) to the shared page and never left the nested guest "
            f"with a #PF exit, {lost} times of {len(seen)}; the page's token came by interrupt later"
        )
        return Finding(Verdict.BROKEN, text, evidence)
    told = [each for each in seen if each.left and not each.late]
    for each in told:
        wrong = _wrong(each)
        if wrong:
            return Finding(Verdict.BROKEN, wrong, evidence)
    if told:
        one = told[0]
        summary = (
            f"{one.by.name}: #PF exit of the nested guest with token {one.token:#x}, the same by interrupt when the "
            f"page was fetched, then its load read {one.loaded:#x}"
        )
        return Finding(Verdict.WORKS, "", evidence, summary)
    if any(each.late for each in seen):
        text = "this host fetched every page before the guest could tell of it: it is too slow, or too busy"
        return Finding(Verdict.UNPROVEN, text, evidence)
    text = f"the nested guest waited in its load: no #PF exit, {len(seen)} times of as many"
    return Finding(Verdict.BROKEN, text, evidence)


def numbers(seen: Sequence[Seen]) -> dict[str, Any]:
    """For the finding: a list where there is one number a guest."""
    return {
        "by": seen[0].by.name,
        "exits": [each.by.exit_name(each.exit) for each in seen],
        "flags": [each.flags for each in seen],
        "tokens": [f"{each.token:#x}" for each in seen],
        "tokens_ready": [f"{each.ready:#x}" for each in seen],
        "loaded": [f"{each.loaded:#x}" for each in seen],
        "asked": sum(each.asked for each in seen),
        "fetched": sum(each.fetched for each in seen),
        "untold": sum(each.untold for each in seen),
        "exits_for_interrupts": sum(each.others for each in seen),
    }


def _wrong_gate(shown: Gate, hidden: Gate) -> str:
    if not shown.feature or hidden.feature:
        return f"CPUID bit 10 reads {int(shown.feature)} when exposed and {int(hidden.feature)} when masked"
    if shown.refused:
        return f"{BIT} raised #GP although the guest has the feature"
    if shown.read_back != WRITTEN:
        read = "#GP" if shown.read_back is None else f"{shown.read_back:#x}"
        return f"the MSR reads {read} after {WRITTEN:#x} was written"
    if not hidden.refused:
        return f"{BIT} was accepted although the feature is hidden and enforced"
    if hidden.refused_without:
        return "the MSR was refused without bit 2 too, so the refusal says nothing of the bit"
    return ""


def _wrong(seen: Seen) -> str:
    """What is wrong with a guest that was told in time; empty if nothing is."""
    if seen.broadcast != BROADCAST:
        return f"the first token after switching on was {seen.broadcast:#x}, and the ABI says {BROADCAST:#x}"
    if seen.flags != PAGE_NOT_PRESENT or seen.error:
        return f"#PF exit with flags {seen.flags} and error code {seen.error:#x}; the ABI says {PAGE_NOT_PRESENT} and 0"
    if seen.token & (1 << TOKEN_ID_BITS) - 1 != VCPU or not seen.token >> TOKEN_ID_BITS:
        return f"#PF exit with {seen.token:#x}, which is no token of vCPU {VCPU}"
    if seen.rip != seen.load:
        return f"#PF exit at {seen.rip:#x}, and the load is at {seen.load:#x}"
    if seen.early:
        return f"{seen.early} page-ready interrupts came before the page was supplied"
    if seen.readies != 1 or seen.ready != seen.token:
        return (
            f"{seen.readies} page-ready interrupts, the last with token {seen.ready:#x}; the exit's was {seen.token:#x}"
        )
    if seen.last != seen.by.halted:
        return f"resumed, the nested guest was left for {seen.by.exit_name(seen.last)}, and should be for its HLT"
    return ""


# -- the proof


def prove(lab: Lab) -> Finding:
    """Two guests that ask the MSR, and GUESTS with a guest of their own."""
    absent = lab.absent("ASYNC_PF_VMEXIT")
    if absent:
        return absent
    for needed in NEEDED:
        if not lab.offered(needed):
            return Finding(Verdict.INERT, f"without {needed} there is no asynchronous page fault to deliver")
    shown, hidden = _ask(lab, (), True), _ask(lab, lab.proves, True)
    if _wrong_gate(shown, hidden) or not nesting(lab):
        return judge(shown, hidden, None)
    try:
        seen = _nested(lab)
        helped = _nested(lab, window=1) if _lost(seen) else []
    except NoUserfaultfd as error:
        raise Unproven(error.one_line) from error
    return judge(shown, hidden, seen, helped)


def _nested(lab: Lab, **params: int) -> list[Seen]:
    seen = []
    for _ in range(GUESTS):
        with lab.guest(params=params) as guest:
            seen.append(observe(guest))
    return seen


def nesting(lab: Lab) -> bool:
    """Does KVM offer SVM or VMX to its guests, and is it not masked in this lab?"""
    return any(supported().has(name) and name not in lab.options.mask for name in NESTING)


# -- refusals


def refusals(lab: Lab) -> list[Refusal]:
    """The matrix of one bit with its positive control, and where a missing page of a nested guest is no exit."""
    if not all(lab.offered(needed) for needed in NEEDED):
        return []  # the MSR is refused for another reason
    shown, masked, enforced = _ask(lab, (), True), _ask(lab, lab.proves, False), _ask(lab, lab.proves, True)
    rows = [
        Refusal("control", f"{BIT}, feature present and enforced", OK, GP if shown.refused else OK),
        Refusal("masked", f"{BIT}, masked and not enforced", OK, GP if masked.refused else OK),
        Refusal("enforced", f"{BIT}, masked and enforced", GP, GP if enforced.refused else OK),
        Refusal(
            "control", "bits 0 and 3 without bit 2, masked and enforced", OK, GP if enforced.refused_without else OK
        ),
    ]
    return rows + (_silent(lab) if nesting(lab) else [])


def _silent(lab: Lab) -> list[Refusal]:
    rows = []
    for what, control in (
        ("without bit 2", PLAIN | SEND_ALWAYS),
        ("with bit 2, in ring 0 without KVM_ASYNC_PF_SEND_ALWAYS", PLAIN | AS_VMEXIT),
    ):
        with lab.guest(params={"control": control}) as guest:
            seen = observe(guest, prompt=True)
        loaded = "the page" if seen.loaded == CONTENT else f"{seen.loaded:#x}"
        came = f"{seen.by.exit_name(seen.exit)}, flags {seen.flags}, loads {loaded}"
        wanted = f"{seen.by.exit_name(seen.by.halted)}, flags 0, loads the page"
        rows.append(Refusal("argument", f"a missing page of a nested guest {what}", wanted, came))
    return rows


def _ask(lab: Lab, mask: Iterable[str], enforce: bool) -> Gate:
    msr = lab.param("msr")
    with lab.guest(payload="accesses", mask=mask, enforce=enforce) as guest:
        leaf, write, read, plain = perform(
            guest,
            [cpuid(cpuid_facts.FEATURES_LEAF), wrmsr(msr, WRITTEN), rdmsr(msr), wrmsr(msr, SHARED | PLAIN)],
        )
    feature = pv.feature(lab.proves[0])
    return Gate(
        bool(leaf.words[0] & feature.mask),
        write.faulted,
        None if read.faulted else read.value & MASK64,
        plain.faulted,
    )

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of timekeeping: the clock between two readings of the host's own, the TSC before and after each move."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from vmm.abi import ports
from vmm.abi.structs import PVCLOCK_VCPU_TIME_INFO
from vmm.base.bits import MASK64
from vmm.errors import KvmCallError
from vmm.kvm.vcpu import Vcpu
from vmm.kvm.vm import Vm
from vmm.machine.memory.layout import REGIONS
from vmm.payload.guest import Guest
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab, supported
from vmm.payload.proof.verdict import Finding, Unproven, Verdict

PAGE = REGIONS["data"].base + 0x1000
SET_TO = 3_600_000_000_000  # ns: an hour, where a new VM's clock begins near 0
PAST = 10_000_000_000  # ns: so long ago is the realtime that the second KVM_SET_CLOCK names
WAIT = 0.005  # seconds between two readings of the TSC whose rate is asked for, or
BY_FAR = 20  # times what an exit takes on this host, so that the wait is nearly all of the time between them, but
LONGEST_WAIT = 2.0
TSC = 0x10
FREQUENCY_SLACK = 0.02
SLOWER = 2  # a TSC that is not stable may run so much faster than the clock says


@dataclass
class Evidence:
    """`tsc` by stage, as the guest read it; `numbers` what the host read or was told; `jump` what the TSC is moved by.

    `rate` are bounds of guest ticks per tick of the frequency that KVM named at first; `refused` what KVM_SET_TSC_KHZ
    said.
    """

    tsc: dict[int, int] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    results: Mapping[str, int] = field(default_factory=dict)
    jump: int = 0
    rate: tuple[float, float] = (0.0, 0.0)
    refused: str = ""
    adjust_offered: bool = True


class Stages:
    """What the host does at each OUT, and when it came and went (ns)."""

    def __init__(self, guest: Guest, evidence: Evidence) -> None:
        self.vm, self.vcpu, self.memory = guest.machine.vm, guest.machine.cpus[0].vcpu, guest.machine.memory
        self.evidence = evidence
        self.arrived: dict[int, int] = {}
        self.left: dict[int, int] = {}

    def __call__(self, stage: int) -> None:
        self.arrived[stage] = _now()
        self.evidence.tsc[stage] = self.vcpu.get_regs().rbx
        self.vcpu.complete()
        match stage:
            case 1:
                self._clock()
            case 2:
                self._page()
            case 3:
                self._offset()
            case 6:
                set_tsc(self.vcpu, self.evidence.tsc[6] + self.evidence.jump)
            case 7:
                self._frequency()
            case 8 | 9:
                between = (self.arrived[8] - self.left[7]) / 1e9  # seconds from one of our moments to the next
                time.sleep(min(max(WAIT, BY_FAR * between), LONGEST_WAIT))
            case _:
                pass
        self.left[stage] = _now()

    def _clock(self) -> None:
        numbers = self.evidence.numbers
        numbers["wall_before"] = time.time_ns()
        first = self.vm.get_clock()
        numbers["wall_after"] = time.time_ns()
        second = self.vm.get_clock()
        numbers |= {"clock": first.clock, "later": second.clock, "has_realtime": int(first.has_realtime)}
        if first.has_realtime:
            numbers |= {"realtime": first.realtime, "host_tsc": first.host_tsc, "host_tsc_later": second.host_tsc}
            begin, past = _now(), time.time_ns() - PAST
            self.vm.set_clock(SET_TO, realtime=past)
            numbers["set_past"] = self.vm.get_clock().clock
            numbers["past_took"] = _now() - begin
        begin = _now()
        set_clock(self.vm, SET_TO)
        numbers |= {"set": self.vm.get_clock().clock, "set_took": _now() - begin}

    def _page(self) -> None:
        """The guest's own page of kvmclock, written anew at the entry after the clock was set."""
        offset = next(each.offset for each in PVCLOCK_VCPU_TIME_INFO.fields if each.name == "system_time")
        self.evidence.numbers["page"] = self.memory.read_u64(PAGE + offset)
        self.evidence.numbers["clock_at_page"] = self.vm.get_clock().clock

    def _offset(self) -> None:
        """Asked twice at first: where the host's TSC is not stable, KVM moves the offset by itself (judge_offset)."""
        first, before = (self.vcpu.get_device_attr(0, 0) for _ in range(2))
        began = _now()
        set_offset(self.vcpu, before + self.evidence.jump & MASK64)
        after = self.vcpu.get_device_attr(0, 0)
        self.evidence.numbers |= {"offset_first": first, "offset_before": before, "offset_after": after,
                                  "offset_took": _now() - began, "khz": self.vcpu.get_tsc_khz()}  # fmt: skip

    def _frequency(self) -> None:
        numbers = self.evidence.numbers
        numbers["tsc_control"] = self.vm.check_extension("TSC_CONTROL")
        numbers["khz"] = self.vcpu.get_tsc_khz()
        try:
            set_khz(self.vcpu, numbers["khz"] // 2)
        except KvmCallError as error:
            self.evidence.refused = error.text
        numbers["khz_after"] = self.vcpu.get_tsc_khz()

    def rate(self) -> tuple[float, float]:
        """Between two readings of the guest lies all of a wait of ours, and both lie between two moments of ours."""
        bounds = []
        for stage in (9, 10):
            ticks = self.evidence.tsc[stage] - self.evidence.tsc[stage - 1]
            nominal = ticks / (self.evidence.numbers["khz"] / 1e6)  # ns at that frequency
            shortest = self.left[stage - 1] - self.arrived[stage - 1]
            bounds.append((nominal / (self.arrived[stage] - self.left[stage - 2]), nominal / shortest))
        return max(low for low, _ in bounds), min(high for _, high in bounds)


def set_clock(vm: Vm, clock: int) -> None:
    """What a test takes away, as the next three."""
    vm.set_clock(clock)


def set_offset(vcpu: Vcpu, offset: int) -> None:
    vcpu.set_device_attr(0, 0, offset)


def set_tsc(vcpu: Vcpu, value: int) -> None:
    vcpu.set_msrs({TSC: value & MASK64})


def set_khz(vcpu: Vcpu, khz: int) -> None:
    vcpu.set_tsc_khz(khz)


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def prove(lab: Lab) -> dict[str, Finding]:
    evidence = Evidence(jump=lab.param("jump"), adjust_offered=supported().has("tsc_adjust"))
    with lab.guest() as guest:
        if not guest.machine.vm.check_extension("VCPU_ATTRIBUTES"):
            raise Unproven("this KVM has no KVM_CAP_VCPU_ATTRIBUTES (Linux 5.16)")
        stages = Stages(guest, evidence)
        guest.machine.on_port_write(ports.DELAY, stages)
        run_to_pass(guest)
        evidence.results = {name: guest[name] for name in guest.header.results}
        evidence.rate = stages.rate()
    judges = (judge_clock, judge_offset, judge_adjust, judge_writes, judge_frequency)
    return {name: judge(evidence) for name, judge in zip(lab.proves, judges, strict=True)}


def _about(ns: int) -> int:
    """An upper bound for what one clock shows while another shows `ns`: they are disciplined by no more than 1/1000."""
    return ns + ns // 1000 + 1000


def judge_clock(evidence: Evidence) -> Finding:
    """The clock goes on, is what it was set to, and so is the guest's page; realtime and host TSC are the host's."""
    n = evidence.numbers
    text = ""
    if n["later"] < n["clock"]:
        text = f"the clock went from {n['clock']} ns back to {n['later']}"
    elif not SET_TO <= n["set"] <= SET_TO + _about(n["set_took"]):
        text = f"set to {SET_TO} ns it reads {n['set']}, {n['set_took']} ns later"
    elif not SET_TO <= n["page"] <= n["clock_at_page"]:
        text = f"the guest's page has {n['page']} ns, and the clock was set to {SET_TO}"
    elif n["has_realtime"]:
        if not n["wall_before"] <= n["realtime"] <= n["wall_after"]:
            text = f"realtime is {n['realtime']}, read between {n['wall_before']} and {n['wall_after']}"
        elif n["host_tsc_later"] <= n["host_tsc"]:
            text = f"the host's TSC went from {n['host_tsc']:#x} to {n['host_tsc_later']:#x}"
        # KVM takes the clock's reference first and the realtime after it (kvm_vm_ioctl_set_clock): what passes between
        # the two is in the clock twice, and on a busy host that is most of the call.
        elif not SET_TO + PAST <= n["set_past"] <= SET_TO + PAST + 2 * _about(n["past_took"]):
            text = f"set with a realtime of {PAST} ns ago it reads {n['set_past']}, not {SET_TO + PAST} and little more"
    if text:
        return Finding(Verdict.BROKEN, text, n)
    extra = "with realtime and host TSC, and moved on by the time since a given realtime"
    if not n["has_realtime"]:
        extra = "without realtime and host TSC, which this host's clock source does not give"
    return Finding(Verdict.WORKS, "", n, f"set to {SET_TO // 10**9} s, and so in the guest's page; {extra}")


def _moved(evidence: Evidence, stage: int) -> bool | None:
    """Whether the TSC moved by the jump on the way to `stage`; None if by something else."""
    step = evidence.tsc[stage] - evidence.tsc[stage - 1]
    if 0 < step < evidence.jump // 2:
        return False
    return True if evidence.jump <= step < evidence.jump + evidence.jump // 2 else None


def _numbers(evidence: Evidence, stage: int, **more: int) -> dict[str, str]:
    step = evidence.tsc[stage] - evidence.tsc[stage - 1]
    shown = {"jump": evidence.jump, "the guest's TSC moved by": step, **more}
    return {name.replace("_", " "): f"{value:#x}" for name, value in shown.items()}


def _moves_by_itself(evidence: Evidence) -> bool:
    """Did KVM change the offset between two readings, with nothing set? It does where the host's TSC is not stable: as
    it loads a vCPU it makes the guest's TSC go on from where it was, so that the offset shrinks with every tick of the
    host (kvm_arch_vcpu_load).
    """
    return evidence.numbers["offset_first"] != evidence.numbers["offset_before"]


def judge_offset(evidence: Evidence) -> Finding:
    """KVM_VCPU_TSC_OFFSET reads back and moves the guest's TSC."""
    n = evidence.numbers
    numbers = _numbers(evidence, 4, offset_before=n["offset_before"], offset_after=n["offset_after"])
    moved, alone = _moved(evidence, 4), _moves_by_itself(evidence)
    lost = n["offset_before"] + evidence.jump - n["offset_after"] & MASK64
    most = SLOWER * n["offset_took"] * n["khz"] // 10**6 if alone else 0  # ticks between setting and reading
    if alone:
        numbers |= {"moved by itself": hex(n["offset_before"] - n["offset_first"]), "lost since it was set": hex(lost)}
    if moved and lost <= most:
        summary = f"offset {n['offset_after']:#x}: the guest's TSC jumped with it"
        if alone:
            summary += "; KVM takes away what passes while the vCPU is out, for this host's TSC is not stable"
        return Finding(Verdict.WORKS, "", numbers, summary)
    if moved is False and n["offset_after"] == n["offset_before"]:
        reason = f"accepted and ignored: the offset reads back {n['offset_after']:#x}, and the guest's TSC did not move"
        return Finding(Verdict.INERT, reason, numbers)
    text = f"offset {n['offset_before']:#x} -> {n['offset_after']:#x}, set to move by {evidence.jump:#x}"
    return Finding(Verdict.BROKEN, f"{text}; the guest's TSC did {'' if moved else 'not '}move by that", numbers)


def judge_adjust(evidence: Evidence) -> Finding:
    """TSC_ADJUST reads back what the guest wrote, and the TSC moves by the difference (SDM vol. 3B, 18.17.3)."""
    seen = evidence.results
    numbers = _numbers(evidence, 5, before=seen["adjust_before"], after=seen["adjust_after"])
    if not evidence.adjust_offered:
        return Finding(Verdict.ABSENT, "KVM does not offer tsc_adjust", numbers)
    if seen["gp"]:
        return Finding(Verdict.BROKEN, f"{seen['gp']} #GPs at MSRs that are offered", numbers)
    moved = _moved(evidence, 5)
    kept = seen["adjust_after"] == seen["adjust_before"] + evidence.jump & MASK64
    if moved and kept:
        return Finding(Verdict.WORKS, "", numbers, "the guest added to it, reads it back, and its TSC jumped")
    if moved is False and (kept or seen["adjust_after"] == seen["adjust_before"]):
        return Finding(
            Verdict.INERT, f"accepted, reads back {seen['adjust_after']:#x}, and the guest's TSC did not move", numbers
        )
    return Finding(Verdict.BROKEN, f"it reads {seen['adjust_after']:#x} after {evidence.jump:#x} was added", numbers)


def judge_writes(evidence: Evidence) -> Finding:
    """IA32_TSC written by the guest, and by KVM_SET_MSRS."""
    numbers = {
        f"{who}: {name}": value
        for who, stage in (("guest", 6), ("host", 7))
        for name, value in _numbers(evidence, stage).items()
    }
    moved = (_moved(evidence, 6), _moved(evidence, 7))
    if moved == (True, True):
        return Finding(Verdict.WORKS, "", numbers, "WRMSR and KVM_SET_MSRS both moved the guest's TSC")
    if moved == (False, False):
        reason = "WRMSR and KVM_SET_MSRS are accepted and ignored: the guest's TSC stays the host's"
        return Finding(Verdict.INERT, reason, numbers)
    return Finding(Verdict.BROKEN, f"moved by WRMSR: {moved[0]}, by KVM_SET_MSRS: {moved[1]}", numbers)


def judge_frequency(evidence: Evidence) -> Finding:
    """Half the frequency: offered with KVM_CAP_TSC_CONTROL only, and then the guest counts half as fast."""
    n, (low, high) = evidence.numbers, evidence.rate
    numbers = {
        "KVM_CAP_TSC_CONTROL": n["tsc_control"],
        "kHz": n["khz"],
        "kHz after half was asked for": n["khz_after"],
        "rate at least": round(low, 4),
        "rate at most": round(high, 4),
        "KVM_SET_TSC_KHZ": evidence.refused or "accepted",
    }

    def may_be(rate: float) -> bool:
        return low * (1 - FREQUENCY_SLACK) <= rate <= high * (1 + FREQUENCY_SLACK)

    if evidence.refused:
        if n["tsc_control"]:
            return Finding(Verdict.BROKEN, f"offered, and refused: {evidence.refused}", numbers)
        # A refused frequency stays noted (kvm_set_tsc_khz); where the host's TSC is not stable KVM makes the
        # guest's out of its clock, at that frequency.
        noted, alone = n["khz_after"] == n["khz"] // 2, _moves_by_itself(evidence)
        if not may_be(1) and not (noted and alone and may_be(0.5)):
            text = f"KVM says {n['khz']} kHz, and the guest counts {low:.3f} to {high:.3f} times as fast"
            return Finding(Verdict.BROKEN, text, numbers)
        counts = "as before" if may_be(1) else "at half of it all the same, for this host's TSC is not stable"
        reason = f"KVM_CAP_TSC_CONTROL is not offered: half of {n['khz']} kHz is refused, and the guest counts {counts}"
        if n["khz_after"] != n["khz"]:
            reason += f" (KVM_GET_TSC_KHZ says {n['khz_after']})"
        return Finding(Verdict.ABSENT, reason, numbers)
    if may_be(0.5) and may_be(1):
        return Finding(Verdict.UNPROVEN, "this host is too busy to tell one frequency from its half", numbers)
    if may_be(0.5) and n["khz_after"] == n["khz"] // 2:
        summary = f"{n['khz']} kHz, then {n['khz_after']}: the guest counts {low:.2f} to {high:.2f} times as fast"
        return Finding(Verdict.WORKS, "", numbers, summary)
    if may_be(1) and not n["tsc_control"]:
        return Finding(Verdict.INERT, "accepted, and the guest counts as before: this CPU does not scale it", numbers)
    text = f"half was asked for; KVM says {n['khz_after']} kHz, the guest counts {low:.3f} to {high:.3f} times as fast"
    return Finding(Verdict.BROKEN, text, numbers)

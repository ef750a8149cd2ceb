# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of kvmclock: the guest's wall clock and system time against the host's, by either pair of MSRs.

What the guest says is bracketed by what the host reads before and after, so a busy host makes a bracket wider and no
verdict wrong. Sources: Documentation/virt/kvm/x86/msr.rst; api.rst 4.29 (KVM_GET_CLOCK), 4.30 (KVM_SET_CLOCK), 4.70
(KVM_KVMCLOCK_CTRL).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vmm.abi import msrs, ports, pv
from vmm.abi.structs import PVCLOCK_VCPU_TIME_INFO, PVCLOCK_WALL_CLOCK, pvclock_khz, pvclock_nanoseconds
from vmm.errors import KvmCallError, errno_name
from vmm.kvm.vm import Clock
from vmm.machine.memory.layout import REGIONS
from vmm.payload.guest import Guest
from vmm.payload.header import MissingResult
from vmm.payload.proof.accesses import GP, OK, Answer, perform, rdmsr, wrmsr
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, GuestBroke, Refusal, Verdict

PAIRS = {"CLOCKSOURCE2": ("WALL_CLOCK_NEW", "SYSTEM_TIME_NEW"), "CLOCKSOURCE": ("WALL_CLOCK", "SYSTEM_TIME")}

SET_TO = 180 * 10**9  # what KVM_SET_CLOCK sets: far from the few milliseconds of a new VM
# ns. Without a stable clock KVM pairs a TSC with a time of its own anew for each vCPU now and then, by two readings. As
# far as its CPU was stopped between them (by an emulator, a hypervisor below it, an SMI), so far apart are the clocks
# of two vCPUs, and KVM's own reading. 3 ms were seen in an emulated host that got a third of a CPU.
SLACK = 100_000_000
ROUNDING = 1_000  # ns: two rates, of the time of day and of system time, over the width of a bracket
STABLE, STOPPED = pv.PVCLOCK_TSC_STABLE_BIT, pv.PVCLOCK_GUEST_STOPPED


@dataclass(frozen=True)
class Reading:
    """The host's clocks at one STEP of the guest: KVM_GET_CLOCK, and CLOCK_REALTIME in ns."""

    clock: Clock
    realtime: int


@dataclass(frozen=True)
class Evidence:
    """Numbers of one run. `guest` are the guest's results, `page` the fields of its pvclock_vcpu_time_info at its last
    reading, `wall` the wall clock as ns since the epoch, `at` the host's readings by STEP. `few_switches` of
    the clock's reader, between the vCPUs, are the least that the guest waits for.
    """

    bit: int
    guest: dict[str, int]
    page: dict[str, int]
    wall: int
    at: dict[int, Reading]
    tsc_khz: int
    few_switches: int

    @property
    def stable(self) -> bool:
        """KVM says that all vCPUs see one monotone clock (KVM_CLOCK_TSC_STABLE)."""
        return self.at[3].clock.tsc_stable and self.at[4].clock.tsc_stable

    @property
    def khz(self) -> int:
        return pvclock_khz(self.page["tsc_to_system_mul"], self.page["tsc_shift"])

    @property
    def wall_bounds(self) -> tuple[int, int]:
        """Wall clock = realtime - system time at one moment between STEP 1 and STEP 2; so it lies between these."""
        before, after = self.at[1], self.at[2]
        slack = ROUNDING if before.clock.tsc_stable and after.clock.tsc_stable else SLACK
        return before.realtime - after.clock.clock - slack, after.realtime - before.clock.clock + slack

    def numbers(self) -> dict[str, Any]:
        low, high = self.wall_bounds
        return {
            "wall_clock_ns": self.wall,
            "wall_clock_lowest": low,
            "wall_clock_highest": high,
            "kvm_get_clock_before": self.at[3].clock.clock,
            "first_ns": self.guest["first_ns"],
            "last_ns": self.guest["last_ns"],
            "kvm_get_clock_after": self.at[4].clock.clock,
            "stable": self.stable,
            "steps_back": self.guest["backward"],
            "readings_on_both": self.guest["cross_samples"],
            "switches": self.guest["cross_switches"],
            "steps_back_on_both": self.guest["cross_backward"],
            "mul": self.page["tsc_to_system_mul"],
            "shift": self.page["tsc_shift"],
            "khz": self.khz,
            "kvm_get_tsc_khz": self.tsc_khz,
            "set_to_ns": SET_TO,
            "read_after_set_ns": self.guest["set_ns"],
            "flags": self.guest["flags"],
            "flags_stopped": self.guest["flags_stopped"],
            "flags_cleared": self.guest["flags_cleared"],
        }


def judge(evidence: Evidence) -> Finding:
    """`works`, or `broken` with the first contradiction."""
    wrong = next(_contradictions(evidence), None)
    if wrong is not None:
        return Finding(Verdict.BROKEN, wrong, evidence.numbers())
    guest = evidence.guest
    back = guest["cross_backward"]
    steps = f"{back} steps back, which only a stable clock rules out," if back else "no step back"
    near = "" if evidence.stable else f"within {SLACK // 10**6} ms "
    summary = (
        f"{evidence.khz} kHz, between two KVM_GET_CLOCK {near}and the host's time of day; {steps} in "
        f"{guest['cross_samples']} readings on two vCPUs; set, stopped and cleared as told"
    )
    return Finding(Verdict.WORKS, "", evidence.numbers(), summary)


def _contradictions(e: Evidence) -> Iterator[str]:
    if not e.guest["features"] >> e.bit & 1:
        yield f"the guest's CPUID says {e.guest['features']:#x}, without bit {e.bit}"
    yield from _page(e)
    yield from _wall_clock(e)
    yield from _monotone(e)
    yield from _told_by_the_host(e)


def _wall_clock(e: Evidence) -> Iterator[str]:
    first, second = e.guest["wall_version"], e.guest["wall_version_2"]
    if not first or first & 1 or second != first + 2:
        yield f"versions of the wall clock are {first} and {second}; each WRMSR makes the next even number"
    low, high = e.wall_bounds
    if not low <= e.wall <= high:
        yield f"the wall clock says {e.wall} ns, and the host {low} to {high}"
    today, slack = e.wall + e.guest["last_ns"], high - low
    if not e.at[3].realtime - slack <= today <= e.at[4].realtime + slack:
        yield f"wall clock + system time is {today} ns, and the host's clock went from {e.at[3].realtime} to " \
            f"{e.at[4].realtime}"  # fmt: skip


def _page(e: Evidence) -> Iterator[str]:
    guest, slack = e.guest, 0 if e.stable else SLACK
    if not guest["version"] or guest["version"] & 1:
        yield f"version {guest['version']} of the clock's page: it was never written"
    before, after = e.at[3].clock.clock, e.at[4].clock.clock
    if not before - slack <= guest["first_ns"] or not guest["last_ns"] <= after + slack:
        yield f"the guest read {guest['first_ns']} to {guest['last_ns']} ns between {before} and {after} ns"
    again = pvclock_nanoseconds(e.page, guest["last_tsc"])
    if again != guest["last_ns"]:
        yield f"at TSC {guest['last_tsc']} the page means {again} ns, and the guest's reader says {guest['last_ns']}"
    if abs(e.khz - e.tsc_khz) > 1:
        yield f"the page means {e.khz} kHz, and KVM_GET_TSC_KHZ says {e.tsc_khz}"


def _monotone(e: Evidence) -> Iterator[str]:
    """With a stable clock nothing goes back. Without, each rewriting of a page may correct the clock a little, and of
    two vCPUs nothing is promised: PVCLOCK_TSC_STABLE_BIT is the promise (msr.rst, MSR_KVM_SYSTEM_TIME_NEW).
    """
    guest, allowed = e.guest, 0 if e.stable else SLACK
    if guest["worst"] > allowed:
        yield f"the clock stepped back {guest['backward']} times on vCPU 0, by up to {guest['worst']} ns"
    if e.stable and guest["cross_worst"]:
        yield f"the clock stepped back {guest['cross_backward']} times across vCPUs, by up to {guest['cross_worst']} ns"
    if guest["cross_switches"] < e.few_switches:
        yield f"the vCPUs took turns {guest['cross_switches']} times, which compares nothing"


def _told_by_the_host(e: Evidence) -> Iterator[str]:
    guest, slack = e.guest, 0 if e.stable else SLACK
    limit = e.at[6].clock.clock
    if not SET_TO - slack <= guest["set_ns"] <= limit + slack:
        yield f"after KVM_SET_CLOCK to {SET_TO} ns the guest read {guest['set_ns']}, and KVM_GET_CLOCK then {limit}"
    if guest["set_version"] <= guest["version"] or guest["set_version"] & 1:
        yield f"version {guest['version']} became {guest['set_version']} by KVM_SET_CLOCK; it grows by an even number"
    if guest["flags"] & STOPPED:
        yield "flag GUEST_STOPPED was set before KVM_KVMCLOCK_CTRL"
    if not guest["flags_stopped"] & STOPPED:
        yield "flag GUEST_STOPPED was not set by KVM_KVMCLOCK_CTRL"
    if not guest["flags_kept"] & STOPPED:
        yield "flag GUEST_STOPPED went away before the guest cleared it"
    if guest["flags_cleared"] & STOPPED:
        yield "flag GUEST_STOPPED came back after the guest had cleared it"


def prove(lab: Lab) -> dict[str, Finding]:
    """One guest for each pair of MSRs; what befalls one says nothing of the other."""
    return {feature: lab.absent(feature) or _prove(lab, feature) for feature in lab.proves}


def _prove(lab: Lab, feature: str) -> Finding:
    params = {} if feature == lab.proves[0] else dict(zip(("wall_msr", "system_msr"), _pair(feature), strict=True))
    with lab.guest(params=params) as guest:
        try:
            return judge(measure(guest, feature))
        except (GuestBroke, MissingResult) as error:
            return Finding(Verdict.BROKEN, str(error))


def measure(guest: Guest, feature: str) -> Evidence:
    """Run the guest; at each STEP do to its clock what the step is for, and read the host's clocks."""
    machine, vcpu = guest.machine, guest.machine.cpus[0].vcpu
    at: dict[int, Reading] = {}
    doings = {
        5: lambda: machine.vm.set_clock(SET_TO),
        7: lambda: machine.vm.set_clock(2 * SET_TO),  # makes KVM rewrite the page
        8: lambda: machine.vm.set_clock(3 * SET_TO),
    }

    def step(number: int) -> None:
        if number == 0:
            return  # only an exit, for KVM to see to what the WRMSR asked for
        doings.get(number, lambda: None)()
        at[number] = Reading(machine.vm.get_clock(), time.time_ns())
        if number == 6:
            with contextlib.suppress(KvmCallError):  # no clock: the guest will not see the flag
                vcpu.kvmclock_ctrl()

    machine.on_port_write(ports.DELAY, step)
    run_to_pass(guest)
    wall = PVCLOCK_WALL_CLOCK.unpack(machine.memory.read(guest.constant("WALL"), PVCLOCK_WALL_CLOCK.size))
    row = pv.feature(feature)
    return Evidence(
        bit=row.bit,
        guest={name: guest[name] for name in guest.header.results},
        page=PVCLOCK_VCPU_TIME_INFO.unpack(machine.memory.read(guest.constant("COPY"), PVCLOCK_VCPU_TIME_INFO.size)),
        wall=wall["sec"] * 10**9 + wall["nsec"],
        at=at,
        tsc_khz=vcpu.get_tsc_khz(),
        few_switches=guest.constant("FEW"),
    )


# -- refusals

RAM = REGIONS["data"].base
PAGE = RAM + 0x1000
CROSSING = PAGE + 0x1000 - PVCLOCK_VCPU_TIME_INFO.size // 2  # half of the structure lies on the next page
NO_RAM = REGIONS["scratch_mmio"].base
WRITTEN, UNTOUCHED = f"{OK}, written", f"{OK}, not written"


def refusals(lab: Lab) -> dict[str, list[Refusal]]:
    """Hidden alone, both pairs go on; hidden and enforced, only the other one does."""
    asked = [feature for feature in lab.proves if lab.offered(feature)]
    found: dict[str, list[Refusal]] = {feature: [] for feature in asked}
    with lab.guest(payload="accesses", irqchip="none", mask=lab.proves, enforce=False) as guest:
        for feature, answers in _access_all(guest, asked).items():
            found[feature] += _rows("masked", feature, OK, answers)
    for hidden in asked:
        with lab.guest(payload="accesses", irqchip="none", mask=(hidden,), enforce=True) as guest:
            for feature, answers in _access_all(guest, asked).items():
                if feature == hidden:
                    found[hidden] += _rows("enforced", feature, GP, answers)
                else:
                    found[hidden] += _rows("control", feature, OK, answers, f" with {hidden} hidden and enforced")
    with lab.guest(payload="accesses", irqchip="none", enforce=True) as guest:
        early = _early_control(guest)
        for feature, answers in _access_all(guest, asked).items():
            found[feature] += _rows("control", feature, OK, answers)
            found[feature] += _addresses(guest, feature)
            found[feature].append(Refusal("argument", "KVM_KVMCLOCK_CTRL without a clock", "EINVAL", early))
    return found


def _pair(feature: str) -> list[int]:
    """The numbers of a feature's two MSRs: wall clock, system time."""
    found = [msrs.find(f"MSR_KVM_{name}") for name in PAIRS[feature]]
    return [row.number for row in found if row is not None]


def _access_all(guest: Guest, features: list[str]) -> dict[str, list[Answer]]:
    """Write and read both MSRs of each feature, in one run."""
    accesses = []
    for feature in features:
        wall, system = _pair(feature)
        accesses += [wrmsr(wall, RAM), wrmsr(system, PAGE | 1), rdmsr(wall), rdmsr(system)]
    answers = perform(guest, accesses)
    return {feature: answers[4 * i : 4 * i + 4] for i, feature in enumerate(features)}


def _rows(kind: str, feature: str, expected: str, answers: list[Answer], when: str = "") -> list[Refusal]:
    whats = [f"{what} MSR_KVM_{name}{when}" for what in ("WRMSR", "RDMSR") for name in PAIRS[feature]]
    return [Refusal(kind, what, expected, answer.text) for what, answer in zip(whats, answers, strict=True)]


def _early_control(guest: Guest) -> str:
    try:
        guest.machine.cpus[0].vcpu.kvmclock_ctrl()
    except KvmCallError as error:
        return errno_name(error.errno)
    return OK


def _addresses(guest: Guest, feature: str) -> list[Refusal]:
    """No address raises #GP; a page that cannot be used is just never written.

    KVM may write the page of before at the entry that leads to the WRMSR: without a stable clock it does so at every
    entry. So the memory is cleared after the WRMSR, and KVM_SET_CLOCK makes KVM write anew whatever page it still has.
    """
    wall, system = PAIRS[feature]
    wall_msr, system_msr = _pair(feature)

    def ask(what: str, expected: str, msr: int, value: int, at: int | None) -> Refusal:
        memory = guest.machine.memory
        text = perform(guest, [wrmsr(msr, value)])[0].text
        memory.fill(PAGE, 0x2000)
        guest.machine.vm.set_clock(SET_TO)
        guest.run()  # on to its HLT, by an entry
        if at is not None and text == OK:
            text = WRITTEN if any(memory.read(at, PVCLOCK_VCPU_TIME_INFO.size)) else UNTOUCHED
        return Refusal("control" if expected == WRITTEN else "address", what, expected, text)

    return [
        ask(f"MSR_KVM_{system} in RAM", WRITTEN, system_msr, PAGE | 1, PAGE),
        ask(f"MSR_KVM_{system} with bit 0 clear", UNTOUCHED, system_msr, PAGE, PAGE),
        ask(f"MSR_KVM_{system} over the end of a page", UNTOUCHED, system_msr, CROSSING | 1, CROSSING),
        ask(f"MSR_KVM_{system} where no RAM is", OK, system_msr, NO_RAM | 1, None),
        ask(f"MSR_KVM_{wall} where no RAM is", OK, wall_msr, NO_RAM, None),
        ask(f"MSR_KVM_{wall} of 0", OK, wall_msr, 0, None),
    ]

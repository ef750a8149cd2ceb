# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of steal_time: another process on the vCPU's CPU, and the scheduler's own count of what it cost the vCPU.

At each OUT the vCPU's thread is out of KVM_RUN. KVM wrote the area after the last look ended and before this one: what
it says must lie between what /proc/self/task/TID/schedstat said then and says now. Both read the same counter of the
host's scheduler (`run_delay`), so the bounds hold however slow or busy the host is; and whatever is said of stolen time
is said of looks, each with its bounds. What the guest read itself lies between two of them.

KVM sets `preempted` where it takes the CPU away from a vCPU at a host's interrupt, on its way back into the guest
(since Linux 5.19; before, at every loss inside KVM_RUN), and counts that in preemption_reported; a loss at any other
exit is preemption_other, and outside KVM_RUN there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from vmm.abi import msrs, ports, pv
from vmm.abi.structs import KVM_STEAL_TIME
from vmm.host import schedstat
from vmm.host.hog import Hog, any_cpu, pinned
from vmm.kvm import kick
from vmm.machine.memory.layout import REGIONS
from vmm.payload.guest import Guest
from vmm.payload.proof.accesses import GP, OK, perform, rdmsr, wrmsr
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.lab import evidence as numbers_of
from vmm.payload.proof.msr_gate import hidden_msr
from vmm.payload.proof.verdict import Finding, Refusal, Verdict

HOG_SHARE = 2_000_000  # nanoseconds that the other process must have had before
# Were a HLT counted, all of it would be stolen. It is not, but an awakening comes late where others have the CPU, and
# so do those by which the host looks at its limits meanwhile: a part of the HLT is left, this one at least.
SLEPT = 1 / 8
REPORTED, OTHER = "preemption_reported", "preemption_other"
NOT_RAM = REGIONS["scratch_mmio"].base  # a device answers there
REFUSAL_AREA = REGIONS["data"].base + 0x8000  # away from the table of payload accesses


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the area: its fields, and the thread's run_delay before KVM wrote it and after. Nanoseconds.

    `hog` is the CPU time of the other process until then.
    """

    before: int
    after: int
    steal: int
    version: int
    flags: int
    hog: int = 0


@dataclass(frozen=True)
class Evidence:
    """What the host saw, and the guest's results; times in nanoseconds.

    `looks`: one at the beginning, one after each of the `turns` in which the guest was busy, one after each HLT.
    `stolen` is the guest's own count over those turns, from the first look on. `watched` losses of the CPU had vCPU 1
    looking, `preempted` are those in which it saw the byte set. `reported` and `other` are KVM's statistics
    preemption_*, over those turns: None where it has none.
    """

    looks: tuple[Look, ...]
    seen: int
    wanted: int
    turns: int
    first_steal: int
    stolen: int
    own_reads: int
    own_preempted: int
    samples: int
    watched: int
    preempted: int
    halt: int
    halt_stolen: int
    watch: int
    off_moved: int
    reported: int | None = None
    other: int | None = None


class Watch:
    """Takes a Look at each COMPARE of the guest, on the vCPU's own thread, and beside it KVM's `counted` losses."""

    def __init__(self, guest: Guest, hog: Hog | None, stats: Mapping[str, int]) -> None:
        self.guest, self.hog, self.stats = guest, hog, stats
        self.tid = kick.thread_id()  # vCPU 0 runs on the caller's thread
        self.compare = guest.constant("COMPARE")
        self.looks: list[Look] = []
        self.counted: list[tuple[int | None, int | None]] = []
        self.before = self.run_delay()
        guest.machine.on_port_write(ports.DELAY, self.look)

    def run_delay(self) -> int:
        return schedstat.of_thread(self.tid).run_delay

    def look(self, value: int) -> None:
        after = self.run_delay()
        if value == self.compare:
            memory = self.guest.machine.memory
            area = KVM_STEAL_TIME.unpack(memory.read(self.guest.constant("AREA"), KVM_STEAL_TIME.size))
            hog = self.hog.on_cpu if self.hog else 0
            self.looks.append(Look(self.before, after, area["steal"], area["version"], area["flags"], hog))
            self.counted.append((self.stats.get(REPORTED), self.stats.get(OTHER)))
            robbed = self.hog is None or hog - self.looks[0].hog >= HOG_SHARE
            # Where KVM reports losses vCPU 1 sees one sooner or later, on a busy host later.
            seen = not self.rise(0, len(self.looks)) or memory.read_u64(self.guest.constant("SET"))
            memory.write(self.guest.constant("ENOUGH"), bytes([bool(robbed and seen)]))  # it goes on until then
        self.before = self.run_delay()

    def rise(self, statistic: int, turns: int) -> int | None:
        """By how much one of `counted` rose from the first look to that after the last turn."""
        first, last = self.counted[0][statistic], self.counted[min(turns, len(self.counted) - 1)][statistic]
        return None if first is None or last is None else last - first


def prove(lab: Lab) -> Finding:
    absent = lab.absent("STEAL_TIME")
    if absent:
        return absent
    cpu = any_cpu()
    with lab.guest() as guest, ExitStack() as stack:
        vcpu = guest.machine.cpus[0].vcpu
        stats = stack.enter_context(vcpu.get_stats()) if guest.machine.kvm.check_extension("BINARY_STATS_FD") else {}
        stack.enter_context(pinned(cpu))  # the thread of vCPU 1 inherits it: it sees vCPU 0 when that does not run
        hog = stack.enter_context(Hog(cpu)) if lab.param("hog") else None
        watch = Watch(guest, hog, stats)
        run_to_pass(guest)
        return judge(
            Evidence(
                looks=tuple(watch.looks),
                seen=guest["seen"],
                wanted=lab.param("wanted"),
                turns=guest["turns"],
                first_steal=guest["first_steal"],
                stolen=guest["stolen"],
                own_reads=guest["own_reads"],
                own_preempted=guest["own_preempted"],
                samples=guest["samples"],
                watched=guest["watched"],
                preempted=guest["preempted"],
                halt=guest["halt_ticks"] * 10**6 // vcpu.get_tsc_khz(),
                halt_stolen=guest["halt_stolen"],
                watch=lab.param("watch"),
                off_moved=guest["off_moved"],
                reported=watch.rise(0, guest["turns"]),
                other=watch.rise(1, guest["turns"]),
            )
        )


def judge(evidence: Evidence) -> Finding:
    """Within the scheduler's bounds at every look; grown by what was wanted while the hog ran; not grown by a HLT;
    `preempted` seen set by vCPU 1 where KVM says that it reports losses, and never by the vCPU that runs.
    """
    looks = evidence.looks
    first, last = looks[0], looks[-1]
    steps = [later.version - earlier.version for earlier, later in pairwise(looks)]
    robbed = looks[min(evidence.turns, len(looks) - 1)]
    before_halt = looks[-2] if len(looks) > 1 else first
    stolen, halt_late = _Grown.between(first, robbed), _Grown.between(before_halt, last)
    hog, halt_hog = robbed.hog - first.hog, last.hog - before_halt.hog
    numbers = numbers_of(
        stolen_ns=stolen.steal,
        run_delay_ns=f"{stolen.low} to {stolen.high}",
        stolen_as_the_guest_read_it_ns=evidence.stolen,
        hog_ns=hog,
        looks=len(looks),
        equal_to_run_delay=sum(look.steal in (look.before, look.after) for look in looks),
        version_first=first.version,
        version_last=last.version,
        version_steps=f"{min(steps, default=0)} to {max(steps, default=0)}",
        halt_ns=evidence.halt,
        halt_stolen_ns=evidence.halt_stolen,
        halt_run_delay_ns=f"up to {halt_late.high}",
        halt_hog_ns=halt_hog,
        samples=evidence.samples,
        watched=evidence.watched,
        preempted_seen=evidence.preempted,
        own_reads=evidence.own_reads,
        own_preempted=evidence.own_preempted,
        preemption_reported=evidence.reported,
        preemption_other=evidence.other,
    )
    wrong = _wrong(evidence, steps) or _wrong_byte(evidence, robbed)
    if wrong:
        return Finding(Verdict.BROKEN, wrong, numbers)
    if hog <= 0:
        return Finding(Verdict.UNPROVEN, "no other process competed for the CPU", numbers)
    if evidence.stolen < evidence.wanted:
        reason = f"the scheduler took only {_ms(evidence.stolen)} from the vCPU's thread"
        return Finding(Verdict.UNPROVEN, reason, numbers)
    if not evidence.preempted and evidence.watched < evidence.watch:
        reason = f"vCPU 1 could look at preempted during {evidence.watched} losses of vCPU 0's CPU, too few to say"
        return Finding(Verdict.UNPROVEN, reason, numbers)
    if not evidence.preempted and evidence.reported:
        reason = f"{_clear(evidence)}; all of those that KVM reported may be of the rest"
        return Finding(Verdict.UNPROVEN, reason, numbers)
    if evidence.halt - evidence.halt_stolen < evidence.halt * SLEPT:
        reason = f"this host is too busy: awake {_ms(evidence.halt_stolen)} late from a HLT of {_ms(evidence.halt)}"
        return Finding(Verdict.UNPROVEN, reason, numbers)
    summary = (
        f"{_ms(stolen.steal)} stolen where run_delay grew {_ms(stolen.low)} to {_ms(stolen.high)}; "
        f"{_ms(evidence.halt_stolen)} in a HLT of {_ms(evidence.halt)}; {_byte(evidence)}"
    )
    return Finding(Verdict.WORKS, "", numbers, summary)


class _Grown(NamedTuple):
    """By how much `steal` grew from one look to another, and the least and the most that run_delay grew meanwhile."""

    steal: int
    low: int
    high: int

    @classmethod
    def between(cls, earlier: Look, later: Look) -> _Grown:
        steal = later.steal - earlier.steal
        return cls(steal, max(0, later.before - earlier.after), later.after - earlier.before)


def _byte(evidence: Evidence) -> str:
    """What is to be said of `preempted`, where nothing contradicts the ABI."""
    losses, own = f"{evidence.watched} losses of the CPU", f"{evidence.own_reads} readings of its own"
    if evidence.preempted:
        return f"preempted seen set in {evidence.preempted} of {losses}, clear in {own}"
    told = "" if evidence.reported is None else ": KVM counts 0 as reported"
    return f"preempted never seen set in {losses}{told}"


def _clear(evidence: Evidence) -> str:
    """KVM says that it set the byte, and vCPU 1 did not see it."""
    return (
        f"KVM reported {evidence.reported} losses of the CPU, and preempted was clear in all {evidence.watched} that "
        f"another vCPU watched"
    )


def _wrong(evidence: Evidence, steps: list[int]) -> str:
    """The first contradiction to the ABI; empty if there is none."""
    looks = evidence.looks
    first = looks[0]
    if not evidence.seen & _feature().mask:
        return f"the guest does not see bit 5 in {evidence.seen:#x}, and it was exposed"
    if first.version == 0:
        return "KVM accepted the area and never wrote it"
    for look in looks:
        if look.version % 2:
            return f"version {look.version} is odd while the vCPU is out of the guest"
        if look.flags:
            return f"flags are {look.flags:#x}, and should be 0"
    for earlier, later in pairwise(looks):
        each = _Grown.between(earlier, later)
        if not each.low <= each.steal <= each.high:
            return f"steal grew by {each.steal} ns where the thread's run_delay grew by {each.low} to {each.high} ns"
    low, high = max(look.before - look.steal for look in looks), min(look.after - look.steal for look in looks)
    if low > high:
        return f"steal drifts away from the thread's run_delay, by {low - high} ns over {len(looks)} looks"
    for step in steps:
        if step < 2:
            return f"version moved by {step} from one look to the next, and each entry updates it by 2"
    if evidence.own_preempted:
        return f"a running vCPU reads {evidence.own_preempted:#x} in its own preempted byte"
    if evidence.off_moved:
        return f"version moved by {evidence.off_moved} after the feature was switched off"
    return ""


def _wrong_byte(evidence: Evidence, robbed: Look) -> str:
    """`preempted` and the guest's reading of `steal` against what KVM counted and the host read."""
    looks = evidence.looks
    following = looks[min(evidence.turns + 1, len(looks) - 1)]
    read = evidence.first_steal + evidence.stolen
    if not robbed.steal <= read <= following.steal:
        return f"the guest read {read} ns as stolen, the host {robbed.steal} before and {following.steal} after"
    if evidence.preempted or not evidence.reported:
        return ""
    # Each entry of KVM_RUN moves `version` by 2, and each return to the CPU inside it. Of those returns some had nobody
    # who looked; KVM's reports may all be of those, and two may share one return.
    returns = (robbed.version - looks[0].version) // 2 - evidence.turns
    if evidence.reported > 2 * max(0, returns - evidence.watched):
        return f"{_clear(evidence)}, of {returns}"
    return ""


def _feature() -> pv.Feature:
    return pv.feature("STEAL_TIME")


def _msr() -> msrs.Msr:
    return msrs.msr("MSR_KVM_STEAL_TIME")


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.1f} ms"


def refusals(lab: Lab) -> list[Refusal]:
    """The matrix: hidden, enforced, present; reserved bits; an address without memory."""
    row, value = _msr(), REFUSAL_AREA | 1
    msr, found = row.number, hidden_msr(lab, _feature(), row, value)
    with lab.guest(payload="accesses", enforce=True) as guest:
        reserved = [wrmsr(msr, value | 1 << bit) for bit in range(1, 6)]
        write, read, *bad, off_bad = perform(guest, [wrmsr(msr, value), rdmsr(msr), *reserved, wrmsr(msr, 1 << 5)])
        found += [
            Refusal("control", f"WRMSR {row.name}", OK, write.text),
            Refusal("control", f"RDMSR {row.name}", f"{value:#x}", f"{read.value:#x}"),
            Refusal("control", "the area meanwhile", "kept up to date", _area(guest, msr)),
            *(Refusal("reserved", f"WRMSR with bit {bit}", GP, each.text) for bit, each in enumerate(bad, 1)),
            Refusal("reserved", "WRMSR with bit 5 and not bit 0", GP, off_bad.text),
        ]
        # Bit 0 clear, and then an address without memory: accepted, and the area of before is left alone.
        found += _left_alone(guest, "argument", "bit 0 clear", msr, REFUSAL_AREA)
        perform(guest, [wrmsr(msr, value)])
        found += _left_alone(guest, "address", "an address without memory", msr, NOT_RAM | 1)
    return found


def _left_alone(guest: Guest, kind: str, what: str, msr: int, value: int) -> list[Refusal]:
    """The MSR takes `value`, and over further entries nothing in REFUSAL_AREA changes."""
    write, read = perform(guest, [wrmsr(msr, value), rdmsr(msr)])
    return [
        Refusal(kind, f"WRMSR with {what}", OK, write.text),
        Refusal(kind, f"RDMSR after {what}", f"{value:#x}", f"{read.value:#x}"),
        Refusal(kind, f"the area after {what}", "left alone", _area(guest, msr)),
    ]


def _area(guest: Guest, msr: int) -> str:
    """What two further entries do to REFUSAL_AREA."""
    memory = guest.machine.memory
    before = memory.read(REFUSAL_AREA, KVM_STEAL_TIME.size)
    for _ in range(2):
        perform(guest, [rdmsr(msr)])
    return "left alone" if memory.read(REFUSAL_AREA, KVM_STEAL_TIME.size) == before else "kept up to date"

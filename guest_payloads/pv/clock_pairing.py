# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of clock_pairing: the pair lies inside the guest's TSC bracket and the host's CLOCK_REALTIME bracket.

A second witness is KVM_GET_CLOCK, which reads the same two clocks at once: the two pairs must lie on one line. Source:
Documentation/virt/kvm/x86/hypercalls.rst (KVM_HC_CLOCK_PAIRING); KVM's kvm_pv_clock_pairing also answers -EFAULT.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vmm.abi import pv
from vmm.abi.cpuid import SIGNATURE_LEAF
from vmm.abi.structs import KVM_CLOCK_PAIRING
from vmm.base.bits import MASK64
from vmm.errors import KvmCallError
from vmm.machine.extra.hypercalls import TSC_OFFSET
from vmm.machine.memory.layout import REGIONS
from vmm.payload.guest import Guest
from vmm.payload.proof.accesses import hypercall, perform
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict

RAM = REGIONS["data"].base
NO_RAM = REGIONS["scratch_mmio"].base
NO_FEATURES = (SIGNATURE_LEAF + 1, 0, "eax", 0)
SLACK = 1_000_000  # ns between CLOCK_REALTIME as KVM and as a process reads it
OFF_LINE = 100_000  # ns between two pairs that KVM read a moment apart
SLOPE = 1000  # one part of so many by which the TSC's rate as KVM tells it and the time of day may differ: 0.1 %
PADDING = slice(KVM_CLOCK_PAIRING.field("flags").offset + 4, KVM_CLOCK_PAIRING.size)


@dataclass(frozen=True)
class Evidence:
    """`pair` are the 64 bytes after the call; `before` and `after` the guest's TSC around it; `realtime` the host's
    CLOCK_REALTIME in ns around the run; `paired` a later (realtime ns, guest TSC) of KVM_GET_CLOCK, None if the host
    cannot tell; `host_pairs` says that KVM_GET_CLOCK gives the time of day at all.
    """

    result: int
    served: bool
    host_pairs: bool
    pair: bytes
    before: int
    after: int
    realtime: tuple[int, int]
    tsc_khz: int
    paired: tuple[int, int] | None = None

    @property
    def fields(self) -> dict[str, int]:
        return KVM_CLOCK_PAIRING.unpack(self.pair)

    @property
    def nanoseconds(self) -> int:
        return self.fields["sec"] * 10**9 + self.fields["nsec"]

    @property
    def off_line(self) -> int | None:
        """How far, in ns, the pair lies from the line through KVM_GET_CLOCK's pair with the slope of the TSC."""
        if self.paired is None:
            return None
        realtime, tsc = self.paired
        return realtime - self.nanoseconds - (tsc - self.fields["tsc"]) * 10**6 // self.tsc_khz

    @property
    def allowed(self) -> int:
        """How far it may, in ns: the further apart the two pairs, the more the two rates tell."""
        apart = abs(self.paired[1] - self.fields["tsc"]) * 10**6 // self.tsc_khz if self.paired else 0
        return OFF_LINE + apart // SLOPE

    def numbers(self) -> dict[str, Any]:
        numbers: dict[str, Any] = {"result": self.result, "served_by_pyvmm": self.served}
        if self.result == 0:
            numbers |= {
                "realtime_before": self.realtime[0],
                "pair_ns": self.nanoseconds,
                "realtime_after": self.realtime[1],
                "tsc_before": self.before,
                "pair_tsc": self.fields["tsc"],
                "tsc_after": self.after,
                "flags": self.fields["flags"],
                "off_line_ns": self.off_line,
            }
        return numbers


def judge(evidence: Evidence) -> Finding:
    """`works` or `serviced`, by who answered; `unproven` on a host that does not count time by the TSC; `broken`."""
    if evidence.result == -pv.KVM_EOPNOTSUPP and not evidence.host_pairs:
        reason = "the host must count time by the TSC: the call gives -KVM_EOPNOTSUPP, and KVM_GET_CLOCK no time of day"
        return Finding(Verdict.UNPROVEN, reason, evidence.numbers())
    wrong = next(_contradictions(evidence), None)
    if wrong is not None:
        return Finding(Verdict.BROKEN, wrong, evidence.numbers())
    width = (evidence.after - evidence.before) * 10**3 // evidence.tsc_khz
    summary = f"time of day and TSC as one pair, inside {width} us of guest time and the host's CLOCK_REALTIME"
    reason = "hypercalls never reach KVM here; pyvmm answered from KVM_GET_CLOCK" if evidence.served else ""
    return Finding(Verdict.SERVICED if evidence.served else Verdict.WORKS, reason, evidence.numbers(), summary)


def _contradictions(e: Evidence) -> Iterator[str]:
    if e.result != 0:
        yield f"the hypercall gives {pv.return_words(e.result)}, and the host can pair its clocks"
    if not e.before <= e.fields["tsc"] <= e.after:
        yield f"the pair's TSC {e.fields['tsc']} is not between {e.before} and {e.after}"
    if not 0 <= e.fields["nsec"] < 10**9:
        yield f"nsec is {e.fields['nsec']}"
    low, high = e.realtime
    if not low - SLACK <= e.nanoseconds <= high + SLACK:
        yield f"the pair says {e.nanoseconds} ns, and the host's CLOCK_REALTIME went from {low} to {high}"
    if e.fields["flags"]:
        yield f"flags are {e.fields['flags']:#x}, and none is defined"
    if any(e.pair[PADDING]):
        yield f"the padding was not cleared: {e.pair[PADDING].hex()}"
    if e.off_line is not None and abs(e.off_line) > e.allowed:
        yield f"the pair and KVM_GET_CLOCK's lie {e.off_line} ns apart: its time and its TSC are of different moments"


def prove(lab: Lab) -> Finding:
    """One guest, one call."""
    with lab.guest() as guest:
        return judge(measure(guest))


def measure(guest: Guest) -> Evidence:
    """Run the guest between two readings of CLOCK_REALTIME."""
    begin = time.time_ns()
    run_to_pass(guest)
    end = time.time_ns()
    vcpu = guest.machine.cpus[0].vcpu
    clock = guest.machine.vm.get_clock()
    paired = None
    if clock.has_realtime:
        try:
            paired = clock.realtime, clock.host_tsc + vcpu.get_device_attr(*TSC_OFFSET) & MASK64
        except KvmCallError:  # before Linux 5.16 the offset cannot be read
            paired = None
    return Evidence(
        result=guest["result"],
        served=_served(guest),
        host_pairs=clock.has_realtime,
        pair=guest.machine.memory.read(guest.constant("PAIR"), KVM_CLOCK_PAIRING.size),
        before=guest["before"],
        after=guest["after"],
        realtime=(begin, end),
        tsc_khz=vcpu.get_tsc_khz(),
        paired=paired,
    )


def _served(guest: Guest) -> bool:
    return bool(guest.hypercalls and guest.hypercalls.served)


def refusals(lab: Lab) -> list[Refusal]:
    """Another clock and an address without RAM are refused; no feature bit gates the call."""
    call = pv.hypercall("CLOCK_PAIRING")
    with lab.guest(payload="accesses", enforce=True, cpuid=lambda model: model.set_register(*NO_FEATURES)) as guest:
        answers = perform(guest, [hypercall(call.nr, *args) for args in ((RAM, 0), (RAM, 1), (NO_RAM, 0))])
    asked = (
        ("control", "no feature bit, enforced", 0),
        ("argument", "clock type 1", -pv.KVM_EOPNOTSUPP),
        ("address", "an address without RAM", -pv.KVM_EFAULT),
    )
    return [
        Refusal(kind, what, pv.return_words(expected), pv.return_words(answer.value))
        for (kind, what, expected), answer in zip(asked, answers, strict=True)
    ]

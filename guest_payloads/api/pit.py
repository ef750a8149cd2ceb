# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of pit: gives the machine KVM's PIT, and compares TSC ticks with the PIT's own frequency.

Late is no fault (a busy host), early is one. Missed ticks of the rate are made up for, so only the time from its start
says anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmm.abi.irq import PIT_HZ
from vmm.kvm.irqchip import get_pit_counts
from vmm.payload.proof.compare import AtLeast, Wanted, compare, results
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

TICKS = 4
EARLY = 0.95  # of the time asked for


@dataclass(frozen=True)
class Evidence:
    """The guest's results by name; the PIT's count, the guest's TSC in kHz; channel 0's count by KVM_GET_PIT2."""

    results: dict[str, int]
    count: int
    tsc_khz: int
    state: int

    @property
    def period(self) -> int:
        """TSC ticks in one period."""
        return self.count * self.tsc_khz * 1000 // PIT_HZ


def prove(lab: Lab) -> Finding:
    return judge(observe(lab))


def observe(lab: Lab) -> Evidence:
    with lab.guest(before_vcpus=lambda machine: machine.vm.create_pit2()) as guest:
        run_to_pass(guest)
        machine = guest.machine
        khz = machine.cpus[0].vcpu.get_tsc_khz()
        return Evidence(results(guest), guest.params["count"], khz, get_pit_counts(machine.vm)[0])


def judge(seen: Evidence) -> Finding:
    wanted: dict[str, Wanted] = {
        "reading": range(1, seen.count + 1),
        "rate": AtLeast(TICKS),
        "rate_ticks": AtLeast(int(TICKS * seen.period * EARLY)),
        "single": 1,
        "single_ticks": AtLeast(int(seen.period * EARLY)),
    }
    ratio = seen.results["rate_ticks"] / max(1, TICKS * seen.period)
    summary = f"{TICKS} ticks took {ratio:.2f} times the time asked for, one shot is one interrupt"
    numbers = {"TSC ticks in a period": seen.period, "count of channel 0 (KVM_GET_PIT2)": seen.state}
    found = compare(seen.results, wanted, summary, numbers)
    if found.verdict is Verdict.WORKS and seen.state != seen.count:
        return Finding(Verdict.BROKEN, "KVM_GET_PIT2 does not have the count that the guest set", found.evidence)
    return found

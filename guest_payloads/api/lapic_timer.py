# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of lapic_timer: what the guest measured in TSC ticks beside what it asked for.

KVM's APIC bus clock has 1 ns, so an initial count at divider 1 is nanoseconds. Nothing here has an upper limit: a busy
host may be late, but no timer is early. Source: Intel SDM vol. 3A, 11.5.4; KVM_CAP_TSC_DEADLINE_TIMER in api.rst.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmm.payload.proof.compare import AtLeast, Wanted, compare, results
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

PERIODS = 5
EARLY = 0.95  # of the time asked for: the TSC frequency that KVM tells is rounded
ADVANCE_NS = 5000  # KVM may start on a deadline interrupt this much before it (lapic_timer_advance's limit)


@dataclass(frozen=True)
class Evidence:
    """The guest's results by name; the parameters `ticks` (ns); its TSC in kHz; the count that it watches from (ns)."""

    results: dict[str, int]
    ticks: int
    tsc_khz: int
    long: int

    @property
    def expected(self) -> int:
        """TSC ticks in one period."""
        return self.ticks * self.tsc_khz // 10**6


def prove(lab: Lab) -> dict[str, Finding]:
    return judge(observe(lab))


def observe(lab: Lab) -> Evidence:
    with lab.guest() as guest:
        run_to_pass(guest)
        khz = guest.machine.cpus[0].vcpu.get_tsc_khz()
        return Evidence(results(guest), guest.params["ticks"], khz, guest.constant("LONG"))


def judge(seen: Evidence) -> dict[str, Finding]:
    return {
        "lapic_timer_oneshot": _once(seen),
        "lapic_timer_periodic": _periodic(seen),
        "lapic_timer_deadline": _deadline(seen),
    }


def _once(seen: Evidence) -> Finding:
    wanted: dict[str, Wanted] = {
        "once": 1,
        "counting": range(1, seen.long + 1),
        "once_left": 0,
        "once_ticks": AtLeast(int(seen.expected * EARLY)),
    }
    numbers = {"TSC ticks asked for": seen.expected}
    ratio = seen.results["once_ticks"] / max(1, seen.expected)
    return compare(seen.results, wanted, f"one interrupt, {ratio:.2f} times the time asked for", numbers)


def _periodic(seen: Evidence) -> Finding:
    wanted: dict[str, Wanted] = {
        "periodic": AtLeast(PERIODS),  # one more may have been pending when it was stopped
        "period_ticks": AtLeast(int(PERIODS * seen.expected * EARLY)),
        "stopped": 0,
    }
    ratio = seen.results["period_ticks"] / max(1, PERIODS * seen.expected)
    return compare(
        seen.results,
        wanted,
        f"{PERIODS} periods took {ratio:.2f} times the time asked for, none came after the stop",
        {"TSC ticks asked for": PERIODS * seen.expected},
    )


def _deadline(seen: Evidence) -> Finding:
    if not seen.results["has_deadline"]:
        return Finding(Verdict.ABSENT, "the guest's CPUID has no TSC-deadline mode (leaf 1, ECX bit 24)")
    wanted: dict[str, Wanted] = {
        "armed": 0,
        "deadline": 1,
        "late": AtLeast(-ADVANCE_NS * seen.tsc_khz // 10**6),
        "disarmed": 0,
        "past": 1,
    }
    late = seen.results["late"] * 10**3 // seen.tsc_khz
    return compare(seen.results, wanted, f"one interrupt {late} us after the deadline, and one at once for one past")

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of stable_bit: flag 0 of the clock's page and KVM_GET_CLOCK must say the same, whatever vCPU 0 does.

Source: Documentation/virt/kvm/x86/msr.rst (flags), api.rst 4.29 (KVM_CLOCK_TSC_STABLE).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmm.abi import ports, pv
from vmm.payload.guest import Guest
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Unproven, Verdict

FEATURE = "CLOCKSOURCE_STABLE_BIT"
STABLE = pv.PVCLOCK_TSC_STABLE_BIT
CURRENT_CLOCKSOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")

AGREES = "as in KVM_GET_CLOCK"


@dataclass(frozen=True)
class Evidence:
    """`flags` of the page and what KVM_GET_CLOCK says of the same moment (`kvm`), in the order of STEPs: by the new
    MSR, by the old one, by the new one again. `host_clock` is the host's clocksource, empty if it cannot be read.
    """

    exposed: bool
    version: int
    flags: tuple[int, int, int]
    kvm: tuple[bool, bool, bool]
    host_clock: str = ""

    def numbers(self) -> dict[str, Any]:
        moments = ("new_msr", "old_msr", "new_msr_again")
        flags = {f"flags_{name}": value for name, value in zip(moments, self.flags, strict=True)}
        kvm = {f"kvm_tsc_stable_{name}": value for name, value in zip(moments, self.kvm, strict=True)}
        return {"version": self.version} | flags | kvm | {"host_clocksource": self.host_clock}


def judge(evidence: Evidence) -> Finding:
    """`works`; `inert` where KVM never had a stable clock to lose; or `broken`."""
    wrong = next(_contradictions(evidence), None)
    if wrong is not None:
        return Finding(Verdict.BROKEN, wrong, evidence.numbers())
    if not evidence.kvm[0]:
        clock = f" (the host counts time by {evidence.host_clock})" if evidence.host_clock else ""
        return Finding(
            Verdict.INERT, f"KVM has no stable clock on this host{clock}; the flag says so", evidence.numbers()
        )
    summary = "flag 1, 0, 1 as in KVM_GET_CLOCK: set, lost by vCPU 0 using MSR 0x12, set again"
    return Finding(Verdict.WORKS, "", evidence.numbers(), summary)


def _contradictions(e: Evidence) -> Iterator[str]:
    if not e.exposed:
        yield "the guest's CPUID lacks bit 24"
    if not e.version or e.version & 1:
        yield f"version {e.version} of the clock's page: it was never written"
    for flags, stable, when in zip(e.flags, e.kvm, ("at first", "by MSR 0x12", "by the new MSR again"), strict=True):
        if bool(flags & STABLE) != stable:
            yield f"flag 0 is {flags & STABLE} {when}, and KVM_GET_CLOCK says {int(stable)}"
    if e.kvm[1]:
        yield "the clock is still stable, though vCPU 0 uses MSR 0x12"
    if e.kvm[2] != e.kvm[0]:
        yield f"stable was {int(e.kvm[0])} and is {int(e.kvm[2])} after vCPU 0 went back to the new MSR"


def prove(lab: Lab) -> Finding:
    """One guest with one vCPU."""
    if finding := lab.absent(FEATURE):
        return finding
    for other in ("CLOCKSOURCE2", "CLOCKSOURCE"):
        if lab.enforce and not lab.offered(other):
            raise Unproven(f"needs the clock MSRs of {other}, which is hidden and enforced")
    with lab.guest() as guest:
        return judge(measure(guest))


def measure(guest: Guest) -> Evidence:
    """Run the guest, and ask KVM at each STEP."""
    asked: list[bool] = []

    def step(number: int) -> None:
        if number:
            asked.append(guest.machine.vm.get_clock().tsc_stable)

    guest.machine.on_port_write(ports.DELAY, step)
    run_to_pass(guest)
    row = pv.feature(FEATURE)
    return Evidence(
        exposed=bool(guest["features"] & row.mask),
        version=guest["version"],
        flags=(guest["flags"], guest["flags_old"], guest["flags_back"]),
        kvm=(asked[0], asked[1], asked[2]),
        host_clock=_host_clock(),
    )


def _host_clock() -> str:
    try:
        return CURRENT_CLOCKSOURCE.read_text().strip()
    except OSError:
        return ""


def refusals(lab: Lab) -> list[Refusal]:
    """The bit gates nothing: hidden or not, enforced or not, KVM writes the flag all the same."""
    with lab.guest(enforce=True) as guest:
        control = _first_flag(guest)
    rows = [Refusal("control", "flag 0 with bit 24 exposed and enforced", AGREES, control)]
    for kind, enforce, how in (("masked", False, "hidden"), ("enforced", True, "hidden and enforced")):
        with lab.guest(mask=lab.proves, enforce=enforce) as guest:
            rows.append(Refusal(kind, f"flag 0 with bit 24 {how}", AGREES, _first_flag(guest)))
    return rows


def _first_flag(guest: Guest) -> str:
    found = measure(guest)
    return AGREES if bool(found.flags[0] & STABLE) == found.kvm[0] else f"{found.flags[0]:#x}"

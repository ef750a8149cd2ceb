# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of hints: the guest reads what was set, no more; beside it stands what an I/O delay costs on this host.

Source: Documentation/virt/kvm/x86/cpuid.rst.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vmm.abi import ports, pv
from vmm.payload.guest import Guest
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict


@dataclass(frozen=True)
class Evidence:
    """What one guest read in leaf 0x40000001, and TSC ticks of a loop without (`loop`) and with OUT (`delay`)."""

    features: int
    hints: int
    loop: int
    delay: int
    turns: int

    @property
    def ratio(self) -> float:
        """The cost of an OUT in turns of the loop that only counts."""
        return (self.delay - self.loop) / max(self.loop, 1)

    def sees(self, feature: str) -> bool:
        row = pv.feature(feature)
        return bool((self.features if row.register == "eax" else self.hints) & row.mask)

    def numbers(self) -> dict[str, Any]:
        return {
            "eax": self.features,
            "edx": self.hints,
            "ticks_per_turn": self.loop // self.turns,
            "ticks_per_turn_with_out": self.delay // self.turns,
            "ratio": round(self.ratio, 1),
        }


def judge(feature: str, evidence: Evidence) -> Finding:
    """`advertised`: the guest reads the bit that was set; or `broken`."""
    numbers = evidence.numbers()
    if not evidence.sees(feature):
        return Finding(Verdict.BROKEN, "the bit was set, and the guest's CPUID does not show it", numbers)
    if feature == "HINTS_REALTIME":
        return Finding(Verdict.ADVERTISED, "", numbers, "set by the VMM and seen by the guest in EDX")
    if not 0 < evidence.loop < evidence.delay:  # a hint promises no time: this is what a busy host looks like
        return Finding(Verdict.ADVERTISED, "", numbers, "seen; what a delay costs could not be told on this busy host")
    summary = f"seen; the delay it makes needless, an OUT to port 0x80, costs {evidence.ratio:.0f} turns of a loop"
    return Finding(Verdict.ADVERTISED, "", numbers, summary)


def prove(lab: Lab) -> dict[str, Finding]:
    """One guest with both bits, as far as this lab lets it have them. The VMM itself offers HINTS_REALTIME."""
    delay, realtime = lab.proves
    missing = {delay: lab.absent(delay), realtime: None}
    if lab.masked(realtime):
        missing[realtime] = Finding(Verdict.ABSENT, "masked")
    if all(missing.values()):
        return {name: finding for name, finding in missing.items() if finding}
    with lab.guest(expose=() if missing[realtime] else (realtime,)) as guest:
        evidence = measure(guest)
    return {name: finding or judge(name, evidence) for name, finding in missing.items()}


def measure(guest: Guest) -> Evidence:
    """Run the guest; port 0x80 is claimed by a device that does nothing."""
    guest.machine.on_port_write(ports.DELAY, lambda value: None)
    run_to_pass(guest)
    return Evidence(guest["features"], guest["hints"], guest["loop"], guest["delay"], guest.params["turns"])


def refusals(lab: Lab) -> dict[str, list[Refusal]]:
    """A hint gates nothing: hidden and enforced it is gone from CPUID, and the guest runs as before."""
    with lab.guest(mask=lab.proves, enforce=True, params={"rounds": 1, "turns": 1}) as guest:
        evidence = measure(guest)
    return {
        name: [Refusal("enforced", "CPUID shows the hidden bit", "no", "yes" if evidence.sees(name) else "no")]
        for name in lab.proves
    }

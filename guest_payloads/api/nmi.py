# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of nmi: sends NMIs when the guest asks, and looks at KVM_GET_VCPU_EVENTS meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

from vmm.abi.apic import DM_NMI, msi_address, msi_data
from vmm.abi.ports import DELAY
from vmm.payload.proof.compare import compare, results
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

BY_MESSAGE = 3


@dataclass(frozen=True)
class Evidence:
    """The guest's results by name; `masked`: nmi.masked of KVM_GET_VCPU_EVENTS when the guest asked for each."""

    results: dict[str, int]
    masked: tuple[int, ...]


def prove(lab: Lab) -> Finding:
    return judge(observe(lab))


def observe(lab: Lab) -> Evidence:
    with lab.guest() as guest:
        machine = guest.machine
        vcpu = machine.cpus[0].vcpu
        masked: list[int] = []

        def asked(what: int) -> None:
            masked.append(vcpu.get_vcpu_events().nmi_masked)
            if what == BY_MESSAGE:
                machine.vm.signal_msi(msi_address(0), msi_data(0, DM_NMI))
            else:
                vcpu.nmi()

        machine.on_port_write(DELAY, asked)
        run_to_pass(guest)
        return Evidence(results(guest), tuple(masked))


def judge(seen: Evidence) -> Finding:
    numbers = {"nmi.masked before, in the handler, later": ", ".join(map(str, seen.masked))}
    summary = "taken with interrupts disabled, held back until the handler's IRET, and by message"
    found = compare(seen.results, {"inside": 0, "after": 2, "message": 3}, summary, numbers)
    if found.verdict is Verdict.WORKS and seen.masked != (0, 1, 0):
        text = "nmi.masked of KVM_GET_VCPU_EVENTS is not set in the handler alone"
        return Finding(Verdict.BROKEN, text, found.evidence)
    return found

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of machine_check: sets up banks, reports errors, and once more to a guest that does not take #MC.

Sources: api.rst, KVM_X86_SETUP_MCE and KVM_X86_SET_MCE; Intel SDM vol. 3B, 16.3.2 (banks), 16.7 (corrected errors).
"""

from __future__ import annotations

from dataclasses import dataclass

from vmm.abi import irq
from vmm.abi.ports import DELAY
from vmm.kvm.irqchip import set_mce, setup_mce
from vmm.kvm.vcpu import Vcpu
from vmm.machine.ends import Why
from vmm.payload.proof.compare import Wanted, compare, results
from vmm.payload.proof.ending import broke, run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

BANKS = 5
ERROR_CODE = 0x9F  # memory controller, channel not specified (Intel SDM vol. 3B, 16.9.2)
ADDRESS, MISC = 0x12345000, 0x8C
CORRECTED = irq.MCI_STATUS_VAL | irq.MCI_STATUS_EN | irq.MCI_STATUS_ADDRV | irq.MCI_STATUS_MISCV | ERROR_CODE
UNCORRECTED = CORRECTED | irq.MCI_STATUS_UC
IN_PROGRESS = irq.MCG_STATUS_MCIP | irq.MCG_STATUS_RIPV


@dataclass(frozen=True)
class Evidence:
    """The guest's results by name; why the run of a guest with CR4.MCE clear ended."""

    results: dict[str, int]
    without_mce: str


def prove(lab: Lab) -> dict[str, Finding]:
    return judge(observe(lab))


def observe(lab: Lab) -> Evidence:
    with lab.guest() as guest:
        vcpu = guest.machine.cpus[0].vcpu
        _prepare(vcpu)
        guest.machine.on_port_write(DELAY, lambda what: report(vcpu, what))
        run_to_pass(guest)
        found = results(guest)
    with lab.guest(params={"mce": 0}) as guest:
        other = guest.machine.cpus[0].vcpu
        _prepare(other)
        guest.machine.on_port_write(DELAY, lambda what: report(other, what))
        result = guest.run()
        if result.stop.why not in (Why.SHUTDOWN, Why.EXIT_PORT):
            raise broke(guest, result)
    return Evidence(found, str(result.stop.why))


def _prepare(vcpu: Vcpu) -> None:
    setup_mce(vcpu, irq.MCG_CTL_P | BANKS)


def report(vcpu: Vcpu, what: int) -> None:
    """The error that the guest asks for: 1 corrected, 2 uncorrected in a bank that is off, 3 uncorrected."""
    if what == 1:
        set_mce(vcpu, 1, CORRECTED, address=ADDRESS, misc=MISC)
    else:
        set_mce(vcpu, 2 if what == 2 else 1, UNCORRECTED, address=ADDRESS, misc=MISC, mcg_status=IN_PROGRESS)


def judge(seen: Evidence) -> dict[str, Finding]:
    corrected: dict[str, Wanted] = {
        "banks": BANKS,
        "ctl_p": 1,
        "quiet": 0,
        "status": CORRECTED,
        "addr": ADDRESS,
        "misc": MISC,
        "over": CORRECTED | irq.MCI_STATUS_OVER,
        "cleared": 0,
    }
    summary = "found in its bank without an exception, a second one marked as an overflow, cleared by the guest"
    return {"mce_corrected": compare(seen.results, corrected, summary), "mce_uncorrected": _uncorrected(seen)}


def _uncorrected(seen: Evidence) -> Finding:
    wanted: dict[str, Wanted] = {"disabled": 0, "mc": 1, "mc_status": UNCORRECTED, "mcg_status": IN_PROGRESS}
    numbers = {"the run with CR4.MCE clear ended by": seen.without_mce}
    summary = "#MC with its bank, none from a bank that is off; with CR4.MCE clear a triple fault"
    found = compare(seen.results, wanted, summary, numbers)
    if found.verdict is Verdict.WORKS and seen.without_mce != Why.SHUTDOWN:
        text = "a guest with CR4.MCE clear went on after an uncorrected error"
        return Finding(Verdict.BROKEN, text, found.evidence)
    return found

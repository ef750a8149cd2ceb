# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of pv_eoi: the in-service bit as KVM_GET_LAPIC has it, and why the bit may never show on a host.

Two such hosts must be told apart. One holds no interrupt in service at all, so that there is nothing to end: the bit in
ISR is 0 inside a handler that wrote no EOI, and the same vector comes again. The other has the CPU end interrupts
(APICv, AVIC), and KVM then needs no help: ISR is held, and the bit stays 0 until APICv is inhibited by a changed APIC
id.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from vmm.abi import msrs
from vmm.abi.ports import DELAY
from vmm.kvm.vcpu import Vcpu
from vmm.machine.memory.layout import REGIONS
from vmm.payload.proof.accesses import GP, OK, perform, rdmsr, wrmsr
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict

WORD = REGIONS["data"].base
ISR = 0x100  # the first of eight words, 16 bytes apart
INHIBITING_ID = 1  # any other than the vCPU's own, which is 0
NOT_RAM = 0xD0000000
MODULE_PARAMETERS = (
    Path("/sys/module/kvm_intel/parameters/enable_apicv"),
    Path("/sys/module/kvm_amd/parameters/avic"),
)


@dataclass(frozen=True)
class Run:
    """The guest's results; `isr_host` is the in-service bit in the first handler, `after` (was the bit taken, is the
    vector in service) at exits that follow a handler, both from KVM_GET_LAPIC.
    """

    sent: int
    bit_off: int
    isr: int
    isr_host: int
    unended: int
    ended: int
    readback: int
    delivered: int
    taken: int
    after: tuple[tuple[int, int], ...]

    @property
    def shown(self) -> bool:
        """Did a handler end its interrupt by the bit, and was the vector then out of service? Exits of a busy host
        take the bit back before a handler comes to it: how many do not find it says nothing of KVM.
        """
        return (1, 0) in self.after


@dataclass(frozen=True)
class Evidence:
    """`apicv`: what KVM's module says of APICv or AVIC (None: no such parameter). `inhibited`: the run with the APIC id
    changed, made where the plain one holds interrupts in service and yet never showed the bit.
    """

    plain: Run
    inhibited: Run | None = None
    apicv: bool | None = None


def prove(lab: Lab) -> Finding:
    if absent := lab.absent(lab.proves[0]):
        return absent
    evidence = Evidence(_run(lab), apicv=_apicv())
    if not evidence.plain.taken and evidence.plain.isr:
        evidence = replace(evidence, inhibited=_run(lab, apic_id=INHIBITING_ID))
    return judge(evidence)


def _run(lab: Lab, **params: int) -> Run:
    with lab.guest(params=params) as guest:
        vcpu, vector = guest.machine.cpus[0].vcpu, guest.constant("VECTOR")
        after: list[tuple[int, int]] = []
        first: list[int] = []
        guest.machine.on_port_write(DELAY, lambda taken: after.append((taken, _in_service(vcpu, vector))))
        guest.machine.on_port_write(DELAY + 1, lambda value: first.append(_in_service(vcpu, vector)))
        guest.machine.on_port_write(DELAY + 2, lambda value: None)
        run_to_pass(guest)
        return Run(
            sent=guest.params["count"],
            bit_off=guest["bit_off"],
            isr=guest["isr"],
            isr_host=sum(first),
            unended=guest["unended"],
            ended=guest["ended"],
            readback=guest["readback"],
            delivered=guest["delivered"],
            taken=guest["taken"],
            after=tuple(after),
        )


def _in_service(vcpu: Vcpu, vector: int) -> int:
    word = ISR + (vector >> 5) * 0x10
    return int.from_bytes(vcpu.get_lapic()[word : word + 4], "little") >> (vector & 0x1F) & 1


def _apicv() -> bool | None:
    for path in MODULE_PARAMETERS:
        try:
            return path.read_text().strip() in ("Y", "1")
        except OSError:
            continue
    return None


def judge(evidence: Evidence) -> Finding:
    """Works: interrupts were ended by the bit, none was still in service after it, every one was delivered."""
    run = evidence.inhibited or evidence.plain
    numbers = {
        "interrupts sent": run.sent,
        "delivered": run.delivered,
        "ended by the bit": run.taken,
        "bit with the feature off": run.bit_off,
        "ISR in a handler, feature off (guest, KVM_GET_LAPIC)": f"{run.isr}, {run.isr_host}",
        "deliveries with no EOI, then after EOI": f"{run.unended}, {run.ended}",
        "MSR read back": hex(run.readback),
        "ISR after a handler (bit taken, ISR)": "; ".join(
            f"{taken}, {isr}: {times}x" for (taken, isr), times in sorted(Counter(run.after).items())
        ),
        "APICv or AVIC by KVM's module": {None: "not told", True: "on", False: "off"}[evidence.apicv],
    }
    if evidence.inhibited:
        numbers["ended by the bit before the APIC id was changed"] = evidence.plain.taken
    if wrong := _wrong(run):
        return Finding(Verdict.BROKEN, wrong, numbers)
    if run.shown:
        how = ", APICv inhibited by another APIC id" if evidence.inhibited else ""
        summary = f"{run.taken} of {run.sent} interrupts ended by the bit, ISR clear afterwards{how}"
        return Finding(Verdict.WORKS, "", numbers, summary)
    if run.taken:
        text = f"{run.taken} of {run.sent} handlers found the bit, and none while the host looked"
        return Finding(Verdict.UNPROVEN, text, numbers)
    if not run.isr and not run.isr_host and run.unended > 1:
        text = (
            "the LAPIC never holds an interrupt in service here: ISR reads 0 inside the handler, and with PV EOI off"
            " and no EOI written the vector comes again; there is nothing to end"
        )
        return Finding(Verdict.INERT, text, numbers)
    if evidence.apicv:
        text = "APICv or AVIC is on in KVM's module, and another APIC id did not inhibit it: the CPU ends interrupts"
        return Finding(Verdict.INERT, text, numbers)
    if evidence.apicv is None:
        text = "interrupts are held in service and the bit never shows; whether APICv or AVIC is on cannot be read here"
        return Finding(Verdict.UNPROVEN, text, numbers)
    text = "interrupts are held in service, APICv and AVIC are off, and the bit never shows"
    return Finding(Verdict.BROKEN, text, numbers)


def _wrong(run: Run) -> str:
    """What contradicts the ABI in one run, in words; empty if nothing does."""
    if run.bit_off:
        return "the bit was set although the feature was off"
    if run.ended != 2:
        return f"{run.ended} of 2 interrupts were delivered with the feature off, with EOI written"
    if run.readback != WORD | 1:
        return f"the MSR reads {run.readback:#x} after {WORD | 1:#x} was written"
    if run.delivered != run.sent:
        return f"{run.delivered} of {run.sent} interrupts were delivered: a vector did not come again after its end"
    if any(isr for _, isr in run.after):
        taken = next(taken for taken, isr in run.after if isr)
        return f"the vector was still in service after {'the bit was taken' if taken else 'the EOI was written'}"
    return ""


def refusals(lab: Lab) -> list[Refusal]:
    """Who may write the MSR, and what."""
    row = msrs.msr("MSR_KVM_PV_EOI_EN")
    msr = row.number
    accesses = [rdmsr(msr), wrmsr(msr, WORD | 1), wrmsr(msr, WORD | 3), wrmsr(msr, NOT_RAM | 1), wrmsr(msr, 0)]
    rows = []
    for kind, mask, enforce, want in (
        ("control", (), True, OK),
        ("masked", lab.proves, False, OK),
        ("enforced", lab.proves, True, GP),
    ):
        with lab.guest(payload="accesses", mask=mask, enforce=enforce) as guest:
            read, write, reserved, outside, off = perform(guest, accesses)
        rows += [
            Refusal(kind, f"RDMSR {row.name}", want, read.text),
            Refusal(kind, f"WRMSR {row.name}", want, write.text),
            Refusal(kind, f"WRMSR {row.name} of 0", want, off.text),
        ]
        if kind == "control":
            rows += [
                Refusal("reserved", f"WRMSR {row.name} with bit 1", GP, reserved.text),
                Refusal("address", f"WRMSR {row.name} of an address that is not RAM", GP, outside.text),
            ]
    return rows

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of inject_events: an event at each of the guest's OUTs, by KVM_SET_VCPU_EVENTS (vmm/kvm/inject.py)."""

from __future__ import annotations

from dataclasses import dataclass

from vmm.abi.ports import DELAY
from vmm.abi.x86 import PF
from vmm.kvm import inject
from vmm.kvm.system import Kvm
from vmm.kvm.vcpu import Vcpu
from vmm.machine.ends import Why
from vmm.payload.proof.compare import Wanted, compare, results
from vmm.payload.proof.ending import broke, run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

UD, GP, PAGE_FAULT, DEBUG = 6, 13, 14, 1
INTERRUPT = 0x71
GP_CODE = 0x1238
PF_CODE = int(PF.WRITE | PF.USER)
ADDRESS = 0x7654_3210_F000  # canonical, and nowhere near the guest's memory
DR6_BS = 1 << 14
TRIPLE = 8


@dataclass(frozen=True)
class Evidence:
    """The guest's results by name; was the payload's part run; why the run with a triple fault ended (empty: this KVM
    has no such event).
    """

    results: dict[str, int]
    payload: bool
    triple: str


def prove(lab: Lab) -> dict[str, Finding]:
    return judge(observe(lab))


def observe(lab: Lab) -> Evidence:
    with Kvm.open() as kvm:
        payload, triple = (bool(kvm.check_extension(cap)) for cap in ("EXCEPTION_PAYLOAD", "X86_TRIPLE_FAULT_EVENT"))
    payload = payload and bool(lab.param("payload"))
    found, _ = _run(lab, payload=payload, triple=False)
    end = _run(lab, payload=False, triple=True)[1] if triple else ""
    return Evidence(found, payload, end)


def _run(lab: Lab, *, payload: bool, triple: bool) -> tuple[dict[str, int], str]:
    params = {"payload": int(payload), "triple": int(triple)}
    with lab.guest(params=params) as guest:
        machine = guest.machine
        if payload:
            machine.vm.enable_cap("EXCEPTION_PAYLOAD", 1)
        if triple:
            machine.vm.enable_cap("X86_TRIPLE_FAULT_EVENT", 1)
        vcpu = machine.cpus[0].vcpu
        machine.on_port_write(DELAY, lambda what: _event(vcpu, what))
        if not triple:
            run_to_pass(guest)
            return results(guest), ""
        result = guest.run()
        if result.stop.why not in (Why.SHUTDOWN, Why.EXIT_PORT):
            raise broke(guest, result)
        return {}, str(result.stop.why)


def _event(vcpu: Vcpu, what: int) -> None:
    match what:
        case 1:
            inject.exception(vcpu, UD)
        case 2:
            inject.exception(vcpu, GP, GP_CODE)
        case 3:
            inject.exception(vcpu, PAGE_FAULT, PF_CODE)
        case 4:
            inject.exception(vcpu, PAGE_FAULT, PF_CODE, payload=ADDRESS)
        case 5:
            inject.exception(vcpu, DEBUG, payload=DR6_BS)
        case 6:
            inject.interrupt(vcpu, INTERRUPT)
        case 7:
            inject.nmi(vcpu)
        case _:
            inject.triple_fault(vcpu)


def judge(seen: Evidence) -> dict[str, Finding]:
    exceptions: dict[str, Wanted] = {
        "ud": 1,
        "ud_rip": 0,
        "gp": 1,
        "gp_code": GP_CODE,
        "pf": 1 + seen.payload,
        "pf_code": PF_CODE,
        "cr2_before": 0,
    }
    return {
        "inject_exception": compare(seen.results, exceptions, "#UD, #GP and #PF with their error codes, after the OUT"),
        "inject_exception_payload": _payload(seen),
        "inject_interrupt": compare(seen.results, {"interrupt": 1}, "an interrupt taken that no controller has sent"),
        "inject_nmi": compare(seen.results, {"nmi": 1}, "a pending NMI taken"),
        "triple_fault_event": _triple(seen),
    }


def _payload(seen: Evidence) -> Finding:
    if not seen.payload:
        return Finding(Verdict.ABSENT, "this host lacks KVM_CAP_EXCEPTION_PAYLOAD (164)")
    wanted: dict[str, Wanted] = {"cr2": ADDRESS, "db": 1, "dr6": DR6_BS}
    return compare(seen.results, wanted, "#PF brought its address to CR2, #DB its reason to DR6")


def _triple(seen: Evidence) -> Finding:
    if not seen.triple:
        return Finding(Verdict.ABSENT, "this host lacks KVM_CAP_X86_TRIPLE_FAULT_EVENT (218)")
    numbers = {"the run ended by": seen.triple}
    if seen.triple != Why.SHUTDOWN:
        return Finding(Verdict.BROKEN, "the guest ran on after a triple fault was made pending", numbers)
    return Finding(Verdict.WORKS, "", numbers, "a pending triple fault is KVM_EXIT_SHUTDOWN")

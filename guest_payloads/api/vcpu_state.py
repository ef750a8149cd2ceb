# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of vcpu_state: what the guest did is in KVM's structures, and what is set there is what the guest sees."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vmm.abi import apic, exits, flags, ports
from vmm.abi.rows import value_of
from vmm.kvm.vcpu import Vcpu
from vmm.machine.ends import Stop, Why
from vmm.payload.guest import Guest
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, GuestBroke, Verdict

ROWS = ("xsave", "xcrs", "debugregs", "vcpu_events", "lapic_state", "mp_state")
XMM0_VALUE, XMM1_VALUE = 0x1111222233334444, 0x5555666677778888  # the first set by the guest, the second by the host
DR1_VALUE, DR2_VALUE = 0x1234560, 0x7654320
TPR_GUEST, TPR_HOST = 0x20, 0x40
X87 = 1
XMM_OFFSET, XSTATE_BV = 160, 512  # in the XSAVE area's legacy part and header (SDM vol. 1, 13.4)
SSE = 2
HALTED = value_of(exits.MP_STATES, "KVM_MP_STATE_HALTED")
RUNNABLE = value_of(exits.MP_STATES, "KVM_MP_STATE_RUNNABLE")
NMI_VALID = value_of(flags.VCPU_EVENTS, "KVM_VCPUEVENT_VALID_NMI_PENDING")
HALT_TIME = 0.02  # seconds in which a halted vCPU must not move


@dataclass
class Evidence:
    """`host` is what the host read, by name; `guest` the guest's results; `offered` the bits that XCR0 may have."""

    host: dict[str, int] = field(default_factory=dict)
    guest: Mapping[str, int] = field(default_factory=dict)
    offered: int = 0


def prove(lab: Lab) -> dict[str, Finding]:
    evidence = Evidence()
    with lab.guest() as guest:
        machine, vcpu = guest.machine, guest.machine.cpus[0].vcpu
        evidence.offered = machine.cpuid.register(0xD, 0, "eax") or X87
        evidence.host["xsave2"] = machine.vm.check_extension("XSAVE2")  # bytes of the area, 0 without KVM_GET_XSAVE2

        def stage(number: int) -> None:
            if number in STAGES:
                vcpu.complete()
                STAGES[number](vcpu, evidence)
            elif number == 7:
                machine.all_cpus.end(machine.current, Stop(Why.STOPPED, "for the run state"))

        machine.on_port_write(ports.DELAY, stage)
        stopped = guest.run()
        if stopped.stop.why is not Why.STOPPED:
            raise GuestBroke(stopped.stop.text)
        halt(guest, evidence)
        run_to_pass(guest)
        evidence.guest = {name: guest[name] for name in guest.header.results}
    return {name: judge(name, evidence) for name in lab.proves}


def xsave(vcpu: Vcpu, evidence: Evidence) -> None:
    size = evidence.host["xsave2"]
    area = bytearray(vcpu.get_xsave2(size) if size else vcpu.get_xsave())
    evidence.host["xmm0"] = struct.unpack_from("<Q", area, XMM_OFFSET)[0]
    struct.pack_into("<QQ", area, XMM_OFFSET + 16, XMM1_VALUE, 0)
    area[XSTATE_BV] |= SSE
    vcpu.set_xsave(bytes(area))


def xcr0_x87(vcpu: Vcpu, evidence: Evidence) -> None:
    vcpu.set_xcrs({0: X87})
    evidence.host["xcr0_x87"] = vcpu.get_xcrs()[0]


def xcr0_all(vcpu: Vcpu, evidence: Evidence) -> None:
    vcpu.set_xcrs({0: evidence.offered})
    evidence.host["xcr0_all"] = vcpu.get_xcrs()[0]


def debugregs(vcpu: Vcpu, evidence: Evidence) -> None:
    regs = vcpu.get_debugregs()
    evidence.host["dr1"] = regs.db[1]
    vcpu.set_debugregs(replace(regs, db=(regs.db[0], regs.db[1], DR2_VALUE, regs.db[3])))


def events(vcpu: Vcpu, evidence: Evidence) -> None:
    now = vcpu.get_vcpu_events()
    evidence.host["nmi_before"] = now.nmi_pending
    vcpu.set_vcpu_events(replace(now, nmi_pending=1, flags=NMI_VALID))
    evidence.host["nmi_pending"] = vcpu.get_vcpu_events().nmi_pending


def lapic(vcpu: Vcpu, evidence: Evidence) -> None:
    page = bytearray(vcpu.get_lapic())
    offset = tpr_offset()
    evidence.host["tpr"] = page[offset]
    page[offset] = TPR_HOST
    vcpu.set_lapic(bytes(page))


def tpr_offset() -> int:
    return next(row.offset for row in apic.REGISTERS if row.name == "TASKPRI")


STAGES = {1: xsave, 2: xcr0_x87, 3: xcr0_all, 4: debugregs, 5: events, 6: lapic}


def halt(guest: Guest, evidence: Evidence) -> None:
    """A halted vCPU waits in KVM_RUN until the time limit; then it is made runnable."""
    vcpu = guest.machine.cpus[0].vcpu
    vcpu.complete()
    evidence.host["state_before"] = vcpu.get_mp_state()
    rip = vcpu.get_regs().rip
    vcpu.set_mp_state(HALTED)
    waited = guest.run(HALT_TIME)
    evidence.host["waited"] = int(waited.stop.why is Why.TIME_LIMIT)
    evidence.host["moved"] = vcpu.get_regs().rip - rip
    evidence.host["state_halted"] = vcpu.get_mp_state()
    vcpu.set_mp_state(RUNNABLE)


def judge(name: str, evidence: Evidence) -> Finding:
    """One kind of state: the host found what the guest did, the guest found what the host did."""
    checks, summary = _CHECKS[name](evidence)
    numbers: dict[str, Any] = {what: f"{got:#x}" for what, got, _ in checks}
    for what, got, wanted in checks:
        if got != wanted:
            return Finding(Verdict.BROKEN, f"{what} is {got:#x}, and should be {wanted:#x}", numbers)
    return Finding(Verdict.WORKS, "", numbers, summary)


Checks = tuple[list[tuple[str, int, int]], str]


def _xsave(evidence: Evidence) -> Checks:
    host, guest = evidence.host, evidence.guest
    return [("XMM0 in the area", host["xmm0"], XMM0_VALUE), ("XMM1 in the guest", guest["xmm"], XMM1_VALUE)], (
        f"XMM0 found in an area of {host['xsave2'] or 4096} bytes (KVM_GET_XSAVE{'2' if host['xsave2'] else ''}), "
        "XMM1 set there and read by the guest"
    )


def _xcrs(evidence: Evidence) -> Checks:
    host, guest, offered = evidence.host, evidence.guest, evidence.offered
    larger = guest["size_all"] > guest["size_x87"]
    return [
        ("XCR0 after 1", host["xcr0_x87"], X87),
        (f"XCR0 after {offered:#x}", host["xcr0_all"], offered),
        ("the XSAVE size that the guest sees has grown", int(larger), int(offered & ~3 != 0)),
    ], f"XCR0 1 and {offered:#x}: CPUID tells the guest {guest['size_x87']} and {guest['size_all']} bytes"


def _debugregs(evidence: Evidence) -> Checks:
    return [
        ("DR1 at the host", evidence.host["dr1"], DR1_VALUE),
        ("DR2 in the guest", evidence.guest["dr2"], DR2_VALUE),
    ], "DR1 of the guest found, DR2 set and read by the guest"


def _events(evidence: Evidence) -> Checks:
    return [
        ("nmi.pending before", evidence.host["nmi_before"], 0),
        ("nmi.pending after setting it", evidence.host["nmi_pending"], 1),
        ("NMIs that the guest took", evidence.guest["nmis"], 1),
    ], "an NMI made pending was taken once"


def _lapic(evidence: Evidence) -> Checks:
    return [
        ("TPR at the host", evidence.host["tpr"], TPR_GUEST),
        ("TPR in the guest", evidence.guest["tpr"], TPR_HOST),
    ], "TPR of the guest found in the page, changed there and read by the guest"


def _mp_state(evidence: Evidence) -> Checks:
    host = evidence.host
    return [
        ("the state of a running vCPU", host["state_before"], RUNNABLE),
        ("a halted vCPU waits", host["waited"], 1),
        ("its RIP moved by", host["moved"], 0),
        ("its state", host["state_halted"], HALTED),
        ("the guest went on when runnable", evidence.guest["awake"], 1),
    ], f"halted: no instruction in {HALT_TIME * 1e3:.0f} ms; runnable: on to the end"


_CHECKS: dict[str, Callable[[Evidence], Checks]] = dict(
    zip(ROWS, (_xsave, _xcrs, _debugregs, _events, _lapic, _mp_state), strict=True)
)

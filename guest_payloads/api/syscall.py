# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of syscall: a guest that sets STAR, LSTAR and FMASK itself, and one for which KVM_SET_MSRS has done it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vmm.abi import msrs
from vmm.abi.x86 import KERNEL_CS, PF, RFLAGS, STAR_VALUE, USER_CS
from vmm.payload.guest import Guest
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, GuestBroke, Verdict

MASK = int(RFLAGS.IF | RFLAGS.DF)
STUCK = int(PF.PROT | PF.USER)  # ring 3 reaches for a page of the kernel's
STAR_MASK = ~0xFFFFFFFF  # the low half is SYSCALL's EIP outside long mode


@dataclass(frozen=True)
class Evidence:
    """The guest's results by name; `handler` and `back` are the addresses of its labels."""

    results: Mapping[str, int]
    handler: int
    back: int


def prove(lab: Lab) -> dict[str, Finding]:
    found = {}
    for by_host, name in enumerate(lab.proves):
        try:
            found[name] = _prove(lab, by_host)
        except GuestBroke as error:
            found[name] = Finding(Verdict.BROKEN, str(error))
    return found


def _prove(lab: Lab, by_host: int) -> Finding:
    with lab.guest(params={"by_host": by_host}) as guest:
        if by_host:
            _set_msrs(guest)
        run_to_pass(guest)
        names = guest.header.results
        return judge(Evidence({name: guest[name] for name in names}, guest.symbol("system_call"), guest.symbol("back")))


def _set_msrs(guest: Guest) -> None:
    wanted = {
        _number("MSR_STAR"): STAR_VALUE,
        _number("MSR_LSTAR"): guest.symbol("system_call"),
        _number("MSR_SYSCALL_MASK"): MASK,
    }
    done = guest.machine.cpus[0].vcpu.set_msrs(wanted)
    if done != len(wanted):
        raise GuestBroke(f"KVM_SET_MSRS took {done} of STAR, LSTAR and FMASK")


def _number(name: str) -> int:
    return msrs.msr(name).number


def judge(evidence: Evidence) -> Finding:
    """What SYSCALL must do (SDM vol. 2B, SYSCALL), and whether the CPU came to ring 0 by it."""
    seen = evidence.results
    numbers = {name: f"{value:#x}" for name, value in seen.items()} | {"handler": f"{evidence.handler:#x}"}
    stuck = (
        seen["fault_rip"] == evidence.handler and seen["fault_cs"] == USER_CS and seen["fault_error"] & STUCK == STUCK
    )
    text = _wrong(evidence, stuck)
    if text:
        return Finding(Verdict.BROKEN, text, numbers)
    if stuck:
        flags = "not cleared" if seen["entry_flags"] & MASK else "cleared"
        reason = (
            f"SYSCALL goes to LSTAR with RCX and R11 right and FMASK's flags {flags}, but the CPU stays in ring 3 "
            f"(CS {seen['fault_cs']:#x}, #PF error {seen['fault_error']:#x}); SYSRET comes back to ring 3"
        )
        return Finding(Verdict.INERT, reason, numbers)
    summary = f"ring 3 -> CS {seen['entry_cs']:#x} at LSTAR, IF and DF cleared, and back to CS {seen['back_cs']:#x}"
    return Finding(Verdict.WORKS, "", numbers, summary)


def _wrong(evidence: Evidence, stuck: bool) -> str:
    seen = evidence.results
    if seen["star"] & STAR_MASK != STAR_VALUE & STAR_MASK or seen["lstar"] != evidence.handler or seen["fmask"] != MASK:
        return f"STAR {seen['star']:#x}, LSTAR {seen['lstar']:#x}, FMASK {seen['fmask']:#x} are not what was set"
    if seen["fault_rip"] and not stuck:
        return (
            f"a fault at {seen['fault_rip']:#x} (CS {seen['fault_cs']:#x}, error {seen['fault_error']:#x}) at SYSCALL"
        )
    if seen["rcx"] != evidence.back:
        return f"RCX is {seen['rcx']:#x} in the handler, and the instruction after SYSCALL is at {evidence.back:#x}"
    if seen["r11"] & MASK != MASK:
        return f"R11 is {seen['r11']:#x}, and RFLAGS of ring 3 had {MASK:#x}"
    if not stuck and seen["entry_cs"] != KERNEL_CS:
        return f"CS is {seen['entry_cs']:#x} in the handler, and STAR says {KERNEL_CS:#x}"
    if not stuck and seen["entry_flags"] & MASK:
        return f"RFLAGS is {seen['entry_flags']:#x} in the handler, and FMASK clears {MASK:#x}"
    # A host that is wrong about the way in may show a selector of its own in ring 3, whatever was loaded.
    right = seen["back_cs"] & 3 == 3 if stuck else seen["back_cs"] == USER_CS
    if not right or seen["back_flags"] & MASK != MASK:
        return f"after SYSRET CS is {seen['back_cs']:#x} and RFLAGS {seen['back_flags']:#x}, not {USER_CS:#x} and R11"
    if seen["calls"] != 2:
        return f"the handler ran {seen['calls']} times for 2 SYSCALLs"
    return ""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of disable_exits: the same guest with HLT exits and without, and how often KVM says that it halted."""

from __future__ import annotations

from dataclasses import dataclass

from vmm.abi import flags
from vmm.errors import KvmCallError, errno_name
from vmm.machine.machine import Machine
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Unproven, Verdict

CAPABILITY = "X86_DISABLE_EXITS"
BITS = {row.name.removeprefix("KVM_X86_DISABLE_EXITS_"): row.value for row in flags.DISABLE_EXITS}
HLT = BITS["HLT"]
UNKNOWN = 1 << 31
EMULATED_PER_SLEEP = 10  # instructions: the guest executes more between two sleeps; hardware leaves KVM one or two


@dataclass(frozen=True)
class Slept:
    """Interrupts that woke a guest, and what KVM counted: halts, and instructions that it emulated."""

    woken: int
    halts: int
    emulated: int


@dataclass(frozen=True)
class Evidence:
    """Of a guest with HLT exits and of one without. `offered` are the exits that this KVM can disable."""

    sleeps: int
    normal: Slept
    disabled: Slept
    offered: int


def prove(lab: Lab) -> Finding:
    with lab.guest() as guest:
        offered = guest.machine.vm.check_extension(CAPABILITY)
    if not offered & HLT:
        return Finding(Verdict.ABSENT, f"KVM can disable {names(offered)}, and not HLT")
    normal, disabled = sleep(lab, 0), sleep(lab, HLT)
    return judge(Evidence(lab.param("sleeps"), normal, disabled, offered))


def sleep(lab: Lab, disabled: int) -> Slept:
    """Run the guest with these exits disabled."""
    with (
        lab.guest(before_vcpus=lambda machine: disable(machine, disabled)) as guest,
        guest.machine.cpus[0].vcpu.get_stats() as stats,
    ):
        if "halt_exits" not in stats:
            raise Unproven("this KVM does not count halt_exits")
        run_to_pass(guest)
        return Slept(guest["woken"], stats["halt_exits"], stats.get("insn_emulation", 0))


def disable(machine: Machine, bits: int) -> None:
    """KVM_CAP_X86_DISABLE_EXITS, before the vCPUs are made."""
    if bits:
        machine.vm.enable_cap(CAPABILITY, bits)


def names(bits: int) -> str:
    return ", ".join(name for name, bit in BITS.items() if bits & bit) or "nothing"


def judge(seen: Evidence) -> Finding:
    """The guest slept and woke as often both times; without the exit KVM knows nothing of it."""
    numbers = {
        "sleeps": seen.sleeps,
        "halt_exits": seen.normal.halts,
        "halt_exits, HLT disabled": seen.disabled.halts,
        "instructions emulated": seen.disabled.emulated,
        "KVM can disable": names(seen.offered),
    }
    for what, woken in (("", seen.normal.woken), (" with HLT exits disabled", seen.disabled.woken)):
        if woken != seen.sleeps:
            return Finding(Verdict.BROKEN, f"{woken} interrupts for {seen.sleeps} sleeps{what}", numbers)
    if not seen.normal.halts:
        return Finding(Verdict.UNPROVEN, "KVM counts no halts of the guest that has HLT exits", numbers)
    if seen.disabled.halts:
        text = f"accepted, but HLT still comes to KVM: {seen.disabled.halts} times, and {seen.normal.halts} without"
        if seen.disabled.emulated >= EMULATED_PER_SLEEP * seen.sleeps:
            text += "; it emulates ring 0, HLT with it"
        return Finding(Verdict.INERT, text, numbers)
    summary = f"{seen.sleeps} sleeps: {seen.normal.halts} halts at KVM, and none with HLT exits disabled"
    return Finding(Verdict.WORKS, "", numbers, summary)


def refusals(lab: Lab) -> list[Refusal]:
    """A bit that means nothing."""
    asked: list[str] = []

    def ask(machine: Machine) -> None:  # once there are vCPUs, every bit is refused
        try:
            disable(machine, UNKNOWN)
        except KvmCallError as error:
            asked.append(errno_name(error.errno))
        else:
            asked.append("accepted")

    with lab.guest(before_vcpus=ask):
        return [Refusal("reserved", "KVM_CAP_X86_DISABLE_EXITS with bit 31", "EINVAL", asked[0])]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of pv_unhalt: it waits until the sleeper sleeps, sees that it goes on sleeping, and sends the MSI.

That a vCPU is in HLT is read from KVM's statistic `halt_exits`, which can be read while the vCPU runs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from vmm.abi import apic, flags, ports, pv
from vmm.abi.ports import HANDED_OVER
from vmm.abi.rows import value_of
from vmm.kvm.stats import Stats
from vmm.machine.machine import Machine
from vmm.machine.x86.cpuid import CpuidModel
from vmm.payload.guest import Guest
from vmm.payload.proof.accesses import hypercall, perform
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict

NR = next(row for row in pv.HYPERCALLS if row.name == "KICK_CPU").nr
SLEEPER = 1
PATIENCE = 60.0  # seconds for a vCPU to come to its HLT, however loaded the host
ASLEEP = 0.01  # seconds that it must then stay there
DISABLE_HLT = value_of(flags.DISABLE_EXITS, "KVM_X86_DISABLE_EXITS_HLT")


@dataclass(frozen=True)
class Rest:
    """One look at the sleeper in its `number`-th HLT: the rise of `halt_exits`, and how often it had woken, at the end
    of ASLEEP.
    """

    number: int
    halts: int
    woken: int

    @property
    def asleep(self) -> bool:
        return self.halts >= self.number and self.woken == self.number - 1


@dataclass(frozen=True)
class Evidence:
    """The guest's results, the looks at the sleeper, and what the VMM's MSI returned."""

    rests: tuple[Rest, ...]
    nobody: int
    kick: int
    woken: int
    microseconds: float
    early: int
    kept: int
    icr: int
    msi: int
    msi_result: int
    flags: int
    kind: int
    served: int


def prove(lab: Lab) -> Finding:
    if absent := lab.absent(lab.proves[0]):
        return absent
    with lab.guest() as guest, guest.machine.cpus[SLEEPER].vcpu.get_stats() as stats:
        return judge(_watch(guest, stats))


def _watch(guest: Guest, stats: Stats) -> Evidence:
    machine, rests, sent = guest.machine, list[Rest](), list[int]()
    before = stats["halt_exits"]
    machine.on_port_write(ports.DELAY, lambda number: rests.append(_rest(guest, stats, before, number)))
    kick = apic.msi_address(machine.cpus[SLEEPER].vcpu.id), apic.msi_data(0, apic.DM_REMRD)
    machine.on_port_write(ports.DELAY + 1, lambda value: sent.append(machine.vm.signal_msi(*kick)))
    run_to_pass(guest)
    assert guest.hypercalls is not None
    return Evidence(
        rests=tuple(rests),
        nobody=guest["nobody"],
        kick=guest["kick"],
        woken=guest["woken"],
        microseconds=guest["cycles"] * 1e3 / machine.cpus[0].vcpu.get_tsc_khz(),
        early=guest["early"],
        kept=guest["kept"],
        icr=guest["icr"],
        msi=guest["msi"],
        msi_result=sum(sent),
        flags=guest["flags"],
        kind=guest["kind"],
        served=guest.hypercalls.served.total(),
    )


def _rest(guest: Guest, stats: Stats, before: int, number: int) -> Rest:
    """Wait for the sleeper's `number`-th HLT, then look whether it stays."""
    memory, begun, woken = guest.machine.memory, guest.constant("BEGUN"), guest.constant("WOKEN")
    deadline = time.monotonic() + PATIENCE
    while memory.read_u64(begun) < number or stats["halt_exits"] - before < number:
        if time.monotonic() >= deadline or memory.read_u64(woken) >= number:
            break
        time.sleep(0.0005)
    time.sleep(ASLEEP)
    return Rest(number, stats["halt_exits"] - before, memory.read_u64(woken))


def judge(evidence: Evidence) -> Finding:
    """Asleep until the kick and no longer; one kick for one HLT, whichever comes first."""
    numbers = {
        "looks (HLT, halt_exits, woken)": ", ".join(f"{r.number}: {r.halts}, {r.woken}" for r in evidence.rests),
        "RAX of a kick for nobody": evidence.nobody,
        "RAX of the kick": evidence.kick,
        "wakings after it": evidence.woken,
        "us until it was seen awake": round(evidence.microseconds, 1),
        "RAX of the early kick": evidence.early,
        "wakings after the next HLT": evidence.kept,
        "wakings after ICR mode 3": evidence.icr,
        "wakings after MSI mode 3": evidence.msi,
        "KVM_SIGNAL_MSI returned": evidence.msi_result,
        "RFLAGS.IF when woken": evidence.flags,
        "served by pyvmm": evidence.served,
    }
    wrong = _wrong(evidence)
    if wrong:
        return Finding(Verdict.BROKEN, wrong, numbers)
    summary = (
        f"CLI;HLT woke {evidence.microseconds:.0f} us after the kick and not before; an early kick was kept;"
        " ICR and MSI mode 3 wake too"
    )
    if evidence.served or evidence.kind == HANDED_OVER:
        return Finding(Verdict.SERVICED, f"kicks by KVM_SIGNAL_MSI mode 3: {summary}", numbers, summary)
    return Finding(Verdict.WORKS, "", numbers, summary)


def _wrong(evidence: Evidence) -> str:
    """The first thing that contradicts the ABI, in words; empty if nothing does."""
    if [rest.number for rest in evidence.rests] != [1, 1, 3, 4]:
        return "the guest did not wait for the sleeper as it should"
    before, still, third, fourth = (_restless(rest) for rest in evidence.rests)
    return (
        before
        or _unequal("RAX of a kick for an id that does not exist", evidence.nobody, 0)
        or still
        or _unequal("RAX of the kick", evidence.kick, 0)
        or _unequal("the number of wakings after the kick", evidence.woken, 1)
        or _unequal("RAX of the early kick", evidence.early, 0)
        or _unequal("the number of wakings after the HLT that an early kick covers", evidence.kept, 2)
        or third
        or _unequal("the number of wakings after an ICR write of mode 3", evidence.icr, 3)
        or fourth
        or _unequal("the number of wakings after an MSI of mode 3", evidence.msi, 4)
        or _unequal("RFLAGS.IF in the woken vCPU", evidence.flags, 0)
    )


def _unequal(what: str, got: int, want: int) -> str:
    return "" if got == want else f"{what} is {got}, and should be {want}"


def _restless(rest: Rest) -> str:
    if rest.woken >= rest.number:
        return f"the vCPU came out of its HLT number {rest.number} before any kick"
    if not rest.asleep:
        return f"the vCPU never slept in its HLT number {rest.number}: halt_exits rose by {rest.halts}"
    return ""


def refusals(lab: Lab) -> list[Refusal]:
    """The hypercall under enforcement; and KVM takes the bit away where HLT does not exit."""
    call = hypercall(NR, 0, 0)
    rows = []
    for kind, mask, enforce, want in (
        ("control", (), True, 0),
        ("masked", lab.proves, False, 0),
        ("enforced", lab.proves, True, -pv.KVM_ENOSYS),
    ):
        with lab.guest(payload="accesses", mask=mask, enforce=enforce) as guest:
            answer = perform(guest, [call])[0]
        rows.append(Refusal(kind, "KVM_HC_KICK_CPU", pv.return_words(want), pv.return_words(answer.value)))

    def disable_hlt_exits(machine: Machine) -> None:
        machine.vm.enable_cap("X86_DISABLE_EXITS", DISABLE_HLT)

    with lab.guest(payload="accesses") as guest:
        if not guest.machine.vm.check_extension("X86_DISABLE_EXITS") & DISABLE_HLT:
            return rows
        rows.append(_bit("control", "the bit in KVM_GET_CPUID2", guest, "set"))
    with lab.guest(payload="accesses", before_vcpus=disable_hlt_exits) as guest:
        rows.append(_bit("argument", "the bit with HLT exits disabled", guest, "clear"))
    return rows


def _bit(kind: str, what: str, guest: Guest, want: str) -> Refusal:
    shown = CpuidModel(guest.machine.cpus[0].vcpu.get_cpuid2())
    return Refusal(kind, what, want, "set" if shown.has("PV_UNHALT") else "clear")

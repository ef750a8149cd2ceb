# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of migration_control: the same guest twice, its MSR leaving KVM by a filter, and as unknown to KVM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vmm.abi import pv
from vmm.kvm.exits import Exit, ReadMsr, WriteMsr
from vmm.kvm.vm import Vm
from vmm.machine.extra.migration_control import (
    UNKNOWN,
    MigrationControl,
    exit_as_unknown,
    exit_by_filter,
    number,
)
from vmm.machine.run.cpu import Cpu
from vmm.machine.run.handed_over import FILTERED
from vmm.payload.guest import Guest
from vmm.payload.proof.accesses import GP, OK, perform, rdmsr, wrmsr
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict

BIT = next(row for row in pv.FEATURES if row.name == "MIGRATION_CONTROL").mask


@dataclass(frozen=True)
class Way:
    """One run: the guest's results, what left KVM with which reasons, and the reason that should have been."""

    name: str
    reason: int
    features: int
    initial: int
    denied: int
    allowed: int
    bad_faults: int
    kept: int
    faults: int
    reads: int
    writes: int
    reasons: frozenset[int]
    state: bool  # the VMM's own state at the end
    in_text: tuple[int, int]  # how many RDMSR and WRMSR the guest has


@dataclass(frozen=True)
class Evidence:
    ways: tuple[Way, ...]


WAYS: tuple[tuple[str, int, Callable[[Vm], None]], ...] = (
    ("filter", FILTERED, exit_by_filter),
    ("unknown", UNKNOWN, exit_as_unknown),
)


def _run(lab: Lab, name: str, reason: int, turn_on: Callable[[Vm], None]) -> Way:
    exits: list[ReadMsr | WriteMsr] = []

    def note(cpu: Cpu, exit: Exit) -> None:
        if isinstance(exit, (ReadMsr, WriteMsr)):
            exits.append(exit)

    with lab.guest(expose=lab.proves, before_vcpus=lambda machine: turn_on(machine.vm)) as guest:
        control = MigrationControl(guest.machine.platform)
        guest.machine.on_exit = note
        run_to_pass(guest)
        return Way(
            name,
            reason,
            guest["features"],
            guest["initial"],
            guest["denied"],
            guest["allowed"],
            guest["bad_faults"],
            guest["kept"],
            guest["faults"],
            sum(isinstance(each, ReadMsr) for each in exits),
            sum(isinstance(each, WriteMsr) for each in exits),
            frozenset(each.reason for each in exits),
            control.ready,
            (_count(guest, "rdmsr"), _count(guest, "wrmsr")),
        )


def _count(guest: Guest, instruction: str) -> int:
    """How often the guest's text has it; each is executed once."""
    return sum(line.text.strip() == instruction for line in guest.program.lines)


def prove(lab: Lab) -> Finding:
    if lab.masked(lab.proves[0]):
        return Finding(Verdict.ABSENT, "masked")
    return judge(Evidence(tuple(_run(lab, *way) for way in WAYS)))


def judge(evidence: Evidence) -> Finding:
    """Both ways: every access reached pyvmm for the right reason, and the guest read what it wrote."""
    numbers: dict[str, object] = {}
    for way in evidence.ways:
        numbers |= {
            f"{way.name}: read at first, after 0, after 1": f"{way.initial:#x}, {way.denied:#x}, {way.allowed:#x}",
            f"{way.name}: #GP for reserved bits": way.bad_faults,
            f"{way.name}: read after them": hex(way.kept),
            f"{way.name}: exits": f"{way.reads} reads, {way.writes} writes, reasons {sorted(way.reasons)}",
        }
    for way in evidence.ways:
        wrong = _wrong(way)
        if wrong:
            return Finding(Verdict.BROKEN, f"by {way.name}: {wrong}", numbers)
    exits = sum(way.reads + way.writes for way in evidence.ways)
    ways = " and ".join(way.name for way in evidence.ways)
    return Finding(Verdict.WORKS, "", numbers, f"1 at first, 0 and 1 read back, {exits} MSR exits by {ways}")


def _wrong(way: Way) -> str:
    """What contradicts the ABI in one run, in words; empty if nothing does."""
    for text, got, want in (
        ("the feature bit in the guest's CPUID", way.features & BIT, BIT),
        ("the value at first", way.initial, 1),
        ("the value after WRMSR 0", way.denied, 0),
        ("the value after WRMSR 1", way.allowed, 1),
        ("the number of #GP for reserved bits", way.bad_faults, 2),
        ("the value after refused writes", way.kept, 1),
        ("the number of #GP in all", way.faults, way.bad_faults),
        ("the VMM's own state", int(way.state), 1),
        ("the number of RDMSR exits", way.reads, way.in_text[0]),
        ("the number of WRMSR exits", way.writes, way.in_text[1]),
    ):
        if got != want:
            return f"{text} is {got:#x}, and should be {want:#x}"
    if way.reasons != {way.reason}:
        return f"exits gave the reasons {sorted(way.reasons)}, and should have given {way.reason}"
    return ""


def refusals(lab: Lab) -> list[Refusal]:
    """KVM has no such MSR: it is the capability that lets pyvmm serve it, and the CPUID bit gates nothing."""
    accesses = [rdmsr(number()), wrmsr(number(), 1)]
    with lab.guest(payload="accesses", expose=lab.proves) as guest:
        off = perform(guest, accesses)
    with lab.guest(payload="accesses", enforce=True, before_vcpus=lambda machine: exit_by_filter(machine.vm)) as guest:
        MigrationControl(guest.machine.platform)
        hidden = perform(guest, [*accesses, wrmsr(number(), 2)])
    return [
        Refusal("argument", "RDMSR without KVM_CAP_X86_USER_SPACE_MSR", GP, off[0].text),
        Refusal("argument", "WRMSR without KVM_CAP_X86_USER_SPACE_MSR", GP, off[1].text),
        Refusal("masked", "RDMSR served, bit hidden and enforced: KVM gates nothing", OK, hidden[0].text),
        Refusal("masked", "WRMSR served, bit hidden and enforced", OK, hidden[1].text),
        Refusal("reserved", "WRMSR of 2", GP, hidden[2].text),
    ]

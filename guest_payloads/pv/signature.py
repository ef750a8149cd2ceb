# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of signature: the guest must find KVM's leaves where pyvmm put them, with the bits that it put there.

Four guests: as KVM offers it; with one more bit and one less; with the leaves at 0x40000100, as behind Hyper-V's; and
without them, which must leave nothing to find.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from vmm.abi import cpuid, msrs
from vmm.machine.x86.cpuid import CpuidModel
from vmm.payload.proof.accesses import GP, OK, perform, rdmsr, wrmsr
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict

SIGNATURE = cpuid.SIGNATURE[0] | cpuid.SIGNATURE[1] << 32
REST = cpuid.SIGNATURE[2]
MOVED = 0x40000100


@dataclass(frozen=True)
class Leaves:
    """What a guest found, or what it should have: the results of the .asm. Of `last`, 0 reads as base + 1."""

    hypervisor: int
    base: int
    last: int
    signature: int
    rest: int
    features: int
    hints: int
    others: int

    def differences(self, seen: Leaves) -> list[str]:
        """What `seen` has otherwise, in words."""
        pairs = [(each.name, getattr(self, each.name), getattr(seen, each.name)) for each in fields(self)]
        return [f"{name} {got:#x} in place of {want:#x}" for name, want, got in pairs if got != want]


@dataclass(frozen=True)
class Evidence:
    """(what pyvmm exposed, what the guest saw) of each guest."""

    plain: tuple[Leaves, Leaves]
    edited: tuple[Leaves, Leaves]
    moved: tuple[Leaves, Leaves]
    absent: tuple[Leaves, Leaves]


def expected(model: CpuidModel) -> Leaves:
    """What a guest with this CPUID must see."""
    hypervisor = model.register(1, 0, "ecx") >> 31
    base = model.kvm_base()
    if base is None:
        return Leaves(hypervisor, 0, 0, 0, 0, 0, 0, 0)
    others = model.register(base + 1, 0, "ebx") | model.register(base + 1, 0, "ecx") << 32
    features, hints = model.register(base + 1, 0, "eax"), model.register(base + 1, 0, "edx")
    return Leaves(hypervisor, base, model.register(base, 0, "eax"), SIGNATURE, REST, features, hints, others)


def edit(model: CpuidModel) -> None:
    """A hint that KVM never sets, and away with one that it does."""
    model.enable("HINTS_REALTIME")
    model.disable("NOP_IO_DELAY")


def move(model: CpuidModel) -> None:
    """Behind another hypervisor's leaves."""
    model.set_kvm_signature(MOVED)
    model.put(cpuid.CpuidEntry(cpuid.SIGNATURE_LEAF, eax=cpuid.SIGNATURE_LEAF + 5, ebx=0x7263694D, ecx=0x666F736F))


def _look(lab: Lab, change: Callable[[CpuidModel], object]) -> tuple[Leaves, Leaves]:
    with lab.guest(cpuid=change) as guest:
        run_to_pass(guest)
        seen = Leaves(*(guest[each.name] for each in fields(Leaves)))
        return expected(guest.machine.cpuid), seen


def prove(lab: Lab) -> Finding:
    return judge(
        Evidence(
            plain=_look(lab, lambda model: None),
            edited=_look(lab, edit),
            moved=_look(lab, move),
            absent=_look(lab, CpuidModel.remove_kvm_leaves),
        )
    )


def judge(evidence: Evidence) -> Finding:
    """Every guest saw exactly what was exposed, and a guest knows that it is one."""
    plain, moved = evidence.plain[1], evidence.moved[1]
    numbers = {
        "base": hex(plain.base),
        "last leaf": hex(plain.last),
        "features seen": hex(plain.features),
        "features exposed": hex(evidence.plain[0].features),
        "hints seen after HINTS_REALTIME": hex(evidence.edited[1].hints),
        "features seen without NOP_IO_DELAY": hex(evidence.edited[1].features),
        "base when moved": hex(moved.base),
        "base when removed": hex(evidence.absent[1].base),
        "CPUID.1:ECX[31]": plain.hypervisor,
    }
    for name in ("plain", "edited", "moved", "absent"):
        exposed, seen = getattr(evidence, name)
        if wrong := exposed.differences(seen):
            return Finding(Verdict.BROKEN, f"the {name} guest saw {', '.join(wrong)}", numbers)
    if not plain.hypervisor:
        return Finding(Verdict.BROKEN, "CPUID.1:ECX[31] does not tell the guest that it is one", numbers)
    if not plain.base or plain.last not in (0, *range(plain.base + 1, plain.base + 0x100)):
        return Finding(Verdict.BROKEN, f"KVM's leaves go from {plain.base:#x} to {plain.last:#x}", numbers)
    summary = f"{plain.base:#x} KVMKVMKVM, features {plain.features:#010x} as set; found at {moved.base:#x} too"
    return Finding(Verdict.WORKS, "", numbers, summary)


def refusals(lab: Lab) -> list[Refusal]:
    """Enforcement follows the signature: KVM takes the bits from the leaf that a guest would find."""
    msr = msrs.msr("MSR_KVM_POLL_CONTROL")
    served = OK if lab.offered("POLL_CONTROL") else GP
    rows = []
    for what, kind, want, mask, change in (
        ("leaves at 0x40000100", "control", served, (), move),
        ("leaves at 0x40000100 without POLL_CONTROL", "enforced", GP, ("POLL_CONTROL",), move),
        ("no leaves", "enforced", GP, (), CpuidModel.remove_kvm_leaves),
    ):
        with lab.guest(payload="accesses", mask=mask, cpuid=change, enforce=True) as guest:
            read, write = perform(guest, [rdmsr(msr.number), wrmsr(msr.number, 1)])
        rows += [Refusal(kind, f"{what}: RDMSR {msr.name}", want, read.text)]
        rows += [Refusal(kind, f"{what}: WRMSR {msr.name}", want, write.text)]
    return rows

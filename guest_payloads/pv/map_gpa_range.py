# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of map_gpa_range: the ranges that came to the VMM, its answers in RAX, and the pages marked in the end."""

from __future__ import annotations

from dataclasses import dataclass

from vmm.abi import pv
from vmm.abi.ports import DELAY, HANDED_OVER
from vmm.abi.x86 import PAGE
from vmm.machine.machine import Machine
from vmm.payload.proof.accesses import Answer, hypercall, perform
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict

BIT = next(row for row in pv.FEATURES if row.name == "HC_MAP_GPA_RANGE").mask
NR = next(row for row in pv.HYPERCALLS if row.name == "MAP_GPA_RANGE").nr
ENCRYPTED, SIZE_2M = 0x10, 0x1
# What the guest asks for, and what RAX must hold. The first seven come to the VMM, the rest not.
ANSWERS = {
    "encrypt": 0,
    "share": 0,
    "large": 0,
    "told": -pv.KVM_EINVAL,
    "reserved": -pv.KVM_EINVAL,
    "size": -pv.KVM_EINVAL,
    "beyond": -pv.KVM_EINVAL,
    "unaligned": -pv.KVM_EINVAL,
    "none": -pv.KVM_EINVAL,
    "wrapped": -pv.KVM_EINVAL,
}


@dataclass(frozen=True)
class Evidence:
    """`rax` by the name of the result; `ranges` that came to the VMM and `frames` it marked; KVM's `exits` for it, and
    the calls that pyvmm `served` where none came.
    """

    gpa: int
    features: int
    rax: dict[str, int]
    ranges: tuple[tuple[int, int, int], ...]
    frames: tuple[int, ...]
    exits: int
    served: int
    kind: int


def expected_ranges(gpa: int) -> tuple[tuple[int, int, int], ...]:
    """(address, pages, attributes) of the calls that must come to the VMM, in order."""
    return (
        (gpa, 4, ENCRYPTED),
        (gpa + PAGE, 2, 0),
        (gpa + 5 * PAGE, 1, ENCRYPTED | SIZE_2M),
        (gpa + 8 * PAGE, 1, ENCRYPTED),
        (gpa + 8 * PAGE, 1, 0x20),
        (gpa + 8 * PAGE, 1, 0x3),
        (0x80000000, 1, ENCRYPTED),
    )


def expected_frames(gpa: int) -> tuple[int, ...]:
    """The frames that stay private: the first and last of four, and the one with the other page size."""
    return tuple((gpa >> 12) + page for page in (0, 3, 5))


def enable(machine: Machine) -> None:
    """KVM_CAP_EXIT_HYPERCALL for this hypercall."""
    machine.vm.enable_cap("EXIT_HYPERCALL", 1 << NR)


def prove(lab: Lab) -> Finding:
    if lab.masked(lab.proves[0]):
        return Finding(Verdict.ABSENT, "masked")
    with lab.guest(expose=lab.proves, before_vcpus=enable) as guest:
        service = guest.hypercalls
        assert service is not None

        def answer(value: int) -> None:
            service.map_gpa_result = -pv.KVM_EINVAL if value else None

        guest.machine.on_port_write(DELAY, answer)
        result = run_to_pass(guest)
        return judge(
            Evidence(
                gpa=lab.param("gpa"),
                features=guest["features"],
                rax={name: guest[name] for name in ANSWERS},
                ranges=tuple(service.ranges),
                frames=tuple(sorted(service.private)),
                exits=result.exits["Hypercall"],
                served=service.served.total(),
                kind=guest["kind"],
            )
        )


def judge(evidence: Evidence) -> Finding:
    """The right calls came to the VMM with the right arguments, its answers to the guest, and the pages agree."""
    want = expected_ranges(evidence.gpa)
    numbers = {
        "RAX": ", ".join(f"{name} {value}" for name, value in evidence.rax.items()),
        "ranges at the VMM": ", ".join(f"{gpa:#x}+{pages}:{bits:#x}" for gpa, pages, bits in evidence.ranges),
        "private frames": ", ".join(map(hex, evidence.frames)),
        "KVM_EXIT_HYPERCALL": evidence.exits,
        "served by pyvmm": evidence.served,
    }
    if not evidence.features & BIT:
        return Finding(Verdict.BROKEN, f"the guest does not see the bit: features {evidence.features:#x}", numbers)
    for name, value in ANSWERS.items():
        if evidence.rax[name] != value:
            text = f"the call {name!r} gave {pv.return_words(evidence.rax[name])}, not {pv.return_words(value)}"
            return Finding(Verdict.BROKEN, text, numbers)
    if evidence.ranges != want:
        return Finding(Verdict.BROKEN, "other ranges came to the VMM than the guest's valid calls named", numbers)
    if evidence.frames != expected_frames(evidence.gpa):
        return Finding(Verdict.BROKEN, "the private pages are not those that the guest encrypted", numbers)
    summary = f"{len(want)} ranges at the VMM, 3 bad ones stopped before it, {len(evidence.frames)} pages private"
    if evidence.served or evidence.kind == HANDED_OVER:
        return Finding(Verdict.SERVICED, f"no hypercall reaches this KVM; pyvmm answered: {summary}", numbers, summary)
    if evidence.exits != len(want):
        text = f"KVM_EXIT_HYPERCALL came {evidence.exits} times, and should have come {len(want)} times"
        return Finding(Verdict.BROKEN, text, numbers)
    return Finding(Verdict.WORKS, "", numbers, f"KVM_EXIT_HYPERCALL: {summary}")


def refusals(lab: Lab) -> list[Refusal]:
    """The capability alone opens the hypercall; the CPUID bit gates nothing."""
    call = hypercall(NR, 0x180000, 1, ENCRYPTED)
    with lab.guest(payload="accesses", expose=lab.proves) as guest:
        off = perform(guest, [call])[0]
    with lab.guest(payload="accesses", before_vcpus=enable, enforce=True) as guest:
        hidden = perform(guest, [call])[0]
    return [
        Refusal("argument", "KVM_CAP_EXIT_HYPERCALL off", pv.return_words(-pv.KVM_ENOSYS), _words(off)),
        Refusal("masked", "bit hidden and enforced, capability on: KVM gates nothing", "0", _words(hidden)),
    ]


def _words(answer: Answer) -> str:
    return pv.return_words(answer.value)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of msr_access: KVM_GET/SET_MSRS with one bad index among good ones, filters, exits to user space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vmm.abi import exits, msrs
from vmm.abi.rows import value_of
from vmm.kvm.exits import Exit, ReadMsr, WriteMsr
from vmm.kvm.vm import MsrRange
from vmm.machine.run.cpu import Cpu
from vmm.payload.guest import Guest
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

INVAL, UNKNOWN, FILTER = (
    value_of(exits.MSR_EXIT_REASONS, f"KVM_MSR_EXIT_REASON_{name}") for name in ("INVAL", "UNKNOWN", "FILTER")
)
STAR_VALUE, LSTAR_VALUE = 0x0013000800000000, 0x123456789ABC  # what the host sets
LSTAR_ANSWER, UNKNOWN_ANSWER = 0xFEDCBA9876543210, 0x1122334455667788  # what pyvmm gives in KVM's place
Results = Mapping[str, int]
Seen = tuple[str, int, int, int]  # "read" or "write", the MSR, the reason, the value written


@dataclass(frozen=True)
class Partial:
    """A list with a bad MSR at `bad`: how many each ioctl took, and what stands in the good ones around it."""

    bad: int
    set_count: int
    get_count: int
    before: int
    after: int


@dataclass(frozen=True)
class Filtered:
    """The guest's results without a filter, with STAR denied, and with all but STAR denied."""

    plain: Results
    denied: Results
    allowed: Results


@dataclass(frozen=True)
class Exits:
    """What came to user space, in order, and the guest's results."""

    results: Results
    seen: tuple[Seen, ...]
    unknown: int
    written: int


def prove(lab: Lab) -> dict[str, Finding]:
    partial = _partial(lab)
    filtered = Filtered(_guest(lab), _guest(lab, deny_star), _guest(lab, allow_star))
    findings = (judge_partial(partial), judge_filter(filtered), judge_exits(_exits(lab)))
    return dict(zip(lab.proves, findings, strict=True))


def _msr(name: str) -> int:
    return msrs.msr(name).number


def _partial(lab: Lab) -> Partial:
    """STAR and LSTAR with an MSR between them that nobody has."""
    with lab.guest() as guest:
        vcpu, bad = guest.machine.cpus[0].vcpu, lab.param("unknown")
        first, last = _msr("MSR_STAR"), _msr("MSR_LSTAR")
        count = vcpu.set_msrs({first: STAR_VALUE, bad: 1, last: LSTAR_VALUE})
        got = vcpu.get_msrs([first, bad, last])
        return Partial(1, count, len(got), vcpu.get_msrs([first])[first], vcpu.get_msrs([last])[last])


def deny_star(guest: Guest) -> None:
    guest.machine.vm.set_msr_filter([MsrRange(_msr("MSR_STAR"), (False,))])


def allow_star(guest: Guest) -> None:
    guest.machine.vm.set_msr_filter([MsrRange(_msr("MSR_STAR"), (True,))], default_deny=True)


def _guest(lab: Lab, prepare: Callable[[Guest], object] | None = None) -> Results:
    with lab.guest() as guest:
        _set(guest)
        if prepare:
            prepare(guest)
        run_to_pass(guest)
        return {name: guest[name] for name in guest.header.results}


def _set(guest: Guest) -> None:
    vcpu = guest.machine.cpus[0].vcpu
    vcpu.set_msrs({_msr("MSR_STAR"): STAR_VALUE, _msr("MSR_LSTAR"): LSTAR_VALUE})


def hand_over(guest: Guest) -> None:
    """Everything that KVM would refuse comes to pyvmm; and reads of LSTAR, which it would not."""
    guest.machine.vm.enable_cap("X86_USER_SPACE_MSR", INVAL | UNKNOWN | FILTER)
    guest.machine.vm.set_msr_filter([MsrRange(_msr("MSR_LSTAR"), (False,))])


def _exits(lab: Lab) -> Exits:
    seen: list[Seen] = []

    def note(cpu: Cpu, exit: Exit) -> None:
        if isinstance(exit, ReadMsr):
            seen.append(("read", exit.index, exit.reason, 0))
        elif isinstance(exit, WriteMsr):
            seen.append(("write", exit.index, exit.reason, exit.value))

    def prepare(guest: Guest) -> None:
        hand_over(guest)
        machine = guest.machine
        machine.on_exit = note
        machine.platform.msr_reads[_msr("MSR_LSTAR")] = lambda: LSTAR_ANSWER
        machine.platform.msr_reads[unknown] = lambda: UNKNOWN_ANSWER
        machine.platform.msr_writes[unknown] = lambda value: True

    unknown = lab.param("unknown")
    return Exits(_guest(lab, prepare), tuple(seen), unknown, lab.constant("WRITTEN"))


def judge_partial(evidence: Partial) -> Finding:
    """The count is the index of the first MSR that was refused; those before it are done, those after it are not."""
    numbers = {
        "MSRs in the list": 3,
        "index of the bad one": evidence.bad,
        "KVM_SET_MSRS": evidence.set_count,
        "KVM_GET_MSRS": evidence.get_count,
        "the one before it": f"{evidence.before:#x}",
        "the one after it": f"{evidence.after:#x}",
    }
    for name, count in (("KVM_SET_MSRS", evidence.set_count), ("KVM_GET_MSRS", evidence.get_count)):
        if count != evidence.bad:
            text = f"{name} says that it took {count}, and the MSR at index {evidence.bad} does not exist"
            return Finding(Verdict.BROKEN, text, numbers)
    if evidence.before != STAR_VALUE or evidence.after == LSTAR_VALUE:
        text = (
            f"around the bad MSR stand {evidence.before:#x} and {evidence.after:#x}: not the first set and the last not"
        )
        return Finding(Verdict.BROKEN, text, numbers)
    summary = f"both stop at the bad MSR and say its index, {evidence.bad} of 3; the one before it is set"
    return Finding(Verdict.WORKS, "", numbers, summary)


def judge_filter(evidence: Filtered) -> Finding:
    """Denied MSRs are #GP, others are not touched; with default deny only what is allowed is left."""
    numbers = {
        way: ", ".join(f"{name} {value:#x}" for name, value in results.items())
        for way, results in (("plain", evidence.plain), ("deny", evidence.denied), ("allow", evidence.allowed))
    }
    for what, results, star, lstar in (
        ("without a filter", evidence.plain, True, True),
        ("with STAR denied", evidence.denied, False, True),
        ("with only STAR allowed", evidence.allowed, True, False),
    ):
        for name, value, readable in (("star", STAR_VALUE, star), ("lstar", LSTAR_VALUE, lstar)):
            wanted = (value, 0) if readable else (0, 1)
            if (results[name], results[f"{name}_gp"]) != wanted:
                text = f"{what}, {name.upper()} {'#GPs' if results[f'{name}_gp'] else f'reads {results[name]:#x}'}"
                return Finding(Verdict.BROKEN, f"{text}, and should {'be read' if readable else 'be #GP'}", numbers)
        if (results["unknown_gp"], results["unknown_write_gp"], results["invalid_gp"]) != (1, 1, 1):
            return Finding(Verdict.BROKEN, f"{what}, an unknown MSR or a bad value was accepted", numbers)
    summary = "deny one: #GP for it alone; allow one: #GP for all others"
    return Finding(Verdict.WORKS, "", numbers, summary)


def judge_exits(evidence: Exits) -> Finding:
    """Each of the three reasons came, pyvmm's answers are what the guest read, and what pyvmm refused is #GP."""
    results = evidence.results
    numbers = {f"exit {i}": f"{what} {msr:#x}, reason {why}" for i, (what, msr, why, _) in enumerate(evidence.seen)}
    numbers |= {name: f"{value:#x}" for name, value in results.items()}
    lstar, efer = _msr("MSR_LSTAR"), _msr("MSR_EFER")
    wanted = [
        ("read", lstar, FILTER),
        ("read", evidence.unknown, UNKNOWN),
        ("write", evidence.unknown, UNKNOWN),
        ("write", efer, INVAL),
    ]
    came = [each[:3] for each in evidence.seen]
    if came != wanted:
        missing = [each for each in wanted if each not in came] or [each for each in came if each not in wanted]
        what, msr, reason = (missing or wanted)[0]
        text = (
            f"of {len(wanted)} exits {len(came)} came: not as it should be is the {what} of {msr:#x}, reason {reason}"
        )
        return Finding(Verdict.BROKEN, text, numbers)
    if evidence.seen[2][3] != evidence.written:
        return Finding(
            Verdict.BROKEN, f"the exit has {evidence.seen[2][3]:#x}, the guest wrote {evidence.written:#x}", numbers
        )
    for name, value, wanted_gp in (("star", STAR_VALUE, 0), ("lstar", LSTAR_ANSWER, 0), ("unknown", UNKNOWN_ANSWER, 0)):
        if (results[name], results[f"{name}_gp"]) != (value, wanted_gp):
            return Finding(Verdict.BROKEN, f"{name} reads {results[name]:#x}, and should be {value:#x}", numbers)
    if (results["unknown_write_gp"], results["invalid_gp"]) != (0, 1):
        return Finding(Verdict.BROKEN, "a WRMSR that pyvmm took is #GP, or one that it refused is none", numbers)
    summary = "unknown, invalid and filtered came with their reasons; answers were read, the refused one is #GP"
    return Finding(Verdict.WORKS, "", numbers, summary)

# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest in the guest: where it was left, why, and with what in its registers; and the same one moved halfway.

The lesson is guest_payloads/inc/l2_lesson.inc, run by two hypervisors: nested_svm and nested_vmx. What each exit must
say is in their host halves; here is what the two have in common. Source: Documentation/virt/kvm/api.rst 4.114, 4.115.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vmm.abi import ports
from vmm.kvm.nested_state import NestedState
from vmm.machine.ends import Why
from vmm.machine.memory.layout import REGIONS
from vmm.payload.guest import Guest
from vmm.payload.proof.accesses import GP, OK, Access, perform
from vmm.payload.proof.compare import number, results
from vmm.payload.proof.ending import broke, run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict

LOG = REGIONS["data"].base
CONSOLE = "2"  # what L2 says where its hypervisor does not listen
Exit = Mapping[str, int]


class Numbers:
    """What L1 and L2 give each other, as the payload has it: the words at l2_numbers, in their order."""

    def __init__(self, guest: Guest) -> None:
        words = struct.unpack("<8Q", guest.machine.memory.read(guest.symbol("l2_numbers"), 64))
        self.asked, self.answer, self.read, self.content, self.page, self.last, self.port, self.said = words


@dataclass(frozen=True)
class Evidence:
    """What one guest stored (`results`), each exit of its own guest in order, what each must be, and the console."""

    results: Exit
    exits: Sequence[Exit]
    expected: Sequence[Exit]
    console: str


def observe(guest: Guest, names: Sequence[str], expect: Callable[[Guest], Sequence[Exit]]) -> Evidence:
    """Run the guest to its end; a row of its log is one u64 for each of `names`. GuestBroke if it has another end."""
    run_to_pass(guest)
    return evidence(guest, names, expect)


def evidence(guest: Guest, names: Sequence[str], expect: Callable[[Guest], Sequence[Exit]]) -> Evidence:
    """What a guest has left behind that came to its end. `exits` are as many rows as must be there."""
    expected, row = expect(guest), struct.Struct(f"<{len(names)}Q")
    log = guest.machine.memory.read(LOG, row.size * len(expected))
    exits = [dict(zip(names, values, strict=True)) for values in row.iter_unpack(log)]
    assert guest.result is not None
    return Evidence(results(guest), exits, expected, guest.result.console.decode("ascii", "replace"))


def judge(seen: Evidence, wanted: Exit, exit_name: Callable[[int], str]) -> Finding:
    """Works if L2 was left at each place for the right reason, handed on what it was given, and `wanted` holds."""
    numbers = {name: number(seen.results[name]) for name in wanted}
    numbers["L2 was left for"] = ", ".join(exit_name(each["exit"]) for each in seen.exits[: seen.results["exits"]])
    for at, (got, want) in enumerate(zip(seen.exits, seen.expected, strict=True), 1):
        if got["exit"] != want["exit"]:
            text = f"exit {at} of L2 is {exit_name(got['exit'])}, and should be {exit_name(want['exit'])}"
            return Finding(Verdict.BROKEN, text, numbers)
        for name, value in want.items():
            if got[name] != value:
                text = f"exit {at} of L2, {exit_name(want['exit'])}: {name} is {got[name]:#x}, and should be {value:#x}"
                return Finding(Verdict.BROKEN, text, numbers)
    for name, value in wanted.items():
        if seen.results[name] != value:
            text = f"{name} is {number(seen.results[name])}, and should be {number(value)}"
            return Finding(Verdict.BROKEN, text, numbers)
    if seen.console != CONSOLE:
        text = f"L2 wrote {CONSOLE!r} to a port that L1 does not trap, and pyvmm got {seen.console!r}"
        return Finding(Verdict.BROKEN, text, numbers)
    summary = f"L2 ran, was left {len(seen.expected)} times as asked and resumed; what must be refused was"
    return Finding(Verdict.WORKS, "", numbers, summary)


def masked(lab: Lab, feature: str, names: Sequence[str]) -> dict[str, Finding]:
    """The findings where this lab hides SVM or VMX from its guests; empty where it does not."""
    hidden = feature in lab.options.mask
    return dict.fromkeys(names, Finding(Verdict.ABSENT, "masked")) if hidden else {}


def hidden(lab: Lab, feature: str, what: str, access: Access) -> list[Refusal]:
    """An access that a guest with `feature` in its CPUID may make, and one without may not."""
    found = []
    for kind, mask, want in (("control", (), OK), ("masked", (feature,), GP)):
        with lab.guest(payload="accesses", mask=mask) as guest:
            (answer,) = perform(guest, [access])
        seen = "masked" if mask else "present"
        found.append(Refusal(kind, f"{what}, {feature} {seen} in the guest's CPUID", want, answer.text))
    return found


# -- moved to another machine while L2 runs


@dataclass(frozen=True)
class Moved:
    """What KVM said of its nested state (`start`: before L1 began), and both ends.

    `inside` is that of the moment when L2 itself had left for pyvmm, `copied` that of the second machine after it was
    put there. `alone` ended where it began, `moved` in another machine.
    """

    start: NestedState
    inside: NestedState
    copied: NestedState
    alone: Evidence
    moved: Evidence


def prove_move(
    lab: Lab, alone: Evidence, area: int, names: Sequence[str], expect: Callable[[Guest], Sequence[Exit]]
) -> Finding:
    """A guest that is saved while its L2 is inside an OUT, and goes on in another machine, beside the one left `alone`.

    `area` is where L1 keeps the VMCB or VMCS of its L2.
    """
    with lab.guest() as guest:
        if not guest.machine.kvm.check_extension("NESTED_STATE"):
            return Finding(Verdict.ABSENT, "this host's KVM has no KVM_CAP_NESTED_STATE")
    return judge_moved(move(lab, alone, names, expect), area)


def move(lab: Lab, alone: Evidence, names: Sequence[str], expect: Callable[[Guest], Sequence[Exit]]) -> Moved:
    """The evidence of `prove_move`."""
    with lab.guest() as first, lab.guest() as second:
        size = first.machine.kvm.check_extension("NESTED_STATE")
        start = first.machine.cpus[0].vcpu.get_nested_state(size)
        first.machine.on_port_write(ports.DELAY, lambda value: first.machine.stop("to be moved"))
        second.machine.on_port_write(ports.DELAY, lambda value: None)
        result = first.run()
        if result.stop.why is not Why.STOPPED:
            raise broke(first, result)
        saved = first.machine.save()
        inside = first.machine.cpus[0].vcpu.get_nested_state(size)
        second.machine.restore(saved)
        copied = second.machine.cpus[0].vcpu.get_nested_state(size)
        moved = observe(second, names, expect)
    return Moved(start, inside, copied, alone, moved)


def judge_moved(seen: Moved, area: int) -> Finding:
    """Works if KVM said that L2 ran, with the VMCB or VMCS at `area`, and both guests came to the same."""
    numbers = {
        "state in L2": f"{seen.inside.size} bytes, {seen.inside.text}",
        "state before": f"{seen.start.size} bytes, {seen.start.text}",
        "copied": seen.copied.text,
    }
    if seen.start.guest_mode:
        return Finding(Verdict.BROKEN, "KVM_GET_NESTED_STATE says that L2 runs, and L1 did not begin yet", numbers)
    for what, state in (("while L2 was at its OUT", seen.inside), ("after KVM_SET_NESTED_STATE", seen.copied)):
        if not state.guest_mode:
            return Finding(Verdict.BROKEN, f"KVM_GET_NESTED_STATE says that no L2 runs {what}", numbers)
        if state.area != area:
            text = f"KVM_GET_NESTED_STATE says {state.area:#x} {what}, and L1 runs L2 from {area:#x}"
            return Finding(Verdict.BROKEN, text, numbers)
    if seen.moved.exits != seen.alone.exits or seen.moved.results != seen.alone.results:
        differ = [
            f"exit {at}: {_told(there)} instead of {_told(here)}"
            for at, (here, there) in enumerate(zip(seen.alone.exits, seen.moved.exits, strict=True), 1)
            if here != there
        ] or [f"results: {_told(seen.moved.results)} instead of {_told(seen.alone.results)}"]
        return Finding(Verdict.BROKEN, f"moved, the guest has {differ[0]}", numbers)
    summary = f"{seen.inside.size} bytes of nested state taken while L2 ran; it went on in another machine, the same"
    return Finding(Verdict.WORKS, "", numbers, summary)


def _told(values: Exit) -> str:
    return ", ".join(f"{name} {value:#x}" for name, value in values.items()) or "none"

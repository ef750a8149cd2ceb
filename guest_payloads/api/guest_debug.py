# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of guest_debug: traps are set, and the guest is run from one debug exit to the next, to its #UD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vmm.abi.x86 import BY_VECTOR, EXCEPTIONS
from vmm.kvm.exits import Debug, InternalError
from vmm.kvm.vcpu import Vcpu, Watchpoint
from vmm.machine.ends import Result, Why
from vmm.machine.memory.layout import REGIONS
from vmm.machine.x86.descriptors import FAULT_FRAME_SIZE, FaultFrame
from vmm.payload.guest import Guest
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

KINDS = ("singlestep", "hw_breakpoints", "watchpoints", "sw_breakpoints")
RINGS = (0, 3)
LABELS = ("one", "two", "three", "four", "five", "six")
# At which labels the guest must be found. A breakpoint strikes before its instruction, a watchpoint after the access.
WANTED: dict[str, tuple[str, ...]] = {
    "singlestep": LABELS[1:],
    "hw_breakpoints": ("two", "five"),
    "watchpoints": ("four", "four", "five"),
    "sw_breakpoints": ("two",),
}
VECTORS = {"sw_breakpoints": 3}  # the others raise #DB, 1
INT3 = b"\xcc"
UD = next(row.vector for row in EXCEPTIONS if row.mnemonic == "UD")
MOST = 20  # exits, before a run is given up
SUM = 3


@dataclass(frozen=True)
class Evidence:
    """`found`: (label or address, vector) of each debug exit from label one to six. `ended` empty for its #UD.

    `failed`: KVM could not emulate the instruction at that label. `taken`: the guest itself took this vector.
    `sums` are RBX and RCX at the end.
    """

    kind: str
    found: tuple[tuple[str, int], ...]
    ended: str
    failed: str
    sums: tuple[int, int]
    taken: int | None = None


def prove(lab: Lab) -> dict[str, Finding]:
    return {f"{kind}_ring{ring}": judge(_observe(lab, kind, ring)) for kind in KINDS for ring in RINGS}


def _observe(lab: Lab, kind: str, ring: int) -> Evidence:
    with lab.guest() as guest:
        guest.machine.start(0, guest.program.entry, ring=ring)
        # Not `one`: a host may lose the trap behind the first instruction, which it enters the guest with.
        names = {guest.symbol(name): name for name in LABELS[1:]}
        return _follow(guest, kind, names)


def _follow(guest: Guest, kind: str, names: dict[int, str]) -> Evidence:
    """From one debug exit to the next, to the end."""
    vcpu = guest.machine.cpus[0].vcpu
    found: list[tuple[str, int]] = []
    ended = failed = ""
    taken = None
    for step in _SETTERS[kind]:
        step(guest, vcpu)
        for _ in range(MOST):
            result = guest.run()
            exit = result.stop.exit
            if isinstance(exit, Debug):
                place = names.get(exit.pc)
                if place:
                    found.append((place, exit.exception))
                if kind != "singlestep" or place == LABELS[-1]:
                    break  # the next trap; a breakpoint that stayed would strike again before its instruction
            else:
                ended, taken = _end(guest, result)
                if isinstance(exit, InternalError):
                    failed = names.get(vcpu.get_regs().rip, "")
                break
        if not isinstance(exit, Debug):
            break
    if not ended and isinstance(exit, Debug):
        vcpu.set_guest_debug()
        ended, taken = _end(guest, guest.run())
    regs = vcpu.get_regs()
    return Evidence(kind, tuple(found), ended, failed, (regs.rbx, regs.rcx), taken)


def _end(guest: Guest, result: Result) -> tuple[str, int | None]:
    """(empty for the #UD at the guest's end, else what ended the run; the exception that it took otherwise)."""
    if result.stop.why is not Why.GUEST_FAULT:
        return result.stop.text, None
    rsp = guest.machine.cpus[0].vcpu.get_regs().rsp
    frame = FaultFrame.parse(guest.machine.memory.read(rsp, FAULT_FRAME_SIZE))
    if (frame.vector, frame.rip) == (UD, guest.symbol("done")):
        return "", None
    return f"{result.stop.text}: {_mnemonic(frame.vector)}", frame.vector


Setter = Callable[[Guest, Vcpu], object]


def set_debug(vcpu: Vcpu, **traps: object) -> None:
    """What a test takes away."""
    vcpu.set_guest_debug(**traps)  # type: ignore[arg-type]


def _single(guest: Guest, vcpu: Vcpu) -> None:
    set_debug(vcpu, singlestep=True)


def _at(label: str) -> Setter:
    return lambda guest, vcpu: set_debug(vcpu, breakpoints=[guest.symbol(label)])


def _watch(reads: bool, label: str = "") -> Setter:
    def set_watch(guest: Guest, vcpu: Vcpu) -> None:
        if label:  # to the write once more
            regs = vcpu.get_regs()
            regs.rip = guest.symbol(label)
            vcpu.set_regs(regs)
        set_debug(vcpu, watchpoints=[Watchpoint(REGIONS["user"].base, 4, reads)])

    return set_watch


def _int3(guest: Guest, vcpu: Vcpu) -> None:
    set_debug(vcpu, software=True)
    guest.machine.memory.write(guest.symbol("two"), INT3)


def _put_back(guest: Guest, vcpu: Vcpu) -> None:
    """The instruction itself again, which the guest then executes: RIP stands at it."""
    offset = guest.symbol("two") - guest.program.base
    guest.machine.memory.write(guest.symbol("two"), guest.program.code[offset : offset + 1])
    vcpu.set_guest_debug()


_SETTERS: dict[str, tuple[Setter, ...]] = {
    "singlestep": (_single,),
    "hw_breakpoints": (_at("two"), _at("five")),
    # Writes only: the write is seen. Reads too: the write, once more, and the read.
    "watchpoints": (_watch(False), _watch(True, "three"), _watch(True)),
    "sw_breakpoints": (_int3, _put_back),
}


def judge(evidence: Evidence) -> Finding:
    """Every trap struck where it lay, with its vector, and the guest came to the same sums."""
    kind = evidence.kind
    wanted = tuple((label, VECTORS.get(kind, 1)) for label in WANTED[kind])
    struck, right = ([f"{label} {_mnemonic(each)}" for label, each in row] for row in (evidence.found, wanted))
    numbers = {
        "struck": struck,
        "wanted": right,
        "RBX and RCX at the end": list(evidence.sums),
        "end": evidence.ended or "#UD, its last instruction",
    }
    if kind == "sw_breakpoints" and evidence.failed == WANTED[kind][0] and not evidence.found:
        reason = "accepted, but INT3 is an instruction that this KVM cannot emulate: no debug exit, KVM gives up"
        return Finding(Verdict.INERT, reason, numbers)
    vector = VECTORS.get(kind, 1)
    if evidence.taken == vector and not evidence.found:
        reason = f"accepted, but the guest itself takes the {_mnemonic(vector)}: KVM makes no debug exit of it"
        return Finding(Verdict.INERT, reason, numbers)
    if evidence.ended:
        return Finding(Verdict.BROKEN, evidence.ended, numbers)
    if evidence.sums != (SUM, SUM):
        return Finding(Verdict.BROKEN, f"the guest came to {evidence.sums}, and should come to {SUM} twice", numbers)
    if not evidence.found:
        return Finding(
            Verdict.INERT, "accepted, but none ever gives a debug exit; the guest runs on undisturbed", numbers
        )
    if evidence.found != wanted:
        text = f"struck at {', '.join(struck)}; it should be {', '.join(right)}"
        return Finding(Verdict.BROKEN, text, numbers)
    return Finding(Verdict.WORKS, "", numbers, f"struck at {', '.join(label for label, _ in wanted)}")


def _mnemonic(vector: int) -> str:
    row = BY_VECTOR.get(vector)
    return f"#{row.mnemonic}" if row else f"vector {vector}"

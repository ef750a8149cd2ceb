# SPDX-License-Identifier: GPL-2.0-or-later
"""Lesson 8: the CLI at `program` was refused, because the CPU was in ring 3 there."""

from __future__ import annotations

from vmm.abi.x86 import RFLAGS, USER_CS, USER_DS
from vmm.learn.again import first_of, up_to
from vmm.learn.checks import Checks, Wrong
from vmm.learn.refused import FRAME, NARROW, NARROW_SAID, frame
from vmm.learn.seen import Seen
from vmm.machine.ends import Why
from vmm.machine.memory.layout import USER_STACK_TOP, cpu_block
from vmm.payload.proof.lab import ring0

RING = 3
PUSHED = 6 * 8  # error code, RIP, CS, RFLAGS, RSP, SS


def check(seen: Seen) -> str:
    cs, rip, rsp = seen.guest["cs"], seen.guest["rip"], seen.guest["rsp"]
    if not _came(seen, cs, rsp):
        raise Wrong(
            f"there was no #GP: your guest ran on into `on_gp`, in ring 0, at "
            f"{seen.place(seen.guest.symbol('on_gp'))}. Only IRETQ takes the five words from the stack and goes to "
            "ring 3"
        )
    if cs & RING != RING:
        raise Wrong(
            f"the #GP did not come from ring 3: CS was {cs:#x}, ring {cs & RING}, at {seen.place(rip)}. "
            f"{_frame(seen, rip)}"
        )
    taken = _taken(seen)
    if (flags := taken.get("RFLAGS", 0)) & RFLAGS.IOPL:
        passed = " On this host it was refused all the same." * (rip == seen.guest.symbol("program"))
        raise Wrong(
            f"your IRETQ took RFLAGS {flags:#x}: with IOPL (bits 13:12) 3 a CPU lets ring 3 execute CLI.{passed}"
        )
    if rip != seen.guest.symbol("program"):
        raise Wrong(f"#GP came from ring 3, but not from `program`: at {seen.place(rip)}{_content(seen, rip)}")
    if cs != USER_CS:
        how = "your IRETQ took" if taken else "ring 3 was entered, and by no IRETQ, with"
        raise Wrong(
            f"{how} CS {cs:#x}, and the code segment of ring 3 is USER_CS, {USER_CS:#x}; {cs:#x} is none. The CPU of "
            "this host's ring 0 let it pass, and others refuse it with #GP"
        )
    if taken and taken["SS"] != USER_DS:
        raise Wrong(
            f"your IRETQ took SS {taken['SS']:#x}, and the data segment of ring 3 is USER_DS, {USER_DS:#x}: a stack "
            "lies in no other. The CPU of this host's ring 0 let it pass, and others refuse it with #GP"
        )
    if rsp != USER_STACK_TOP:
        raise Wrong(f"in ring 3 RSP was {rsp:#x}, and the stack of ring 3 ends at USER_STACK_TOP, {USER_STACK_TOP:#x}")
    return (
        f"ring 3 ran at {seen.place(rip)} with CS {cs:#x}; CLI was refused there, and #GP brought the CPU back to "
        "ring 0"
    )


def _taken(seen: Seen) -> dict[str, int]:
    """The five words as the first IRETQ takes them, seen in a run of its own: a host may not let ring 3 have them all.
    Empty where it comes to none.
    """
    iretq = first_of(seen, "iretq", seen.program.entry)
    if iretq is None:
        return {}
    with up_to(seen, iretq) as stood:
        return {name: stood[1].read_u64(stood[0].rsp + 8 * at) for at, name in enumerate(FRAME)} if stood else {}


def why(seen: Seen) -> str:
    if seen.stop.why is Why.HALT and "hlt" in seen.here:
        return (
            f"CLI and HLT went through, so this was ring 0: {seen.postmortem.vcpus[0].segments['cs'].split()[0]} "
            "is in CS. "
            "The ring is the two lowest bits of CS, and only IRETQ brings a new one that is less privileged"
        )
    return ""


def _frame(seen: Seen, rip: int) -> str:
    """The five words that lay at RSP of the IRETQ: it has not taken them."""
    rsp = seen.guest["rsp"]
    line = seen.line(rip)
    if seen.statement(rip) in NARROW:
        return NARROW_SAID
    if line is None or "iretq" not in line.text:
        return "It was no IRETQ that was refused"
    wanted = {"CS": USER_CS, "RSP": USER_STACK_TOP, "SS": USER_DS}
    other = [
        f"{name} {wanted[name]:#x}"
        for at, name in enumerate(FRAME)
        if seen.u64(rsp + 8 * at) != wanted.get(name, -1) and name in wanted
    ]
    said = f"What IRETQ found on the stack was not what it wants: {frame(seen, rsp)}"
    return f"{said}. To be there: {', '.join(other)}" if other else f"{said}{_content(seen, seen.u64(rsp))}"


def _content(seen: Seen, rip: int) -> str:
    """Some CPUs refuse an address that is none in IRETQ itself, some where it leads."""
    if rip != seen.u64(seen.guest.symbol("program")):
        return ""
    return ". That is what lies at `program`, taken for an address: LEA gives the address itself"


def _came(seen: Seen, cs: int, rsp: int) -> bool:
    """Did the CPU push what lies on the stack? From ring 3 it begins at RSP0, else at the next lower multiple of 16."""
    top = cpu_block(0).ring0_stack_top if cs & RING == RING else rsp & ~0xF
    return seen.reg("rsp") == top - PUSHED


def differs() -> str:
    kind = ring0().kind
    if kind == "native":
        return ""
    return (
        f"Ring 0 of a guest is {kind} here, and ring 3 is native (measured: `pyvmm doctor`). INT n and SYSCALL "
        "from ring 3 "
        "do not come to ring 0 as on other CPUs; exceptions do, and the lesson uses one."
    )


CHECKS = Checks(check, why, differs=differs)

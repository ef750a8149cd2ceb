# SPDX-License-Identifier: GPL-2.0-or-later
"""Lesson 8: the CLI at `program` was refused, because the CPU was in ring 3 there."""

from __future__ import annotations

from vmm.abi.x86 import USER_CS
from vmm.learn.checks import Checks, Wrong
from vmm.learn.seen import Seen
from vmm.machine.ends import Why
from vmm.machine.memory.layout import USER_STACK_TOP
from vmm.payload.proof.lab import ring0

RING = 3


def check(seen: Seen) -> str:
    cs, rip, rsp = seen.guest["cs"], seen.guest["rip"], seen.guest["rsp"]
    if cs & RING != RING:
        raise Wrong(
            f"the #GP did not come from ring 3: CS was {cs:#x}, ring {cs & RING}, at {seen.place(rip)}. "
            f"What IRETQ found on the stack was not what it wants: {_frame(seen, rip)}"
        )
    if rip != seen.guest.symbol("program"):
        raise Wrong(f"#GP came from ring 3, but not from `program`: at {seen.place(rip)}")
    if cs != USER_CS:
        raise Wrong(
            f"your IRETQ took CS {cs:#x} from the stack, and the code segment of ring 3 is USER_CS, {USER_CS:#x}; "
            f"{cs:#x} is "
            "none. The CPU of this host's ring 0 let it pass, and others refuse it with #GP"
        )
    if rsp != USER_STACK_TOP:
        raise Wrong(f"in ring 3 RSP was {rsp:#x}, and the stack of ring 3 ends at USER_STACK_TOP, {USER_STACK_TOP:#x}")
    return (
        f"ring 3 ran at {seen.place(rip)} with CS {cs:#x}; CLI was refused there, and #GP brought the CPU back to "
        "ring 0"
    )


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
    if line is None or "iretq" not in line.text:
        return "it was no IRETQ that was refused"
    names = ("RIP", "CS", "RFLAGS", "RSP", "SS")
    return ", ".join(f"{name} {seen.u64(rsp + 8 * at):#x}" for at, name in enumerate(names))


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

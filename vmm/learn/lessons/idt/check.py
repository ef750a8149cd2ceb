# SPDX-License-Identifier: GPL-2.0-or-later
"""Lesson 5: two #UD were taken, and the guest went on behind each, its stack as it was."""

from __future__ import annotations

from vmm.abi.x86 import VECTOR_OF
from vmm.learn.again import first_of, up_to
from vmm.learn.checks import Checks, Wrong
from vmm.learn.seen import Seen
from vmm.machine.ends import Why

WANTED = 2


def check(seen: Seen) -> str:
    taken, stack = seen.guest["taken"], seen.guest["stack"]
    if taken != WANTED:
        raise Wrong(
            f"your handler ran {taken} time{'s' * (taken != 1)}, and there are {WANTED} UD2 to be stepped over"
            f"{_went(seen)}"
        )
    if stack and (went := _went(seen)):
        raise Wrong(f"the lines behind the UD2 were not executed as they stand{went}")
    if stack:
        raise Wrong(
            f"RSP is {stack:#x} lower at the end than at the start: the handler left on the stack what the CPU "
            "had pushed. "
            "RET takes RIP alone; IRETQ takes RIP, CS, RFLAGS, RSP and SS"
        )
    return (
        f"{taken} exceptions #UD came to your handler, and the guest went on behind each; no exit was needed for that"
    )


def _went(seen: Seen) -> str:
    """Where the handler's first IRETQ goes, if not behind the UD2: seen in a run of its own."""
    first = next(line for line in seen.program.lines if line.text == "ud2")
    after, to = first.address + first.size, _target(seen)
    if to in (None, after):
        return ""
    return (
        f". Your handler goes back to {to:#x}; the UD2 is at {first.address:#x}, and the instruction behind it at "
        f"{after:#x}"
    )


def _target(seen: Seen) -> int | None:
    """What lies at RSP before the handler's first IRETQ; None where it does not come to one."""
    iretq = first_of(seen, "iretq", seen.guest.symbol("on_ud"))
    if iretq is None:
        return None
    with up_to(seen, iretq) as stood:
        return stood[1].read_u64(stood[0].rsp) if stood else None


def why(seen: Seen) -> str:
    fault = seen.postmortem.fault
    if seen.stop.why is Why.TIME_LIMIT and seen.reg("rbp") > WANTED:
        often = f"Your handler has run {seen.reg('rbp')} times"
        if seen.statement(_target(seen) or 0) != "ud2" and (went := _went(seen)):
            return f"{often}{went}"
        return f"{often}: the RIP on the stack is that of the UD2 itself, so IRETQ goes back to it, and it faults again"
    if fault and fault.vector == VECTOR_OF["GP"] and "iretq" in seen.here:
        if seen.line(seen.u64(seen.reg("rsp"))):  # RSP is where RIP lies
            return "RIP is the first of the five words, at RSP itself, and the only one that is to be changed"
        return "#UD has no error code, so there is nothing to be dropped before"
    return _went(seen).removeprefix(". ")


CHECKS = Checks(check, why)

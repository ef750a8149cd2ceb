# SPDX-License-Identifier: GPL-2.0-or-later
"""Lesson 3: the sum is right, for more than one `last`."""

from __future__ import annotations

from vmm.learn.checks import Checks, Wrong
from vmm.learn.seen import Seen
from vmm.machine.ends import Why

FIRST = 10  # `last` of the first run, and of who runs the guest without saying
REGISTERS = ("rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")


def check(seen: Seen) -> str:
    last = seen.params["last"]
    right = last * (last + 1) // 2
    got = seen.guest["sum"]
    if got == right:
        return f"with last = {last} the sum is {got}; the loop itself caused no exit"
    said = f"with last = {last} your guest stored sum = {got}, and 1 + 2 + ... + {last} is {right}"
    if got == FIRST * (FIRST + 1) // 2:
        raise Wrong(f"{said}. It is the sum for last = {FIRST}, whatever `last` is: PARAM_last says how far to count")
    elsewhere = next((name for name in REGISTERS if seen.reg(name) == right), None)
    if elsewhere:
        raise Wrong(f"{said}. That is in {elsewhere.upper()}; RESULT stores RAX")
    if got == right - last and seen.reg("rcx") == last:
        raise Wrong(f"{said}. What is missing is {last}, the last number: the loop ended before it was added")
    if got == right - last:
        raise Wrong(f"{said}. What is missing is {last}, the first number: it was counted down before it was added")
    if got == last:
        raise Wrong(f"{said}. Only the first number is in it: the loop ended after one turn")
    if got == right & 0xFF:
        raise Wrong(f"{said}. {got} is the lowest 8 bits of that: AL has no more, and ADD to it lets go of the rest")
    rcx = seen.reg("rcx")
    if rcx:
        raise Wrong(
            f"{said}. RCX is {rcx:#x} at the end, and the loop is to end when it has become 0 (JNZ looks at the flags "
            "of the instruction before it, and ADD sets them, too)"
        )
    raise Wrong(f"{said}. RCX was counted to 0, and RAX is 0: nothing was added to it" if not got else said)


def why(seen: Seen) -> str:
    if seen.stop.why is not Why.TIME_LIMIT:
        return ""
    rcx, last = seen.reg("rcx"), seen.params["last"]
    if rcx == last:
        return f"RCX is still {rcx}: nothing counts it down"
    return f"RCX is {rcx:#x}, and has left 1 to {last}" if rcx > last else ""


CHECKS = Checks(check, why, runs=({"last": FIRST}, {"last": 1}, {"last": 300}))

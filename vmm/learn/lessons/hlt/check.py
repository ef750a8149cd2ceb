# SPDX-License-Identifier: GPL-2.0-or-later
"""Lesson 1: the guest halts, with 42 in RAX."""

from __future__ import annotations

from vmm.learn.checks import Checks, Wrong
from vmm.learn.seen import Seen
from vmm.learn.spin import Steps
from vmm.machine.ends import Why
from vmm.payload.guest import Guest

WANTED = 42
SYSCALL_BYTES = 2
HEXADECIMAL = ": with 0x in front it is a hexadecimal number"


def _steps(seen: Seen) -> str:
    """`after 3 instructions`, counted by single-step; "" where this host does not step."""
    with Guest(seen.guest.payload) as again:
        count = len(Steps(again.machine).take())
    if not count and seen.rip != seen.program.entry:
        return ""
    return f" after {count} instruction{'s' * (count != 1)}"


def check(seen: Seen) -> str:
    rax = seen.reg("rax")
    if rax != WANTED:
        raise Wrong(
            f"your guest halted with interrupts off{_steps(seen)}: {seen.here}; nothing can wake it, so no line below "
            f"it runs. RAX is {rax} then, and the task is {WANTED}{HEXADECIMAL * (rax == int(str(WANTED), 16))}"
        )
    return f"your guest halted{_steps(seen)}, at {seen.here}, with RAX {rax}: KVM left the guest by KVM_EXIT_HLT"


def why(seen: Seen) -> str:
    if seen.stop.why is not Why.GUEST_FAULT or seen.rip:
        return ""
    called = seen.reg("rcx") - SYSCALL_BYTES  # SYSCALL leaves in RCX where it was
    if seen.statement(called) == "syscall":
        return (
            f"RIP is 0: SYSCALL, at {seen.place(called)}, goes to the address in the MSR LSTAR, and that is 0. There "
            "is no operating system below your guest that could be called; it gives the CPU back by HLT"
        )
    if seen.reg("rsp"):
        return (
            "RIP is 0: RET takes the address to go on at from the stack, and nobody has called your guest. "
            "A guest has no caller to go back to; it gives the CPU back by HLT"
        )
    return ""


CHECKS = Checks(check, why, ends=Why.HALT)

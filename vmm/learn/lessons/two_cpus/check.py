# SPDX-License-Identifier: GPL-2.0-or-later
"""Lesson 11: the second CPU came by INIT and SIPI, and added to the shared word."""

from __future__ import annotations

from vmm.abi.apic import DM_MASK, DM_STARTUP, VECTOR_MASK
from vmm.abi.x86 import PAGE
from vmm.learn.checks import Checks, Wrong
from vmm.learn.endings import INIT_RECEIVED, UNINITIALIZED
from vmm.learn.seen import Seen
from vmm.machine.ends import Why
from vmm.machine.memory.layout import REGIONS
from vmm.machine.x86.lapic import Lapic

TRAMPOLINE = REGIONS["trampoline"].base
FIRST, SECOND = 0, 1
WAITING = (UNINITIALIZED, INIT_RECEIVED)


def check(seen: Seen) -> str:
    arrived, shared = seen.guest["arrived"], seen.u32(seen.guest.constant("SHARED"))
    if (arrived, shared) != (1, 1):
        raise Wrong(f"the shared word is {shared} and arrived is {arrived}: one CPU was to add 1, once")
    sregs = seen.guest.machine.cpus[SECOND].vcpu.get_sregs()
    if sregs.cs.base != TRAMPOLINE:
        raise Wrong(
            f"the shared word is 1, and CPU {SECOND} is not at the trampoline: its CS begins at "
            f"{sregs.cs.base:#x}, so it was "
            "not the second CPU that added"
        )
    return (
        f"CPU {SECOND} started in real mode at {TRAMPOLINE:#x} and added 1 to the shared word; the first saw it there"
    )


def why(seen: Seen) -> str:
    """What the second CPU is doing while the first waits."""
    states = {each.index: each for each in seen.postmortem.vcpus}
    started = SECOND in states and states[SECOND].mp_state not in WAITING
    # CPU 1, where it executes what is no code, may spoil what CPU 0 needs, and KVM resets a CPU that shuts down.
    if FIRST in states and states[FIRST].mode == "real mode" and not started:
        return (
            "CPU 0 is in real mode, where a CPU begins after INIT: your guest has sent it to itself. APIC id 0 is the "
            f"CPU that runs; the other one has {SECOND}"
        )
    if seen.stop.why not in (Why.TIME_LIMIT, Why.SHUTDOWN, Why.INTERNAL_ERROR) or SECOND not in states:
        return ""
    state = states[SECOND]
    if state.mp_state == INIT_RECEIVED:
        return "It waits for a SIPI that comes after its INIT: one that came before is lost"
    if state.mode != "real mode" or state.mp_state in WAITING:
        return ""
    base, sent = _sent_to(seen), "with CS at"
    if base is None:
        base, sent = seen.guest.machine.cpus[SECOND].vcpu.get_sregs().cs.base, "its CS is now"
    if base == TRAMPOLINE:
        return ""
    return (
        f"CPU {SECOND} did start, {sent} {base:#x}, and the trampoline is at {TRAMPOLINE:#x}: the low 8 bits "
        "of a SIPI "
        f"are the number of a page of 4 KiB, here {TRAMPOLINE >> 12:#x}"
    )


def _sent_to(seen: Seen) -> int | None:
    """Where the SIPI made CPU 1 begin, by the last command of CPU 0's LAPIC; None where that was reset. What CPU 1 has
    executed since may have led it elsewhere: zeros, and the interrupt table of real mode, which is zeros.
    """
    command = Lapic(seen.guest.machine.cpus[FIRST].vcpu.get_lapic())["ICR"]
    return (command & VECTOR_MASK) * PAGE if command & DM_MASK == DM_STARTUP else None


CHECKS = Checks(check, why)

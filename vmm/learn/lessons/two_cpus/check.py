# SPDX-License-Identifier: GPL-2.0-or-later
"""Lesson 11: the second CPU came by INIT and SIPI, and added to the shared word."""

from __future__ import annotations

from vmm.learn.checks import Checks, Wrong
from vmm.learn.endings import INIT_RECEIVED, UNINITIALIZED
from vmm.learn.seen import Seen
from vmm.machine.ends import Why
from vmm.machine.memory.layout import REGIONS

TRAMPOLINE = REGIONS["trampoline"].base
SECOND = 1
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
    first, *_ = sorted(seen.postmortem.vcpus, key=lambda each: each.index)
    if first.mode == "real mode":
        return (
            "CPU 0 is in real mode, where a CPU begins after INIT: your guest has sent it to itself. APIC id 0 is the "
            f"CPU that runs; the other one has {SECOND}"
        )
    if seen.stop.why not in (Why.TIME_LIMIT, Why.SHUTDOWN, Why.INTERNAL_ERROR) or len(seen.postmortem.vcpus) <= SECOND:
        return ""
    state = next((each for each in seen.postmortem.vcpus if each.index == SECOND), None)
    if state is not None and state.mp_state == INIT_RECEIVED:
        return "A SIPI that came before the INIT is lost"
    if state is None or state.mode != "real mode" or state.mp_state in WAITING:
        return ""
    base = seen.guest.machine.cpus[SECOND].vcpu.get_sregs().cs.base
    if base == TRAMPOLINE:
        return ""
    return (
        f"CPU {SECOND} did start, with CS at {base:#x}, and the trampoline is at {TRAMPOLINE:#x}: the low 8 bits "
        "of a SIPI "
        f"are the number of a page of 4 KiB, here {TRAMPOLINE >> 12:#x}"
    )


CHECKS = Checks(check, why)

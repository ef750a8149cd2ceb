# SPDX-License-Identifier: GPL-2.0-or-later
"""Where in its program a guest ended, in one clause: label, and the line that was written there. Only who has to tell a
failure imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.abi.x86 import CR0, vector_name
from vmm.errors import GuestMemoryError
from vmm.machine.ends import Stop, Why
from vmm.machine.x86.faulted import unwind

if TYPE_CHECKING:
    from vmm.machine.run.cpu import Cpu
    from vmm.machine.whole import Whole

BEHIND = (Why.HALT, Why.EXIT_PORT, Why.DEBUG_EXIT, Why.STOPPED)
"""Ends of an instruction that is done: RIP is that of the next one."""


def where_ended(machine: Whole, stop: Stop, cpu: Cpu) -> str:
    """`#UD (invalid opcode) at crash+0x4, add.asm:7  ud2`; nothing, where it is no place of the program."""
    program = machine.program
    regs, sregs = cpu.vcpu.get_regs(), cpu.vcpu.get_sregs()
    what = "at"
    if stop.why is Why.GUEST_FAULT and sregs.cr0 & CR0.PE:
        try:
            what = f"{vector_name(unwind(machine.memory, regs, sregs).vector)} at"
        except GuestMemoryError:
            return ""
    here = regs.rip if sregs.cs.l else sregs.cs.base + regs.rip
    line = program.source(here - (stop.why in BEHIND)) if program else None
    place = line.address if line is not None and stop.why in BEHIND else here
    label = program.symbolize(place) if program else None
    if label is None and line is None and what == "at":
        return ""
    return f"{what} {label or f'{here:#x}'}" + (f", {line.shown}" if line is not None and line.line else "")

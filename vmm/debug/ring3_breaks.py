# SPDX-License-Identifier: GPL-2.0-or-later
"""Breakpoints in ring 3 where KVM has none to give: a guest whose ring 0 is emulated runs ring 3 natively there, and
takes the #BP of an INT3 itself. 64-bit mode alone.

INT3 lies at the place, and a breakpoint of ring 0 at the first instruction of the guest's handler of #BP, and of that
of #GP, which an INT3 leads to where the gate of #BP is not open to ring 3. There the frame is taken off again, and the
guest stands in ring 3 before its instruction, as if nothing had been. What else comes to these handlers goes on.

Source: Intel SDM vol. 3A, 6.12.1.2 (protection of handlers), 6.13 (error code), 6.14 (64-bit mode).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.abi.x86 import EFER, RFLAGS
from vmm.debug.gates import BP, GP, descriptor, gate, u64
from vmm.errors import VmmError

if TYPE_CHECKING:
    from collections.abc import Container

    from vmm.machine.machine import Machine
    from vmm.machine.run.cpu import Cpu

FROM_IDT = 2  # of an error code: the selector is a vector (SDM vol. 3A, figure 6-7)
MISSING = (
    "and there breakpoints strike by the guest's handlers of #BP and #GP alone, in 64-bit mode; it has none now, so "
    "this one does not strike there"
)


def traps(machine: Machine, cpu: Cpu) -> dict[int, int]:
    """Where an INT3 of ring 3 leads on this vCPU: handler -> vector. Empty where it has no such handlers."""
    sregs = cpu.vcpu.get_sregs()
    if not sregs.efer & EFER.LMA:
        return {}
    gates = [found for found in (gate(machine, sregs, vector) for vector in (BP, GP)) if found]
    return {each.handler: each.vector for each in gates}


def back_to_ring3(machine: Machine, cpu: Cpu, vector: int, planted: Container[int]) -> int | None:
    """Of a vCPU at the first instruction of this vector's handler: where one of these INT3 has struck, with the vCPU
    back there; None where something else has led here, and nothing is changed.
    """
    vcpu = cpu.vcpu
    vcpu.complete()
    regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
    try:
        words = [u64(machine, sregs, regs.rsp + 8 * i) for i in range(6)]
    except VmmError:
        return None
    if vector == GP:
        error, *words = words
        if error & 0xFFFF != BP << 3 | FROM_IDT:
            return None
    rip, cs, flags, rsp, ss = words[:5]
    rip -= vector == BP
    if cs & 3 != 3 or rip not in planted:
        return None
    regs.rip, regs.rsp, regs.rflags = rip, rsp, flags & ~RFLAGS.RF
    sregs.cs, sregs.ss = (descriptor(machine, sregs, each & 0xFFFF) for each in (cs, ss))
    vcpu.set_sregs(sregs)
    vcpu.set_regs(regs)
    return rip

# SPDX-License-Identifier: GPL-2.0-or-later
"""A vCPU that a default gate has taken, shown as it was when the exception struck: that is where a person looks, and
where the guest goes on if he mends what was wrong. It knows registers; it knows no run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.abi.x86 import CR0
from vmm.debug.gates import descriptor
from vmm.errors import VmmError
from vmm.machine.ends import Stop, Why
from vmm.machine.x86.faulted import unwind

if TYPE_CHECKING:
    from vmm.kvm.state import Regs, Sregs
    from vmm.machine.machine import Machine
    from vmm.machine.run.cpu import Cpu


class Crash:
    """Of one vCPU. `undo` lets it stand in the gate again, as its post-mortem wants it, and `show` not."""

    def __init__(self, machine: Machine, cpu: Cpu) -> None:
        """VmmError: its stack is not there, or its segments are not in the GDT."""
        cpu.vcpu.complete()
        self._vcpu = cpu.vcpu
        self._left = cpu.vcpu.get_regs(), cpu.vcpu.get_sregs()
        self._shown = regs, sregs = cpu.vcpu.get_regs(), cpu.vcpu.get_sregs()
        frame = unwind(machine.memory, regs, sregs)
        if sregs.cs.dpl:  # it was in ring 3, or 1 or 2: the gate has a code segment of its own
            sregs.cs, sregs.ss = (descriptor(machine, sregs, each & 0xFFFF) for each in (frame.cs, frame.ss))
        self.show()

    def show(self) -> None:
        """As it was when the exception struck."""
        self._put(*self._shown)

    def undo(self) -> None:
        """In the gate; changes that were made meanwhile are in what `show` shows."""
        self._shown = self._vcpu.get_regs(), self._vcpu.get_sregs()
        self._put(*self._left)

    def _put(self, regs: Regs, sregs: Sregs) -> None:
        self._vcpu.set_sregs(sregs)
        self._vcpu.set_regs(regs)


def crash_of(machine: Machine, stop: Stop, cpu: Cpu | None) -> Crash | None:
    """None where the run has ended in another way, or what the gate has saved cannot be read."""
    if stop.why is not Why.GUEST_FAULT or cpu is None or not cpu.vcpu.get_sregs().cr0 & CR0.PE:
        return None
    try:
        return Crash(machine, cpu)
    except VmmError:
        return None

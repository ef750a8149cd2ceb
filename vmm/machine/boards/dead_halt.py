# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of a guest that has halted for good: every vCPU in HLT with interrupts off, as an operating system leaves it.

With local APICs in the kernel HLT does not exit, and such a guest would use up its time limit. A vCPU is looked at when
it was kicked out of KVM_RUN: vCPU 0 is at each heartbeat, the others are kicked when vCPU 0 is found dead. An NMI or
INIT from another vCPU can wake one, so all must be found dead in two rounds, the one after the other. A vCPU that waits
for INIT or SIPI counts as dead, for nobody is left who would send it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.abi.exits import MP_STATES
from vmm.abi.rows import value_of
from vmm.machine.ends import Stop, Why

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.machine.run.cpu import Cpu
    from vmm.machine.whole import Whole

HALTED = value_of(MP_STATES, "KVM_MP_STATE_HALTED")
WAITING = frozenset(value_of(MP_STATES, name) for name in ("KVM_MP_STATE_UNINITIALIZED", "KVM_MP_STATE_INIT_RECEIVED"))
ROUNDS = 2


class DeadHalt:
    """Looks at the vCPUs of a machine, and ends its run, unless the board says that it is `sleeping`, and will wake."""

    def __init__(self, machine: Whole, sleeping: Callable[[], bool]) -> None:
        self._machine, self._sleeping = machine, sleeping
        self._dead: set[int] = set()
        self._rounds = 0
        machine.all_cpus.on_tick.append(self._look)

    def _look(self, cpu: Cpu) -> None:
        """On the vCPU's own thread, out of KVM_RUN."""
        if self._sleeping() or not _is_dead(cpu):
            self._rounds = 0
            self._dead.clear()
            return
        self._dead.add(cpu.index)
        if cpu.index:
            return
        others = self._machine.cpus[1:]
        if all(other.index in self._dead for other in others):
            self._rounds += 1
            self._dead.clear()
            if self._rounds == ROUNDS:
                self._rounds = 0
                self._machine.all_cpus.end(cpu, Stop(Why.HALT, "the guest halted with interrupts off, on every vCPU"))
                return
        for other in others:
            if other.index not in self._dead:
                other.interrupt()


def _is_dead(cpu: Cpu) -> bool:
    if cpu.vcpu.interrupts_enabled:
        return False
    state = cpu.vcpu.get_mp_state()
    return state == HALTED or state in WAITING

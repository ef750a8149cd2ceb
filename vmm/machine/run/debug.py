# SPDX-License-Identifier: GPL-2.0-or-later
"""Single-step and "run until": KVM_SET_GUEST_DEBUG for all vCPUs of a machine, and what a debug exit then means.

Source: api.rst, KVM_SET_GUEST_DEBUG; Intel SDM vol. 3B, 17.2 (debug registers) and 17.3.1.1 (instruction breakpoints
are faults: the instruction has not run).
"""

from __future__ import annotations

from vmm.base.record import replace
from vmm.kvm.exits import Debug, Exit
from vmm.machine.run.cpu import WATCHED, Cpu
from vmm.machine.run.ends import GO_ON, Step, Stop, Why

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmm.machine.run.stepping import Stepping
    from vmm.machine.whole import Make, Whole


class Debugger:
    """`stepping`: every instruction exits, and the run goes on. `until`: the linear address at which the run ends."""

    def __init__(self, machine: Whole, make: Make) -> None:
        """`make` makes a machine of its own, where this host has to be measured."""
        self._machine, self._make = machine, make
        self.stepping = False
        self.until: int | None = None
        self.steps: Stepping | None = None
        """Where each vCPU is, while `stepping`; with it, who is told where nothing is stepped."""
        self._one = False
        self._ours: dict[int, tuple[bool, int | None]] = {}  # of what each vCPU is told: stepping, and until where
        machine.platform.on_debug.append(self._serve)

    def begin_stepping(self, say: Callable[[str], object] | None = None) -> None:
        """`stepping`, and somebody to tell where this host cannot step."""
        from vmm.machine.run.stepping import Stepping

        self.stepping = True
        self.steps = Stepping(self._machine, self._make)
        self.steps.say = say

    def arm(self, cpus: Sequence[Cpu]) -> None:
        """Tell KVM, where something changed; no vCPU may be running. KVM_SET_GUEST_DEBUG replaces all that a vCPU was
        told: what somebody else has set stays.
        """
        for cpu in cpus:
            self._arm(cpu)
        self._machine.all_cpus.after = self._steps_of(cpus) if self.stepping and not self._one else None

    def _arm(self, cpu: Cpu) -> None:
        vcpu, (stepped, until) = cpu.vcpu, self._ours.get(cpu.index, (False, None))
        told = vcpu.debug
        theirs = told.singlestep and not stepped
        places = tuple(each for each in told.breakpoints if each != until)
        step, place = (self.stepping or self._one) and not theirs, None if self.until in places else self.until
        wanted = replace(told, singlestep=step or theirs, breakpoints=places if place is None else (*places, place))
        if wanted != told:
            vcpu.set_guest_debug(
                singlestep=wanted.singlestep,
                breakpoints=wanted.breakpoints,
                watchpoints=wanted.watchpoints,
                software=wanted.software,
            )
        self._ours[cpu.index] = step, place

    def _steps_of(self, cpus: Sequence[Cpu]) -> Callable[[Cpu, Exit], object]:
        if self.steps is None:
            self.begin_stepping()
        assert self.steps is not None
        self.steps.begin(list(cpus))
        return self.steps.served

    def one(self, on: bool) -> None:
        """The next instruction exits and ends the run."""
        self._one = on

    def _serve(self, exit: Debug) -> Step | None:
        if self._one:
            return Stop(Why.DEBUG, "one instruction was run", exit)
        if exit.pc == self.until:
            return Stop(Why.REACHED, f"the guest came to {exit.pc:#x}", exit)
        return GO_ON if self.stepping and not exit.dr6 & WATCHED else None

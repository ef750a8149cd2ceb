# SPDX-License-Identifier: GPL-2.0-or-later
"""Single-step and "run until": KVM_SET_GUEST_DEBUG for all vCPUs of a machine, and what a debug exit then means.

Source: api.rst, KVM_SET_GUEST_DEBUG; Intel SDM vol. 3B, 17.2 (debug registers) and 17.3.1.1 (instruction breakpoints
are faults: the instruction has not run).
"""

from __future__ import annotations

from vmm.base.record import replace
from vmm.kvm.exits import Debug, Exit
from vmm.machine.ends import GO_ON, Step, Stop, Why
from vmm.machine.run.cpu import WATCHED, Cpu

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

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
        self._ours: dict[int, tuple[bool, int | None]] = {}  # of what each vCPU is told: stepping, and until where
        machine.platform.on_debug.append(self._serve)

    def begin_stepping(self, say: Callable[[str], object] | None = None) -> None:
        """`stepping`, and somebody to tell where this host cannot step."""
        from vmm.machine.run.stepping import Stepping

        self.stepping = True
        self.steps = Stepping(self._machine, self._make)
        self.steps.say = say

    def arm(self, until: int | None) -> None:
        """Tell KVM, where something changed, before a run that is to end at `until`. KVM_SET_GUEST_DEBUG replaces all
        that a vCPU was told: what somebody else has set stays. A vCPU that stands at `until` steps off it first.
        """
        self.until = until
        for cpu in self._machine.cpus:
            self._arm(cpu)
            if until is not None and cpu.thread_id is None and cpu.at == until:
                cpu.vcpu.trapped_at = until
        self._machine.all_cpus.after = self._begun() if self.stepping else None

    def _arm(self, cpu: Cpu) -> None:
        vcpu, (stepped, until) = cpu.vcpu, self._ours.get(cpu.index, (False, None))
        told = vcpu.debug
        theirs = told.singlestep and not stepped
        places = tuple(each for each in told.breakpoints if each != until)
        step, place = self.stepping and not theirs, None if self.until in places else self.until
        wanted = replace(told, singlestep=step or theirs, breakpoints=places if place is None else (*places, place))
        if wanted != told:
            vcpu.put_debug(wanted)
        self._ours[cpu.index] = step, place

    def _begun(self) -> Callable[[Cpu, Exit], object]:
        if self.steps is None:
            self.begin_stepping()
        assert self.steps is not None
        self.steps.begin(self._machine.cpus)
        return self.steps.served

    def check(self, place: int) -> None:
        """Can vCPU 0 be stopped before the instruction at the linear address `place`?

        Raises:
            MissingCapability: it is in ring 3, where breakpoints do not strike on this host.
        """
        cpu = self._machine.cpus[0]
        if cpu.thread_id is None and cpu.vcpu.get_sregs().ss.dpl:
            from vmm.machine.run.ring3_traps import require_breakpoints

            require_breakpoints(self._machine.kvm, self._make, f"running until {place:#x}: the vCPU is in ring 3")

    def why_not_reached(self, stop: Stop, place: int) -> Stop:
        """The reason of a run that was to end at `place`, with what this host may have had to do with it."""
        from vmm.machine.run.ring3_traps import NO_BREAKPOINTS, breakpoint_strikes
        from vmm.machine.x86.virtual import translate

        user = translate(self._machine.memory, self._machine.cpus[0].vcpu.get_sregs(), place).user
        if not user or breakpoint_strikes(self._machine.kvm, self._make):
            return stop
        return replace(stop, text=f"{stop.text}; {place:#x} is open to ring 3, where {NO_BREAKPOINTS}")

    def _serve(self, exit: Debug) -> Step | None:
        if exit.pc == self.until:
            return Stop(Why.REACHED, f"the guest came to {exit.pc:#x}", exit)
        return GO_ON if self.stepping and not exit.dr6 & WATCHED else None

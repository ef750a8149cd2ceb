# SPDX-License-Identifier: GPL-2.0-or-later
"""A run in legs: the vCPUs go until one strikes a breakpoint, has made its step, or the guest's run ends. It knows what
a leg ends for; what that means is told by stops.py, and what is done between two legs by going.py and stepping.py.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmm.abi.x86 import DR6
from vmm.debug.breakpoints import Arms
from vmm.debug.ring3_breaks import back_to_ring3
from vmm.debug.values import BREAKPOINT, CATCH, INTERRUPTED, STEP, WATCHPOINT, Break
from vmm.kvm.exits import (
    Debug,
    Exit,
    Hypercall,
    InternalError,
    MmioRead,
    MmioWrite,
    PortIn,
    PortOut,
    ReadMsr,
    WriteMsr,
)
from vmm.kvm.vcpu import GuestDebug
from vmm.machine.ends import GO_ON, Step, Stop, Why
from vmm.machine.run.cpu import WATCHED, Cpu, current, rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmm.machine.machine import Machine

DB, BP, UD = 1, 3, 6
PASSED = "passed"  # a leg goes on
OF_AN_INSTRUCTION = (PortIn, PortOut, MmioRead, MmioWrite, ReadMsr, WriteMsr, Hypercall)


@dataclass(frozen=True)
class Cause:
    """What ended a leg, if that was the debugger's doing: the kind, the address or the catch, the exit."""

    kind: str
    cpu: Cpu | None = None
    address: int = 0
    exit: Exit | None = None
    catch: Break | None = None


@dataclass(frozen=True)
class LegEnd:
    """`cause` is None where the guest's run itself has ended, as `stop` says."""

    stop: Stop
    by: Cpu | None
    cause: Cause | None


class Legs:
    """One machine's runs, leg by leg. Only `interrupt` is for other threads."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.arms = Arms(machine)
        self.running = False
        self.begun = False
        self.wall = 0.0
        self.limit: float | None = None
        self.exit_limit: int | None = None
        self._members: tuple[Cpu, ...] = ()
        self._causes: dict[int, tuple[Stop, Cause]] = {}
        self._lock = threading.RLock()
        self._asked = False
        self._pause = Stop(Why.DEBUG, "the debugger interrupted it")
        self._stepping: Cpu | None = None
        self._passing: dict[int, Exit] = {}
        self._catches: tuple[Break, ...] = ()
        self._served = 0
        machine.platform.on_debug.append(self._debug)
        machine.observe(self._internal, InternalError)

    def close(self) -> None:
        """Be gone from the machine; it may be closed already."""
        if self._debug in self.machine.platform.on_debug:
            self.machine.platform.on_debug.remove(self._debug)
            self.machine.unobserve(self._internal)

    def begin(self, active: Sequence[Cpu], limit: float | None, exit_limit: int | None) -> None:
        """A run of vCPU 0 and these; nothing of it has been run."""
        self._members = (self.machine.cpus[0], *active)
        self.begun, self.wall, self._served = False, 0.0, 0
        self.limit, self.exit_limit = limit, exit_limit

    @property
    def members(self) -> list[Cpu]:
        """The vCPUs of this run that have not halted for good."""
        gone = self.machine.all_cpus.halted if self.begun else set()
        return [cpu for cpu in self._members if cpu.index not in gone]

    def interrupt(self) -> None:
        """End the leg that runs, or the next one as soon as it begins; from any thread."""
        with self._lock:
            self._asked = True
            if self.running:
                self.machine.all_cpus.end(None, self._pause)

    def forget_interrupt(self) -> None:
        """An `interrupt` that found nothing running is not the next leg's."""
        with self._lock:
            self._asked = False

    def let_pass(self, cpu: Cpu) -> None:
        """The exit that this vCPU was caught at is served in the next leg."""
        if cpu.vcpu.stored is not None:
            self._passing[cpu.index] = cpu.vcpu.stored

    def leg(
        self, breaks: Sequence[Break], run: Sequence[Cpu], *, stepping: Cpu | None = None, without: int | None = None,
        served: Cpu | None = None,
    ) -> LegEnd:  # fmt: skip
        """Run these vCPUs. `stepping` is one of them, of which KVM steps one instruction; `served` one whose
        instruction ends the leg as a step if an exit of it was served; at `without` no breakpoint is set.

        Raises:
            UsageError, GuestMemoryError: a breakpoint cannot be.
            whatever a hook raises, and KeyboardInterrupt.
        """
        cpus, first = self.machine.all_cpus, self.machine.cpus[0]
        self._catches = tuple(each for each in breaks if each.kind == CATCH and each.enabled)
        self._causes = {id(self._pause): (self._pause, Cause(INTERRUPTED))}
        self._stepping = stepping or served
        rules()  # nothing is imported on a vCPU's thread
        after, gate = cpus.after, cpus.gate
        self.arms.arm(breaks, stepping=stepping, without=without)
        try:
            if self._catches:
                cpus.gate = self._gate
            if self._stepping is not None:
                cpus.after = self._after
            with self._lock:
                self.running = True
                if self._asked:
                    cpus.end(None, self._pause)
            left = None if self.limit is None else max(0.0, self.limit - self.wall)
            exits = None if self.exit_limit is None else max(0, self.exit_limit - self._served)
            others = [cpu for cpu in run if cpu is not first]
            while True:
                stop, by, wall = cpus.run(others, left, exits, boot=first in run, goes_on=self.begun)
                self.begun = True
                self.wall += wall
                self._served += cpus.taken
                cause = self._ring3(self._causes.get(id(stop), (stop, None))[1], breaks)
                if cause is None or cause.kind != PASSED:
                    break
                left = None if self.limit is None else max(0.0, self.limit - self.wall)
        finally:
            with self._lock:
                self.running = False
                cpus.withdraw(self._pause)
            cpus.after, cpus.gate = after, gate
            self._stepping = None
            self.arms.disarm()
            for cpu in self.machine.cpus:
                cpu.vcpu.trapped_at = None
        return LegEnd(stop, by, cause)

    def _ring3(self, cause: Cause | None, breaks: Sequence[Break]) -> Cause | None:
        """A breakpoint on the way of an INT3 of ring 3: one of that, or PASSED where the guest's handler has other work
        and nobody wants to stop there."""
        traps = self.arms.now.traps
        if cause is None or cause.cpu is None or cause.kind != BREAKPOINT or cause.address not in traps:
            return cause
        at = back_to_ring3(self.machine, cause.cpu, traps[cause.address], self.arms.now.planted)
        if at is not None:
            return Cause(BREAKPOINT, cause.cpu, at, cause.exit)
        wanted = any(each.kind == BREAKPOINT and each.enabled and each.address == cause.address for each in breaks)
        return cause if wanted else Cause(PASSED, cause.cpu)

    def _end(self, cause: Cause, text: str) -> Stop:
        """The stop that ends this leg for us."""
        stop = Stop(Why.DEBUG, text, cause.exit)
        with self._lock:
            self._causes[id(stop)] = stop, cause
        return stop

    # -- on the threads of vCPUs

    def _debug(self, exit: Debug) -> Step | None:
        cpu = current()
        if cpu is None or not self.running:
            return None
        armed = self.arms.now
        if exit.exception == BP:
            return self._int3(cpu, exit)
        places = cpu.vcpu.debug.breakpoints
        if exit.pc in armed.hardware and exit.pc in places:
            return self._end(Cause(BREAKPOINT, cpu, exit.pc, exit), f"a breakpoint at {exit.pc:#x}")
        for i, each in enumerate(cpu.vcpu.debug.watchpoints, len(places)):
            if exit.dr6 >> i & 1 and each in armed.watched:
                return self._end(Cause(WATCHPOINT, cpu, each.address, exit), f"a watchpoint at {each.address:#x}")
        if cpu is self._stepping and not exit.dr6 & WATCHED:
            return self._end(Cause(STEP, cpu, exit.pc, exit), f"a step to {exit.pc:#x}")
        told = armed.told.get(cpu.index)
        if told is None or told != GuestDebug():
            return None  # somebody else wants to see it
        if exit.dr6 & DR6.BS and not cpu.vcpu.debug.singlestep:  # the guest steps itself: as without debug registers
            debug = cpu.vcpu.get_debugregs()
            debug.dr6 |= DR6.BS
            cpu.vcpu.set_debugregs(debug)
            _inject(cpu, DB)
            return GO_ON
        return None

    def _int3(self, cpu: Cpu, exit: Debug) -> Step | None:
        if exit.pc in self.arms.now.planted:
            return self._end(Cause(BREAKPOINT, cpu, exit.pc, exit), f"a breakpoint at {exit.pc:#x}")
        told = self.arms.now.told.get(cpu.index)
        if told is None or told.software:
            return None  # somebody else wants to see each INT3
        _inject(cpu, BP)  # an INT3 of the guest's own, which takes it
        return GO_ON

    def ours(self, cpu: Cpu, exit: Exit) -> bool:
        """Is this exit there only because a debugger is? For who observes exits, while a leg runs."""
        return isinstance(exit, Debug) or (isinstance(exit, InternalError) and cpu.at in self.arms.now.planted)

    def _internal(self, cpu: Cpu, exit: Exit) -> None:
        """Where KVM emulates ring 0 it knows no INT3, and gives up at ours: that is the breakpoint."""
        if not self.running:
            return
        at = cpu.at
        if at not in self.arms.now.planted:
            return
        events = cpu.vcpu.get_vcpu_events()
        if events.exception_nr == UD and (events.exception_injected or events.exception_pending):
            events.exception_injected = events.exception_pending = 0  # of the instruction that was not there
            cpu.vcpu.set_vcpu_events(events)
        stop = self._end(Cause(BREAKPOINT, cpu, at, exit), f"a breakpoint at {at:#x}")
        self.machine.all_cpus.end(cpu, stop)

    def _gate(self, cpu: Cpu, exit: Exit) -> bool:
        if self._passing.pop(cpu.index, None) is exit:
            return True
        for each in self._catches:
            if each.catches is not None and each.catches(exit):
                stop = self._end(Cause(CATCH, cpu, 0, exit, each), f"caught {each.what}")
                self.machine.all_cpus.end(cpu, stop)
                return False
        return True

    def _after(self, cpu: Cpu, exit: Exit) -> None:
        """An exit was served: of the instruction that is stepped? Then that is done, though KVM may make no step of it
        (run/stepping.py)."""
        if cpu is not self._stepping or not isinstance(exit, OF_AN_INSTRUCTION):
            return
        vcpu = cpu.vcpu
        vcpu.complete()
        if isinstance(vcpu.stored, Debug) and not vcpu.stored.dr6 & WATCHED:
            vcpu.stored = None
        if vcpu.stored is None:
            self.machine.all_cpus.end(cpu, self._end(Cause(STEP, cpu, cpu.at), f"a step to {cpu.at:#x}"))


def _inject(cpu: Cpu, vector: int) -> None:
    """An exception without an error code, which the guest takes as it goes on."""
    events = cpu.vcpu.get_vcpu_events()
    events.exception_injected, events.exception_nr, events.exception_has_error_code = 1, vector, 0
    cpu.vcpu.set_vcpu_events(events)

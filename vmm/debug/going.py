# SPDX-License-Identifier: GPL-2.0-or-later
"""Going on, until something stops it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from vmm.debug.legs import Cause
from vmm.debug.one_step import HLT, Did
from vmm.debug.slow_watch import Watched, slow
from vmm.debug.stops import Stops
from vmm.debug.values import BREAKPOINT, INTERRUPTED, PLAIN_STEP, STEP, WATCHPOINT, Break, Stopped
from vmm.errors import MissingCapability, UsageError
from vmm.machine.ends import Stop, Why
from vmm.observe.postmortem import readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vmm.machine.run.cpu import Cpu


class Going(Stops):
    """From one stop to the next."""

    def go(self, timeout: float | None = None, *, vcpus: Sequence[int] | None = None) -> Stopped:
        """Run until something stops it. `timeout` in seconds: it stops then, as by `interrupt`. With `vcpus`, the
        others stand still.

        Raises:
            UsageError: a breakpoint cannot be set.
            whatever a callback of the guest's exits, or a condition, raises.
        """
        self._begin()
        return self._go(self.breaks, timeout, vcpus)

    def until(self, where: int | str, timeout: float | None = None) -> Stopped:
        """Run until `where`, a symbol or linear address, or whatever stops it before; `timeout` in seconds.

        Raises:
            UsageError: there is no such place, or nothing that could run.
        """
        self._begin()
        here = self.break_at(where, temporary=True)
        try:
            return self._go(self.breaks, timeout)
        finally:
            if here in self.breaks:
                self.breaks.remove(here)

    def _go(self, breaks: list[Break], timeout: float | None, vcpus: Sequence[int] | None = None) -> Stopped:
        timer = None
        if timeout is not None:
            timer = threading.Timer(timeout, self._legs.interrupt)
            timer.daemon = True
            timer.start()
        try:
            while True:
                stopped = self._one_go(breaks, vcpus)
                if stopped is not None:
                    return stopped
        finally:
            if timer is not None:
                timer.cancel()
            self._forget()

    def _one_go(self, breaks: list[Break], vcpus: Sequence[int] | None) -> Stopped | None:
        """Off the breakpoints that vCPUs stand at, and on to the next. None: a condition was wrong."""
        if slow(breaks):
            only = [cpu for cpu in self._legs.members if vcpus is None or cpu.index in vcpus]
            return self._slow_go(breaks, only, lambda: False)
        run = self._legs.members if vcpus is None else [cpu for cpu in self._legs.members if cpu.index in vcpus]
        if not run:
            raise UsageError(f"vCPUs {list(vcpus or ())}: none of them runs")
        passed, first = self._off_breakpoints(breaks, run)
        if not passed:
            return first
        self._pass_caught()
        run = self._set_off(cpu for cpu in run if cpu in self._legs.members)
        end = self._legs.leg(breaks, run)
        return self._seen(end.stop, end.by, end.cause)

    def _off_breakpoints(self, breaks: list[Break], cpus: Sequence[Cpu]) -> tuple[bool, Stopped | None]:
        """Each of these vCPUs makes its next instruction if it stands where it has been told, and something is set. One
        that is left there would strike again at once, and stop the others before they have come anywhere.

        False: something else has ended it, which is this stop, or none where a condition was wrong.
        """
        placed = {each.address for each in breaks if each.enabled and each.kind == BREAKPOINT}
        stands = [cpu for cpu in cpus if cpu is not self._caught and self._stands_told(cpu, placed)]
        sleep = [cpu for cpu in stands if self.machine.irqchip != "none" and self._at_hlt(cpu)]
        for cpu in [*(cpu for cpu in stands if cpu not in sleep), *sleep]:
            run = cpus if cpu in sleep else [cpu]  # who wakes it may be one of the others
            did = self._steps.step(cpu, breaks, run, without=cpu.at)
            if self._others_go_on(did, cpus):
                continue
            if did.cause is None or did.cause.kind != STEP:
                return False, self._seen(did.stop, did.by, did.cause)
        return True, None

    def _others_go_on(self, did: Did, cpus: Sequence[Cpu]) -> bool:
        """A vCPU that ran alone has halted for good, and others of these have not: a run of all would go on."""
        return did.cause is None and did.stop.why is Why.HALT and any(cpu in self._legs.members for cpu in cpus)

    def _set_off(self, cpus: Iterable[Cpu]) -> list[Cpu]:
        """These vCPUs are about to run: where they come to has not been told."""
        run = list(cpus)
        for cpu in run:
            self._stood.pop(cpu.index, None)
        return run

    def _stands_told(self, cpu: Cpu, placed: set[int]) -> bool:
        if cpu.index not in self._stood or not placed:
            return False
        cpu.vcpu.complete()
        return cpu.at in placed and cpu.at == self._stood[cpu.index]

    def _slow_go(self, breaks: list[Break], cpus: list[Cpu], there: Callable[[], bool]) -> Stopped | None:
        """Steps of these vCPUs, one after the other, until what is watched changes, something else stops them, or they
        are `there`. None: a condition was wrong.
        """
        watched = Watched(self.machine, slow(breaks))
        at = {cpu.index: cpu.at for cpu in cpus}
        for cpu in cpus:
            if self._stood.get(cpu.index) != at[cpu.index]:  # a run's first instruction, or where a client has set RIP
                came = self._came_by_steps(breaks, cpu)
                if came is not None:
                    return came
        while True:
            for cpu in [cpu for cpu in cpus if cpu in self._legs.members]:
                self._pass_caught()
                asleep = self.machine.irqchip != "none" and self._at_hlt(cpu)
                run = self._legs.members if asleep else [cpu]  # who wakes it may be one of the others
                watched.before(cpu)
                try:
                    did = self._steps.step(cpu, breaks, run, without=at.pop(cpu.index, -1))
                except MissingCapability as error:
                    return self._stopped(INTERRUPTED, cpu, f"watching by steps ends here: {error.text}")
                changed = self._changed(cpu, watched)
                if changed is not None:
                    return changed
                if self._others_go_on(did, cpus):
                    continue
                if did.cause is None or did.cause.kind != STEP:
                    return self._seen(did.stop, did.by, did.cause, note=did.note)
                came = self._came_by_steps(breaks, cpu)
                if came is not None:
                    return came
                if there():
                    return self._stopped(STEP, cpu, PLAIN_STEP)

    def _at_hlt(self, cpu: Cpu) -> bool:
        self._finish_exit(cpu)
        return readable(self.machine, cpu.vcpu.look("sregs"), cpu.at, 1) == HLT

    def _came_by_steps(self, breaks: list[Break], cpu: Cpu) -> Stopped | None:
        """The stop at a breakpoint that is made by steps, where this vCPU is at one that counts."""
        at = cpu.at
        if not any(each.kind == BREAKPOINT and each.address == at for each in slow(breaks)):
            return None
        return self._seen(Stop(Why.DEBUG, f"a breakpoint at {at:#x}"), cpu, Cause(BREAKPOINT, cpu, at))

    def _changed(self, cpu: Cpu, watched: Watched) -> Stopped | None:
        """The stop that a change of what is watched is, if there was one."""
        for each, said in watched.changes():
            self.vcpu = cpu.index
            if self._counts(each):
                return self._stopped(WATCHPOINT, cpu, f"{each}: {said}", struck=each)
        return None

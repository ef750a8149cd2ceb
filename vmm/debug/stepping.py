# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps of one vCPU: instructions, calls as a whole, lines, to the end of a function. How one instruction is made on
this host is one_step.py's.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmm.debug.going import Going
from vmm.debug.slow_watch import Watched, slow
from vmm.debug.values import BREAKPOINT, PLAIN_STEP, STEP, Break, Stopped
from vmm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmm.machine.run.cpu import Cpu

RETURNS = ("ret", "retf", "retfq", "iretq", "iretd", "iret", "sysretq", "sysret")


class Stepping(Going):
    """The others stand still, unless they are asked for."""

    def step(self, n: int = 1, *, vcpu: int | None = None, others: bool = False) -> Stopped:
        """`n` instructions of one vCPU; the others stand still, unless `others`.

        Raises:
            MissingCapability: this host cannot step here, and nothing else can be done either; says why.
            UsageError: no such vCPU, or it does not run yet.
        """
        self._begin()
        if n < 1:
            raise UsageError(f"{n} steps: give 1 or more")
        cpu = self._cpu(vcpu)
        for _ in range(n):
            stopped = self._step(cpu, others)
            if stopped.why != STEP:
                break
        return stopped

    def step_range(self, first: int, last: int, *, vcpu: int | None = None, others: bool = False) -> Stopped:
        """Steps while the vCPU is at an address from `first` to before `last`, at least one."""
        self._begin()
        with self._several():
            stopped = self.step(vcpu=vcpu, others=others)
            while stopped.why == STEP and first <= stopped.where.address < last:
                stopped = self.step(vcpu=vcpu, others=others)
        return stopped

    def step_over(self, *, vcpu: int | None = None) -> Stopped:
        """One instruction; a CALL, and a string instruction with REP, as a whole. Errors as `step`."""
        self._begin()
        cpu = self._cpu(vcpu)
        here = self.where(cpu.index)
        word = here.instruction.split(" ")[0]
        if word == "call" or word.startswith("rep") or (word == "lcall"):
            return self._to(cpu, here.address + len(here.bytes), self._depth(cpu) if word.endswith("call") else None)
        return self._step(cpu, False)

    def step_line(self, *, vcpu: int | None = None, into: bool = False, most: int = 100_000) -> Stopped:
        """Instructions up to another source line; calls as a whole, unless `into`. Where there are no lines: one.
        `most` bounds the number of instructions. Errors as `step`.
        """
        self._begin()
        cpu = self._cpu(vcpu)
        begin = self.where(cpu.index)
        with self._several():
            stopped = self.step(vcpu=cpu.index) if into else self.step_over(vcpu=cpu.index)
            for _ in range(most):
                now = stopped.where
                other = now.file and (now.file, now.line) != (begin.file, begin.line)
                if stopped.why != STEP or not begin.file or other:
                    break
                stopped = self.step(vcpu=cpu.index) if into else self.step_over(vcpu=cpu.index)
        return stopped

    def finish(self, *, vcpu: int | None = None, most: int = 1_000_000) -> Stopped:
        """Until the function that this vCPU is in has returned: steps, calls as a whole, to its RET and over it. `most`
        bounds the number of instructions. Errors as `step`.
        """
        self._begin()
        cpu = self._cpu(vcpu)
        with self._several():
            for _ in range(most):
                word = self.where(cpu.index).instruction.split(" ")[0]
                stopped = self.step_over(vcpu=cpu.index)
                if stopped.why != STEP or word in RETURNS:
                    break
        return stopped

    @contextmanager
    def _several(self) -> Iterator[None]:
        self._inside = True
        try:
            yield
        finally:
            self._inside = False

    def _step(self, cpu: Cpu, others: bool) -> Stopped:
        if cpu not in self._legs.members:
            raise UsageError(
                f"vCPU {cpu.index} does not run: it {'has halted' if cpu.index in self.halted else 'was not started'}"
            )
        run = [cpu]
        if others:
            members = [each for each in self._legs.members if each is not cpu]
            passed, first = self._off_breakpoints(self.breaks, members)
            if first is not None:
                return first
            run += self._set_off(each for each in members if passed and each in self._legs.members)
        self._pass_caught()
        self._finish_exit(cpu)
        here = cpu.at
        watched = Watched(self.machine, slow(self.breaks))
        watched.before(cpu)
        did = self._steps.step(cpu, self.breaks, run, without=here)
        changed = self._changed(cpu, watched)
        if changed is not None:
            return changed
        came = self._came_by_steps(self.breaks, cpu) if did.cause and did.cause.kind == STEP else None
        stopped = came or self._seen(did.stop, did.by, did.cause, note=did.note)
        if stopped is None:  # a breakpoint whose condition was wrong: the step came to its place
            stopped = self._stopped(STEP, cpu, did.note or PLAIN_STEP)
        return stopped

    def _to(self, cpu: Cpu, address: int, depth: int | None) -> Stopped:
        """On to `address`, this vCPU alone, where its stack is no deeper than it was: a recursion comes there, too."""
        here = Break(0, BREAKPOINT, f"{address:#x}", address)
        while slow(self.breaks) or not self._strikes(here):
            stopped = self._slow_go(
                self.breaks, [cpu], lambda: cpu.at == address and (depth is None or self._depth(cpu) >= depth)
            )
            if stopped is not None:
                return stopped
        while True:
            if cpu.at != address:
                passed, first = self._off_breakpoints([*self.breaks, here], [cpu])
                if first is not None:
                    return first
                if not passed:
                    continue
            end = self._legs.leg([*self.breaks, here], [cpu], without=cpu.at)
            if end.cause and end.cause.kind == BREAKPOINT and end.cause.address == address and end.cause.cpu is cpu:
                if depth is not None and self._depth(cpu) < depth:
                    did = self._steps.step(cpu, self.breaks, [cpu], without=address)
                    if did.cause and did.cause.kind == STEP:
                        continue
                    return self._seen(did.stop, did.by, did.cause) or self._stopped(STEP, cpu, PLAIN_STEP)
                if not any(each.address == address and each.enabled for each in self.breaks):
                    return self._stopped(STEP, cpu, PLAIN_STEP)
            seen = self._seen(end.stop, end.by, end.cause)
            if seen is not None:
                return seen

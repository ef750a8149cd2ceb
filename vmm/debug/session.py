# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine under a debugger: breakpoints, steps, and a look at it while it stands still.

    with Machine() as m:
        m.load(text)
        s = Session(m)
        s.break_at("loop", when="rcx == 3")
        print(s.go())
        print(s.step())

A front end (the gdb server, the screen) holds the runs that others begin, such as a payload's host half:
`Session(machine, front=f)` is asked by Machine.run, with all vCPUs standing still, and f(session) says how it goes on.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmm.debug import conditions, places
from vmm.debug.abilities import Abilities, measure
from vmm.debug.history import History
from vmm.debug.legs import Cause, Legs
from vmm.debug.one_step import HLT, Steps
from vmm.debug.slow_watch import BY_STEPS, Watched, slow
from vmm.debug.values import (
    BEGIN,
    BREAKPOINT,
    CATCH,
    ENDED,
    FAULT,
    INTERRUPTED,
    STEP,
    WATCHPOINT,
    Break,
    Place,
    Stopped,
)
from vmm.debug.wanted import catcher
from vmm.errors import MissingCapability, UsageError
from vmm.kvm.exits import Exit
from vmm.kvm.state import Regs
from vmm.kvm.vcpu import HW_BREAKPOINTS, Watchpoint
from vmm.machine.ends import Result, Stop, Why
from vmm.machine.run.ring3_traps import NO_BREAKPOINTS
from vmm.machine.x86.registers import names as register_names
from vmm.machine.x86.virtual import read_virtual, translate, write_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vmm.asm.disassembler import Insn
    from vmm.asm.program import Program
    from vmm.machine.context import Context
    from vmm.machine.machine import Machine
    from vmm.machine.run.cpu import Cpu
    from vmm.machine.x86.page_walk import Translation

KILLED = "ended by the debugger"
KINDS = ("write", "read", "access")
RETURNS = ("ret", "retf", "retfq", "iretq", "iretd", "iret", "sysretq", "sysret")
MOST_STOPS = 10_000


class Session:
    """One machine's runs under a debugger. All methods are for the thread that runs the machine, but `interrupt`.

    `vcpu` is the index of the vCPU that is looked at; a stop selects its own. `stops` are all stops so far. `limit` is
    how long the guest may run between the begin and the end of a run, seconds; standing still does not count.
    `history` is how many bytes snapshots for `back` may take; 0 takes none.
    """

    def __init__(
        self,
        machine: Machine,
        program: Program | None = None,
        *,
        front: Callable[[Session], object] | None = None,
        limit: float | None = None,
        history: int = 256 << 20,
    ) -> None:
        if machine.holder is not None:
            raise UsageError("this machine has a debugger already")
        self.machine, self._program = machine, program
        self.front, self.limit = front, limit
        self.vcpu = 0
        self.breaks: list[Break] = []
        self.stops: list[Stopped] = []
        self.keep_interrupts = False
        """An `interrupt` that finds nothing running stops the next `go` as soon as it begins."""
        self.result: Result | None = None
        """Of the last run that has ended."""
        self._legs = Legs(machine)
        self._steps = Steps(self._legs)
        self._history = History(machine, history)
        self._numbers = 0
        self._stop_number = 0
        self._held = False
        self._detached = False
        self._inside = False  # one of several steps: an interrupt that came between two of them counts
        self._ended: tuple[Stop, Cpu | None] | None = None
        self._caught: Cpu | None = None
        self._before: dict[int, dict[str, int]] = {}
        self._stood: dict[int, int] = {}  # where each vCPU was at its last stop
        self._compiled: dict[str, object] = {}
        self._thread = threading.get_ident()
        machine.holder = self

    def close(self) -> None:
        """Let the machine go; its next run is as any other."""
        if self.machine.holder is self:
            self.machine.holder = None
        self._legs.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def program(self) -> Program | None:
        """The program whose labels and lines are meant."""
        return self._program or self.machine.program

    @property
    def can(self) -> Abilities:
        """What this host lets a debugger do; measured by the first who asks."""
        return measure(self.machine)

    # -- breakpoints

    def break_at(
        self,
        where: int | str,
        *,
        when: str | Callable[[Session], object] | None = None,
        hardware: bool = False,
        hits: int = 0,
        temporary: bool = False,
    ) -> Break:
        """Stop before the instruction at `where`: a label, `label+8`, an address, `file.asm:7`. `when` is a condition
        (conditions.py) or a callable(session); the first `hits` hits do not stop. `hardware` insists on a debug
        register; otherwise one is taken while there is room, and INT3 in guest memory, out of sight whenever the
        machine stands still, where there is none.

        Raises:
            UsageError: no such place, or a condition that is none.
        """
        address = places.address_of(self.program, where)
        what = where if isinstance(where, str) and not where.startswith(("0x", "*")) else f"{address:#x}"
        made = Break(0, BREAKPOINT, str(what), address, hardware=hardware, when=when, ignore=hits, temporary=temporary)
        return self._add(made)

    def watch(
        self,
        where: int | str,
        size: int = 8,
        kind: str = "write",
        *,
        when: str | Callable[[Session], object] | None = None,
        hits: int = 0,
    ) -> Break:
        """Stop after an instruction that writes ("write"), or reads or writes ("access") one of `size` bytes there. x86
        has no watchpoint for reads alone: "read" stops where an access left the bytes as they were.

        Raises:
            MissingCapability: watchpoints do not strike on this host, which is measured: what is left there is
                "write", by single-step (slow_watch.py; `how` is "step"), and that sees only what changes.
            UsageError: 1, 2, 4 or 8 bytes, aligned, is what a debug register can watch, and there are four.
        """
        if kind not in KINDS:
            raise UsageError(f"watching {kind!r}: choose write, read or access")
        address = places.address_of(self.program, where)
        _ = Watchpoint(address, size, kind != "write").control
        if not self.can.watchpoints:
            return self._watch_slowly(where, address, size, kind, when, hits)
        what = f"{where if isinstance(where, str) else hex(address)}, {size} bytes, {kind}"
        return self._add(Break(0, WATCHPOINT, what, address, size, kind, True, when, hits))

    def _watch_slowly(
        self, where: int | str, address: int, size: int, kind: str,
        when: str | Callable[[Session], object] | None, hits: int,
    ) -> Break:  # fmt: skip
        """By steps, where no debug register strikes: a change is what that can see."""
        if kind != "write" or not self.can.step_ring0:
            raise MissingCapability(
                f"a watchpoint for {kind}: KVM takes it on this host, and it never strikes",
                hint="kind='write': changes are seen by single-step",
            )
        what = f"{where if isinstance(where, str) else hex(address)}, {size} bytes, changes, by single-step"
        return self._add(Break(0, WATCHPOINT, what, address, size, kind, False, when, hits, how=BY_STEPS))

    def catch(
        self,
        *,
        exit: str | type[Exit] | None = None,
        port: int | tuple[int, int] | None = None,
        mmio: int | tuple[int, int] | None = None,
        msr: int | None = None,
        when: str | Callable[[Session], object] | None = None,
        hits: int = 0,
    ) -> Break:
        """Stop at an exit before it is served: of a kind (a class of vmm.kvm.exits or its name), at a port or an MMIO
        address (or a range: first and last), of an MSR. What KVM serves itself causes no exit, and is not caught.

        Raises:
            UsageError: not exactly one of them, or no such kind.
        """
        what, catches = catcher(self.machine, exit=exit, port=port, mmio=mmio, msr=msr)
        return self._add(Break(0, CATCH, what, when=when, ignore=hits, catches=catches, how="exit"))

    def _add(self, made: Break) -> Break:
        if isinstance(made.when, str):
            self._compiled[made.when] = conditions.parse(made.when)
        elif made.when is not None and not callable(made.when):
            raise UsageError(f"when={made.when!r}: give a condition as text, or a callable")
        self._numbers += 1
        made.number = self._numbers
        self.breaks.append(made)
        return made

    def remove(self, made: Break | int) -> None:
        """UsageError: there is no such breakpoint."""
        found = [each for each in self.breaks if each is made or each.number == made]
        if not found:
            raise UsageError(
                f"no breakpoint {made}: there are {', '.join(str(b.number) for b in self.breaks) or 'none'}"
            )
        self.breaks.remove(found[0])

    @property
    def too_many(self) -> str:
        """More than the debug registers take, in words; else nothing."""
        places = {each.address for each in self.breaks if each.enabled and each.hardware and each.kind == BREAKPOINT}
        watched = {(each.address, each.size) for each in self.breaks if each.kind == WATCHPOINT and each.how != "step"}
        many = len(places) + len(watched)
        return (
            f"{many} hardware breakpoints and watchpoints, and the CPU has {HW_BREAKPOINTS}"
            if many > HW_BREAKPOINTS
            else ""
        )

    def doubts(self, made: Break) -> list[str]:
        """What this host may keep a breakpoint from, as sentences."""
        if made.how == BY_STEPS:
            return [f"{made}: debug registers never strike on this host; it is slow, and sees changes alone"]
        if made.kind != BREAKPOINT or self.can.breakpoints_ring3:
            return []
        if not self.walk(made.address).user:
            return []
        return [f"{made.address:#x} is open to ring 3, where {NO_BREAKPOINTS}; in ring 0 they do"]

    # -- going on

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
        """Run until `where`, or whatever stops it before."""
        self._begin()
        here = self.break_at(where, temporary=True)
        try:
            return self._go(self.breaks, timeout)
        finally:
            if here in self.breaks:
                self.breaks.remove(here)

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
        """One instruction; a CALL, and a string instruction with REP, as a whole."""
        self._begin()
        cpu = self._cpu(vcpu)
        here = self.where(cpu.index)
        word = here.instruction.split(" ")[0]
        if word == "call" or word.startswith("rep") or (word == "lcall"):
            return self._to(cpu, here.address + len(here.bytes), self._depth(cpu) if word.endswith("call") else None)
        return self._step(cpu, False)

    def step_line(self, *, vcpu: int | None = None, into: bool = False, most: int = 100_000) -> Stopped:
        """Instructions up to another source line; calls as a whole, unless `into`. Where there are no lines: one."""
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
        """Until the function that this vCPU is in has returned: steps, calls as a whole, to its RET and over it."""
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

    def interrupt(self) -> None:
        """Stop what runs; from any thread. Nothing runs: nothing happens."""
        self._legs.interrupt()

    def kill(self) -> Stopped:
        """End the run here, as if the host had stopped it."""
        self._begin()
        return self._ends(Stop(Why.STOPPED, KILLED), None)

    def restart(self, saved: Context) -> None:
        """The machine as it was when this state was saved; the run goes on from there."""
        self.machine.restore(saved)
        self.machine.all_cpus.halted.clear()
        self._ended = self._caught = None
        self._stood = {}
        self.vcpu = 0

    def limit_from_now(self, seconds: float | None) -> None:
        """How long the guest may run from here; None: as long as it likes."""
        self._legs.limit = None if seconds is None else self._legs.wall + seconds

    def detach(self) -> None:
        """Let the guest run on without us: `front` is not asked any more in this run, and no breakpoint stops it."""
        self._detached = True

    def back(self, number: int = -1) -> Stopped:
        """Go back to an earlier stop of this run: its number, or -1 for the one before this. By snapshot, or from the
        nearest one before by steps, which must come to the same registers.

        Raises:
            UsageError: no such stop, or nothing was kept to come there.
        """
        stopped = self._history.back(number, self._again)
        self._returned(stopped)
        return stopped

    def _again(self, stopped: Stopped) -> None:
        """Make the step that led to this stop once more (history.py); nothing is noted."""
        cpu = self._cpu(stopped.vcpu)
        self._steps.step(cpu, [], [cpu], without=cpu.at)

    def _returned(self, stopped: Stopped) -> None:
        """The machine is what it was at this stop (history.py)."""
        self._ended = self._caught = None
        self.result = None
        self.vcpu = stopped.vcpu
        while self.stops and self.stops[-1] is not stopped:
            self.stops.pop()
        self._before = {cpu.index: self.registers(cpu.index) for cpu in self.machine.cpus}
        self._stood = {stopped.vcpu: stopped.where.address}

    def ending(self) -> Result:
        """How the run has ended, whose last stop says so: as Machine.run gives it to whoever began it.

        Raises:
            UsageError: it has not.
        """
        if self._ended is None:
            raise UsageError("the run has not ended")
        stop, by = self._ended
        return self.machine.conclude(stop, by, self._legs.wall)

    def ours(self, cpu: Cpu, exit: Exit) -> bool:
        """Is this exit the debugger's own doing, and not the guest's?"""
        return self._legs.ours(cpu, exit)

    # -- looking

    def where(self, vcpu: int | None = None) -> Place:
        """Where a vCPU is, of an instruction that it has not run."""
        cpu = self._cpu(vcpu)
        self._finish_exit(cpu)
        return places.place(self.machine, self.program, cpu.vcpu.get_sregs(), cpu.vcpu.get_regs().rip)

    def place(self, address: int, vcpu: int | None = None) -> Place:
        """What is at a linear address, as this vCPU sees it."""
        sregs = self._cpu(vcpu).vcpu.get_sregs()
        return places.place(self.machine, self.program, sregs, address - (0 if sregs.cs.l else sregs.cs.base))

    def address(self, where: int | str) -> int:
        """A label, an address or FILE:LINE as a linear address. UsageError: there is no such place."""
        return places.address_of(self.program, where)

    def registers(self, vcpu: int | None = None) -> dict[str, int]:
        """rax to r15, rip, rflags."""
        cpu = self._cpu(vcpu)
        self._finish_exit(cpu)
        regs = cpu.vcpu.get_regs()
        return {name: int(getattr(regs, name)) for name in Regs.__match_args__}

    def register(self, name: str) -> int | None:
        """Of the selected vCPU, by any name of Machine.regs; None where there is none of that name."""
        return int(getattr(self._cpu().regs, name)) if name in register_names() else None

    def set_register(self, name: str, value: int, *, vcpu: int | None = None) -> None:
        """UsageError: no such register, or the value does not fit."""
        setattr(self._cpu(vcpu).regs, name, value)

    @property
    def symbols(self) -> Mapping[str, int]:
        """The labels of the program."""
        return self.program.symbols if self.program else {}

    def read(self, va: int | str, size: int, *, vcpu: int | None = None) -> bytes:
        """Guest memory at a linear address, as this vCPU's page tables have it. GuestMemoryError: it is not mapped."""
        return read_virtual(self.machine.memory, self._cpu(vcpu).vcpu.get_sregs(), self.address(va), size)

    def write(self, va: int | str, data: bytes, *, vcpu: int | None = None) -> None:
        """Write guest memory; errors as `read`."""
        write_virtual(self.machine.memory, self._cpu(vcpu).vcpu.get_sregs(), self.address(va), data)

    def walk(self, va: int | str, *, vcpu: int | None = None) -> Translation:
        """The page walk of an address; where it fails is a value, too."""
        return translate(self.machine.memory, self._cpu(vcpu).vcpu.get_sregs(), self.address(va))

    def disassemble(self, va: int | str | None = None, n: int = 8, *, vcpu: int | None = None) -> list[Insn]:
        """`n` instructions from an address, or from where the vCPU is; fewer where memory ends."""
        sregs = self._cpu(vcpu).vcpu.get_sregs()
        address = self.where(vcpu).address if va is None else self.address(va)
        return places.instructions(self.machine, sregs, address, n)

    @property
    def running(self) -> bool:
        """A vCPU is in KVM_RUN, or nearly."""
        return self._legs.running

    @property
    def ended(self) -> bool:
        """The run is over; the next `go` begins another."""
        return self._ended is not None

    @property
    def halted(self) -> frozenset[int]:
        """vCPUs that have halted for good in this run."""
        return frozenset(self.machine.all_cpus.halted) if self._legs.begun else frozenset()

    # -- runs that others begin (machine.run.hold.Holder)

    def hold(
        self, active: Sequence[Cpu], limit: float | None, exit_limit: int | None
    ) -> tuple[Stop, Cpu | None, float]:
        """Machine.run asks: `front` is called until the run has ended, or it lets go."""
        self._open(active, limit if limit is not None else self.limit, exit_limit)
        self._held = True
        try:
            if self.front is not None:
                self._stopped(BEGIN, self.machine.cpus[0], "nothing has run yet")
                self.front(self)
            while self._ended is None:
                if not self._detached and self.front is not None:
                    raise UsageError("the debugger's front end gave a run up that has not ended")
                self._free()
            stop, by = self._ended
            return stop, by, self._legs.wall
        finally:
            self._held = False
            self._ended = None
            self._detached = False
            self._legs.limit = None

    def _free(self) -> None:
        """No debugger any more: the machine's own limit counts from here."""
        if self._legs.limit is None and self.machine.timeout is not None:
            self._legs.limit = self._legs.wall + self.machine.timeout
        self._go([], None)

    # -- legs

    def _open(self, active: Sequence[Cpu], limit: float | None, exit_limit: int | None) -> None:
        self._legs.begin(active, limit, exit_limit)
        self._ended = self._caught = None
        self.stops.clear()
        self._history.clear()
        self._before, self._stood = {}, {}
        self.result = None

    def _begin(self) -> None:
        """Before anything runs: of a run that nobody has begun, the begin."""
        if not self._inside:
            self._forget()
        if self._held:
            if self._ended is not None:
                raise UsageError(f"the run has ended: {self._ended[0].text}")
            return
        if self._ended is not None or (not self._legs.begun and not self.stops):
            self._open(self.machine.members(), self.limit, None)

    def _cpu(self, vcpu: int | None = None) -> Cpu:
        return self.machine._cpu(self.vcpu if vcpu is None else vcpu)

    def _finish_exit(self, cpu: Cpu) -> None:
        if cpu.thread_id is None:
            cpu.vcpu.complete()

    def _depth(self, cpu: Cpu) -> int:
        return cpu.vcpu.get_regs().rsp

    def _go(self, breaks: list[Break], timeout: float | None, vcpus: Sequence[int] | None = None) -> Stopped:
        self._forget()
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

    def _forget(self) -> None:
        if not self.keep_interrupts:
            self._legs.forget_interrupt()

    def _one_go(self, breaks: list[Break], vcpus: Sequence[int] | None) -> Stopped | None:
        """Off the breakpoint that the stopped vCPU is at, and on to the next. None: a condition was wrong."""
        if slow(breaks):
            only = [cpu for cpu in self._legs.members if vcpus is None or cpu.index in vcpus]
            return self._slow_go(breaks, only, lambda: False)
        first = self._off_a_breakpoint(breaks)
        if first is not None:
            return first
        self._pass_caught()
        run = self._legs.members if vcpus is None else [cpu for cpu in self._legs.members if cpu.index in vcpus]
        if not run:
            raise UsageError(f"vCPUs {list(vcpus or ())}: none of them runs")
        end = self._legs.leg(breaks, run)
        return self._seen(end.stop, end.by, end.cause)

    def _off_a_breakpoint(self, breaks: list[Break]) -> Stopped | None:
        for index in dict.fromkeys((self._last_vcpu, self.vcpu)):
            cpu = self.machine.cpus[index]
            if cpu not in self._legs.members or cpu is self._caught:
                continue
            cpu.vcpu.complete()
            at = cpu.at
            if self._stood.get(index) != at:
                continue  # it has not been told to stand here: what is set here strikes
            if not any(each.enabled and each.kind == BREAKPOINT and each.address == at for each in breaks):
                continue
            did = self._steps.step(cpu, breaks, [cpu], without=at)
            if did.cause is None or did.cause.kind != STEP:
                return self._seen(did.stop, did.by, did.cause)
        return None

    def _slow_go(self, breaks: list[Break], cpus: list[Cpu], there: Callable[[], bool]) -> Stopped | None:
        """Steps of these vCPUs, one after the other, until what is watched changes, something else stops them, or they
        are `there`. None: a condition was wrong.
        """
        watched = Watched(self.machine, slow(breaks))
        at = {cpu.index: cpu.at for cpu in cpus}
        while True:
            for cpu in [cpu for cpu in cpus if cpu in self._legs.members]:
                self._pass_caught()
                asleep = self.machine.irqchip != "none" and self.where(cpu.index).bytes == HLT
                run = self._legs.members if asleep else [cpu]  # who wakes it may be one of the others
                try:
                    did = self._steps.step(cpu, breaks, run, without=at.pop(cpu.index, -1))
                except MissingCapability as error:
                    return self._stopped(INTERRUPTED, cpu, f"watching by steps ends here: {error.text}")
                changed = self._changed(cpu, watched)
                if changed is not None:
                    return changed
                if did.cause is None or did.cause.kind != STEP:
                    return self._seen(did.stop, did.by, did.cause, note=did.note)
                if there():
                    return self._stopped(STEP, cpu, "a step")

    def _changed(self, cpu: Cpu, watched: Watched) -> Stopped | None:
        """The stop that a change of what is watched is, if there was one."""
        for each, said in watched.changes():
            self.vcpu = cpu.index
            if self._counts(each):
                return self._stopped(WATCHPOINT, cpu, f"{each}: {said}", struck=each)
        return None

    def _counts(self, each: Break) -> bool:
        """It struck: does that stop the guest?"""
        if not self._holds(each):
            return False
        each.hits += 1
        return each.hits > each.ignore

    @property
    def _last_vcpu(self) -> int:
        return self.stops[-1].vcpu if self.stops else 0

    def _pass_caught(self) -> None:
        if self._caught is not None:
            self._legs.let_pass(self._caught)
            self._caught = None

    def _step(self, cpu: Cpu, others: bool) -> Stopped:
        if cpu not in self._legs.members:
            raise UsageError(
                f"vCPU {cpu.index} does not run: it {'has halted' if cpu.index in self.halted else 'was not started'}"
            )
        self._pass_caught()
        run = self._legs.members if others else [cpu]
        self._finish_exit(cpu)
        here = cpu.at
        watched = Watched(self.machine, slow(self.breaks))
        did = self._steps.step(cpu, self.breaks, run, without=here)
        changed = self._changed(cpu, watched)
        if changed is not None:
            return changed
        stopped = self._seen(did.stop, did.by, did.cause, note=did.note)
        if stopped is None:  # a breakpoint whose condition was wrong: the step came to its place
            stopped = self._stopped(STEP, cpu, did.note or "a step")
        return stopped

    def _to(self, cpu: Cpu, address: int, depth: int | None) -> Stopped:
        """On to `address`, this vCPU alone, where its stack is no deeper than it was: a recursion comes there, too."""
        here = Break(0, BREAKPOINT, f"{address:#x}", address)
        while slow(self.breaks):
            stopped = self._slow_go(
                self.breaks, [cpu], lambda: cpu.at == address and (depth is None or self._depth(cpu) >= depth)
            )
            if stopped is not None:
                return stopped
        while True:
            first = self._off_a_breakpoint([*self.breaks, here]) if cpu.at != address else None
            if first is not None:
                return first
            end = self._legs.leg([*self.breaks, here], [cpu], without=cpu.at)
            if end.cause and end.cause.kind == BREAKPOINT and end.cause.address == address and end.cause.cpu is cpu:
                if depth is not None and self._depth(cpu) < depth:
                    did = self._steps.step(cpu, self.breaks, [cpu], without=address)
                    if did.cause and did.cause.kind == STEP:
                        continue
                    return self._seen(did.stop, did.by, did.cause) or self._stopped(STEP, cpu, "a step")
                if not any(each.address == address and each.enabled for each in self.breaks):
                    return self._stopped(STEP, cpu, "a step")
            seen = self._seen(end.stop, end.by, end.cause)
            if seen is not None:
                return seen

    # -- what a leg's end means

    def _seen(self, stop: Stop, by: Cpu | None, cause: Cause | None, note: str = "") -> Stopped | None:
        """The stop that a leg's end is; None where it is none: a condition is wrong, or hits are let pass."""
        if cause is None:
            if stop.why is Why.HALT and self._legs.members:
                cpu = by or self.machine.cpus[self.vcpu]
                return self._stopped(STEP, cpu, f"vCPU {cpu.index} has halted, and others have not")
            return self._ends(stop, by)
        if cause.kind == INTERRUPTED:
            self._legs.forget_interrupt()
            return self._stopped(INTERRUPTED, by or self.machine.cpus[self.vcpu], "interrupted")
        cpu = cause.cpu or self.machine.cpus[self.vcpu]
        if cause.kind == STEP:
            return self._stopped(STEP, cpu, note or "a step", exit=cause.exit)
        if cause.kind == CATCH:
            self._caught = cpu
        struck = self._struck(cause)
        self.vcpu, before = cpu.index, self.vcpu
        for each in struck:
            if self._holds(each):
                each.hits += 1
                if each.hits > each.ignore:
                    if each.temporary and each in self.breaks:
                        self.breaks.remove(each)
                    return self._stopped(cause.kind, cpu, str(each), struck=each, exit=cause.exit)
        self.vcpu = before
        if cause.kind == BREAKPOINT:
            self._stood[cpu.index] = cause.address  # it goes on from here, and off it
        return None

    def _struck(self, cause: Cause) -> list[Break]:
        if cause.catch is not None:
            return [cause.catch]
        kind, at = cause.kind, cause.address
        return [each for each in self.breaks if each.kind == kind and each.address == at and each.enabled]

    def _holds(self, each: Break) -> bool:
        if each.when is None:
            return True
        if isinstance(each.when, str):
            return bool(conditions.evaluate(self._compiled[each.when], self))  # type: ignore[arg-type]
        return bool(each.when(self))

    def _ends(self, stop: Stop, by: Cpu | None) -> Stopped:
        cpu = by or self.machine.cpus[self.vcpu]
        self._ended = stop, by
        result = None
        if not self._held:
            result = self.result = self.machine.conclude(stop, by, self._legs.wall)
        return self._stopped(FAULT if stop.crashed else ENDED, cpu, stop.text, exit=stop.exit, result=result)

    def _stopped(
        self, why: str, cpu: Cpu, text: str, *, struck: Break | None = None, exit: Exit | None = None,
        result: Result | None = None,
    ) -> Stopped:  # fmt: skip
        self.vcpu = cpu.index
        now = self.registers(cpu.index)
        before = self._before.get(cpu.index, now)
        self._before[cpu.index] = now
        changed = {name: (before[name], value) for name, value in now.items() if before[name] != value}
        self._stop_number += 1
        number = self._stop_number
        stopped = Stopped(number, why, cpu.index, self.where(cpu.index), text, struck, exit, result, changed)
        self._stood[cpu.index] = stopped.where.address
        self.stops.append(stopped)
        if len(self.stops) > MOST_STOPS:
            del self.stops[: MOST_STOPS // 10]
        self._history.note(stopped, caught=self._caught is not None)
        return stopped

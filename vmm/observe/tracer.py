# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches machines and tells what it sees as records (trace.py). It keeps none: memory stays bounded."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from vmm.asm.disassembler import disassemble
from vmm.base.record import replace
from vmm.kvm.exits import Debug, Exit
from vmm.machine.bus.platform import Platform
from vmm.machine.ends import Result, Step, Stop
from vmm.machine.machine import Machine
from vmm.machine.run.cpu import Cpu
from vmm.machine.run.handle import handle
from vmm.observe.changes import changes
from vmm.observe.events import Events
from vmm.observe.location import Site, Sites
from vmm.observe.postmortem import readable
from vmm.observe.trace import Claim, Event, Exited, Made, Note, Record, Run, Stopped

LOADS_RFLAGS = ("iret", "iretq", "iretd", "popf", "popfq", "sysretq", "sysret")
MANY_SYMBOLS = 10_000
PATIENCE = 1.0  # seconds: a callback that waits for another vCPU must not wait for ever because of us


class Tracer:
    """Gives every record to `emit`, one at a time. `step`: every instruction is an exit (KVM's single-step).

    While one exit is handled, the others wait: the order of the records is that in which devices were asked.
    """

    def __init__(self, emit: Callable[[Record], object], *, step: bool = False) -> None:
        self._emit = emit
        self.step = step
        self.exits = 0
        self._guests = 0
        self._begin = time.monotonic_ns()
        self._lock = threading.RLock()
        self._serving = False
        self._notes: deque[Note | Event] = deque()

    def now(self) -> int:
        """Nanoseconds since the first guest was ready to run."""
        return time.monotonic_ns() - self._begin

    def emit(self, record: Record) -> None:
        with self._lock:
            self._flush()
            self._emit(record)

    def say(self, note: Note | Event) -> None:
        """A note or an event, from any thread: after the exit that is being handled. Never waits: who speaks may be
        waited for.
        """
        self._notes.append(note)
        if self._lock.acquire(blocking=False):
            try:
                if not self._serving:
                    self._flush()
            finally:
                self._lock.release()

    def _flush(self) -> None:
        while self._notes:
            self._emit(self._notes.popleft())

    def attach(
        self, machine: Machine, payload: str, params: dict[str, int], results: Callable[[], dict[str, int | None]]
    ) -> None:
        """Watch this machine from now on. `results` are read when a run has ended."""
        number, self._guests = self._guests, self._guests + 1
        if not number:
            disassemble(b"\x90", 0)  # load the disassembler now, and not inside the first exit
            self._begin = time.monotonic_ns()
        made = Made(
            guest=number,
            t=self.now(),
            payload=payload,
            params=dict(params),
            ids=tuple(cpu.vcpu.id for cpu in machine.cpus),
            memory=machine.memory.size,
            irqchip=machine.irqchip,
            strict=machine.platform.ports.strict,
            console_limit=machine.sink.limit,
            symbols=_symbols(machine),
            board=machine.board.name,
        )
        self.emit(made)
        watch = _Watch(self, machine, number, results)
        if self.step:
            machine.debugger.begin_stepping(machine.note)
            assert machine.debugger.steps is not None
            machine.debugger.steps.entered = watch.events.entered
        watch.events.listen()
        machine.watcher = watch

    def serve(self, watch: _Watch, cpu: Cpu, exit: Exit, platform: Platform) -> Step:
        """Handle an exit and tell of it."""
        locked = self._lock.acquire(timeout=PATIENCE)
        try:
            self._serving = True
            t = self.now()
            site, changed = watch.sites.of(cpu, exit), watch.changed(cpu, exit)
            if self.step:
                if watch.check_stepping(cpu, exit, site.insn, t):
                    changed = ()  # of more than this instruction
                site = watch.stepped(cpu, exit) or site
            printed = watch.machine.sink.length
            step = handle(exit, platform)
            told = replace(step, exit=None) if isinstance(step, Stop) else step
            console = watch.machine.sink.since(printed)
            self.exits += 1
            self._emit(
                Exited(
                    self.exits, watch.number, t, cpu.index, exit, site.rip, site.at, site.insn, told, console,
                    site.source, changed,
                )
            )  # fmt: skip
            if self.step:
                watch.events.waiting(cpu)
            return step
        finally:
            self._serving = False
            self._flush()
            if locked:
                self._lock.release()


class _Watch:
    """A tracer's eyes on one machine (machine.Watcher)."""

    def __init__(
        self, tracer: Tracer, machine: Machine, number: int, results: Callable[[], dict[str, int | None]]
    ) -> None:
        self._tracer, self.machine, self.number, self._results = tracer, machine, number, results
        self.sites = Sites(machine)
        self.events = Events(machine, number, tracer.now, tracer.say)
        self._stepped: dict[int, tuple[str, int | None]] = {}  # vCPU -> what loads RFLAGS next, and where it goes

    def begin(self, active: Sequence[Cpu]) -> None:
        platform = self.machine.platform
        self._tracer.emit(
            Run(
                guest=self.number,
                t=self._tracer.now(),
                active=(0, *(cpu.index for cpu in active)),
                claims=tuple(claims(platform)),
                msr_reads=tuple(platform.msr_reads),
                msr_writes=tuple(platform.msr_writes),
                hypercalls=tuple(platform.hypercalls),
            )
        )

    def serve(self, cpu: Cpu, exit: Exit, platform: Platform) -> Step:
        return self._tracer.serve(self, cpu, exit, platform)

    def note(self, text: str) -> None:
        self._tracer.say(Note(self.number, self._tracer.now(), text))

    def ended(self, result: Result) -> None:
        stop = result.stop
        self._tracer.emit(
            Stopped(
                guest=self.number,
                t=self._tracer.now(),
                why=stop.why,
                text=stop.text,
                code=stop.code,
                cpu=result.vcpu,
                results=self._results(),
                wall=int(result.wall * 1e9),
            )
        )

    def check_stepping(self, cpu: Cpu, exit: Exit, insn: str, t: int) -> bool:
        """Say where single-step got lost: KVM steps by RFLAGS.TF, which some instructions load anew. True: here."""
        before, target = self._stepped.pop(cpu.index, ("", None))
        lost = bool(before) and not (isinstance(exit, Debug) and target in (None, exit.pc))
        if lost:
            text = f"vCPU {cpu.index}: single-step was lost at `{before}`, which loads RFLAGS"
            self._tracer.emit(Note(self.number, t, f"{text}; what ran from there until here is not traced"))
        if isinstance(exit, Debug) and insn.split(" ")[0] in LOADS_RFLAGS:
            self._stepped[cpu.index] = insn, self._returns_to(cpu, insn)
        return lost

    def changed(self, cpu: Cpu, exit: Exit) -> tuple[tuple[str, int, int], ...]:
        """What the instruction that was stepped did to the registers; of other exits it is not through yet."""
        steps = self.machine.debugger.steps if self._tracer.step and isinstance(exit, Debug) else None
        before = steps.before.get(cpu.index) if steps is not None else None
        if before is None:
            return ()
        return changes(before, (cpu.vcpu.get_regs(), cpu.vcpu.get_sregs()))

    def stepped(self, cpu: Cpu, exit: Exit) -> Site | None:
        """The instruction that a step ran, where it is known; the exit itself tells the next one."""
        steps = self.machine.debugger.steps
        at = steps.at.get(cpu.index) if steps is not None else None
        return self.sites.at(cpu, at) if isinstance(exit, Debug) and at is not None else None

    def _returns_to(self, cpu: Cpu, insn: str) -> int | None:
        """Where an IRETQ goes; None where that is not known."""
        if insn != "iretq":
            return None
        regs, sregs = cpu.vcpu.get_regs(), cpu.vcpu.get_sregs()
        frame = readable(self.machine, sregs, regs.rsp, 8)
        return int.from_bytes(frame, "little") if len(frame) == 8 else None


def _symbols(machine: Machine) -> dict[str, int]:
    """The labels of its program. Of an image with many, none: each exit has its own in words, a line has a limit."""
    symbols = machine.program.symbols if machine.program else {}
    return dict(symbols) if len(symbols) <= MANY_SYMBOLS else {}


def claims(platform: Platform) -> Iterator[Claim]:
    """Everybody who answers on a platform's buses, in the order of addresses."""
    for space, bus in (("port", platform.ports), ("mmio", platform.mmio)):
        for way, rows in (("r", bus.readers), ("w", bus.writers)):
            for row in rows:
                yield Claim(space, way, row.base, row.stop - row.base, row.name)

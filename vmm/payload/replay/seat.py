# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest of a replay: a machine without a VM, its devices and hooks, and the record standing in for what is missing.

It knows one guest and its runs; the trace as a whole, and the verdict on it, are replay.py's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from vmm.asm.program import Program
from vmm.base.record import replace
from vmm.errors import HostError, UsageError
from vmm.machine.boards.own import OwnBoard
from vmm.machine.bus.platform import Platform
from vmm.machine.devices.sink import Sink
from vmm.machine.ends import GO_ON, Result, Resume, Step, Stop, Why
from vmm.machine.memory.layout import REGIONS
from vmm.machine.run.handle import handle
from vmm.machine.run.hooks import Hooks
from vmm.machine.run.lean import LeanLane
from vmm.observe.trace import Claim, Exited, Made, Run, Stopped
from vmm.observe.tracer import claims
from vmm.payload.catalog import Payload
from vmm.payload.guest import AnyGuest, assemble
from vmm.payload.header import ResultSlot
from vmm.payload.options import Options

HOST_ENDS = frozenset({Why.TIME_LIMIT, Why.EXIT_LIMIT, Why.STOPPED, Why.INTERRUPTED})


class NotInTrace(Exception):
    """A host half asks for what a trace does not hold: memory, registers, the VM."""


class ReplayMachine(Hooks):
    """As much of a Machine as a host half's hooks need. Anything else is NotInTrace."""

    def __init__(self, made: Made, end: Callable[[Stop], object]) -> None:
        self.sink = Sink(made.console_limit)
        irq = (lambda gsi, level: None) if made.irqchip == "kernel" else None
        if made.board == OwnBoard.name:
            board = OwnBoard(self.sink, end, strict=made.strict, irq=irq)
            self.uart, self.scratch = board.uart, board.scratch
            platform = board.platform
        else:  # clocks and timers answer there: the record stands in for all of its devices
            platform = Platform(strict=made.strict)
        super().__init__(platform, LeanLane(platform, self.sink), None)
        self.irqchip = made.irqchip
        self.program = Program(made.payload, REGIONS["code"].base, b"", made.symbols, ())

    def note(self, text: str) -> None:
        """The record has it."""

    def __getattr__(self, name: str) -> Any:
        raise NotInTrace(f"machine.{name}")


class ReplayGuest(AnyGuest):
    """A guest whose results come from the record."""

    def __init__(self, payload: Payload, made: Made, machine: Any) -> None:
        params = {name: made.params.get(name, row.default) for name, row in payload.header.params.items()}
        super().__init__(payload, Options(), params, machine.program)
        self.machine = machine
        self.stored: dict[str, int | None] = {}

    def constant(self, name: str) -> int:
        """A trace has the labels' addresses alone; it also has the text, which gives the constants again."""
        if self.payload.text is None:
            raise NotInTrace(f"guest.constant({name!r})")
        try:
            return assemble(self.payload, self.params).constant(name)
        except HostError as error:  # no assembler here
            raise NotInTrace(f"guest.constant({name!r}): {error.text}") from error

    def value(self, slot: ResultSlot) -> int | None:
        return next((self.stored.get(name) for name, each in self.header.results.items() if each is slot), None)


class Seat:
    """One guest of a replay. `refuse` makes the error for a record that cannot be."""

    def __init__(self, refuse: Callable[[str], Exception], made: Made, payload: Payload, *, step: bool) -> None:
        self._refuse, self._made = refuse, made
        self.machine = ReplayMachine(made, self._end)
        self.guest = ReplayGuest(payload, made, self.machine)
        self.result: Result | None = None
        self.took = 0
        self._ends: list[tuple[Stop, int | None]] = []
        self._working: set[int] | None = None  # vCPUs of the run that have not halted
        self._cpu = 0
        self._answer = b""
        self._said: Resume | Stop = GO_ON
        if step:
            self.machine.platform.on_debug.append(lambda exit: GO_ON)

    # -- a run

    def begin(self, run: Run) -> None:
        """A run that has no Stopped before the next begins ended by an error, which the record does not hold."""
        self._working, self._ends, self.took = set(run.active), [], 0
        platform = self.machine.platform
        there = {(row.space, row.way, row.base, row.size) for row in claims(platform)}
        told = {(row.space, row.way, row.base, row.size) for row in run.claims}
        for space, way, base, size in sorted(there - told):
            raise self._refuse(f"the record has nobody at {space} {base:#x} (+{size}, {way}), and this pyvmm has")
        for claim in run.claims:
            if (claim.space, claim.way, claim.base, claim.size) not in there:
                self._stand_in(claim)
        for index in run.msr_reads:
            platform.msr_reads.setdefault(index, self._recorded_int)
        for index in run.msr_writes:
            platform.msr_writes.setdefault(index, lambda value: self._recorded_int() is not None)
        for nr in run.hypercalls:
            platform.hypercalls.setdefault(nr, lambda *args: self._recorded_int() or 0)

    def cannot_take(self, record: Exited) -> str:
        """Why this exit cannot be the guest's; empty if it can."""
        if self._working is None:
            return f"guest {record.guest} is not running"
        return "" if 0 <= record.cpu < len(self._made.ids) else f"guest {record.guest} has no vCPU {record.cpu}"

    def handle(self, record: Exited) -> Step:
        self._cpu, self._said, self.took = record.cpu, record.step, 0
        reply = record.step.reply if isinstance(record.step, Resume) else None
        self._answer = reply if isinstance(reply, bytes) else b""
        step = handle(record.exit, self.machine.platform)
        if isinstance(step, Stop):
            self._halt_or_end(replace(step, exit=None))
        return step

    def ended(self, stopped: Stopped) -> None:
        if self._working is None:
            raise self._refuse(f"guest {stopped.guest} is not running")
        stop = Stop(stopped.why, stopped.text, code=stopped.code)
        by_host = stop.why in HOST_ENDS or self.took  # a callback that is not there may have ended it, at this exit
        if not by_host and all(each != stop for each, _ in self._ends):
            said = "; ".join(each.text for each, _ in self._ends) or "none of its exits ends it"
            raise self._refuse(f"the record says that the run ended because {stop.text}; by its exits: {said}")
        self._working = None
        self.guest.stored = stopped.results
        sink, nothing = self.machine.sink, Counter[str]()
        self.result = self.guest.result = Result(stop, stopped.cpu, sink.data, stopped.wall / 1e9, nothing, {}, 0)

    def _end(self, stop: Stop) -> None:
        self._ends.append((stop, self._cpu))

    def _halt_or_end(self, stop: Stop) -> None:
        """As AllCpus.finish: a HLT ends the run when it is the last one."""
        if stop.why is Why.HALT and self._working is not None:
            self._working.discard(self._cpu)
            if self._working:
                return
        self._end(stop)

    # -- standing in

    def _stand_in(self, claim: Claim) -> None:
        bus = self.machine.platform.ports if claim.space == "port" else self.machine.platform.mmio
        try:
            if claim.way == "r":
                bus.claim_reads(claim.base, claim.size, "the record", self._recorded)
            else:
                bus.claim_writes(claim.base, claim.size, "the record", self._accepted)
        except UsageError as error:
            raise self._refuse(error.text) from error

    def _recorded(self, _offset: int, size: int) -> int:
        """The next `size` bytes of the recorded answer."""
        self.took = 1
        data, self._answer = self._answer[:size], self._answer[size:]
        if len(data) < size:
            raise ValueError("the record has no answer for it")
        return int.from_bytes(data, "little")

    def _accepted(self, _offset: int, _size: int, _value: int) -> None:
        self.took = 1

    def _recorded_int(self) -> int | None:
        self.took = 1
        reply = self._said.reply if isinstance(self._said, Resume) else None
        return reply if isinstance(reply, int) else None

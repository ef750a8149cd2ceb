# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace handled again without a device: every exit goes through `handle` and the same devices, and what comes of
it must be what the record says. It runs no guest code; guest memory and registers it does not have.

What a host half hooks is hooked again by its `setup`, where that needs no vCPU and no memory. Everything else that
answered then is stood in for by the record, and counted: it is shown, and not proven again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from vmm.abi.x86 import PAGE
from vmm.base.record import replace
from vmm.errors import (
    EXIT_CANNOT_SHOW,
    EXIT_FAIL,
    EXIT_HOST,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    VmmError,
)
from vmm.kvm.exits import Exit, MmioRead, MmioWrite, PortIn, PortOut
from vmm.machine.ends import Step, Stop
from vmm.observe.left import Left
from vmm.observe.trace import End, Event, Exited, Made, Note, Record, Run, Stopped, Trace, TraceError, read
from vmm.payload.catalog import Payload, find, shipped
from vmm.payload.endings import debug_exit_status
from vmm.payload.half import HostHalf
from vmm.payload.header import Header, parse
from vmm.payload.outcome import EXIT_CODES, Outcome
from vmm.payload.replay.recorder import INTERRUPTED
from vmm.payload.replay.seat import NotInTrace, Seat
from vmm.payload.run import conclude, judge

MAX_MMIO = 8


@dataclass(frozen=True)
class Replayed:
    """What a replay found. `outcome` is the record's, and where `judged`, found again. Of the exits that were `handled`
    again, `taken` had an answer only from the record. `notes` say what was not done.
    """

    trace: Trace
    outcome: Outcome
    exit_code: int
    handled: int
    taken: int
    judged: bool
    notes: tuple[str, ...]


def replay(path: str) -> Replayed:
    """Check a trace as a whole, then handle it again.

    Raises:
        TraceError: it is no whole trace, or an exit's handling gives something else than the record; with the line.
    """
    for _ in read(path):  # a trace that is damaged anywhere is handled nowhere
        pass
    player = Player(path)
    for line, record in read(path):
        player.play(line, record)
    assert player.replayed is not None  # read() saw to it that an End comes
    return player.replayed


@dataclass
class Player:
    """Plays one trace. `replayed` is there after its last line."""

    path: str
    replayed: Replayed | None = None
    _line: int = 0
    _trace: Trace | None = None
    _payload: Payload | None = None
    _half: HostHalf | None = None
    _guests: list[Seat] = field(default_factory=list)
    _seq: int = 0
    _taken: int = 0
    _notes: list[str] = field(default_factory=list)

    def play(self, line: int, record: Record) -> None:
        """One record, in order."""
        self._line = line
        match record:
            case Trace():
                self._begin(record)
            case Made():
                self._make(record)
            case Run():
                self._seat(record.guest).begin(record)
            case Exited():
                self._exit(record)
            case Stopped():
                self._seat(record.guest).ended(record)
            case End():
                self._end(record)
            case Note() | Event() | Left():
                pass

    def refuse(self, text: str) -> TraceError:
        return TraceError(self.path, self._line, text)

    def _begin(self, trace: Trace) -> None:
        self._trace = trace
        if trace.text is not None and hashlib.sha256(trace.text.encode("utf-8", "replace")).hexdigest() != trace.sha256:
            raise self.refuse("the payload's text is not the one that its sum is of")
        try:
            header = Header() if trace.text is None else parse(trace.text, self.path)
        except VmmError as error:
            raise self.refuse(f"the payload's header: {error}") from error
        self._payload = Payload(trace.payload, trace.payload, "", header, text=trace.text)
        if trace.shipped:
            own = find(trace.payload) if trace.payload in shipped() else None
            if own is not None and own.text == trace.text:  # only what this pyvmm ships is ever imported
                self._payload, self._half = own, own.host_half()
            else:
                self._notes.append(f"this pyvmm has another {trace.payload}: its host half was left out")

    def _make(self, made: Made) -> None:
        if made.guest != len(self._guests) or not made.ids or made.console_limit < 0:
            raise self.refuse("this guest cannot be")
        assert self._payload is not None  # read() saw to it that the Trace comes first
        assert self._trace is not None
        own = made.payload == self._payload.name
        payload = self._payload if own else Payload(made.payload, made.payload, "", Header())
        seat = Seat(self.refuse, made, payload, step=self._trace.step)
        setup = self._half.setup if own and self._half else None
        if setup:
            try:
                setup(seat.guest)
            except Exception as error:  # it was written for a machine that is there
                self._notes.append(f"the host half's setup needs {_first_line(error)}: its answers are the record's")
                seat = Seat(self.refuse, made, payload, step=self._trace.step)
                self._half = None
        self._guests.append(seat)

    def _seat(self, number: int) -> Seat:
        if not 0 <= number < len(self._guests):
            raise self.refuse(f"guest {number} was never made")
        return self._guests[number]

    def _exit(self, record: Exited) -> None:
        self._seq += 1
        if record.seq != self._seq:
            raise self.refuse(f"exit {record.seq} comes where exit {self._seq} should")
        seat = self._seat(record.guest)
        if wrong := _impossible(record.exit) or seat.cannot_take(record):
            raise self.refuse(wrong)
        printed = seat.machine.sink.length
        try:
            step = seat.handle(record)
        except NotInTrace:
            self._taken += 1
            seat.took = 1
            seat.machine.sink.write(record.console[seat.machine.sink.length - printed :])
            return
        except Exception as error:  # of a device, or of a host half
            raise self.refuse(f"handling this exit fails: {_first_line(error)}") from error
        self._taken += seat.took
        told = replace(step, exit=None) if isinstance(step, Stop) else step
        if told != record.step:
            raise self.refuse(f"the record says {_words(record.step)}, and handling the exit gives {_words(told)}")
        console = seat.machine.sink.since(printed)
        if seat.took and not console:
            seat.machine.sink.write(record.console)  # what a callback printed that is not there
        elif console != record.console:
            raise self.refuse(
                f"the record says that the exit printed {record.console!r:.60}, and it prints {console!r:.60}"
            )

    def _end(self, end: End) -> None:
        if end.recorded != self._seq:
            raise self.refuse(f"{end.recorded} exits should be in the trace, and {self._seq} are")
        codes: dict[str, tuple[int, ...]] = {name: (code,) for name, code in EXIT_CODES.items()}
        codes[INTERRUPTED] = (EXIT_INTERRUPTED,)
        codes["error"] = (EXIT_FAIL, EXIT_USAGE, EXIT_CANNOT_SHOW, EXIT_HOST)  # by who can do something about it
        last = self._guests[-1].result if self._guests else None
        by_guest = debug_exit_status(last.stop) if last else None
        if end.exit_code not in codes.get(end.outcome, ()) and by_guest != end.exit_code:
            raise self.refuse(f"outcome {end.outcome!r:.40} with exit status {end.exit_code} cannot be")
        for name in (*end.results, *end.exits):
            if not (name.isascii() and name.isidentifier()):
                raise self.refuse(f"{name!r:.40} cannot be a name")
        assert self._trace is not None
        judged = self._judge(end)
        outcome = Outcome(
            payload=self._trace.payload,
            outcome=end.outcome,
            reason=end.reason,
            console=self._guests[0].machine.sink.data if self._guests else b"",
            results=end.results,
            failures=end.failures,
            evidence=end.evidence,
            exits=end.exits,
            unclaimed=end.unclaimed,
            wall_ms=end.wall_ms,
            postmortem=end.postmortem,
        )
        self.replayed = Replayed(
            self._trace, outcome, end.exit_code, self._seq, self._taken, judged, tuple(self._notes)
        )

    def _judge(self, end: End) -> bool:
        """Come to the outcome again, from what was handled. False where that cannot be done; the note says why."""
        if end.dropped:
            self._notes.append(f"the outcome is the record's: {end.dropped} exits came after the file's size limit")
            return False
        if self._half is not None and self._half.prove:
            self._notes.append("the outcome is the record's: a proof measures guest memory and time")
            return False
        if self._half is None and (end.failures or end.evidence):
            self._notes.append("the outcome is the record's: the check of its host half is not in the trace")
            return False
        seat = self._guests[-1] if self._guests else None
        if seat is None or seat.result is None or end.outcome in (INTERRUPTED, "error"):
            self._notes.append("the outcome is the record's: no run came to its end")
            return False
        seat.guest.stored = end.results
        try:
            found = conclude(seat.guest, seat.result, self._half)
        except NotInTrace as error:
            found = judge(seat.result, seat.guest.header.ends)
            if found[0] == "pass" or found == (end.outcome, end.reason):
                self._notes.append(f"the outcome is the record's: the host half's check needs {error}")
                return False
        if found != (end.outcome, end.reason):
            raise self.refuse(
                f"the record says {end.outcome} ({end.reason}), and the exits give {found[0]} ({found[1]})"
            )
        return True


def _impossible(exit: Exit) -> str:
    """Why KVM never gives such an exit; empty if it may."""
    match exit:
        case PortIn(port, size, count):
            sound = port in range(1 << 16) and size in (1, 2, 4) and 0 < count * size <= PAGE
        case PortOut(port, size, data):
            sound = port in range(1 << 16) and size in (1, 2, 4) and 0 < len(data) <= PAGE and not len(data) % size
        case MmioRead(address, size):
            sound = address in range(1 << 52) and 0 < size <= MAX_MMIO
        case MmioWrite(address, data):
            sound = address in range(1 << 52) and 0 < len(data) <= MAX_MMIO
        case _:
            sound = True
    return "" if sound else f"KVM gives no such exit: {exit!r:.80}"


def _first_line(error: Exception) -> str:
    text = error.text if isinstance(error, VmmError) else str(error)
    return (text or type(error).__name__).splitlines()[0]


def _words(step: Step) -> str:
    """A step for a message."""
    if isinstance(step, Stop):
        return f"the end of the run ({step.why}: {step.text})"
    if not step.answers:
        return "no answer"
    return f"the answer {step.reply.hex(' ')}" if isinstance(step.reply, bytes) else f"the answer {step.reply}"

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a page says of a run, collected from the records of its trace (vmm.observe.trace) as they come. Bounded, however
long the run: exits are counted by place and by span of time, and only the first and the last are kept whole.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from vmm.kvm.exits import MmioRead, MmioWrite, PortIn, PortOut
from vmm.observe.left import Left
from vmm.observe.trace import Claim, Event, Exited, Made, Note, Record, Run, Stopped, Trace
from vmm.report.bins import Bins
from vmm.report.timeline import kind_of

SPANS, MOST_BINS = 8192, 16_000  # of the timeline that a reader can go into
KEPT = 250  # exits at the beginning, and as many at the end
PLACES = 20_000  # instructions that are told apart
MARKS = 400  # events, notes and ends that are kept
CONSOLE = 256 << 10  # bytes of a guest's console, half of them its beginning
GUESTS = 8  # that are shown each for themselves


@dataclass
class Place:
    """An instruction that exits, and how often it did, by kind."""

    number: int
    source: str
    at: str
    insn: str
    rip: int
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        return self.kinds.total()


@dataclass
class Device:
    """Who answers a stretch of a bus, and how often it was asked."""

    space: str
    base: int
    size: int
    name: str
    reads: int = 0
    writes: int = 0


@dataclass
class Printed:
    """A console: its beginning and its end, `size` bytes in all."""

    begin: bytearray = field(default_factory=bytearray)
    end: bytearray = field(default_factory=bytearray)
    size: int = 0

    def add(self, data: bytes) -> None:
        """More of it."""
        self.size += len(data)
        room = CONSOLE // 2 - len(self.begin)
        self.begin += data[:room] if room > 0 else b""
        self.end += data[max(room, 0) :]
        if len(self.end) > CONSOLE:
            del self.end[: len(self.end) - CONSOLE // 2]

    @property
    def left_out(self) -> int:
        """Bytes between the two."""
        return self.size - len(self.begin) - len(self.last)

    @property
    def last(self) -> bytes:
        """What is kept of the end."""
        return bytes(self.end[-CONSOLE // 2 :])


class Story:
    """Collects records; what it has is read when all have come."""

    def __init__(self) -> None:
        self.trace: Trace | None = None
        self.made: list[Made] = []
        self.guests = 0
        self.exits = 0
        self.by_cpu: Counter[int] = Counter()
        self.by_kind: Counter[tuple[str, str]] = Counter()  # (colour, class of the exit)
        self.places: dict[tuple[str, str, str], Place] = {}
        self.elsewhere = 0
        self.devices: dict[tuple[str, int, int, str], Device] = {}
        self.bins = Bins(SPANS, MOST_BINS)
        self.first: list[Exited] = []
        self.last: deque[Exited] = deque(maxlen=KEPT)
        self.marks: list[Event | Note | Stopped] = []
        self.more_marks = 0
        self.left: list[Left] = []
        self.consoles: dict[int, Printed] = {}
        self.time = 0

    def add(self, record: Record) -> None:
        """The next record."""
        match record:
            case Trace():
                self.trace = record
            case Made():
                self.guests += 1
                if len(self.made) < GUESTS:
                    self.made.append(record)
            case Run():
                for claim in record.claims:
                    self._claimed(claim)
            case Exited():
                self._exited(record)
            case Stopped() | Note() | Event():
                self._came(record.t)
                if len(self.marks) < MARKS:
                    self.marks.append(record)
                else:
                    self.more_marks += 1
            case Left() if len(self.left) < GUESTS:
                self.left.append(record)
            case _:
                pass

    def _came(self, t: int) -> None:
        self.time = max(self.time, t)
        self.bins.reach(t)

    def _claimed(self, claim: Claim) -> None:
        if len(self.devices) < MARKS:
            key = (claim.space, claim.base, claim.size, claim.name)
            self.devices.setdefault(key, Device(claim.space, claim.base, claim.size, claim.name))

    def _exited(self, record: Exited) -> None:
        self.exits += 1
        self._came(record.t)
        kind = kind_of(record.exit)
        self.by_cpu[record.cpu] += 1
        self.by_kind[kind, type(record.exit).__name__] += 1
        place = self._place(record)
        if place is not None:
            place.kinds[kind] += 1
        self.bins.add(record.cpu, kind, record.t, (record.seq, place.number if place else -1))
        if len(self.first) < KEPT:
            self.first.append(record)
        else:
            self.last.append(record)
        if record.console and record.guest < GUESTS:
            self.consoles.setdefault(record.guest, Printed()).add(record.console)
        self._asked(record)

    def _place(self, record: Exited) -> Place | None:
        key = (record.source, record.at, record.insn)
        found = self.places.get(key)
        if found is None:
            if len(self.places) >= PLACES:
                self.elsewhere += 1
                return None
            found = self.places[key] = Place(len(self.places), record.source, record.at, record.insn, record.rip)
        return found

    def _asked(self, record: Exited) -> None:
        match record.exit:
            case PortIn(address, _, _) | PortOut(address, _, _):
                space = "port"
            case MmioRead(address, _) | MmioWrite(address, _):
                space = "mmio"
            case _:
                return
        reads = isinstance(record.exit, PortIn | MmioRead)
        for device in self.devices.values():
            if device.space == space and device.base <= address < device.base + device.size:
                device.reads += reads
                device.writes += not reads
                return

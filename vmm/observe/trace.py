# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trace is made of: one record a line, each sealed with a sum over all lines so far. It handles no exit.

    Trace, then for each guest: Made, and for each of its runs: Run, Exited ..., Stopped; then Left; at last End
    Event and Note anywhere between

Times are nanoseconds since the first guest was ready to run. `guest` numbers the machines of one trace (a proof makes
several), `cpu` is the vCPU's index. A sum finds what was damaged, cut off or edited by hand; it is no signature.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, get_args

from vmm.base.unbroken import Unbroken
from vmm.errors import UsageError, os_reason
from vmm.kvm.exits import Exit
from vmm.machine.ends import Resume, Stop, Why
from vmm.observe.codec import TAG, decode, encode
from vmm.observe.left import Left
from vmm.observe.postmortem import PostMortem

SCHEMA = 1
DIGEST = 8  # bytes of a line's sum
MAX_LINE = 8 << 20  # bytes: the header holds a payload's source, of 1 MiB at most, escaped
_SEALED = re.compile(rb'(\{.*),"sum":"([0-9a-f]{16})"\}\n', re.DOTALL)


@dataclass(frozen=True)
class Trace:
    """The first line. `text` is the payload's source, None for raw code; `sha256` that of the source or code.

    `synthetic` marks a trace that was written by hand, of a host that its author did not have.
    """

    schema: int
    pyvmm: str
    payload: str
    shipped: bool
    sha256: str
    text: str | None
    step: bool
    synthetic: bool = False


@dataclass(frozen=True)
class Made:
    """A guest was made: of which payload, with what machine. `ids` are the APIC ids, `symbols` the program's labels."""

    guest: int
    t: int
    payload: str
    params: dict[str, int]
    ids: tuple[int, ...]
    memory: int
    irqchip: str
    strict: bool
    console_limit: int
    symbols: dict[str, int]
    board: str = "own"


@dataclass(frozen=True)
class Claim:
    """Somebody answers base..base+size-1 of `space` ("port" or "mmio"), `way` "r" or "w"."""

    space: str
    way: str
    base: int
    size: int
    name: str


@dataclass(frozen=True)
class Run:
    """A run begins with these vCPUs; who answers what: claims of the buses, MSRs and hypercalls with a callback."""

    guest: int
    t: int
    active: tuple[int, ...]
    claims: tuple[Claim, ...]
    msr_reads: tuple[int, ...]
    msr_writes: tuple[int, ...]
    hypercalls: tuple[int, ...]


@dataclass(frozen=True)
class Exited:
    """One exit and what became of it. `at` is RIP as symbol+offset, `insn` the instruction, `console` what it printed.
    `source` is `add.asm:7  mov al, 42`, where that is known, or what is odd about the place in parentheses. `changed`
    are (register, before, now), of a step what its instruction did.

    `seq` counts the exits of the trace from 1; a Stop in `step` comes without its exit, which is this one.
    """

    seq: int
    guest: int
    t: int
    cpu: int
    exit: Exit
    rip: int
    at: str
    insn: str
    step: Resume | Stop
    console: bytes
    source: str = ""
    changed: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True)
class Event:
    """An interrupt or exception, as it was seen: `by` "gate" (a step ended in its handler), "kvm" (KVM_GET_VCPU_EVENTS:
    it waits or is being delivered) or "host" (the host raised it; `cpu` is None for what goes to a controller). `kind`
    is "exception", "interrupt", "nmi", "line" or "msi". `text` says it to a person.
    """

    guest: int
    t: int
    cpu: int | None
    by: str
    kind: str
    vector: int | None
    error_code: int | None
    text: str


@dataclass(frozen=True)
class Note:
    """Something that is no exit: what the host did meanwhile, or what the trace could not see."""

    guest: int
    t: int
    text: str


@dataclass(frozen=True)
class Stopped:
    """A run ended: why, by which vCPU (None: the host), and what the guest has stored so far."""

    guest: int
    t: int
    why: Why
    text: str
    code: int | None
    cpu: int | None
    results: dict[str, int | None]
    wall: int


@dataclass(frozen=True)
class End:
    """The last line: the outcome as in `pyvmm run --json`, but the console. `outcome` may be "interrupted".

    `recorded` exits are in the trace, `dropped` ones came after the file's size limit.
    """

    t: int
    recorded: int
    dropped: int
    outcome: str
    exit_code: int
    reason: str
    results: dict[str, int | None]
    failures: tuple[str, ...]
    evidence: dict[str, Any]
    exits: dict[str, int]
    unclaimed: int
    wall_ms: float
    postmortem: PostMortem | None = None


Record: TypeAlias = Trace | Made | Run | Exited | Event | Note | Stopped | Left | End
KINDS = {kind.__name__: kind for kind in get_args(Record)}


class TraceError(UsageError):
    """A trace cannot be used. The message names file and line."""

    def __init__(self, path: str, line: int, text: str) -> None:
        super().__init__(f"{path}:{line}: {text}")
        self.line = line


class Writer:
    """Appends sealed lines. Beyond `limit` bytes only the End is written: an endless guest makes no endless file.

    A file that can no longer be written is given up, and the run goes on: `error` then says why.

    Raises:
        UsageError: by the first record, which does not fit: nobody could read the file.
    """

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._left = file, limit
        self._regular = _is_regular(file)  # a pipe may keep a writer waiting, and ^C must not wait with it
        self._sum = hashlib.blake2b(digest_size=DIGEST)
        self.recorded = self.dropped = 0  # exits
        self.error: OSError | None = None
        self._full = self._begun = False

    def write(self, record: Record) -> None:
        """One line, unless the file is full or given up. Exits get their numbers here: one that ^C kept from being told
        leaves no gap.
        """
        if not self._regular:
            self._write(record)
            return
        with Unbroken():  # ^C in the middle of a line would spoil the whole trace
            self._write(record)

    def _write(self, record: Record) -> None:
        last = isinstance(record, End)
        if self._full and not last:
            self.dropped += isinstance(record, Exited)
            return
        if isinstance(record, Exited):
            record = replace(record, seq=self.recorded + 1)
        body = json.dumps(encode(record), separators=(",", ":"), allow_nan=False).encode()[:-1]
        if not last and len(body) > self._left:
            if not self._begun:
                raise UsageError(
                    f"a trace of at most {self._left} bytes: its head, which has the source, takes {len(body)} alone",
                    hint="a larger --trace-limit",
                )
            self._full = True
            self.dropped += isinstance(record, Exited)
            return
        self._begun = True
        self._left -= len(body)
        self.recorded += isinstance(record, Exited)
        self._sum.update(body)
        if self.error is None:
            try:
                self._file.write(body + f',"sum":"{self._sum.hexdigest()}"}}\n'.encode())
            except OSError as error:
                self.error = error


def _is_regular(file: BinaryIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (AttributeError, OSError, ValueError):
        return True  # bytes in memory


def read(path: str) -> Iterator[tuple[int, Record]]:
    """(line number, record) of every line of a whole trace, checked as they come; nothing is kept.

    Raises:
        TraceError: no trace, of another schema, damaged or cut off; with the line.
        UsageError: the file cannot be read.
    """
    try:
        if not Path(path).is_file():
            raise UsageError(f"reading {path!r}: no such file" if not Path(path).exists() else f"{path!r} is no file")
        with Path(path).open("rb") as file:
            yield from _lines(path, file)
    except (OSError, ValueError) as error:
        raise UsageError(f"reading {path!r}: {os_reason(error)}") from error


def _lines(path: str, file: BinaryIO) -> Iterator[tuple[int, Record]]:
    running = hashlib.blake2b(digest_size=DIGEST)
    number, record = 0, None
    while line := file.readline(MAX_LINE):
        number += 1
        if isinstance(record, End):
            raise TraceError(path, number, "something follows the last line of the trace")
        if number == 1:
            _check_schema(path, line)
        sealed = _SEALED.fullmatch(line)
        if sealed is None:
            whole = line.endswith(b"\n")
            raise TraceError(path, number, "no record of a trace" if whole else "the line is cut off")
        running.update(sealed[1])
        if running.hexdigest().encode() != sealed[2]:
            raise TraceError(path, number, "the sum is wrong: this line, or one taken out before it, was changed")
        record = parse(path, number, sealed[1] + b"}")
        if isinstance(record, Trace) != (number == 1):
            raise TraceError(path, number, "a header in the midst of a trace" if number > 1 else "not a pyvmm trace")
        yield number, record
    if not isinstance(record, End):
        raise TraceError(path, number + 1, "the trace is cut off: its last line is missing")


def parse(path: str, number: int, line: bytes) -> Record:
    """The record of one line without its sum. TraceError."""
    try:
        value = json.loads(line)
        kind = KINDS.get(str(value.get(TAG))) if isinstance(value, dict) else None
        if kind is None:
            raise ValueError("no record of a trace")
        record: Record = decode(kind, value)
        return record
    except (ValueError, RecursionError) as error:
        raise TraceError(path, number, str(error) or "nested too deeply") from error


def _check_schema(path: str, line: bytes) -> None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or value.get(TAG) != Trace.__name__:
        raise TraceError(path, 1, "not a pyvmm trace (`pyvmm run NAME --trace FILE.jsonl` writes one)")
    if value.get("schema") != SCHEMA:
        raise TraceError(path, 1, f"a trace of schema {value.get('schema')!r:.40}; this pyvmm reads schema {SCHEMA}")

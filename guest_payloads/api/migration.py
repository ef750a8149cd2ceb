# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of migration: the guest is sent to a process of its own while it writes, and answers from there. This
module is also what runs in that process: `python -m guest_payloads.api.migration FD`.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmm.abi.ports import DELAY, EXIT_VALUE_PASS
from vmm.abi.x86 import PAGE
from vmm.errors import UsageError
from vmm.machine import migration
from vmm.machine.ends import Why
from vmm.machine.machine import Machine
from vmm.machine.x86.cpuid import CpuidModel
from vmm.payload.guest import Guest
from vmm.payload.proof.ending import broke
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict

ROUNDS = 4  # of memory while the guest runs; one more while it stands
LAPS = 2  # of the guest, from one piece on the line to the next: at least one that began after it
LOOK = 0.1  # seconds from one look at a guest that may have ended to the next
PATIENCE = 60.0  # seconds for a lap, and for an answer of the other process
DIFFERS = "the sums differ"  # of what the other process says then
ANSWERS = struct.Struct("<6Q")

Sent = tuple[frozenset[int], ...]


@dataclass(frozen=True)
class Answers:
    """What the guest stored at ANSWERS, in that order."""

    laps: int
    stale: int
    sum: int
    found: int
    cold_first: int
    cold: int


@dataclass(frozen=True)
class Evidence:
    """`sent`: the pages (guest-physical address / 4096) of each round, the last with the guest standing; `hot` and
    `cold`: those that it writes in every lap, and has written once. `laps_here` before it moved, `laps_there` those
    that it is to go on for; `downtime` in seconds; `ended` how its run ended over there, empty for its PASS. `refused`
    is what the other process said in place of all.
    """

    sent: Sent = ()
    hot: frozenset[int] = frozenset()
    cold: frozenset[int] = frozenset()
    laps_here: int = 0
    laps_there: int = 0
    downtime: float = 0.0
    answers: Answers | None = None
    ended: str = ""
    refused: str = ""


class Line:
    """A socket that is slow in units of the guest's own work: each piece of memory takes it two laps, as long as it
    runs. `pages` are the places (memslot, page) that went over, in order.
    """

    def __init__(self, connection: socket.socket, machine: Machine) -> None:
        self._socket, self.recv, self._machine = connection, connection.recv, machine
        self._main, self._lap = threading.current_thread(), threading.Condition()
        self.laps, self.pages = 0, list[tuple[int, int]]()

    def lap(self, value: int) -> None:
        """The guest has done one."""
        with self._lap:
            self.laps += 1
            self._lap.notify_all()

    def sendall(self, data: bytes) -> None:
        self._socket.sendall(data)
        if data[:1] != b"P":
            return
        places = memoryview(data)[migration.FRAME.size :]
        step = migration.PLACE.size + PAGE
        self.pages += [migration.PLACE.unpack_from(places, at) for at in range(0, len(places), step)]
        if threading.current_thread() is not self._main:  # else it stands already
            until = time.monotonic() + PATIENCE
            with self._lap:
                due = self.laps + LAPS
                while self.laps < due and self._machine.all_cpus.running and time.monotonic() < until:
                    self._lap.wait(LOOK)


class BadLine(Line):
    """One on which a bit of the first page changes."""

    def sendall(self, data: bytes) -> None:
        if data[:1] == b"P" and not self.pages:
            data = data[:-1] + bytes([data[-1] ^ 1])
        super().sendall(data)


def prove(lab: Lab) -> Finding:
    return judge(move(lab))


def refusals(lab: Lab) -> list[Refusal]:
    """What came otherwise than it was sent must not run."""
    refused = move(lab, BadLine).refused
    observed = "refused: the sums differ" if refused.endswith(DIFFERS) else refused or "taken"
    return [Refusal("argument", "a bit of a page that changed on the way", "refused: the sums differ", observed)]


def move(lab: Lab, kind: type[Line] = Line) -> Evidence:
    """Move a guest to a new process, and what became of it there."""
    here, there = socket.socketpair()
    with here, lab.guest() as guest:
        hot, cold = (_pages(guest, name) for name in ("HOT", "COLD"))
        guest.open_to_ring3(guest.constant("HOT"), (len(hot) + len(cold)) * PAGE)
        line = kind(here, guest.machine)
        _run_to_first_lap(guest, line)
        here.settimeout(PATIENCE)
        with _process(lab, guest, there) as process:
            there.close()
            try:
                report = migration.send(guest.machine, line, enough=0, rounds=ROUNDS)  # type: ignore[arg-type]
            except UsageError as error:
                return Evidence(refused=error.text)
            finally:
                here.shutdown(socket.SHUT_WR)  # whatever came of it: it waits for no more
                said, trouble = process.communicate(timeout=PATIENCE)
        slots = [slot.gpa // PAGE for slot in guest.machine.memory.slots if not slot.readonly]
        laps, after = line.laps, guest.constant("AFTER")
    if process.returncode:
        return Evidence(refused=(trouble.strip().splitlines() or ["it ended without a word"])[-1])
    told = json.loads(said)
    return Evidence(
        sent=_rounds([slots[number] + page for number, page in line.pages], report.pages),
        hot=hot,
        cold=cold,
        laps_here=laps,
        laps_there=after,
        downtime=report.downtime,
        answers=Answers(*told["answers"]),
        ended=told["ended"],
    )


def _run_to_first_lap(guest: Guest, line: Line) -> None:
    """What it writes once is written, and it stands after a lap."""

    def first(value: int) -> None:
        line.lap(value)
        if line.laps == 1:
            guest.machine.stop("its first lap")

    guest.machine.on_port_write(DELAY, first)
    result = guest.run()
    if result.stop.why is not Why.STOPPED:
        raise broke(guest, result)


def _pages(guest: Guest, name: str) -> frozenset[int]:
    first = guest.constant(name) // PAGE
    return frozenset(range(first, first + guest.constant(f"{name}_PAGES")))


def _rounds(pages: Sequence[int], counts: Sequence[int]) -> Sent:
    """What was sent, taken apart by how many pages each round had."""
    rest = iter(pages)
    return tuple(frozenset(next(rest) for _ in range(count)) for count in counts)


def _process(lab: Lab, guest: Guest, connection: socket.socket) -> subprocess.Popen[str]:
    """The process that the guest moves to."""
    root = str(Path(migration.__file__).parents[2])
    asked = {
        "fd": connection.fileno(),
        "mask": guest.options.mask,
        "expose": guest.options.expose,
        "arrived": guest.constant("ARRIVED") if guest.params["arrives"] else None,
        "answers": guest.constant("ANSWERS"),
        "timeout": guest.machine.timeout,
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "guest_payloads.api.migration", json.dumps(asked)],
        pass_fds=[connection.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])},
    )  # fmt: skip


def there(asked: dict[str, Any]) -> dict[str, Any]:
    """The other end: take the machine, let its guest go on, and what it answers. HostError, UsageError as
    vmm.machine.migration.receive: the other end is told as well.
    """

    def edit(model: CpuidModel) -> None:
        model.disable(*asked["mask"])
        model.enable(*asked["expose"])

    def arrive(machine: Machine) -> None:
        if asked["arrived"] is not None:
            machine.on_port_write(DELAY, lambda value: machine.memory.write_u64(asked["arrived"], 1))

    with (
        socket.socket(fileno=asked["fd"]) as connection,
        migration.receive(Machine, connection, arrive, cpuid=edit) as machine,
    ):
        stop = machine.run(asked["timeout"]).stop
        answers = ANSWERS.unpack(machine.memory.read(asked["answers"], ANSWERS.size))
    return {"answers": answers, "ended": "" if (stop.why, stop.code) == (Why.EXIT_PORT, EXIT_VALUE_PASS) else stop.text}


def judge(seen: Evidence) -> Finding:
    """The verdict from the evidence alone."""
    if seen.refused or seen.answers is None:
        return Finding(Verdict.BROKEN, f"the other process does not take it: {seen.refused}")
    got, running = seen.answers, seen.sent[1:]
    numbers: dict[str, object] = {
        "pages sent in each round": [len(pages) for pages in seen.sent],
        "laps before and after it moved": [seen.laps_here, got.laps - seen.laps_here],
        "hot pages without the last stamp": got.stale,
        "sum of the hot pages, kept and found": [f"{got.sum:#x}", f"{got.found:#x}"],
        "sum of the cold pages, first and last": [f"{got.cold_first:#x}", f"{got.cold:#x}"],
        "stood still, ms": round(seen.downtime * 1e3, 1),
    }

    def broken(text: str) -> Finding:
        return Finding(Verdict.BROKEN, text, numbers)

    if seen.ended:
        return broken(f"over there: {seen.ended}")
    if got.laps - seen.laps_here != seen.laps_there:
        text = f"{got.laps} laps in all, and {seen.laps_here} here: it is to go on for {seen.laps_there} there"
        return broken(text)
    if got.stale or got.sum != got.found:
        return broken(f"{got.stale} pages are there as they were before the last lap, and their sum is another one's")
    if not got.cold_first or got.cold != got.cold_first:
        return broken("pages that were written once, before it moved, are not there")
    if len(seen.sent) != ROUNDS + 1:
        return broken(f"{len(seen.sent)} rounds, and {ROUNDS + 1} were to be: nothing was written meanwhile")
    if missing := (seen.hot | seen.cold) - seen.sent[0]:
        return broken(f"{len(missing)} pages are not among those that were sent first")
    for number, pages in enumerate(running, 2):
        if missing := seen.hot - pages:
            return broken(
                f"round {number}: {len(missing)} of {len(seen.hot)} pages that were written are not in the log"
            )
        if again := seen.cold & pages:
            return broken(f"round {number}: {len(again)} pages that were only read are sent again")
    summary = (
        f"moved to another process after {seen.laps_here} laps: {len(seen.sent[0])} pages, then "
        f"{', '.join(str(len(pages)) for pages in running)} that it had written; it stood still for the last"
    )
    return Finding(Verdict.WORKS, "", numbers, summary)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(there(json.loads(sys.argv[1]))))

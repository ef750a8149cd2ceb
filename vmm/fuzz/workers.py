# SPDX-License-Identifier: GPL-2.0-or-later
"""Several processes that fuzz one target in one folder, and who watches them. It shows nothing.

Each is a fork with an Engine. It writes the input that it is about to run into memory that both have, so that one which
dies, or stays at one input for long, is itself a finding; another takes its place. Each tells what it has done by lines
of JSON through a pipe.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import select
import signal
import struct
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmm.abi.x86 import PAGE
from vmm.errors import VmmError, exhausted
from vmm.fuzz.engine import Engine
from vmm.fuzz.folder import Folder
from vmm.fuzz.target import Crash, Target

TELL = 0.25  # seconds between two lines of a worker
SYNC = 2.0  # seconds between two looks for what other workers have found
MEMORY = 2 << 30
"""Bytes of address space that an input may make a worker take beyond what it had."""
LARGEST_SPACE = 1 << 40  # of a sanitizer's shadow
HANG = 20.0
"""Seconds at one input, after which a worker hangs. What a target can count is ended by its own limit long before."""
PATIENCE = 5.0
_HEAD = struct.Struct("<QI")


@dataclass(frozen=True)
class Plan:
    """`make` makes the target, in the worker; `files` what lies beside a reproducer. Limits are None for none; `execs`
    are of all workers together.
    """

    make: Callable[[], Target]
    folder: Folder
    seed: int
    jobs: int = 1
    seconds: float | None = None
    execs: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    files: Callable[[bytes], dict[str, bytes]] | None = None
    hang: float = HANG


@dataclass
class Tally:
    """What was done so far, by all workers: `corpus` and `reached` are the largest of any."""

    execs: int = 0
    crashed: int = 0
    corpus: int = 0
    reached: int = 0
    lost: int = 0
    seconds: float = 0.0
    found: list[Path] = field(default_factory=list)
    """Reproducers that this run has written."""

    @property
    def rate(self) -> float:
        """Executions a second."""
        return self.execs / self.seconds if self.seconds else 0.0


class Place:
    """The input that a worker is at, for who watches it: memory that a fork shares."""

    def __init__(self, most: int) -> None:
        self._memory = mmap.mmap(-1, _HEAD.size + most)
        self._number = 0

    def put(self, data: bytes) -> None:
        """In the worker: this one is next."""
        self._number += 1
        self._memory[_HEAD.size : _HEAD.size + len(data)] = data
        self._memory[: _HEAD.size] = _HEAD.pack(self._number, len(data))

    def get(self) -> tuple[int, bytes]:
        """(its number, the input)."""
        number, size = _HEAD.unpack(self._memory[: _HEAD.size])
        return number, self._memory[_HEAD.size : _HEAD.size + size]

    def close(self) -> None:
        """Give it back."""
        self._memory.close()


class Worker:
    """A process, seen from the one that made it."""

    def __init__(self, plan: Plan, number: int, execs: int | None, seconds: float | None) -> None:
        self.share = execs
        self.told: dict[str, Any] = {"execs": 0, "crashed": 0, "corpus": 0, "reached": 0, "found": [], "error": None}
        self.place = Place(1 << 20)
        self._text = b""
        self._seen, self._since = -1, time.monotonic()
        self.reader, writer = os.pipe()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, where another thread lives
                self.pid = os.fork()
        except OSError as error:
            os.close(writer)
            os.close(self.reader)
            raise exhausted("starting a process that fuzzes", "fork", error.errno or 0) from error
        if not self.pid:
            os.close(self.reader)
            _live(plan, number, execs, seconds, self.place, writer)
        os.close(writer)

    def read(self) -> bool:
        """Take what it tells; False when it has ended."""
        data = os.read(self.reader, 1 << 16)
        *lines, self._text = (self._text + data).split(b"\n")
        if lines:
            self.told = json.loads(lines[-1])
        return bool(data)

    def hangs(self, limit: float) -> bool:
        """Has it been at one input for so many seconds?"""
        number = self.place.get()[0]
        if number != self._seen:
            self._seen, self._since = number, time.monotonic()
        return time.monotonic() - self._since > limit

    def end(self, patience: float = PATIENCE) -> int:
        """Let it end, by force where it does not: its status as of waitpid."""
        os.kill(self.pid, signal.SIGTERM)
        until = time.monotonic() + patience
        while time.monotonic() < until and select.select([self.reader], [], [], 0.1)[0]:
            if not self.read():
                break
        return self.wait(kill=time.monotonic() >= until)

    def wait(self, *, kill: bool) -> int:
        """Its status, when it has ended."""
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.reader)
        self.place.close()
        return status


def fuzz(plan: Plan) -> Iterator[Tally]:
    """Run it all; a Tally every now and then, the last of them is the end. Whoever stops asking ends the workers.

    Raises:
        HostError: no process can be made, or the target cannot be made here.
    """
    begin = time.monotonic()
    shares = [None] * plan.jobs if plan.execs is None else _shares(plan.execs, plan.jobs)
    workers: list[Worker] = []
    tally, gone = Tally(), []  # what ended workers had done
    number = 0
    try:
        for share in shares:
            workers.append(Worker(plan, number, share, plan.seconds))
            number += 1
        while workers:
            ready = select.select([each.reader for each in workers], [], [], TELL)[0]
            for worker in list(workers):
                ended = worker.reader in ready and not worker.read()
                hung = not ended and worker.hangs(plan.hang)
                if not ended and not hung:
                    continue
                workers.remove(worker)
                at, data = worker.place.get()
                told, status = worker.told, worker.wait(kill=hung)
                gone.append(told | {"execs": max(told["execs"], at)})
                if told["error"] is not None:
                    raise _error(told["error"])
                if status:
                    tally.lost += 1
                    path = _lost(plan, data, "hang" if hung else _how(status))
                    tally.found += [path] if path else []
                    left = None if worker.share is None else worker.share - at
                    seconds = None if plan.seconds is None else plan.seconds - (time.monotonic() - begin)
                    if (left is None or left > 0) and (seconds is None or seconds > 0):
                        workers.append(Worker(plan, number, left, seconds))
                        number += 1
            yield _sum(tally, [each.told for each in workers] + gone, time.monotonic() - begin)
    finally:
        for worker in workers:
            worker.end()
            gone.append(worker.told)
        _sum(tally, gone, time.monotonic() - begin)


def _shares(execs: int, jobs: int) -> list[int]:
    return [execs // jobs + (index < execs % jobs) for index in range(jobs)]


def _sum(tally: Tally, told: list[dict[str, Any]], seconds: float) -> Tally:
    tally.seconds = seconds
    tally.execs, tally.crashed = (sum(each[key] for each in told) for key in ("execs", "crashed"))
    tally.corpus, tally.reached = (max((each[key] for each in told), default=0) for key in ("corpus", "reached"))
    known = dict.fromkeys([*tally.found, *(Path(path) for each in told for path in each["found"])])
    tally.found = list(known)
    return tally


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"process-ended-by-{signal.Signals(os.WTERMSIG(status)).name}"
    return f"process-ended-with-{os.WEXITSTATUS(status)}"


def _lost(plan: Plan, data: bytes, kind: str) -> Path | None:
    """A process died or hangs: that is a crash, kept as it is, since to make it smaller would cost a process a try."""
    if kind in plan.folder.known():
        return None
    about = {"target": plan.folder.target, "kind": kind, "input": data.hex(), "options": plan.options}
    text = f"{kind}: the input was not made smaller\n"
    return plan.folder.keep_crash(kind, about, text, {})


def _error(told: dict[str, Any]) -> VmmError:
    """The error that `_of_error` took apart: of its own kind, with all that its message is made of."""
    from vmm import errors

    made: VmmError = errors.VmmError.__new__(getattr(errors, told["type"], errors.HostError))
    vars(made).update(told["state"])
    return made


# -- the worker


def _live(plan: Plan, number: int, execs: int | None, seconds: float | None, place: Place, writer: int) -> None:
    """From fork to its end: nothing is returned or raised."""
    status = 1
    ended: list[int] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who watches decides
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    told: dict[str, Any] = {"execs": 0, "crashed": 0, "corpus": 0, "reached": 0, "found": [], "error": None}
    try:
        _limit()
        target = plan.make()
        try:
            engine = Engine(target, plan.folder, f"{plan.seed}:{number}", plan.options, plan.files, place.put)
            _work(engine, execs, seconds, plan.jobs > 1, ended, writer)
        finally:
            target.close()
        status = 0
    except BrokenPipeError:  # nobody listens any more
        status = 0
    except VmmError as error:
        told["error"] = _of_error(error)
        os.write(writer, json.dumps(told).encode() + b"\n")
        status = 0
    except BaseException:
        told["error"] = _of_error(VmmError(f"a fault of the fuzzer's own:\n{traceback.format_exc()}"))
        os.write(writer, json.dumps(told).encode() + b"\n")
    finally:
        os._exit(status)


def _of_error(error: VmmError) -> dict[str, Any]:
    """What of an error goes over a pipe: its kind, and its text, numbers and places."""
    state = {name: value for name, value in vars(error).items() if isinstance(value, str | int | None)}
    return {"type": type(error).__name__, "state": {"text": error.text, "hint": error.hint} | state}


def _limit() -> None:
    """What takes more memory than any input should gets a MemoryError."""
    now = int(Path("/proc/self/statm").read_bytes().split()[0]) * PAGE
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if now < LARGEST_SPACE and (hard == resource.RLIM_INFINITY or hard > now + MEMORY):
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _work(
    engine: Engine, execs: int | None, seconds: float | None, shared: bool, ended: list[int], writer: int
) -> None:
    begin = time.monotonic()
    tell, look = begin, begin + SYNC
    engine.begin()
    while not ended and (execs is None or engine.execs < execs):
        now = time.monotonic()
        if seconds is not None and now - begin >= seconds:
            break
        if now >= tell:
            _tell(engine, writer)
            tell = now + TELL
        if shared and now >= look:
            engine.sync()
            look = now + SYNC
        engine.step()
    _tell(engine, writer)


def _tell(engine: Engine, writer: int) -> None:
    told = {
        "execs": engine.execs, "crashed": engine.crashed, "corpus": len(engine.corpus), "reached": len(engine.reached),
        "found": [str(each) for each in engine.found], "error": None,
    }  # fmt: skip
    os.write(writer, json.dumps(told).encode() + b"\n")


def replay(target: Target, data: bytes) -> Crash | None:
    """One input once more: the crash that it causes, with all about it."""
    crash = target.run(data).crash
    return None if crash is None else crash._replace(text=target.told(data, crash))

# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tools.hostile COUNT [--seed S] [--first N] [--jobs J] [--asan] [--state FILE] [--limit SECONDS]`

Runs hostile guest programs (programs.py) in worker processes (worker.py), with a line of progress. A worker that dies
or hangs is a finding, by the number of its program, and another takes its place: `--first N 1` runs that one again.
With --state a run that ended early goes on where it was, and its report is of all its parts. With --asan the binding
is built with AddressSanitizer and UBSan, as by tools/sanitize.py. Status 0: no finding, and nothing grew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tools import sanitize

ROOT = Path(__file__).resolve().parents[2]
CHUNK = 200
MANY_LOST = 5
HANG = 60.0  # seconds without a step from one program to the next
GROWS = {"files": 0, "maps": 64, "KiB": 8 << 10}
"""What a worker may hold more at its end than after its second chunk, the guests' memory aside: nothing, but what an
allocator keeps."""
ON_DEMAND = {"device timers": 1}
"""Threads that begin late, by name, and how many a worker may have of each. The alarms of its one PC are rung by a
thread that begins when a guest first sets one, and ends with the machine; a reset leaves it, waiting."""
FREED = 24 << 10  # KiB more: what AddressSanitizer keeps of what was freed

_ASAN = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("vmm.kvm._kvm", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
import vmm.kvm
sys.modules["vmm.kvm._kvm"] = vmm.kvm._kvm = module
from tools.hostile.worker import main
main(int(sys.argv[2]), sys.argv[3])
"""


class Worker:
    """A process with what it has been told to do."""

    def __init__(self, seed: int, folder: Path, name: int, binding: Path | None) -> None:
        self.place = folder / f"place-{name}"
        self.place.write_bytes(bytes(8))
        self.said = (folder / f"said-{name}").open("w+b")
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tools.hostile.worker", str(seed), str(self.place)]
        if binding is not None:
            environment |= sanitize.environment()
            command = [sys.executable, "-c", _ASAN, str(binding), str(seed), str(self.place)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, env=environment, cwd=ROOT
        )
        self.chunk: tuple[int, int] | None = None
        self.held: list[dict[str, int]] = []
        self.threads: list[dict[str, int]] = []
        self._seen, self._since = -1, time.monotonic()

    def give(self, first: int, count: int) -> None:
        """Let it run these programs."""
        assert self.process.stdin is not None
        self.chunk, self._since = (first, count), time.monotonic()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{first} {count}\n".encode())
            self.process.stdin.flush()

    @property
    def number(self) -> int:
        """Of the program that it is at."""
        return int(struct.unpack("<Q", self.place.read_bytes())[0])

    @property
    def hangs(self) -> bool:
        """Has it been at one program for long?"""
        if self.number != self._seen:
            self._seen, self._since = self.number, time.monotonic()
        return time.monotonic() - self._since > HANG

    def end(self) -> str:
        """End it: how it ended, with the last that it said."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.said.seek(0)
        text = self.said.read().decode("utf-8", "replace")[-4000:]
        self.said.close()
        return f"status {status}\n{text}"


class Run:
    """All of it: what is to do, what came of it."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, binding: Path | None) -> None:
        self.asked, self.folder, self.binding = arguments, folder, binding
        self.state: dict[str, Any] = {"seed": arguments.seed, "asan": arguments.asan, "ran": 0, "seconds": 0.0,
                                      "done": [], "ended": {}, "findings": []}  # fmt: skip
        if arguments.state and Path(arguments.state).exists():
            self.state = json.loads(Path(arguments.state).read_text())
            if self.state["seed"] != arguments.seed:
                raise SystemExit(f"{arguments.state} is of seed {self.state['seed']}: give --seed {self.state['seed']}")
            if self.state["asan"] != arguments.asan:
                raise SystemExit(f"{arguments.state} is of a run {'with' if self.state['asan'] else 'without'} --asan")
        self.before = self.state["seconds"]
        done = set(self.state["done"])
        end = arguments.first + arguments.count
        self.left = [(at, min(CHUNK, end - at)) for at in range(arguments.first, end, CHUNK) if at not in done]
        self.total, self.ran, self.begin = sum(count for _, count in self.left), 0, time.monotonic()
        self.ended: Counter[str] = Counter(self.state["ended"])
        self.workers: list[Worker] = []
        self.names = self.lost = 0

    def go(self) -> None:
        """Until everything is run, or the time is over."""
        self.workers = [self._worker() for _ in range(min(self.asked.jobs, len(self.left)))]
        while any(each.chunk for each in self.workers):
            pipes = [each.process.stdout for each in self.workers]
            ready = select.select(pipes, [], [], 1.0)[0]
            for index, worker in enumerate(self.workers):
                if worker.process.stdout in ready:
                    assert worker.process.stdout is not None
                    self._answer(index, worker.process.stdout.readline())
                elif worker.chunk and worker.hangs:
                    worker.process.kill()
                    self._lost(index, f"hangs for {HANG:.0f} s")
            self._show()
        for worker in self.workers:
            self._grown(worker)
            said = worker.end()
            if not said.startswith("status 0\n"):
                self.state["findings"].append([worker.number, f"the worker ended with {said}"])
        self._keep()

    def _worker(self) -> Worker:
        self.names += 1
        made = Worker(self.asked.seed, self.folder, self.names, self.binding)
        self._next(made)
        return made

    def _next(self, worker: Worker) -> None:
        worker.chunk = None
        if self.left and time.monotonic() - self.begin < self.asked.limit:
            worker.give(*self.left.pop(0))

    def _answer(self, index: int, line: bytes) -> None:
        worker = self.workers[index]
        if not line:
            if worker.chunk:
                self._lost(index, "the worker died")
            return
        told = json.loads(line)
        self.state["done"].append(told["first"])
        self.ended.update(told["ended"])
        self.ran += told["count"]
        self.state["ran"] += told["count"]
        self.state["findings"] += told["wrong"]
        worker.held.append(told["held"])
        worker.threads.append(told["threads"])
        self._keep()
        self._next(worker)

    def _lost(self, index: int, why: str) -> None:
        worker = self.workers[index]
        self.lost = self.lost + 1 if not worker.held else 0
        if self.lost > MANY_LOST:
            raise SystemExit(f"{self.lost} workers ended before they had run anything: {worker.end()}")
        number, (first, count) = worker.number, worker.chunk or (0, 0)
        self.state["findings"].append([number, f"{why}: {worker.end()}"])
        if number + 1 < first + count:
            self.left.insert(0, (number + 1, first + count - number - 1))
        self.workers[index] = self._worker()

    def _grown(self, worker: Worker) -> None:
        if len(worker.held) < 4:
            return
        before, after = worker.held[1], worker.held[-1]
        for name, most in GROWS.items():
            room = most + (FREED if self.asked.asan and name == "KiB" else 0)
            if after[name] - before[name] > room:
                self.state["findings"].append([worker.number, f"{name} grew from {before[name]} to {after[name]}"])
        was = worker.threads[1]
        for name, count in worker.threads[-1].items():
            if count > max(was.get(name, 0), ON_DEMAND.get(name, 0)):
                grew = f"threads named {name!r} grew from {was.get(name, 0)} to {count}"
                self.state["findings"].append([worker.number, grew])

    def _keep(self) -> None:
        if self.asked.state:
            self.state["ended"] = dict(self.ended)
            self.state["seconds"] = self.before + time.monotonic() - self.begin
            path = Path(self.asked.state)
            path.with_suffix(".new").write_text(json.dumps(self.state))
            path.with_suffix(".new").replace(path)

    def _show(self) -> None:
        if sys.stderr.isatty():
            rate = self.ran / max(0.1, time.monotonic() - self.begin)
            sys.stderr.write(f"\r{self.ran} of {self.total}, {rate:.0f}/s, {len(self.state['findings'])} findings ")
            sys.stderr.flush()


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.hostile", description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=max(1, len(os.sched_getaffinity(0))))
    parser.add_argument("--asan", action="store_true")
    parser.add_argument("--state")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which no more are begun")
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="pyvmm-hostile-") as name:
        folder = Path(name)
        run = Run(arguments, folder, sanitize.build(folder) if arguments.asan else None)
        run.go()
    seconds = time.monotonic() - run.begin
    print(f"{run.ran} programs in {seconds:.0f} s, seed {arguments.seed}, {arguments.jobs} workers"
          f"{', AddressSanitizer' if arguments.asan else ''}; {run.total - run.ran} left")  # fmt: skip
    if arguments.state:
        print(f"{run.state['ran']} programs in {run.state['seconds']:.0f} s with those that ran before")
    for ended, count in sorted(run.ended.items()):
        print(f"  {count:8} {ended}")
    for each in run.workers:
        print(*_holds(each), sep="\n")
    findings = run.state["findings"]
    print(f"{len(findings)} findings")
    for number, text in findings:
        print(f"program {number}: {text}")
    return 1 if findings else 0


def _holds(worker: Worker) -> list[str]:
    """What a worker held after its first chunk, at the quarters of its work and at its end; its threads by name."""
    if not worker.held:
        return []
    last = len(worker.held) - 1
    lines = [
        f"  held after chunk {at + 1}: {worker.held[at]}" for at in sorted({last * part // 4 for part in range(5)})
    ]
    lines.append(f"  threads at the end: {worker.threads[-1]}")
    for name in worker.threads[-1]:
        since = next(at for at, threads in enumerate(worker.threads) if name in threads)
        if since:
            lines.append(f"  since chunk {since + 1}: {name}")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows that are no batch against the C floor's: a MiB of output, two vCPUs against one, hundreds of idle VMs."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TypeAlias

from vmm.abi.x86 import LARGE_PAGE, PAGE
from vmm.bench import guests, sides
from vmm.bench.compare import Budget, Goal, Row, as_rate, per_operation, pinned, row_of, take_turns
from vmm.bench.exits import at_most
from vmm.bench.floor import Floor
from vmm.bench.image import SetUp, image
from vmm.bench.spec import Spec
from vmm.bench.stats import Pair, mad
from vmm.errors import HostError
from vmm.kvm.system import Kvm
from vmm.machine.machine import Machine
from vmm.machine.x86 import boot

MIB = 1 << 20
PIECE = 1024  # bytes: each piece of ours is followed by one of the floor's
SLICE = 0.15  # seconds of work in one sample
IDLE_VMS = 500
IDLE_GROUP = 10  # VMs made between two looks at this process's memory
IDLE_LIMIT = 300 << 10
Turn: TypeAlias = Callable[[], list[float]]
LIFE = 1.12  # of the floor; as a rate 850 a second where the floor has 950


def specs() -> Iterator[Spec]:
    """The rows of this module."""
    goal = at_most(1.05)
    yield console_mib("console_1mib", "console, 1 MiB byte by byte", guests.console_bytes, goal)
    yield console_mib("console_1mib_rep", "console, 1 MiB by REP OUTSB", guests.console_string, goal)
    yield lifecycle("lifecycle", Goal(LIFE, f"at most {LIFE:.2f} x"), rate=False)
    yield lifecycle("lifecycle_rate", Goal(1 / LIFE, f"at least {1 / LIFE:.2f} x", better="higher"), rate=True)
    yield reset("reset", Goal(1.15, "at most 1.15 x"), rate=False)
    yield reset("reset_rate", Goal(0.85, "at least 0.85 x", better="higher"), rate=True)
    yield two_vcpus()
    yield two_vcpus_c()
    yield idle_vm()


def lifecycle(name: str, goal: Goal, *, rate: bool) -> Spec:
    """A VM from its making to its closing; as a time, or as so many a second."""
    row = Row(name, "goals", "VM, vCPU, memory; to the first HLT; close", "process", goal=goal, peer="C")

    def measure(budget: Budget) -> Row:
        with pinned(1), sides.Lifecycle() as ours, Floor("lifecycle", guest=ours.image()) as floor:
            made = row_of(take_turns(ours, floor, budget), row)
        return replace(as_rate(made), what="the same, as machines a second") if rate else made

    return Spec(row, measure)


def reset(name: str, goal: Goal, *, rate: bool) -> Spec:
    """A machine put back to a snapshot after a guest wrote some pages; or that guest and the reset, as a rate."""
    what = f"put back after a guest wrote {sides.PAGES} pages"
    row = Row(name, "goals", what, "C core", goal=goal, peer="C")

    def measure(budget: Budget) -> Row:
        ours = sides.Reset(run=rate)
        try:
            with pinned(1), Floor("rerun" if rate else "reset", ours.msrs, guest=ours.image()) as floor:
                made = row_of(take_turns(ours, floor, budget), row)
        finally:
            ours.close()
        return replace(as_rate(made), what=f"{what}, and its run: so many a second") if rate else made

    return Spec(row, measure)


def console_mib(name: str, what: str, make: Callable[[int], guests.Guest], goal: Callable[[float], Goal]) -> Spec:
    """A whole MiB, in pieces that take turns; 16 KiB of it when quick."""
    row = Row(name, "goals", what, "C core", peer="C")

    def measure(budget: Budget) -> Row:
        pieces = (MIB // 64 if budget.quick else MIB) // PIECE
        pair = Pair()
        with pinned(1):
            ours = sides.Console(make(PIECE))
            try:
                with Floor("console", guest=ours.image()) as floor:
                    ours.measure(1)
                    floor.measure(1)
                    for _ in range(pieces):
                        pair.ours.append(ours.measure(1))
                        pair.floor.append(floor.measure(1))
            finally:
                ours.close()
        return row_of(per_operation(pair, PIECE / MIB), row, goal)  # ns for a MiB

    return Spec(row, measure)


class Workers:
    """Ring-3 work on the first `active` of two vCPUs: stamps a second. The stamps are counted in C."""

    def __init__(self) -> None:
        self.machine = Machine(cpus=2)
        self._words = [self.machine.port_word(guests.STAMP)]
        code = guests.work(1_000_000)
        boot.write_tables(self.machine.memory, 2, user=((sides.CODE, sides.CODE + PAGE),), allowed_ports=[guests.STAMP])
        self.machine.memory.write(sides.CODE, code)

    def image(self) -> bytes:
        """Both vCPUs at work, for the C floor; before the first run."""
        for cpu in self.machine.cpus:
            self.machine.start(cpu.index, sides.CODE, ring=3)
        return image(self.machine, SetUp(stamp_port=guests.STAMP))

    def rate(self, active: int, seconds: float) -> float:
        """Stamps per second of wall time."""
        machine, word = self.machine, self._words[0]
        machine.start(0, sides.CODE, ring=3)
        cpus = machine.cpus[1:active]
        for cpu in cpus:
            machine.start(cpu.index, sides.CODE, ring=3)
        before = word.writes
        stop, _, wall = machine.all_cpus.run(cpus, seconds, None)
        assert stop.limited
        return (word.writes - before) / wall

    def close(self) -> None:
        self.machine.close()


def two_vcpus() -> Spec:
    row = Row("two_vcpus", "goals", "ring-3 work by two vCPUs, against one", "process", "1/s", peer="one vCPU",
              goal=Goal(1.9, "at least 1.90 x", better="higher"))  # fmt: skip

    def turns(workers: Workers, stack: ExitStack, seconds: float) -> tuple[Turn, Turn]:
        workers.rate(2, seconds)
        return lambda: [workers.rate(2, seconds)], lambda: [workers.rate(1, seconds)]

    return _by_two(row, turns)


def two_vcpus_c() -> Spec:
    row = Row("two_vcpus_c", "goals", "the same, against two vCPUs of the C program", "process", "1/s", peer="C",
              goal=Goal(0.97, "at least 0.97 x", better="higher"))  # fmt: skip

    def turns(workers: Workers, stack: ExitStack, seconds: float) -> tuple[Turn, Turn]:
        floor = stack.enter_context(Floor("work", guest=workers.image()))
        return lambda: [workers.rate(2, SLICE)], lambda: floor.measure(1)  # whose slice is this one

    return _by_two(row, turns)


def _by_two(row: Row, turns: Callable[[Workers, ExitStack, float], tuple[Turn, Turn]]) -> Spec:
    """Workers on two CPUs beside something else, in turns; `turns` gives both sides, in stamps a second."""

    def measure(budget: Budget) -> Row:
        with pinned(2) as enough:
            if not enough:
                return replace(row, why="needs two CPUs, and this process may use one")
            workers, pair = Workers(), Pair()
            try:
                with ExitStack() as stack:
                    ours, floor = turns(workers, stack, SLICE / 5 if budget.quick else SLICE)
                    for turn in range(3 if budget.quick else 20):
                        pair.ours.append(ours())
                        pair.floor.append(floor())
                        if turn > 5 and pair.settled:
                            break
            finally:
                workers.close()
        return row_of(pair, row)

    return Spec(row, measure)


def idle_vm() -> Spec:
    row = Row("idle_vm", "goals", f"one more idle VM, of {IDLE_VMS} in this process", "process", "bytes",
              goal=Goal(IDLE_LIMIT, f"at most {IDLE_LIMIT >> 10} KiB", of="median"))  # fmt: skip

    def measure(budget: Budget) -> Row:
        count = 50 if budget.quick else IDLE_VMS
        costs: list[float] = []
        with _descriptors(5 * count + 100), ExitStack() as stack:
            kvm = stack.enter_context(Kvm.open())
            for _ in range(count // IDLE_GROUP):
                before = resident()
                group = [stack.enter_context(_idle(kvm)) for _ in range(IDLE_GROUP)]
                costs.append((resident() - before - sum(map(touched, group))) / IDLE_GROUP)
        costs = costs[1:]  # the first group fills what the process keeps for all
        return replace(
            row, median=median(costs), mad=mad(costs), n=len(costs),
            what=f"one more idle VM, of {count} in this process",
        )  # fmt: skip

    return Spec(row, measure)


def _idle(kvm: Kvm) -> Machine:
    """A VM that has run to its first HLT."""
    machine = Machine(memory=2 * LARGE_PAGE, kvm=kvm)
    machine.load(guests.HLT)
    machine.run()
    return machine


def resident() -> int:
    """Bytes of this process in memory, exactly (statm may be some pages behind). What the kernel keeps is not in it."""
    for line in Path("/proc/self/smaps_rollup").read_bytes().splitlines():
        if line.startswith(b"Rss:"):
            return int(line.split()[1]) << 10
    raise HostError("/proc/self/smaps_rollup tells no Rss")


def touched(machine: Machine) -> int:
    """Bytes of guest memory that are there, by the page table of this process (admin-guide/mm/pagemap.rst: bit 63)."""
    mapping = machine.memory.slots[0].mapping
    with Path("/proc/self/pagemap").open("rb", buffering=0) as file:
        file.seek(mapping.hva // PAGE * 8)
        entries = file.read(mapping.size // PAGE * 8)
    return PAGE * sum(byte >> 7 for byte in entries[7::8])


class _descriptors:
    """Room for so many open files, where the hard limit allows it; put back at the end."""

    def __init__(self, needed: int) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_NOFILE)
        soft, hard = self._before
        self._wanted = (max(soft, min(needed + len(list(Path("/proc/self/fd").iterdir())), hard)), hard)

    def __enter__(self) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._wanted)

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._before)

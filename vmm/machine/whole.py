# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine as its parts see it: what the debugger, a call, a saved state, a board may ask of it. A shape alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Protocol, Self

from vmm.asm.program import Program
from vmm.kvm.system import Kvm
from vmm.kvm.vm import Vm
from vmm.machine.bus.platform import Platform
from vmm.machine.devices.ioapic import Ioapic
from vmm.machine.devices.uart16550 import Uart16550A
from vmm.machine.ends import Result
from vmm.machine.memory.slots import GuestMemory
from vmm.machine.run.all_cpus import AllCpus
from vmm.machine.run.cpu import Cpu
from vmm.machine.run.lean import LeanLane


class Whole(Protocol):
    """See vmm.machine.machine.Machine."""

    kvm: Kvm
    vm: Vm
    memory: GuestMemory
    platform: Platform
    lane: LeanLane
    all_cpus: AllCpus
    program: Program | None
    ram: tuple[tuple[int, int], ...]
    ioapic: Ioapic | None
    line_drivers: list[Callable[[int, bool], object]]

    @property
    def irqchip(self) -> str: ...

    @property
    def shape(self) -> dict[str, Any]: ...

    @property
    def uart(self) -> Uart16550A: ...

    @property
    def cpus(self) -> list[Cpu]: ...

    def load(
        self, what: Program, *, ring: int, user: Iterable[tuple[int, int]], allowed_ports: Iterable[int]
    ) -> Program: ...

    def start(self, index: int, entry: int | str) -> None: ...

    def take_over(self, program: Program | None, started: Iterable[int]) -> None: ...

    def close(self) -> None: ...

    def between_runs(self, doing: str) -> None: ...

    def irq_line(self, gsi: int, level: bool) -> None: ...

    def run(self, timeout: float | None = None) -> Result: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None, /
    ) -> None: ...


class Make(Protocol):
    """Makes another machine on the same /dev/kvm, for what has to be measured."""

    def __call__(self, *, kvm: Kvm) -> Whole: ...

# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a guest spins that did not end in time, and how many instructions one executes: by KVM's single-step."""

from __future__ import annotations

from vmm.errors import VmmError
from vmm.kvm.exits import Debug, Exit
from vmm.machine.ends import Why
from vmm.machine.machine import Machine
from vmm.machine.run.cpu import Cpu

STEPS = 60
"""A loop of a lesson has ten instructions or so: some turns of it are enough to know it by."""
PATIENCE = 1.0  # seconds for those steps, where a host is slow


class Steps:
    """`places` are the addresses that vCPU 0 came to, in order; `why` is how the steps ended."""

    def __init__(self, machine: Machine) -> None:
        self.places: list[int] = []
        self.why: Why | None = None
        self._machine = machine

    def take(self, most: int = STEPS, patience: float = PATIENCE) -> list[int]:
        """Run on, step by step, for so many exits at most, and at most so many seconds. Fewer places, or none, where
        this host cannot step.
        """
        machine = self._machine
        try:
            machine.observe(self._note, Debug)
            machine.debugger.begin_stepping(lambda text: None)
            self.why = machine.run(patience, exit_limit=most).stop.why
        except VmmError:
            pass  # no step on this host: what is known without is said
        finally:
            machine.debugger.stepping = False
            machine.unobserve(self._note)
        return self.places

    def _note(self, cpu: Cpu, exit: Exit) -> None:
        if cpu.index == 0 and isinstance(exit, Debug):
            self.places.append(exit.pc)

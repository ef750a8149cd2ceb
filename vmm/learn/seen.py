# SPDX-License-Identifier: GPL-2.0-or-later
"""What one run of a student's guest was, for a check: how it ended and where, its exits with their lines, registers,
memory, results. It reads a stopped machine and judges nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

from vmm.asm.program import Line
from vmm.errors import GuestMemoryError
from vmm.kvm.exits import Exit, Interrupted
from vmm.machine.ends import Result, Stop, Why
from vmm.machine.memory.layout import REGIONS, describe
from vmm.machine.run.cpu import Cpu
from vmm.observe.location import Sites
from vmm.observe.postmortem import PostMortem, examine
from vmm.payload.guest import Guest

KEPT = 64
"""Exits of which the line is kept; of a guest that makes more, the first and the last of them tell enough."""

AT_AN_EXIT = (Why.EXIT_PORT, Why.HALT, Why.OUTPUT_LIMIT, Why.EXIT_LIMIT)
"""Ends that an exit of the guest was, so that its place is the exit's; RIP may be behind the instruction by then."""


class Exited(NamedTuple):
    """An exit, and the address of the instruction that caused it."""

    exit: Exit
    at: int
    vcpu: int


class Watcher:
    """Notes the exits of a guest with their places: `exits`, the first of them."""

    def __init__(self, guest: Guest) -> None:
        self.exits: list[Exited] = []
        self._last: tuple[Cpu, Exit] | None = None
        self._sites = Sites(guest.machine)
        guest.machine.observe(self._note)

    def _note(self, cpu: Cpu, exit: Exit) -> None:
        if isinstance(exit, Interrupted):  # our own kick: nothing that the guest did
            return
        if len(self.exits) < KEPT:
            self.exits.append(self._placed(cpu, exit))
        self._last = cpu, exit

    def _placed(self, cpu: Cpu, exit: Exit) -> Exited:
        return Exited(exit, self._sites.of(cpu, exit).rip, cpu.index)

    def last(self) -> Exited | None:
        """The last of them; asked when the machine stands still."""
        return self._placed(*self._last) if self._last else None


class Seen:
    """One run. `params` are its parameters; `exits` the first 64 of its exits, `last` the last one."""

    def __init__(
        self, guest: Guest, result: Result, exits: list[Exited], last: Exited | None, params: Mapping[str, int]
    ) -> None:
        self.guest, self.result, self.exits, self.last, self.params = guest, result, exits, last, params
        self.memory, self.program = guest.machine.memory, guest.program
        self._rows = (guest.payload.text or "").splitlines()

    @property
    def stop(self) -> Stop:
        return self.result.stop

    @cached_property
    def postmortem(self) -> PostMortem:
        """The whole of it: registers as they were at a fault, the place, what may be the cause."""
        return examine(self.guest.machine, self.result)

    def reg(self, name: str, vcpu: int = 0) -> int:
        """A register as it was at the end, or at the fault that ended the run."""
        state = next((each for each in self.postmortem.vcpus if each.index == vcpu), None)
        return state.registers[name] if state else 0

    @property
    def rip(self) -> int:
        """Where the vCPU that ended the run stands: for an exit, at the instruction that caused it."""
        by = self.result.vcpu or 0
        if self.stop.why in AT_AN_EXIT and self.last is not None and self.last.vcpu == by:
            return self.last.at
        return self.postmortem.vcpus[0].rip if self.postmortem.vcpus else 0

    def value(self, name: str) -> int | None:
        """A declared result; None if it was not stored."""
        return self.guest.results[name]

    def u64(self, address: int) -> int:
        """8 bytes of guest memory; 0 where there is none."""
        with contextlib.suppress(GuestMemoryError):
            return self.memory.read_u64(address)
        return 0

    def u32(self, address: int) -> int:
        """4 bytes of guest memory; 0 where there is none."""
        return self.u64(address) & 0xFFFF_FFFF

    # -- places, in words

    def line(self, address: int) -> Line | None:
        """The statement at this address."""
        return self.program.source(address)

    def statement(self, address: int) -> str:
        """The mnemonic of the statement at this address, as it was assembled (of a macro, its own); "" without one."""
        line = self.line(address)
        return line.text.split()[0].lower() if line and line.text.split() else ""

    def place(self, address: int) -> str:
        """``line 7 `hlt` ``; of an included file its name too; else what lies there."""
        line = self.line(address)
        if line is None:
            return self._outside(address)
        if line.file != self.guest.payload.file:
            return f"line {line.line} of {line.file.rpartition('/')[2]} `{line.text}`"
        return self.row(line.line)

    def row(self, number: int) -> str:
        """``line 7 `hlt` ``, as the student wrote it, without its comment."""
        text = self._rows[number - 1].partition(";")[0] if 0 < number <= len(self._rows) else ""
        return f"line {number} `{' '.join(text.split())}`"

    def _outside(self, address: int) -> str:
        name = describe(address)
        return f"{address:#x} ({name})" if name else f"{address:#x}"

    def ran_out(self, address: int) -> str:
        """The last line of the program, if this address lies behind it, else "". What lies there is zeros, which are
        code, so that a guest may come to where the region ends.
        """
        last = next((row for row in reversed(self.program.lines) if row.file == self.guest.payload.file), None)
        behind = self.program.end <= address <= REGIONS["code"].end
        return self.row(last.line) if last is not None and behind else ""

    @property
    def here(self) -> str:
        """`place` of where the run ended."""
        return self.place(self.rip)

    def of(self, kind: type[Exit]) -> list[Exited]:
        """The exits of a kind, in their order."""
        return [each for each in self.exits if isinstance(each.exit, kind)]

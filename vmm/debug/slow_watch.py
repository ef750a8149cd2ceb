# SPDX-License-Identifier: GPL-2.0-or-later
"""Watchpoints where no debug register strikes: the bytes are compared after each instruction, and for "read" and
"access" the instruction's operands are looked at, too (accesses.py). It knows memory and page tables; who makes the
steps is going.py and stepping.py.

Of "write" it sees a change: a write of the same value is none. It is some thousand times slower than the guest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.debug.accesses import Touching
from vmm.debug.values import WATCHPOINT
from vmm.errors import GuestMemoryError
from vmm.machine.x86.virtual import read_virtual

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmm.debug.values import Break
    from vmm.machine.machine import Machine
    from vmm.machine.run.cpu import Cpu

BY_STEPS = "step"


def slow(breaks: Iterable[Break]) -> list[Break]:
    """Those that are made by steps: watchpoints, and breakpoints where none strikes."""
    return [each for each in breaks if each.enabled and each.how == BY_STEPS]


class Watched:
    """The bytes at some watchpoints, as they were when it was made or asked last."""

    def __init__(self, machine: Machine, watches: Iterable[Break]) -> None:
        self._machine = machine
        self._bytes = {each.number: (each, self._read(each)) for each in watches if each.kind == WATCHPOINT}
        self._operands = any(each.access != "write" for each, _ in self._bytes.values())
        self._touching: Touching | None = None

    def before(self, cpu: Cpu) -> None:
        """This vCPU is about to make a step."""
        self._touching = Touching(self._machine, cpu) if self._operands else None

    def _read(self, watch: Break) -> bytes:
        """Nothing, where it is not mapped; of all vCPUs the first that maps it counts."""
        for cpu in self._machine.cpus:
            try:
                return read_virtual(self._machine.memory, cpu.vcpu.get_sregs(), watch.address, watch.size)
            except GuestMemoryError:
                continue
        return b""

    def changes(self) -> list[tuple[Break, str]]:
        """Those that strike since it was asked last, with what their bytes were and are: changed, or, for "access",
        touched; for "read" touched and not changed."""
        found = []
        spans = self._touching.spans() if self._touching else []
        for number, (watch, before) in self._bytes.items():
            now = self._read(watch)
            if now != before:
                self._bytes[number] = watch, now
                if watch.access != "read":
                    found.append((watch, f"{_number(before)} -> {_number(now)}"))
            elif watch.access != "write" and now and any(each.meets(watch.address, watch.size) for each in spans):
                found.append((watch, f"{_number(now)}, as it was"))
        return found


def _number(data: bytes) -> str:
    return f"{int.from_bytes(data, 'little'):#x}" if data else "not mapped"

# SPDX-License-Identifier: GPL-2.0-or-later
"""Watchpoints where no debug register strikes: the bytes are compared after each instruction. It knows memory and page
tables; who makes the steps is going.py and stepping.py.

What it sees is a change: a write of the same value is none. It is some thousand times slower than the guest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.debug.values import WATCHPOINT
from vmm.errors import GuestMemoryError
from vmm.machine.x86.virtual import read_virtual

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmm.debug.values import Break
    from vmm.machine.machine import Machine

BY_STEPS = "step"


def slow(breaks: Iterable[Break]) -> list[Break]:
    """Those that are made by steps: watchpoints, and breakpoints where none strikes."""
    return [each for each in breaks if each.enabled and each.how == BY_STEPS]


class Watched:
    """The bytes at some watchpoints, as they were when it was made or asked last."""

    def __init__(self, machine: Machine, watches: Iterable[Break]) -> None:
        self._machine = machine
        self._bytes = {each.number: (each, self._read(each)) for each in watches if each.kind == WATCHPOINT}

    def _read(self, watch: Break) -> bytes:
        """Nothing, where it is not mapped; of all vCPUs the first that maps it counts."""
        for cpu in self._machine.cpus:
            try:
                return read_virtual(self._machine.memory, cpu.vcpu.get_sregs(), watch.address, watch.size)
            except GuestMemoryError:
                continue
        return b""

    def changes(self) -> list[tuple[Break, str]]:
        """Those whose bytes have changed since it was asked last, with what they were and are."""
        found = []
        for number, (watch, before) in self._bytes.items():
            now = self._read(watch)
            if now != before:
                self._bytes[number] = watch, now
                found.append((watch, f"{_number(before)} -> {_number(now)}"))
        return found


def _number(data: bytes) -> str:
    return f"{int.from_bytes(data, 'little'):#x}" if data else "not mapped"

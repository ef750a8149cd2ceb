# SPDX-License-Identifier: GPL-2.0-or-later
"""More memory for a machine that was made without a size, before it runs: what an image needs.

It knows the map's stretches of RAM and who has to hear of a size; it knows no image. Memory is mapped lazily: it costs
what the guest touches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from vmm.machine.memory import layout
from vmm.machine.memory.slots import GuestMemory

Ram = tuple[tuple[int, int], ...]


class Told(Protocol):
    """A board that tells its guests of the machine's size."""

    def tell_memory(self, ram: Ram, cpus: int) -> None: ...


class Bounded(Protocol):
    """What knows where the machine's RAM ends."""

    ram: Ram


class Growing(Protocol):
    """Of a machine, what has to do with its size."""

    ram: Ram
    memory: GuestMemory

    @property
    def board(self) -> Told: ...

    @property
    def reach(self) -> Bounded: ...

    @property
    def cpus(self) -> Sequence[object]: ...


def grow(machine: Growing, size: int) -> None:
    """Let the machine have `size` bytes of RAM, where it has less: memslots behind those of before, from 4 GiB on what
    devices displace. Nothing is moved, and what was written stays.

    Raises:
        UsageError: the host has not so much, or something of the machine's owner lies there.
    """
    if size <= sum(length for _, length in machine.ram):
        return
    layout.check_memory(size, len(machine.cpus))
    had = dict(machine.ram)
    before, machine.ram = machine.ram, layout.ram_ranges(size)
    machine.reach.ram = machine.ram
    added = []
    try:
        for base, length in machine.ram:
            there = had.get(base, 0)
            if length > there:
                added.append(machine.memory.add(base + there, length - there))
    except BaseException:
        for slot in added:
            machine.memory.remove(slot)
        machine.ram = machine.reach.ram = before
        raise
    machine.board.tell_memory(machine.ram, len(machine.cpus))

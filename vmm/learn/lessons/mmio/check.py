# SPDX-License-Identifier: GPL-2.0-or-later
"""Lesson 4: the device was read at one register and written at another, each by one exit of four bytes."""

from __future__ import annotations

from collections.abc import Mapping

from vmm.kvm.exits import MmioRead, MmioWrite, PortIn, PortOut
from vmm.learn.checks import Checks, Wrong
from vmm.learn.seen import Seen
from vmm.machine.ends import Why
from vmm.machine.memory.layout import REGIONS
from vmm.payload.guest import Guest

BASE = REGIONS["scratch_mmio"].base
COUNT, NEXT, SIZE = 0x10, 0x20, 4


def before(guest: Guest, run: Mapping[str, int]) -> None:
    guest.machine.scratch.write(COUNT, SIZE, run["count"])


def check(seen: Seen) -> str:
    _read(seen)
    return _written(seen)


def _read(seen: Seen) -> None:
    reads = seen.of(MmioRead)
    if not reads:
        raise Wrong(f"your guest never read the device: no KVM_EXIT_MMIO came for a read. {_instead(seen)}")
    exit = reads[0].exit
    assert isinstance(exit, MmioRead)
    if (exit.address, exit.size) != (BASE + COUNT, SIZE):
        raise Wrong(
            f"your guest read {_what(exit.address, exit.size)}, at {seen.place(reads[0].at)}; "
            f"COUNT is {_what(BASE + COUNT, SIZE)}"
        )


def _instead(seen: Seen) -> str:
    """What it did in place of a read."""
    for each in seen.of(PortIn):
        assert isinstance(each.exit, PortIn)
        return (
            f"It read from port {each.exit.port:#x}, at {seen.place(each.at)}; this device has no port, its registers "
            "are addresses, read by MOV"
        )
    for each in seen.of(MmioWrite):
        assert isinstance(each.exit, MmioWrite)
        value = int.from_bytes(each.exit.data, "little")
        named = f": COUNT without brackets is the number {COUNT:#x}, [rbx + COUNT] is what lies there"
        return f"It wrote {value:#x}, at {seen.place(each.at)}{named * (value in (COUNT, COUNT + 1))}"
    return "(LEA only computes an address, and RAM causes no exit)"


def _written(seen: Seen) -> str:
    wanted = seen.params["count"] + 1
    writes = seen.of(MmioWrite)
    if not writes:
        other = next((each for each in seen.of(PortOut)), None)
        instead = "RAM causes no exit" if other is None else f"an OUT goes to a port, at {seen.place(other.at)}"
        raise Wrong(f"your guest never wrote to the device: no KVM_EXIT_MMIO came for a write ({instead})")
    exit = writes[0].exit
    assert isinstance(exit, MmioWrite)
    value = int.from_bytes(exit.data, "little")
    place = seen.place(writes[0].at)
    if (exit.address, len(exit.data)) != (BASE + NEXT, SIZE):
        raise Wrong(
            f"your guest wrote {value:#x} to {_what(exit.address, len(exit.data))}, at {place}; "
            f"NEXT is {_what(BASE + NEXT, SIZE)}"
        )
    if value != wanted:
        raise Wrong(
            f"COUNT was {wanted - 1:#x}, so NEXT has to become {wanted:#x}; your guest wrote {value:#x}, at {place}"
        )
    count = len(seen.of(MmioRead)) + len(writes)
    return (
        f"{count} exits (KVM_EXIT_MMIO): COUNT read as {wanted - 1:#x}, NEXT written with {value:#x}; the store to "
        "RAM was none"
    )


def _what(address: int, size: int) -> str:
    return f"{size} byte{'s' * (size != 1)} at {address:#x} (base + {address - BASE:#x})"


CHECKS = Checks(check, runs=({"count": 0x1234}, {"count": 0x7FFF0000}), ends=Why.HALT, before=before)

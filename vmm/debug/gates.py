# SPDX-License-Identifier: GPL-2.0-or-later
"""Gates of an IDT and descriptors of a GDT, read from guest memory as a CPU in 64-bit mode reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmm.errors import MissingCapability, VmmError
from vmm.kvm.state import Segment
from vmm.machine.x86.virtual import read_virtual

if TYPE_CHECKING:
    from vmm.kvm.state import Sregs
    from vmm.machine.machine import Machine

DB, BP, GP, PF = 1, 3, 13, 14
GATE = 16


@dataclass(frozen=True)
class Gate:
    """Where a vector leads, and the stack that it takes (0: RSP0, else an IST)."""

    vector: int
    handler: int
    ist: int


def gate(machine: Machine, sregs: Sregs, vector: int) -> Gate | None:
    """Of the IDT of 64-bit mode; None where there is none."""
    try:
        low = u64(machine, sregs, sregs.idt.base + GATE * vector)
        high = u64(machine, sregs, sregs.idt.base + GATE * vector + 8)
    except VmmError:
        return None
    if not low >> 47 & 1 or GATE * vector + GATE - 1 > sregs.idt.limit:
        return None
    return Gate(vector, low & 0xFFFF | low >> 32 & 0xFFFF0000 | (high & 0xFFFFFFFF) << 32, low >> 32 & 7)


def descriptor(machine: Machine, sregs: Sregs, selector: int) -> Segment:
    """What a CPU loads for a selector of the GDT (SDM vol. 3A, 3.4.5). MissingCapability: it is of an LDT."""
    if selector & 4:
        raise MissingCapability(f"stepping to ring 3: selector {selector:#x} is of an LDT")
    raw = u64(machine, sregs, sregs.gdt.base + (selector & ~7))
    limit = raw & 0xFFFF | raw >> 32 & 0xF0000
    g = raw >> 55 & 1
    return Segment(
        base=raw >> 16 & 0xFFFFFF | raw >> 32 & 0xFF000000, limit=limit << 12 | 0xFFF if g else limit,
        selector=selector,
        type=raw >> 40 & 15 | 1, present=raw >> 47 & 1, dpl=raw >> 45 & 3, db=raw >> 54 & 1, s=raw >> 44 & 1,
        l=raw >> 53 & 1, g=g, avl=raw >> 52 & 1,
    )  # fmt: skip


def u64(machine: Machine, sregs: Sregs, address: int) -> int:
    """A number of guest memory. GuestMemoryError: nothing is mapped there."""
    return int.from_bytes(read_virtual(machine.memory, sregs, address, 8), "little")

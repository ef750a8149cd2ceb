# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's memory as its devices reach it. It knows memslots; it knows no virtio."""

from __future__ import annotations

from vmm.machine.memory.slots import GuestMemory


class Dma:
    """chain.DmaMemory over memslots: a read-only slot is not written, and nothing outside RAM is reached."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self.read = memory.read
        self.write = memory.write

    def holds(self, gpa: int, size: int, *, write: bool = False) -> bool:
        """Are all of these bytes in memslots (that may be written)? One step for each slot."""
        end = gpa + size
        while gpa < end:
            slot = self._memory.slot_at(gpa)
            if slot is None or (write and slot.readonly):
                return False
            gpa = slot.end
        return True

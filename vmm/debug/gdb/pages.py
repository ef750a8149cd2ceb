# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest memory as a client looks at it, the same few bytes over and over, while a guest stands still. It knows page
tables; it knows no packet, and is told when something may have changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.abi.x86 import PAGE
from vmm.errors import GuestMemoryError
from vmm.machine.x86.virtual import translate

if TYPE_CHECKING:
    from vmm.kvm.state import Sregs
    from vmm.machine.memory.slots import GuestMemory
    from vmm.machine.run.cpu import Cpu


class Pages:
    """Each vCPU's special registers and translations, asked for once."""

    def __init__(self) -> None:
        self._sregs: dict[int, Sregs] = {}
        self._found: dict[tuple[int, int], int] = {}

    def forget(self) -> None:
        """Something may have changed."""
        self._sregs.clear()
        self._found.clear()

    def sregs(self, cpu: Cpu) -> Sregs:
        """Of a vCPU that stands still."""
        found = self._sregs.get(cpu.index)
        if found is None:
            found = self._sregs[cpu.index] = cpu.vcpu.look("sregs")
        return found

    def read(self, memory: GuestMemory, cpu: Cpu, address: int, size: int) -> bytes:
        """Bytes within one page. GuestMemoryError: it is not mapped."""
        key = cpu.index, address // PAGE
        gpa = self._found.get(key)
        if gpa is None:
            walk = translate(memory, self.sregs(cpu), address - address % PAGE)
            if walk.gpa is None:
                raise GuestMemoryError(f"reading guest-virtual {address:#x}: {walk.failure}")
            gpa = self._found[key] = walk.gpa
        return memory.read(gpa + address % PAGE, size)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Did a step end in the handler of an exception or interrupt? It knows the IDT and the frame that the CPU pushes; the
vCPU stands still.

Where KVM steps by RFLAGS.TF, a fault pushes that TF, and the handler's IRET would give it to the guest for good, so
whoever finds the frame takes it out. A host that emulates ring 0 exits one instruction into the handler, so a handler's
second instruction is looked at too. Source: Intel SDM vol. 3A, 6.14.1 to 6.14.5 (64-bit gates, the frame, stacks).
"""

from __future__ import annotations

from vmm.abi.x86 import HAS_ERROR_CODE, RFLAGS
from vmm.base.record import Record
from vmm.errors import VmmError
from vmm.machine.x86.descriptors import GATE_SIZE
from vmm.machine.x86.virtual import read_virtual, write_virtual

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.kvm.state import Regs, Sregs
    from vmm.machine.memory.slots import GuestMemory

FRAME = 40  # bytes: RIP, CS, RFLAGS, RSP, SS
RSP0, IST1 = 4, 36  # offsets in the 64-bit TSS
MAX_INSTRUCTION = 15


class Entry(Record):
    """The CPU went to `handler` of `vectors` (several, where their gates name one handler), interrupted before `rip`.

    `frame` is where the saved RIP lies; `error_code` is None for a vector without one; `inside` tells that the
    handler's first instruction has run already.
    """

    vectors: tuple[int, ...]
    handler: int
    rip: int
    frame: int
    error_code: int | None
    inside: bool = False


class Gates:
    """The IDT of one vCPU, read anew when it has changed."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._bytes = b""
        self._handlers: dict[int, list[tuple[int, int]]] = {}  # handler -> (vector, IST)

    def entry(self, before: Regs, old: Sregs, now: Regs, sregs: Sregs, size: Callable[[int], int]) -> Entry | None:
        """What a step from `before` ended in; None: no handler, or nothing that the frame proves. `size` tells the
        bytes of the instruction at an address. 64-bit mode alone.
        """
        if not sregs.cs.l:
            return None
        try:
            self._read(sregs)
            for handler in self._at(now.rip, size):
                for ist in sorted({ist for _, ist in self._handlers[handler]}):
                    if found := self._frame(handler, ist, before, old, now, sregs):
                        return found
        except VmmError:  # tables that are no tables
            return None
        return None

    def _read(self, sregs: Sregs) -> None:
        data = read_virtual(self._memory, sregs, sregs.idt.base, min(sregs.idt.limit + 1, 256 * GATE_SIZE))
        if data == self._bytes:
            return
        self._bytes, self._handlers = data, {}
        for vector in range(len(data) // GATE_SIZE):
            low, high = (int.from_bytes(data[at : at + 8], "little") for at in (vector * 16, vector * 16 + 8))
            if low >> 47 & 1:  # present
                handler = low & 0xFFFF | low >> 32 & 0xFFFF_0000 | (high & 0xFFFF_FFFF) << 32
                self._handlers.setdefault(handler, []).append((vector, low >> 32 & 7))

    def _at(self, rip: int, size: Callable[[int], int]) -> list[int]:
        """The handlers of which `rip` is the first instruction or the second."""
        near = [at for at in range(rip - 1, rip - MAX_INSTRUCTION - 1, -1) if at in self._handlers]
        return [rip] * (rip in self._handlers) + [at for at in near if at + size(at) == rip]

    def _frame(self, handler: int, ist: int, before: Regs, old: Sregs, now: Regs, sregs: Sregs) -> Entry | None:
        """By the stack that the gate takes: there, a frame that fits where the vCPU was."""
        ring3 = bool(old.ss.dpl) and not sregs.ss.dpl
        if ist or ring3:
            at = sregs.tr.base + (IST1 + 8 * (ist - 1) if ist else RSP0)
            tops = [int.from_bytes(read_virtual(self._memory, sregs, at, 8), "little") & ~0xF]
        else:  # of an interrupt after the instruction, which may have moved RSP: what is there now, too
            tops = [before.rsp & ~0xF, *(now.rsp + FRAME + slot for slot in (0, 8, 16))]
        vectors = tuple(vector for vector, each in self._handlers[handler] if each == ist)
        for top in tops:
            rip, cs, flags, rsp, _ = (
                int.from_bytes(read_virtual(self._memory, sregs, top - FRAME + slot, 8), "little")
                for slot in range(0, FRAME, 8)
            )
            fits = cs == old.cs.selector and flags & RFLAGS.FIXED and not flags >> 22 and abs(rsp - before.rsp) <= 16
            if fits and (handler == now.rip or abs(rip - before.rip) <= MAX_INSTRUCTION):
                code = None
                if any(vector in HAS_ERROR_CODE for vector in vectors):
                    code = int.from_bytes(read_virtual(self._memory, sregs, top - FRAME - 8, 8), "little")
                return Entry(vectors, handler, rip, top - FRAME, code, handler != now.rip)
        return None


def take_tf_out(memory: GuestMemory, sregs: Sregs, entry: Entry) -> None:
    """Of the RFLAGS in the frame, TF, which was the step's and not the guest's."""
    at = entry.frame + 16
    flags = int.from_bytes(read_virtual(memory, sregs, at, 8), "little")
    if flags & RFLAGS.TF:
        write_virtual(memory, sregs, at, (flags & ~RFLAGS.TF).to_bytes(8, "little"))

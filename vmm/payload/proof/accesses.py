# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of guest_payloads/pv/accesses.asm from the host's side: operations in, what each came to out.

Every refusal of a PV feature is asked by a guest through this table; the layout is in the .asm.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vmm.base.bits import MASK64, signed
from vmm.errors import HostError
from vmm.machine.memory.layout import REGIONS
from vmm.payload.guest import Guest

TABLE = REGIONS["data"].base
_ROW = struct.Struct("<QQ4QQQ")
RDMSR, WRMSR, HYPERCALL, CPUID = 1, 2, 3, 4
GP = "#GP"
OK = "accepted"


@dataclass(frozen=True, slots=True)
class Access:
    """One operation of the guest."""

    what: int
    number: int
    args: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it. `value` is RDMSR's, or RAX of a hypercall as a signed number; `words` CPUID's registers."""

    faulted: bool
    value: int
    words: tuple[int, int, int, int]

    @property
    def text(self) -> str:
        """`#GP` or `accepted`."""
        return GP if self.faulted else OK


def rdmsr(index: int) -> Access:
    return Access(RDMSR, index)


def wrmsr(index: int, value: int) -> Access:
    return Access(WRMSR, index, (value,))


def hypercall(nr: int, *args: int) -> Access:
    return Access(HYPERCALL, nr, args)


def cpuid(leaf: int, index: int = 0) -> Access:
    return Access(CPUID, leaf, (index,))


def perform(guest: Guest, accesses: list[Access]) -> list[Answer]:
    """Let the guest (of payload `accesses`) do all of them in one run; it can be asked again and again.

    Raises:
        HostError: the guest did not come to the end of the table.
    """
    memory = guest.machine.memory
    for row, each in enumerate(accesses):
        args = [value & MASK64 for value in (*each.args, 0, 0, 0, 0)[:4]]
        memory.write(TABLE + row * _ROW.size, _ROW.pack(each.what, each.number, *args, 0, 0))
    memory.write(TABLE + len(accesses) * _ROW.size, bytes(8))
    if guest.result is not None:
        guest.machine.cpus[0].vcpu.complete()  # the OUT that ended the run before
        guest.machine.start(0, guest.program.entry)
        guest.clear_results()
    result = guest.run()
    if guest.results["done"] != len(accesses):
        raise HostError(f"the table of accesses ended early: {result.stop.text}")
    answers = []
    for row in range(len(accesses)):
        _, _, a0, a1, _, _, outcome, value = _ROW.unpack(memory.read(TABLE + row * _ROW.size, _ROW.size))
        words = (a0 & 0xFFFFFFFF, a0 >> 32, a1 & 0xFFFFFFFF, a1 >> 32)
        answers.append(Answer(bool(outcome), signed(value), words))
    return answers

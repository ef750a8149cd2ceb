# SPDX-License-Identifier: GPL-2.0-or-later
"""A student's guest once more, in a machine of its own, up to an instruction: what registers and memory held there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vmm.kvm.state import Regs
from vmm.learn.seen import Seen
from vmm.machine.ends import Why
from vmm.machine.memory.slots import GuestMemory
from vmm.payload.guest import Guest


@contextmanager
def up_to(seen: Seen, address: int) -> Iterator[tuple[Regs, GuestMemory] | None]:
    """vCPU 0's registers and the memory before the instruction at this address; None: the guest does not come there."""
    with Guest(seen.guest.payload, seen.guest.options) as again:
        stop = again.machine.run(seen.guest.options.timeout, until=address).stop
        reached = stop.why is Why.REACHED
        yield (again.machine.cpus[0].vcpu.get_regs(), again.machine.memory) if reached else None


def first_of(seen: Seen, mnemonic: str, begin: int) -> int | None:
    """The first statement of this name from an address on, in the order of the text."""
    rows = (row for row in seen.program.lines if row.address >= begin)
    return next((row.address for row in rows if row.text.split()[:1] == [mnemonic]), None)

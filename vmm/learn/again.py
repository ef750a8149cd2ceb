# SPDX-License-Identifier: GPL-2.0-or-later
"""A student's guest once more, in a machine of its own, up to an instruction: what registers and memory held there.

Not every host's breakpoints strike. So an instruction stands in place of the one that is waited for, by which a guest
leaves on every host.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vmm.kvm.state import Regs
from vmm.learn.seen import Seen
from vmm.machine.memory.slots import GuestMemory
from vmm.payload.guest import Guest

PORT = 0xED  # of no device
OUT = bytes((0xE6, PORT))  # OUT PORT, AL: it changes no register but RIP


@contextmanager
def up_to(seen: Seen, address: int) -> Iterator[tuple[Regs, GuestMemory] | None]:
    """vCPU 0's registers, but for RIP, and the memory before the instruction (two bytes or more) at this address.
    None: the guest does not come there.
    """
    came: list[int] = []

    def here(value: int) -> None:
        came.append(value)
        again.machine.stop()

    with Guest(seen.guest.payload, seen.guest.options) as again:
        again.machine.on_port_write(PORT, here)
        again.machine.memory.write(address, OUT)
        again.machine.run(seen.guest.options.timeout)
        yield (again.machine.cpus[0].vcpu.get_regs(), again.machine.memory) if came else None


def first_of(seen: Seen, mnemonic: str, begin: int) -> int | None:
    """The first statement of this name from an address on, in the order of the text."""
    rows = (row for row in seen.program.lines if row.address >= begin)
    return next((row.address for row in rows if row.text.split()[:1] == [mnemonic]), None)

# SPDX-License-Identifier: GPL-2.0-or-later
"""COM1 beside QEMU's: characters that a driver's transmitter sends under THRE's interrupt, the same guest in both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

from vmm.bench import ending, guests
from vmm.bench.compare import Budget, Goal, Row, as_rate, per_operation, pinned, row_of, take_turns
from vmm.bench.microvm import QemuGuest
from vmm.bench.processes import QEMU, NoPeer, peer_name
from vmm.bench.sides import Serial
from vmm.bench.spec import Spec

BURSTS = 8  # of as many characters as the FIFO holds, in a round
# QEMU throws the characters away; pyvmm keeps them.
DEVICE = ("-chardev", "null,id=s", "-device", "isa-serial,chardev=s")


def _measure(row: Row, budget: Budget) -> Row:
    """Without QEMU the figures are those of pyvmm alone."""
    guest, why = guests.serial(BURSTS), ""
    with pinned(1), ExitStack() as stack:
        ours = Serial(guest)
        stack.callback(ours.close)
        try:
            peer = QemuGuest(stack.enter_context(ending.folder()), guest, 0, DEVICE)
            stack.callback(peer.close)
            pair = take_turns(ours, peer, budget)
        except NoPeer as error:
            pair, why = take_turns(ours, None, budget), str(error)
    made = as_rate(row_of(per_operation(pair, guest.count), row))
    return replace(made, why=why) if why else replace(made, peer=peer_name(QEMU))


def specs() -> Iterator[Spec]:
    """The row of this module; its goal is of what pyvmm sends a second, over what QEMU does."""
    what = "characters a second by COM1 with THRE's interrupt on, beside QEMU's isa-serial"
    goal = Goal(1.0, "at least 1.00 x", better="higher")
    row = Row("serial_qemu", "goals", what, "C core", peer="QEMU", goal=goal)
    yield Spec(row, lambda budget: _measure(row, budget))

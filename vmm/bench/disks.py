# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtio disks: 4 KiB reads at random places by a driver of our own, beside the C floor's disk and beside QEMU's."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from vmm.abi import apic
from vmm.abi.x86 import PAGE
from vmm.bench import disk_guest, ending, guests
from vmm.bench.compare import Budget, Goal, Row, as_rate, per_operation, pinned, row_of, take_turns
from vmm.bench.floor import Floor
from vmm.bench.microvm import QemuGuest
from vmm.bench.processes import QEMU, NoPeer, peer_name
from vmm.bench.sides import Batch, Side
from vmm.bench.spec import Spec
from vmm.bench.stats import Pair
from vmm.bench.two_threads import Apart

COUNT = 50  # requests in a round
DEPTH = 8


class DiskReads(Batch):
    """A guest that reads from a disk over `path`."""

    def __init__(self, path: Path, depth: int) -> None:
        super().__init__(disk_guest.disk_reads(depth, COUNT), irqchip="split")
        self._apart = Apart()
        with self._apart.others():
            self.disk = self.machine.add_virtio_blk(path, readonly=True, vector=guests.VECTOR)
        self.machine.memory.write(disk_guest.BASE, struct.pack("<2Q", self.disk.base, PAGE))
        self.set_up |= {"msi_address": apic.msi_address(0), "msi_data": apic.msi_data(guests.VECTOR)}

    def settle(self) -> None:
        self._apart.place_this()


def _turns(ours: DiskReads, peer: Side | None, budget: Budget) -> Pair:
    ours.settle()
    return per_operation(take_turns(ours, peer, budget), COUNT)


def _measured(row: Row, depth: int, budget: Budget, *, qemu: bool) -> Row:
    """`row` with the figures; without QEMU those of pyvmm alone."""
    why, name = "", "C"
    with pinned(2), ExitStack() as stack:
        folder = stack.enter_context(ending.folder())
        path = folder / "disk"
        path.write_bytes(os.urandom(disk_guest.DISK_SIZE))
        ours = DiskReads(path, depth)
        stack.callback(ours.close)
        try:
            peer: Side
            if qemu:
                name = peer_name(QEMU)
                drive = f"if=none,id=d,format=raw,readonly=on,file={path}"
                words = ["-drive", drive, "-device", "virtio-blk-device,drive=d"]
                peer = QemuGuest(folder, disk_guest.disk_reads(depth, COUNT), disk_guest.BASE, words)
            else:
                peer = Floor("disk", str(path), hex(ours.disk.base), guest=ours.image())
            stack.callback(peer.close)
            pair = _turns(ours, peer, budget)
        except NoPeer as error:
            pair, why = _turns(ours, None, budget), str(error)
    made = row_of(pair, row)
    return replace(made, why=why) if why else replace(made, peer=name)


def _row(name: str, what: str, depth: int, goal: Goal, *, qemu: bool = False, rate: bool = False) -> Spec:
    row = Row(name, "goals", what, "C core", peer="QEMU" if qemu else "C", goal=goal)

    def measure(budget: Budget) -> Row:
        made = _measured(row, depth, budget, qemu=qemu)
        return as_rate(made) if rate else made

    return Spec(row, measure)


def specs() -> Iterator[Spec]:
    """The rows of this module. The goals of a rate are of what pyvmm does a second, over what the other does."""
    one, many = "4 KiB from a virtio disk, at random", f"the same, {DEPTH} in flight, as reads a second"
    enough = Goal(0.7, "at least 0.70 x", better="higher")
    yield _row("disk_read", one, 1, Goal(1.1, "at most 1.10 x"))
    yield _row("disk_read_qemu", f"{one}; QEMU's, without an iothread", 1, Goal(1.0, "at most 1.00 x"), qemu=True)
    yield _row("disk_rate", many, DEPTH, Goal(0.9, "at least 0.90 x", better="higher"), rate=True)
    yield _row("disk_rate_qemu", f"{many}; QEMU's, without an iothread", DEPTH, enough, qemu=True, rate=True)

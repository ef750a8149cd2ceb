# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtio network cards: frames that come back, by a driver of our own, beside the C floor's card and beside QEMU's.

At the other end of each side's pair of datagram sockets is a process of the C program that sends every message back.
"""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from vmm.abi import apic
from vmm.abi.x86 import PAGE
from vmm.bench import ending, guests, net_guest
from vmm.bench.compare import Budget, Goal, Row, as_rate, per_operation, pinned, row_of, take_turns
from vmm.bench.floor import Floor, build
from vmm.bench.microvm import QemuGuest
from vmm.bench.processes import QEMU, NoPeer, peer_name
from vmm.bench.sides import Batch, Side
from vmm.bench.spec import Spec
from vmm.bench.stats import Pair

COUNT = 20  # frames in a round
SHORT, LONG = 60, 1514  # bytes: the least and the most of Ethernet, with an MTU of 1500
DEPTH = 8


class Frames(Batch):
    """A guest whose frames go over `cable` and come back."""

    def __init__(self, cable: socket.socket, size: int, depth: int) -> None:
        super().__init__(net_guest.echoed_frames(size, depth, COUNT), irqchip="split")
        self.card = self.machine.add_virtio_net(cable, vector=guests.VECTOR)
        self.machine.memory.write(net_guest.BASE, struct.pack("<2Q", self.card.base, PAGE))
        self.set_up |= {"msi_address": apic.msi_address(0), "msi_data": apic.msi_data(guests.VECTOR)}


@contextmanager
def echo() -> Iterator[socket.socket]:
    """One end of a cable whose other end sends back what it gets."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        fd = theirs.fileno()
        process = subprocess.Popen([str(build()), "echo", str(fd)], pass_fds=(fd,), stdin=subprocess.DEVNULL)
        try:
            yield ours
        finally:
            process.kill()
            process.wait()


def _peer(stack: ExitStack, ours: Frames, size: int, depth: int, *, qemu: bool) -> Side:
    cable = stack.enter_context(echo())
    fd = cable.fileno()
    if not qemu:
        return Floor("net", str(fd), hex(ours.card.base), guest=ours.image(), fds=(fd,))
    words = ["-netdev", f"dgram,id=n,local.type=fd,local.str={fd}", "-device", "virtio-net-device,netdev=n"]
    guest = net_guest.echoed_frames(size, depth, COUNT)
    return QemuGuest(stack.enter_context(ending.folder()), guest, net_guest.BASE, words, fds=(fd,))


def _measured(row: Row, size: int, depth: int, budget: Budget, *, qemu: bool) -> Row:
    """`row` with the figures; without QEMU those of pyvmm alone."""

    def turns(peer: Side | None) -> Pair:
        return per_operation(take_turns(ours, peer, budget), COUNT)

    why, name = "", "C"
    with pinned(2), ExitStack() as stack:
        ours = Frames(stack.enter_context(echo()), size, depth)
        stack.callback(ours.close)
        try:
            if qemu:
                name = peer_name(QEMU)
            peer = _peer(stack, ours, size, depth, qemu=qemu)
            stack.callback(peer.close)
            pair = turns(peer)
        except NoPeer as error:
            pair, why = turns(None), str(error)
    made = row_of(pair, row)
    return replace(made, why=why) if why else replace(made, peer=name)


def _row(name: str, what: str, size: int, depth: int, goal: Goal, *, qemu: bool = False, rate: bool = False) -> Spec:
    row = Row(name, "goals", what, "C core", peer="QEMU" if qemu else "C", goal=goal)

    def measure(budget: Budget) -> Row:
        made = _measured(row, size, depth, budget, qemu=qemu)
        return as_rate(made) if rate else made

    return Spec(row, measure)


def specs() -> Iterator[Spec]:
    """The rows of this module. The goals of a rate are of what pyvmm does a second, over what the other does."""
    one = f"{SHORT} bytes by a virtio card, and back"
    many = f"{LONG} bytes and back, {DEPTH} under way, as frames a second"
    yield _row("net_echo", one, SHORT, 1, Goal(1.1, "at most 1.10 x"))
    yield _row("net_echo_qemu", f"{one}; QEMU's", SHORT, 1, Goal(1.0, "at most 1.00 x"), qemu=True)
    yield _row("net_rate", many, LONG, DEPTH, Goal(0.9, "at least 0.90 x", better="higher"), rate=True)
    yield _row("net_rate_qemu", f"{many}; QEMU's", LONG, DEPTH, Goal(0.7, "at least 0.70 x", better="higher"),
               qemu=True, rate=True)  # fmt: skip

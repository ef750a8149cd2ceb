# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames between the queues of a network card and its link: the readable model of vmm/kvm/_net.c, and what serves where
C cannot (no eventfds, a link of the user's own).

It knows queues, packets and a link by its interface; it knows no socket, no tap, no registers and no commands. Nobody
is hurried: a frame stays with the link until the guest has a buffer for it, and what the link does not take now stays
in the guest's queue. What cannot be delivered at all is dropped and counted, as a card does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from vmm.abi import virtio_net as net
from vmm.machine.virtio.chain import Chain, DriverError
from vmm.machine.virtio.filter import Filter
from vmm.machine.virtio.links.link import HDR, MOST_FRAME, Link, LinkDown, Refused
from vmm.machine.virtio.queue import SplitQueue

RECEIVE, TRANSMIT, CONTROL = 0, 1, 2
PULLED = "the cable is pulled"
_NUM_BUFFERS = net.NET_HDR.field("num_buffers").offset
_ONE_BUFFER = (1).to_bytes(2, "little")


class Carrier(Protocol):
    """Who carries a card's frames: `Frames` here, or `net_engine.NetEngine`, which has C do it."""

    @property
    def counts(self) -> Counter[str]:
        """Frames and bytes, as `VirtioNet.counts`."""

    @property
    def drop_reason(self) -> str:
        """Why a frame was lost last."""

    @property
    def gone(self) -> str:
        """Why there is no link (any more); empty if there is."""

    @property
    def wants(self) -> tuple[bool, bool, bool]:
        """Of the link: input, room for a packet; and whether more waits that had its turn."""

    @property
    def waiting(self) -> bytes:
        """The packet that waits for a buffer; empty if none does."""

    def started(self) -> None:
        """The driver is up. Buffers that it gave before need no kick."""

    def reset(self) -> None:
        """Forget the driver. A packet that waited is lost with the buffers that it waited for."""

    def restored(self, waiting: bytes) -> None:
        """A state was put back, in which this packet waited: what waited then has no kick any more."""

    def pull(self, pulled: bool) -> None:
        """The cable is pulled, or back."""

    def filter_changed(self) -> None:
        """The driver wants other frames."""

    def lose_link(self, why: str) -> None:
        """The other end is not there any more: nobody looks at the link from here on."""


class Frames:
    """In Python. `passing()` is the filter of now; `changed()` is called when the link is lost."""

    def __init__(self, link: Link | None, passing: Callable[[], Filter], changed: Callable[[], object]) -> None:
        self.link, self._passing, self._changed = link, passing, changed
        self.counts: Counter[str] = Counter()
        self.gone = "" if link is not None else "no cable"
        self.drop_reason = ""
        self.poke: Callable[[], object] = _nothing  # who waits for the link is to look at the wishes again
        self.wants_input = self.wants_room = self.has_more = False
        self.blocked = False  # it is a packet that wants room, and not the rest of one that the link has begun
        self._pulled = False
        self._waiting: bytes | None = None  # a packet for which there was no buffer

    # -- Carrier

    @property
    def wants(self) -> tuple[bool, bool, bool]:
        return self.wants_input, self.wants_room, self.has_more

    @property
    def link_up(self) -> bool:
        """Do packets get through?"""
        return not self.gone and not self._pulled

    @property
    def waiting(self) -> bytes:
        return self._waiting or b""

    def started(self) -> None:
        self.wants_input = not self.gone
        self.poke()

    def reset(self) -> None:
        self.wants_input = self.wants_room = self.has_more = self.blocked = False
        if self._waiting is not None:
            self._waiting = None
            self._drop("rx_dropped", "the driver was reset")

    def restored(self, waiting: bytes) -> None:
        self._waiting = waiting or None
        self.has_more = bool(waiting)
        self.wants_input = not self.has_more and not self.gone
        self.wants_room = self.blocked = not self.gone
        self.poke()

    def pull(self, pulled: bool) -> None:
        self._pulled = pulled
        self.poke()

    def filter_changed(self) -> None:
        """It is asked of each frame."""

    def lose_link(self, why: str) -> None:
        self.gone = why
        self.wants_input = self.has_more = False
        self._changed()
        self.poke()  # what waited for room is lost now

    # -- from the link to the guest

    def receive(self, queue: SplitQueue, *, mergeable: bool) -> None:
        """Deliver what is there. At most as many packets as the ring is long: the rest is for the next call."""
        queue.waiting()  # also where nothing is there to deliver: a ring that is broken is to be told
        if self.wants_input or self.has_more:
            return  # the link has nothing now, or whoever listens to it is about to call
        for _ in range(queue.size):
            packet = self._waiting or self._next()
            if packet is None:
                self.wants_input = not self.gone
                break
            waited, self._waiting = self._waiting is not None, None
            if self._is_for_guest(packet) and not self._deliver(queue, packet, mergeable=mergeable):
                self._waiting = packet  # until the driver kicks
                self.counts["rx_waits"] += not waited
                break
        else:
            self.has_more = True
        if self.wants_input or self.has_more:
            self.poke()

    def _next(self) -> bytes | None:
        if self.link is None or self.gone:
            return None
        try:
            return self.link.receive()
        except LinkDown as error:
            self.lose_link(error.text)
            return None

    def _is_for_guest(self, packet: bytes) -> bool:
        size = len(packet) - HDR
        if self._pulled:
            self._drop("rx_dropped", PULLED)
        elif size < net.ETH_HLEN:
            self._drop("rx_dropped", f"a frame of {size} bytes from the link: no Ethernet header")
        elif size > MOST_FRAME:
            self._drop("rx_dropped", f"a frame of more than {MOST_FRAME} bytes from the link")
        elif not self._passing().passes(packet[HDR : HDR + net.ETH_ALEN]):
            self.counts["rx_filtered"] += 1
        else:
            return True
        return False

    def _deliver(self, queue: SplitQueue, packet: bytes, *, mergeable: bool) -> bool:
        """Put a packet into the guest's buffers; False: there are too few by now, and a kick will say of more. One that
        can never fit is dropped.
        """
        size, room = len(packet), 0
        chains: list[Chain] = []
        left = queue.waiting()
        while room < size and (mergeable or not chains) and len(chains) < queue.size:
            left = left or queue.pending()
            if not left:
                break
            left -= 1
            chain = queue.pop()
            if chain.readable or chain.write_size < HDR:
                raise DriverError(
                    f"a buffer to receive into has {chain.read_size} bytes to read and room for {chain.write_size}; "
                    f"the header alone takes {HDR}"
                )
            chains.append(chain)
            room += chain.write_size
        if room < size:
            queue.put_back(len(chains))
            if not chains or (mergeable and len(chains) < queue.size):
                return False
            self._drop("rx_dropped", f"a frame of {size - HDR} bytes, and the guest's buffers have room for {room}")
            return True
        count = len(chains).to_bytes(2, "little") if mergeable else _ONE_BUFFER
        done = 0
        used = []
        packet = packet[:_NUM_BUFFERS] + count + packet[HDR:]
        for chain in chains:
            piece = packet[done : done + chain.write_size]
            chain.write(0, piece)
            used.append((chain, len(piece)))
            done += len(piece)
        queue.push_all(used)
        self.counts["rx_frames"] += 1
        self.counts["rx_bytes"] += size - HDR
        return True

    # -- from the guest to the link

    def transmit(self, queue: SplitQueue) -> None:
        """Send what waits, until the link takes no more."""
        waiting = queue.pending()
        if self.blocked:
            return  # whoever listens to the link is about to call
        for _ in range(waiting):
            chain = queue.pop()
            if chain.writable or chain.read_size < HDR:
                raise DriverError(
                    f"a packet of {chain.read_size} bytes with room to write {chain.write_size}; the header takes {HDR}"
                )
            size = chain.read_size - HDR
            if self._is_to_send(size) and not self._send(chain.read(0, chain.read_size), size):
                queue.put_back(1)
                self.counts["tx_waits"] += 1
                self.blocked = True
                self._want_room()
                return
            queue.push(chain, 0)
        if not self.gone and not self._flushed():
            self._want_room()

    def _want_room(self) -> None:
        self.wants_room = True
        self.poke()

    def _flushed(self) -> bool:
        """Has the link given on all that it took?"""
        try:
            return self.link is None or self.link.flush()
        except LinkDown as error:
            self.lose_link(error.text)
            return True

    def _is_to_send(self, size: int) -> bool:
        if not self.link_up:
            self._drop("tx_dropped", self.gone or PULLED)
        elif not net.ETH_HLEN <= size <= MOST_FRAME:
            self._drop("tx_dropped", f"a frame of {size} bytes from the guest; {net.ETH_HLEN} to {MOST_FRAME}")
        else:
            return True
        return False

    def _send(self, packet: bytes, size: int) -> bool:
        """False: the link takes nothing now. A packet that it can never take is dropped."""
        assert self.link is not None
        try:
            if not self.link.send(packet):
                return False
        except Refused as error:
            self._drop("tx_dropped", error.text)
        except LinkDown as error:
            self.lose_link(error.text)
            self._drop("tx_dropped", error.text)
        else:
            self.counts["tx_frames"] += 1
            self.counts["tx_bytes"] += size
        return True

    def _drop(self, what: str, why: str) -> None:
        self.counts[what] += 1
        self.drop_reason = why


def _nothing() -> None:
    """Nobody is there yet."""

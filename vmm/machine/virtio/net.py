# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-net with one pair of queues over a link (VIRTIO 1.2, 5.1): queue 0 receives, 1 transmits, 2 takes commands.

It knows queues, packets and a link by its interface; it knows no socket, no tap and no registers. Nobody is hurried: a
frame stays with the link until the guest has a buffer for it, and what the link does not take now stays in the guest's
queue. What cannot be delivered at all is dropped and counted, as a card does. The end of the link is a cable that is
pulled: the driver is told, and the guest runs on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from vmm.abi import virtio
from vmm.abi import virtio_net as net
from vmm.machine.virtio.chain import Chain, DriverError
from vmm.machine.virtio.filter import Filter
from vmm.machine.virtio.links.link import HDR, MOST_FRAME, Link, LinkDown, Refused
from vmm.machine.virtio.queue import SplitQueue

RECEIVE, TRANSMIT, CONTROL = 0, 1, 2
QUEUE_SIZE = 256
CONTROL_SIZE = 64
MOST_COMMAND = 1 << 16  # bytes
OWN = virtio.feature(
    net.VIRTIO_NET_F_MAC, net.VIRTIO_NET_F_STATUS, net.VIRTIO_NET_F_MRG_RXBUF, net.VIRTIO_NET_F_CTRL_VQ,
    net.VIRTIO_NET_F_CTRL_RX, net.VIRTIO_NET_F_CTRL_RX_EXTRA, net.VIRTIO_NET_F_CTRL_MAC_ADDR,
    net.VIRTIO_NET_F_GUEST_ANNOUNCE,
)  # fmt: skip
GUEST_OFFLOADS = virtio.feature(
    net.VIRTIO_NET_F_GUEST_CSUM, net.VIRTIO_NET_F_GUEST_TSO4, net.VIRTIO_NET_F_GUEST_TSO6, net.VIRTIO_NET_F_GUEST_ECN
)
_MERGEABLE = virtio.feature(net.VIRTIO_NET_F_MRG_RXBUF)
_COMMANDS = virtio.feature(net.VIRTIO_NET_F_CTRL_VQ)
_ANNOUNCE = virtio.feature(net.VIRTIO_NET_F_GUEST_ANNOUNCE)
_OFFLOADS = virtio.feature(net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS)
_NUM_BUFFERS = net.NET_HDR.field("num_buffers").offset
_ONE_BUFFER = (1).to_bytes(2, "little")


class VirtioNet:
    """A network card. `link` None is a card without a cable.

    `counts`: frames and bytes (of frames) by "rx_frames", "rx_bytes", "tx_frames", "tx_bytes"; lost ones by
    "rx_dropped" and "tx_dropped", with the last reason in `drop_reason`, and what the driver's filter did not want by
    "rx_filtered"; "rx_waits" are frames that waited for a buffer, "tx_waits" times that the link took nothing more.
    `gone` says why the link is no more.
    """

    name = "virtio-net"
    device_id = net.VIRTIO_ID_NET
    queue_sizes = (QUEUE_SIZE, QUEUE_SIZE, CONTROL_SIZE)

    def __init__(self, link: Link | None, mac: bytes, *, mtu: int | None = None) -> None:
        self.link, self.mac, self.mtu = link, mac, mtu
        self.gone = "" if link is not None else "no cable"
        self.drop_reason = ""
        self.counts: Counter[str] = Counter()
        self.filter = Filter(mac)
        self.features = OWN | (link.offloads if link is not None else 0)
        if mtu is not None:
            self.features |= virtio.feature(net.VIRTIO_NET_F_MTU)
        self.changed: Callable[[], object] = _nothing  # the transport's, once there is one
        self.poke: Callable[[], object] = _nothing  # who waits for the link is to look at `wants_*` again
        self.wants_input = self.wants_room = self.has_more = False
        self._pulled = False  # the host has unplugged the cable
        self._announce = False
        self._waiting: bytes | None = None  # a packet for which there was no buffer
        self._offloads = 0

    # -- the host's side

    @property
    def link_up(self) -> bool:
        """Is there a cable, with somebody at the other end?"""
        return not self.gone and not self._pulled

    def set_link(self, up: bool) -> None:
        """Plug the cable in, or pull it: the driver gets a configuration interrupt. What is pulled loses frames both
        ways. A link whose other end has gone does not come back.
        """
        if self._pulled == up:
            self._pulled = not up
            self.changed()
            self.poke()

    def announce(self) -> None:
        """Ask the driver to tell its neighbours where it is (VIRTIO_NET_S_ANNOUNCE), as after a move."""
        self._announce = True
        self.changed()

    def get_state(self) -> tuple[object, ...]:
        """Filter, a packet that waits for a buffer, offloads. The link itself is the host's alone."""
        return self.filter.get_state(), self._waiting, self._offloads, self._announce

    def set_state(self, state: tuple[object, ...]) -> None:
        """Be as `get_state` found it, on the link that is there now."""
        passing, self._waiting, offloads, self._announce = state  # type: ignore[assignment]
        self.filter.set_state(passing)  # type: ignore[arg-type]
        self._take_offloads(offloads)  # type: ignore[arg-type]
        # What waited then has no kick any more: a packet for a buffer, and packets in the guest's queue for the link.
        self.has_more = self._waiting is not None
        self.wants_input = not self.has_more
        self.wants_room = self.link is not None and not self.gone
        self.poke()

    # -- the transport's side

    def config(self) -> bytes:
        status = net.VIRTIO_NET_S_LINK_UP * self.link_up | net.VIRTIO_NET_S_ANNOUNCE * self._announce
        mac = int.from_bytes(self.filter.mac, "little")
        return net.NET_CONFIG.pack(mac=mac, status=status, max_virtqueue_pairs=1, mtu=self.mtu or 0)

    def started(self, features: int) -> None:
        """The driver is up. Buffers that it gave before need no kick."""
        self._take_offloads(features & GUEST_OFFLOADS)
        self.wants_input = True
        self.poke()

    def serve(self, index: int, queue: SplitQueue, features: int) -> None:
        if index == RECEIVE:
            self._receive(queue, mergeable=bool(features & _MERGEABLE))
        elif index == TRANSMIT:
            self._transmit(queue)
        elif features & _COMMANDS:
            self._commands(queue, features)

    def reset(self) -> None:
        """Forget the driver's wishes. A packet that waited is lost with the buffers that it waited for."""
        self.filter = Filter(self.mac)
        self.wants_input = self.wants_room = self.has_more = self._announce = False
        if self._waiting is not None:
            self._waiting = None
            self._drop("rx_dropped", "the driver was reset")
        self._take_offloads(0)

    def close(self) -> None:
        """Give the link back. Who waits for it must have ended."""
        if self.link is not None:
            self.link.close()

    # -- from the link to the guest

    def _receive(self, queue: SplitQueue, *, mergeable: bool) -> None:
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
            self._lose_link(error.text)
            return None

    def _is_for_guest(self, packet: bytes) -> bool:
        size = len(packet) - HDR
        if self._pulled:
            self._drop("rx_dropped", "the cable is pulled")
        elif size < net.ETH_HLEN:
            self._drop("rx_dropped", f"a frame of {size} bytes from the link: no Ethernet header")
        elif size > MOST_FRAME:
            self._drop("rx_dropped", f"a frame of more than {MOST_FRAME} bytes from the link")
        elif not self.filter.passes(packet[HDR : HDR + net.ETH_ALEN]):
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

    def _transmit(self, queue: SplitQueue) -> None:
        """Send what waits, until the link takes no more."""
        waiting = queue.pending()
        if self.wants_room:
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
            self._lose_link(error.text)
            return True

    def _is_to_send(self, size: int) -> bool:
        if not self.link_up:
            self._drop("tx_dropped", self.gone or "the cable is pulled")
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
            self._lose_link(error.text)
            self._drop("tx_dropped", error.text)
        else:
            self.counts["tx_frames"] += 1
            self.counts["tx_bytes"] += size
        return True

    def _drop(self, what: str, why: str) -> None:
        self.counts[what] += 1
        self.drop_reason = why

    def _lose_link(self, why: str) -> None:
        """The other end is not there any more: nobody looks at the link from here on."""
        self.gone = why
        self.wants_input = self.has_more = False
        self.changed()
        self.poke()  # what waited for room is lost now

    # -- the driver's commands

    def _commands(self, queue: SplitQueue, features: int) -> None:
        for chain in queue.take():
            if chain.read_size < net.CTRL_HDR.size or not chain.write_size:
                raise DriverError("a command without its header to read, or without a byte for the answer")
            done = chain.read_size <= MOST_COMMAND and self._command(chain.read(0, chain.read_size), features)
            chain.write(0, bytes([net.VIRTIO_NET_OK if done else net.VIRTIO_NET_ERR]))
            queue.push(chain, 1)

    def _command(self, request: bytes, features: int) -> bool:
        """Do it; False: this device cannot, or the driver did not say that it would ask."""
        head, data = net.CTRL_HDR.unpack(request), request[net.CTRL_HDR.size :]
        match head["class"], head["cmd"]:
            case net.VIRTIO_NET_CTRL_RX, mode:
                return len(data) == 1 and self.filter.set_mode(mode, data[0])
            case net.VIRTIO_NET_CTRL_MAC, net.VIRTIO_NET_CTRL_MAC_TABLE_SET:
                return self.filter.set_table(data)
            case net.VIRTIO_NET_CTRL_MAC, net.VIRTIO_NET_CTRL_MAC_ADDR_SET:
                return self.filter.set_mac(data)
            case net.VIRTIO_NET_CTRL_ANNOUNCE, net.VIRTIO_NET_CTRL_ANNOUNCE_ACK if features & _ANNOUNCE:
                self._announce = False
                return not data
            case net.VIRTIO_NET_CTRL_GUEST_OFFLOADS, net.VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET if features & _OFFLOADS:
                wanted = int.from_bytes(data, "little")
                if len(data) != 8 or wanted & ~(features & GUEST_OFFLOADS):
                    return False
                self._take_offloads(wanted)
                return True
        return False

    def _take_offloads(self, wanted: int) -> None:
        if self.link is not None and not self.gone and wanted != self._offloads:
            try:
                self.link.offload(wanted)
            except LinkDown as error:
                self._lose_link(error.text)
        self._offloads = wanted


def _nothing() -> None:
    """Nobody is there yet."""

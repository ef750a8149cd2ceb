# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-net with one pair of queues over a link (VIRTIO 1.2, 5.1): queue 0 receives, 1 transmits, 2 takes commands.

It knows the card as its driver sees it: features, configuration, commands, the cable. Who carries the frames is
another's business (net_frames.py in Python, net_engine.py in C). The end of the link is a cable that is pulled: the
driver is told, and the guest runs on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from vmm.abi import virtio
from vmm.abi import virtio_net as net
from vmm.machine.virtio.chain import DriverError
from vmm.machine.virtio.filter import Filter
from vmm.machine.virtio.links.link import Link, LinkDown
from vmm.machine.virtio.net_frames import CONTROL, RECEIVE, TRANSMIT, Carrier, Frames
from vmm.machine.virtio.queue import SplitQueue

__all__ = ["CONTROL", "GUEST_OFFLOADS", "MERGEABLE", "OWN", "QUEUE_SIZE", "RECEIVE", "TRANSMIT", "VirtioNet"]

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
MERGEABLE = virtio.feature(net.VIRTIO_NET_F_MRG_RXBUF)
_COMMANDS = virtio.feature(net.VIRTIO_NET_F_CTRL_VQ)
_ANNOUNCE = virtio.feature(net.VIRTIO_NET_F_GUEST_ANNOUNCE)
_OFFLOADS = virtio.feature(net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS)


class VirtioNet:
    """A network card. `link` None is a card without a cable. `frames` carries its frames in Python; `carrier` is who
    does, which may be another.
    """

    name = "virtio-net"
    device_id = net.VIRTIO_ID_NET
    queue_sizes = (QUEUE_SIZE, QUEUE_SIZE, CONTROL_SIZE)

    def __init__(self, link: Link | None, mac: bytes, *, mtu: int | None = None) -> None:
        self.link, self.mac, self.mtu = link, mac, mtu
        self.filter = Filter(mac)
        self.features = OWN | (link.offloads if link is not None else 0)
        if mtu is not None:
            self.features |= virtio.feature(net.VIRTIO_NET_F_MTU)
        self.changed: Callable[[], object] = _nothing  # the transport's, once there is one
        self.frames = Frames(link, lambda: self.filter, lambda: self.changed())
        self.carrier: Carrier = self.frames
        self._pulled = False  # the host has unplugged the cable
        self._announce = False
        self._offloads = 0
        self._waited = b""  # in the state that is put back

    # -- the host's side

    @property
    def counts(self) -> Counter[str]:
        """Frames and bytes (of frames) by "rx_frames", "rx_bytes", "tx_frames", "tx_bytes"; lost ones by "rx_dropped"
        and "tx_dropped", and what the driver's filter did not want by "rx_filtered"; "rx_waits" are frames that waited
        for a buffer, "tx_waits" times that the link took nothing more.
        """
        return self.carrier.counts

    @property
    def drop_reason(self) -> str:
        """Why a frame was lost last."""
        return self.carrier.drop_reason

    @property
    def gone(self) -> str:
        """Why the link is no more; empty while it is there."""
        return self.carrier.gone

    @property
    def link_up(self) -> bool:
        """Is there a cable, with somebody at the other end?"""
        return not self._pulled and not self.gone

    def set_link(self, up: bool) -> None:
        """Plug the cable in, or pull it: the driver gets a configuration interrupt. What is pulled loses frames both
        ways. A link whose other end has gone does not come back.
        """
        if self._pulled == up:
            self._pulled = not up
            self.changed()
            self.carrier.pull(self._pulled)

    def announce(self) -> None:
        """Ask the driver to tell its neighbours where it is (VIRTIO_NET_S_ANNOUNCE), as after a move."""
        self._announce = True
        self.changed()

    def get_state(self) -> tuple[object, ...]:
        """Filter, a packet that waits for a buffer, offloads. The link itself is the host's alone."""
        return self.filter.get_state(), self.carrier.waiting, self._offloads, self._announce

    def set_state(self, state: tuple[object, ...]) -> None:
        """Be as `get_state` found it, on the link that is there now."""
        passing, self._waited, offloads, self._announce = state  # type: ignore[assignment]
        self.filter.set_state(passing)  # type: ignore[arg-type]
        self.carrier.filter_changed()
        self._take_offloads(offloads)  # type: ignore[arg-type]

    def restored(self) -> None:
        """Queues are served again: what waited then has no kick any more."""
        self.carrier.restored(self._waited)

    # -- the transport's side

    def config(self) -> bytes:
        status = net.VIRTIO_NET_S_LINK_UP * self.link_up | net.VIRTIO_NET_S_ANNOUNCE * self._announce
        mac = int.from_bytes(self.filter.mac, "little")
        return net.NET_CONFIG.pack(mac=mac, status=status, max_virtqueue_pairs=1, mtu=self.mtu or 0)

    def started(self, features: int) -> None:
        """The driver is up. Buffers that it gave before need no kick."""
        self._take_offloads(features & GUEST_OFFLOADS)
        self.carrier.started()

    def serve(self, index: int, queue: SplitQueue, features: int) -> None:
        if index == RECEIVE:
            self.frames.receive(queue, mergeable=bool(features & MERGEABLE))
        elif index == TRANSMIT:
            self.frames.transmit(queue)
        elif features & _COMMANDS:
            self._commands(queue, features)

    def reset(self) -> None:
        """Forget the driver's wishes. A packet that waited is lost with the buffers that it waited for."""
        self.filter = Filter(self.mac)
        self._announce = False
        self.carrier.filter_changed()
        self.carrier.reset()
        self._take_offloads(0)

    def close(self) -> None:
        """Give the link back. Who waits for it must have ended."""
        if self.link is not None:
            self.link.close()

    # -- the driver's commands

    def _commands(self, queue: SplitQueue, features: int) -> None:
        for chain in queue.take():
            if chain.read_size < net.CTRL_HDR.size or not chain.write_size:
                raise DriverError("a command without its header to read, or without a byte for the answer")
            done = chain.read_size <= MOST_COMMAND and self._command(chain.read(0, chain.read_size), features)
            self.carrier.filter_changed()  # before the answer: from there on the driver counts on it
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
                self.carrier.lose_link(error.text)
        self._offloads = wanted


def _nothing() -> None:
    """Nobody is there yet."""

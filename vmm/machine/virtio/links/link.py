# SPDX-License-Identifier: GPL-2.0-or-later
"""A link as a network device sees it: packets in, packets out, nothing ever waits. It knows no queue and no guest.

A packet is a virtio_net_hdr_v1 of 12 bytes (VIRTIO 1.2, 5.1.6) and an Ethernet frame without its check sequence. A link
that has no such header of its own gives one of zeros, and takes none that asks for anything.
"""

from __future__ import annotations

from typing import Protocol

from vmm.abi import virtio_net
from vmm.errors import EXIT_HOST, VmmError

HDR = virtio_net.NET_HDR.size
NO_HDR = bytes(HDR)
MOST_FRAME = virtio_net.MAX_MTU + virtio_net.ETH_HLEN + virtio_net.VLAN_HLEN
"""Bytes of the longest frame: an IP packet of 65535 bytes, or a segment as long, with a VLAN tag."""


class LinkDown(VmmError):
    """Nothing will come or go over this link any more; `text` says why."""

    exit_code = EXIT_HOST


class Refused(VmmError):
    """This one packet cannot be sent; the next may be. `text` says why."""

    exit_code = EXIT_HOST


class Link(Protocol):
    """One end of a cable. Its calls come from one thread at a time."""

    @property
    def name(self) -> str:
        """What it is, for messages: `tap tap0`, `stream socket /run/passt.socket`."""

    @property
    def offloads(self) -> int:
        """VIRTIO_NET_F_* (a word) that it can really do for a driver: checksums, segmentation."""

    def fileno(self) -> int:
        """The descriptor to poll."""

    def receive(self) -> bytes | None:
        """The next packet; None: there is none now, and the descriptor says when.

        Raises:
            LinkDown: and there never will be.
        """

    def send(self, packet: bytes) -> bool:
        """Take a packet; False: not now, and the descriptor says when (POLLOUT).

        Raises:
            LinkDown, Refused: it, or this packet, is lost.
        """

    def flush(self) -> bool:
        """Give on what a `send` took and could not yet; False: some is left, and the descriptor says when.

        Raises:
            LinkDown.
        """

    def offload(self, features: int) -> None:
        """What the driver takes: VIRTIO_NET_F_GUEST_*, of `offloads`."""

    def close(self) -> None:
        """Give the descriptor back. Idempotent."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which frames a network card takes for its driver, by their destination: VIRTIO 1.2, 5.1.6.5.1 and .2.

After a reset it takes all; a driver then says what it wants by commands. It knows addresses; it knows no queue.
"""

from __future__ import annotations

from vmm.abi import virtio_net as net

BROADCAST = b"\xff" * net.ETH_ALEN
MOST = 256  # addresses that are kept; a driver with more gets all frames of that kind
_COUNT = 4  # bytes


class Filter:
    """`mac` is the card's own address."""

    def __init__(self, mac: bytes) -> None:
        self.mac = mac
        self.reset()

    def reset(self) -> None:
        """Everything passes."""
        self.modes = [0] * (net.VIRTIO_NET_CTRL_RX_NOBCAST + 1)
        self.modes[net.VIRTIO_NET_CTRL_RX_PROMISC] = 1
        self.unicast: frozenset[bytes] | None = frozenset()  # None: more than are kept, so all
        self.multicast: frozenset[bytes] | None = frozenset()

    def get_state(self) -> tuple[object, ...]:
        """For `set_state`."""
        return self.mac, tuple(self.modes), self.unicast, self.multicast

    def set_state(self, state: tuple[object, ...]) -> None:
        """Be as `get_state` found it."""
        self.mac, modes, self.unicast, self.multicast = state  # type: ignore[assignment]
        self.modes = list(modes)  # type: ignore[call-overload]

    @property
    def all(self) -> bool:
        """Everything passes."""
        return bool(self.modes[net.VIRTIO_NET_CTRL_RX_PROMISC])

    def passes(self, destination: bytes) -> bool:
        """Does the driver want a frame for this address?"""
        modes = self.modes
        if modes[net.VIRTIO_NET_CTRL_RX_PROMISC]:
            return True
        if destination == BROADCAST:
            return not modes[net.VIRTIO_NET_CTRL_RX_NOBCAST]
        if destination[0] & 1:
            if modes[net.VIRTIO_NET_CTRL_RX_NOMULTI]:
                return False
            known = self.multicast
            return bool(modes[net.VIRTIO_NET_CTRL_RX_ALLMULTI]) or known is None or destination in known
        if modes[net.VIRTIO_NET_CTRL_RX_NOUNI]:
            return False
        known = self.unicast
        if modes[net.VIRTIO_NET_CTRL_RX_ALLUNI] or destination == self.mac:
            return True
        return known is None or destination in known

    def set_mode(self, command: int, value: int) -> bool:
        """VIRTIO_NET_CTRL_RX_*, on or off; False: there is no such mode."""
        if command >= len(self.modes) or value > 1:
            return False
        self.modes[command] = value
        return True

    def set_table(self, data: bytes) -> bool:
        """The tables of unicast and of multicast addresses: each a count (le32) and so many addresses; False: it is not
        that.
        """
        tables = []
        for _ in range(2):
            if len(data) < _COUNT:
                return False
            count, data = int.from_bytes(data[:_COUNT], "little"), data[_COUNT:]
            size = count * net.ETH_ALEN
            if len(data) < size:
                return False
            addresses = frozenset(data[at : at + net.ETH_ALEN] for at in range(0, size, net.ETH_ALEN))
            tables.append(addresses if len(addresses) <= MOST else None)
            data = data[size:]
        if data:
            return False
        self.unicast, self.multicast = tables
        return True

    def set_mac(self, data: bytes) -> bool:
        """Another address of the card's own; False: it is none."""
        if len(data) != net.ETH_ALEN or data[0] & 1:
            return False
        self.mac = data
        return True

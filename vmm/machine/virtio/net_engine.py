# SPDX-License-Identifier: GPL-2.0-or-later
"""A network card whose frames C carries: what a VirtioNet knows, given to vmm/kvm/net_thread.py.

It knows a card, which links C can serve, a queue's attributes and memslots; when to serve is the transport's business
(transport.Engine).
"""

from __future__ import annotations

from collections import Counter

from vmm.kvm import net_thread
from vmm.kvm.net_thread import COUNTS, NetSetup, NetThread
from vmm.machine.memory.slots import GuestMemory
from vmm.machine.virtio.links.link import MOST_FRAME, Link
from vmm.machine.virtio.links.tap import TapLink
from vmm.machine.virtio.links.unix import PacketLink, StreamLink
from vmm.machine.virtio.net import MERGEABLE, RECEIVE, TRANSMIT, VirtioNet
from vmm.machine.virtio.queue import SplitQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def setup_of(link: Link | None, irq: int) -> NetSetup | None:
    """What C has to know of a link, and the eventfd of its interrupt (-1: none); None: it is not one that C serves."""
    if type(link) is TapLink:
        kind = net_thread.TAP if link.has_header else net_thread.BARE_TAP
    elif type(link) is PacketLink:
        kind = net_thread.SEQPACKET if link.ends else net_thread.DATAGRAM
    elif type(link) is StreamLink:
        kind = net_thread.STREAM
    else:
        return None
    return NetSetup(link.fileno(), kind, irq, MOST_FRAME, link.name)


class NetEngine:
    """transport.Engine and net_frames.Carrier over a thread. It follows every change of the machine's memory."""

    serves = (RECEIVE, TRANSMIT)

    def __init__(self, device: VirtioNet, thread: NetThread, memory: GuestMemory) -> None:
        self._device, self._thread, self._memory = device, thread, memory
        self.net = thread.net
        device.carrier = self
        self.filter_changed()
        self._memory_changed()
        memory.changed.append(self._memory_changed)

    def _memory_changed(self) -> None:
        self.net.memory(slot.stretch for slot in self._memory.slots)

    # -- transport.Engine

    @property
    def broken(self) -> str:
        return self.net.broken

    def begin(self, index: int, queue: SplitQueue, features: int) -> None:
        self.net.begin(index, queue, mergeable=bool(features & MERGEABLE))

    def end(self, index: int, queue: SplitQueue) -> None:
        if not self._thread.inherited:
            self.net.end(index, queue)

    def settle(self, index: int, queue: SplitQueue) -> None:
        self.net.settle(index, queue)

    def kick(self, index: int) -> None:
        self.net.kick()

    def tally(self) -> Mapping[str, int]:
        counts = self.net.counts()
        return {"event": counts["kicks"], "interrupts": counts["interrupts"]}

    # -- net_frames.Carrier

    @property
    def counts(self) -> Counter[str]:
        found = self.net.counts()
        return Counter({name: found[name] for name in COUNTS})

    @property
    def drop_reason(self) -> str:
        return self.net.drop_reason

    @property
    def gone(self) -> str:
        return self.net.gone

    @property
    def wants(self) -> tuple[bool, bool, bool]:
        return self.net.wants

    @property
    def waiting(self) -> bytes:
        return self.net.waiting()

    def started(self) -> None:
        self.net.started()

    def reset(self) -> None:
        self.net.reset()

    def restored(self, waiting: bytes) -> None:
        self.net.restored(waiting)

    def pull(self, pulled: bool) -> None:
        self.net.set_pulled(pulled)

    def filter_changed(self) -> None:
        wanted = self._device.filter
        self.net.set_filter(wanted.mac, wanted.modes, wanted.unicast, wanted.multicast)

    def lose_link(self, why: str) -> None:
        self.net.lose(why)
        self._device.changed()

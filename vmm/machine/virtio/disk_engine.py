# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtio disk whose requests C serves: what a VirtioBlk knows, given to vmm/kvm/disk_thread.py.

It knows a disk, a queue's attributes and memslots; when to serve is the transport's business (transport.Engine).
"""

from __future__ import annotations

from vmm.abi import virtio
from vmm.kvm.disk_thread import DiskSetup, DiskThread
from vmm.machine.memory.slots import GuestMemory
from vmm.machine.virtio.blk import MAX_DISCARD, MAX_RANGES, MAX_ZEROES, VirtioBlk
from vmm.machine.virtio.queue import SplitQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_DISCARD = virtio.feature(virtio.VIRTIO_BLK_F_DISCARD)
_ZEROES = virtio.feature(virtio.VIRTIO_BLK_F_WRITE_ZEROES)


def setup_of(device: VirtioBlk, irq: int) -> DiskSetup:
    """What C has to know of a disk; `irq` is the eventfd of its interrupt, -1 for none."""
    return DiskSetup(
        device.disk.fd, irq, device.capacity, device.readonly, device.serial, MAX_RANGES, MAX_DISCARD, MAX_ZEROES
    )


class DiskEngine:
    """transport.Engine over a thread. It follows every change of the machine's memory."""

    serves = (0,)

    def __init__(self, device: VirtioBlk, thread: DiskThread, memory: GuestMemory) -> None:
        self._device, self._thread, self._memory = device, thread, memory
        self._features = 0
        device.engine = self
        self._memory_changed()
        memory.changed.append(self._memory_changed)

    def _memory_changed(self) -> None:
        self._thread.disk.memory(slot.stretch for slot in self._memory.slots)

    def _mode(self) -> dict[str, bool]:
        return {
            "writeback": self._device.writeback,
            "discard": bool(self._features & _DISCARD),
            "zeroes": bool(self._features & _ZEROES),
        }

    # -- transport.Engine

    @property
    def broken(self) -> str:
        return self._thread.disk.broken

    def begin(self, index: int, queue: SplitQueue, features: int) -> None:
        self._features = features
        self._thread.disk.begin(queue, **self._mode())

    def end(self, index: int, queue: SplitQueue) -> None:
        if not self._thread.inherited:
            self._thread.disk.end(queue)

    def settle(self, index: int, queue: SplitQueue) -> None:
        self._thread.disk.settle(queue)

    def kick(self, index: int) -> None:
        self._thread.kick()

    def tally(self) -> Mapping[str, int]:
        counts = self._thread.disk.counts()
        return {"event": counts["kicks"], "interrupts": counts["interrupts"]}

    # -- blk.Engine

    @property
    def flushes(self) -> int:
        return self._thread.disk.counts()["flushes"]

    def mode_changed(self) -> None:
        self._thread.disk.set_mode(**self._mode())

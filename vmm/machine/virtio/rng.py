# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-rng: every buffer comes back full of random bytes (VIRTIO 1.2, 5.4). It knows queues and no registers."""

from __future__ import annotations

import os
from collections.abc import Callable

from vmm.abi import virtio
from vmm.machine.virtio.chain import DriverError
from vmm.machine.virtio.queue import SplitQueue

QUEUE_SIZE = 64
MOST = 1 << 16
"""Bytes that one buffer gets at most: less than its size is allowed, and a guest must not keep the host busy."""


class VirtioRng:
    """One queue of buffers to fill. `source(n)` gives n bytes; the default is the kernel's generator."""

    name = "virtio-rng"
    device_id = virtio.VIRTIO_ID_RNG
    features = 0
    queue_sizes = (QUEUE_SIZE,)

    def __init__(self, source: Callable[[int], bytes] = os.urandom) -> None:
        self._source = source

    def config(self) -> bytes:
        return b""

    def serve(self, index: int, queue: SplitQueue, features: int) -> None:
        for chain in queue.take():
            if chain.readable or not chain.write_size:
                raise DriverError("a buffer for random bytes has something to read, or no room to write")
            count = min(chain.write_size, MOST)
            chain.write(0, self._source(count))
            queue.push(chain, count)

    def reset(self) -> None:
        """Nothing to forget."""

    def close(self) -> None:
        """Nothing to give back."""

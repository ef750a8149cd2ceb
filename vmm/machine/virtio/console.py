# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-console with one port: queue 0 takes input to the guest, queue 1 its output (VIRTIO 1.2, 5.3).

It knows queues and bytes; it knows no registers and no terminal.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from vmm.abi import virtio
from vmm.errors import UsageError
from vmm.machine.virtio.chain import DriverError
from vmm.machine.virtio.queue import SplitQueue

RECEIVE, TRANSMIT = 0, 1
QUEUE_SIZE = 64
MOST = 1 << 20
"""Bytes of output in one buffer; more is no line of text, and would keep the host busy."""
PENDING = 1 << 20  # bytes of input that wait for a guest


class VirtioConsole:
    """`output(data)` gets what the guest writes, in order. Input waits until the guest has given a buffer for it."""

    name = "virtio-console"
    device_id = virtio.VIRTIO_ID_CONSOLE
    features = virtio.feature(virtio.VIRTIO_CONSOLE_F_SIZE)
    queue_sizes = (QUEUE_SIZE, QUEUE_SIZE)

    def __init__(self, output: Callable[[bytes], object], *, cols: int = 80, rows: int = 25) -> None:
        self._output = output
        self._input = bytearray()
        self._lock = threading.Lock()
        self._config = _size(cols, rows)
        self.wake: Callable[[int], object] = _nobody  # the transport's, once there is one
        self.changed: Callable[[], object] = _nothing

    def send(self, data: bytes) -> None:
        """Input for the guest, from any thread; also before it runs.

        Raises:
            UsageError: more waits than a guest can mean to read.
        """
        with self._lock:
            if len(self._input) + len(data) > PENDING:
                raise UsageError(
                    f"input for {self.name}: {len(self._input)} bytes wait, and {PENDING} is the most",
                    hint="wait until the guest has read some",
                )
            self._input += data
        self.wake(RECEIVE)

    def get_state(self) -> tuple[bytes, bytes]:
        """What waits for the guest, and the size of the window."""
        with self._lock:
            return bytes(self._input), self._config

    def set_state(self, state: tuple[bytes, bytes]) -> None:
        """Be as `get_state` found it."""
        with self._lock:
            self._input[:], self._config = state

    def resize(self, cols: int, rows: int) -> None:
        """Another size of the window, in characters; the driver gets a configuration interrupt."""
        self._config = _size(cols, rows)
        self.changed()

    @property
    def waiting(self) -> int:
        """Bytes of input that the guest has not taken."""
        return len(self._input)

    def config(self) -> bytes:
        return self._config

    def serve(self, index: int, queue: SplitQueue, features: int) -> None:
        if index == TRANSMIT:
            self._transmit(queue)
        else:
            self._receive(queue)

    def _transmit(self, queue: SplitQueue) -> None:
        for chain in queue.take():
            if chain.writable:
                raise DriverError("a buffer of output has room to write")
            if chain.read_size > MOST:
                raise DriverError(f"a buffer of {chain.read_size} bytes of output; {MOST} is the most")
            data = chain.read(0, chain.read_size)
            queue.push(chain, 0)  # first: what `output` raises must not keep the guest's buffer
            self._output(data)

    def _receive(self, queue: SplitQueue) -> None:
        left = queue.pending()  # also where nothing is to be said: from then on the driver says what it adds
        while self._input and left:
            left -= 1
            chain = queue.pop()
            if chain.readable or not chain.write_size:
                raise DriverError("a buffer for input has something to read, or no room to write")
            with self._lock:
                data = bytes(self._input[: chain.write_size])
                del self._input[: chain.write_size]
            chain.write(0, data)
            queue.push(chain, len(data))

    def reset(self) -> None:
        """What waits stays: it is for the next driver."""

    def close(self) -> None:
        """Nothing to give back."""


def _size(cols: int, rows: int) -> bytes:
    try:
        return virtio.CONSOLE_CONFIG.pack(cols=cols, rows=rows)
    except OverflowError:
        raise UsageError(f"a console of {cols} x {rows} characters: each fits in 16 bits") from None


def _nobody(index: int) -> None:
    """No driver to wake yet."""


def _nothing() -> None:
    """No driver to tell yet."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-mmio, register layout version 2: how a driver finds a device, agrees on features, sets up queues and kicks.

It knows the registers of VIRTIO 1.2, 4.2 and the life of a device (2.1, 3.1); what a request means is the backend's
business, how an interrupt reaches the guest the caller's. A driver that breaks a rule costs itself the device, which
then needs a reset; nothing else comes out of here.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from vmm.abi import virtio
from vmm.errors import GuestMemoryError
from vmm.kvm.words import Acked
from vmm.machine.virtio.chain import DmaMemory, DriverError
from vmm.machine.virtio.queue import SplitQueue

VENDOR = int.from_bytes(b"PYVM", "little")
COMMON_FEATURES = virtio.feature(
    virtio.VIRTIO_F_VERSION_1, virtio.VIRTIO_RING_F_INDIRECT_DESC, virtio.VIRTIO_RING_F_EVENT_IDX
)
TROUBLES = 64
_VERSION_1 = virtio.feature(virtio.VIRTIO_F_VERSION_1)
_LOW = (1 << 32) - 1
_STATE = (
    "_status", "interrupt_status", "driver_features", "generation", "_trouble",
    "_features_sel", "_driver_features_sel", "_queue_sel",
)  # fmt: skip
_NO_REGION = _LOW  # length and base of a shared memory region that is not there (4.2.2)
_ADDRESSES = {
    virtio.VIRTIO_MMIO_QUEUE_DESC_LOW: ("desc", 0),
    virtio.VIRTIO_MMIO_QUEUE_DESC_HIGH: ("desc", 32),
    virtio.VIRTIO_MMIO_QUEUE_AVAIL_LOW: ("avail", 0),
    virtio.VIRTIO_MMIO_QUEUE_AVAIL_HIGH: ("avail", 32),
    virtio.VIRTIO_MMIO_QUEUE_USED_LOW: ("used", 0),
    virtio.VIRTIO_MMIO_QUEUE_USED_HIGH: ("used", 32),
}


class Backend(Protocol):
    """What stands behind the registers. Called with the transport's lock held, from one thread at a time. It may have,
    too: agreed(features), called when they are, and started(features), when the driver says DRIVER_OK;
    set_config(offset, data) for a configuration space that a driver may write; get_state() and set_state(state), and
    restored(), called when queues are served again after set_state.
    """

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def device_id(self) -> int:
        """VIRTIO_ID_*."""

    @property
    def features(self) -> int:
        """The bits of its own that it offers."""

    @property
    def queue_sizes(self) -> tuple[int, ...]:
        """The most entries of each queue."""

    def config(self) -> bytes:
        """The device's configuration space as it is now."""

    def serve(self, index: int, queue: SplitQueue, features: int) -> None:
        """Use what can be used of queue `index`; raises DriverError. `features` are those that were negotiated."""

    def reset(self) -> None:
        """Forget what the driver was told; the driver starts anew."""

    def close(self) -> None:
        """Give back what the host lent. Idempotent."""


class Engine(Protocol):
    """Who serves queues of a device in place of Backend.serve, on a thread of its own, and interrupts by itself."""

    @property
    def serves(self) -> tuple[int, ...]:
        """The numbers of these queues; at all others Backend.serve is called."""

    @property
    def broken(self) -> str:
        """The queue and the rule that the driver broke since `begin`, in words; empty if none."""

    def begin(self, index: int, queue: SplitQueue, features: int) -> None:
        """Serve the queue from its next kick on."""

    def end(self, index: int, queue: SplitQueue) -> None:
        """Serve nothing any more, and let the queue be as it was left; no request is under way after that."""

    def settle(self, index: int, queue: SplitQueue) -> None:
        """Serve what waits, and let the queue be as it is then."""

    def kick(self, index: int) -> None:
        """Look whether something waits."""

    def tally(self) -> Mapping[str, int]:
        """What of `VirtioMmio.counts` it counts: "event" and "interrupts"."""


class VirtioMmio:
    """One device on the MMIO bus. `interrupt` is called, from any thread, when the driver is to look.

    `acked` are the two registers of what happened, which the C core may serve too. `engine` serves in place of the
    backend, where there is one.
    """

    engine: Engine | None = None
    _begun: frozenset[int] = frozenset()  # queues that the engine serves

    def __init__(self, backend: Backend, memory: DmaMemory, interrupt: Callable[[], object] | None = None) -> None:
        self.backend = backend
        self.name = backend.name
        self.features = backend.features | COMMON_FEATURES
        self.queues = tuple(SplitQueue(memory, size) for size in backend.queue_sizes)
        self.acked = Acked()
        self._troubles: deque[str] = deque(maxlen=TROUBLES)
        self._counts: Counter[str] = Counter()
        self.generation = 0
        self._interrupt = interrupt
        self._lock = threading.RLock()
        self._closed = False
        self._forget()

    def _forget(self) -> None:
        self._end()
        self._status = self.interrupt_status = 0
        self.driver_features = 0
        self._features_sel = self._driver_features_sel = self._queue_sel = 0
        self._trouble = ""
        for queue in self.queues:
            queue.reset()

    # -- what an engine may change meanwhile

    @property
    def status(self) -> int:
        """The device status, VIRTIO_CONFIG_S_*."""
        self._look()
        return self._status

    @property
    def trouble(self) -> str:
        """Why the device needs a reset; empty if it needs none."""
        self._look()
        return self._trouble

    @property
    def troubles(self) -> tuple[str, ...]:
        """The last of them since the beginning."""
        self._look()
        return tuple(self._troubles)

    @property
    def counts(self) -> Counter[str]:
        """Kicks by "exit" and by "event", "interrupts", "resets"."""
        return self._counts + Counter(self.engine.tally() if self.engine is not None else {})

    @property
    def interrupt_status(self) -> int:
        """VIRTIO_MMIO_INT_*, what the driver has not acknowledged."""
        return self.acked.bits

    @interrupt_status.setter
    def interrupt_status(self, bits: int) -> None:
        self.acked.bits = bits

    def _look(self) -> None:
        """Has the engine met a driver that breaks a rule?"""
        if self.engine is not None and self.engine.broken:
            with self._lock:
                if self._begun and not self._status & virtio.VIRTIO_CONFIG_S_NEEDS_RESET:
                    self._note(self.engine.broken)

    def _begin(self) -> None:
        if self.engine is None or not self._running:
            return
        for index in self.engine.serves:
            if index not in self._begun and self.queues[index].ready:
                self.engine.begin(index, self.queues[index], self.driver_features)
                self._begun |= {index}

    def _end(self, *only: int) -> None:
        """The engine serves these queues no longer, or none."""
        self._look()
        for index in self._begun & set(only or self._begun):
            assert self.engine is not None
            self.engine.end(index, self.queues[index])
            self._begun -= {index}

    # -- its state

    def get_state(self) -> tuple[Any, ...]:
        """Registers, queues and what waits in the backend, for `set_state`. What the driver has made available by now
        is served first, so that no kick is under way.
        """
        with self._lock:
            for index, queue in enumerate(self.queues):
                if self.engine is not None and index in self._begun:
                    self.engine.settle(index, queue)
                else:
                    self.wake(index)
            self._look()
            backend = getattr(self.backend, "get_state", None)
            return (
                tuple(getattr(self, name) for name in _STATE),
                tuple(queue.get_state() for queue in self.queues),
                backend() if backend is not None else None,
            )

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Be as `get_state` found it."""
        with self._lock:
            self._end()
            registers, queues, backend = state
            for name, value in zip(_STATE, registers, strict=True):
                setattr(self, name, value)
            for queue, saved in zip(self.queues, queues, strict=True):
                queue.set_state(saved)
            put = getattr(self.backend, "set_state", None)
            if put is not None:
                put(backend)
            self._begin()
            go_on = getattr(self.backend, "restored", None)
            if go_on is not None:
                go_on()

    def resume(self) -> None:
        """After all else has been put back: an interrupt that the driver has not acknowledged may have been under way,
        and one too many does no harm.
        """
        with self._lock:
            if self.interrupt_status:
                self._raise(0)

    # -- the bus

    def read(self, offset: int, size: int) -> int:
        """A register, 0 where there is none. Registers are 32 bits wide, the configuration space is bytes."""
        with self._lock:
            if offset >= virtio.VIRTIO_MMIO_CONFIG:
                start = offset - virtio.VIRTIO_MMIO_CONFIG
                return int.from_bytes(self.backend.config()[start : start + size], "little")
            return self._register(offset) if size == 4 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Registers take 32 bits; of the configuration space a backend that has `set_config(offset, data)` takes what
        it lets a driver write.
        """
        with self._lock:
            if self._closed:
                return
            if offset >= virtio.VIRTIO_MMIO_CONFIG:
                take = getattr(self.backend, "set_config", None)
                if take is not None:
                    take(offset - virtio.VIRTIO_MMIO_CONFIG, value.to_bytes(size, "little"))
            elif size == 4:
                self._set_register(offset, value)

    def _register(self, offset: int) -> int:
        queue = self._selected
        match offset:
            case virtio.VIRTIO_MMIO_MAGIC_VALUE:
                return virtio.MAGIC
            case virtio.VIRTIO_MMIO_VERSION:
                return virtio.VERSION
            case virtio.VIRTIO_MMIO_DEVICE_ID:
                return self.backend.device_id
            case virtio.VIRTIO_MMIO_VENDOR_ID:
                return VENDOR
            case virtio.VIRTIO_MMIO_DEVICE_FEATURES:
                return self.features >> 32 * self._features_sel & _LOW if self._features_sel < 2 else 0
            case virtio.VIRTIO_MMIO_QUEUE_NUM_MAX:
                return queue.max_size if queue else 0
            case virtio.VIRTIO_MMIO_QUEUE_READY:
                return int(queue.ready) if queue else 0
            case virtio.VIRTIO_MMIO_INTERRUPT_STATUS:
                return self.interrupt_status
            case virtio.VIRTIO_MMIO_STATUS:
                return self.status
            case virtio.VIRTIO_MMIO_CONFIG_GENERATION:
                return self.generation
            case virtio.VIRTIO_MMIO_SHM_LEN_LOW | virtio.VIRTIO_MMIO_SHM_LEN_HIGH:
                return _NO_REGION
            case virtio.VIRTIO_MMIO_SHM_BASE_LOW | virtio.VIRTIO_MMIO_SHM_BASE_HIGH:
                return _NO_REGION
            case _:
                return 0

    def _set_register(self, offset: int, value: int) -> None:
        match offset:
            case virtio.VIRTIO_MMIO_DEVICE_FEATURES_SEL:
                self._features_sel = value
            case virtio.VIRTIO_MMIO_DRIVER_FEATURES_SEL:
                self._driver_features_sel = value
            case virtio.VIRTIO_MMIO_DRIVER_FEATURES:
                self._accept(value)
            case virtio.VIRTIO_MMIO_QUEUE_SEL:
                self._queue_sel = value
            case virtio.VIRTIO_MMIO_QUEUE_NOTIFY:
                self.kick(value)
            case virtio.VIRTIO_MMIO_INTERRUPT_ACK:
                self.acked.take(value)
            case virtio.VIRTIO_MMIO_STATUS:
                self._set_status(value)
            case _:
                self._set_up_queue(offset, value)

    @property
    def _selected(self) -> SplitQueue | None:
        return self.queues[self._queue_sel] if self._queue_sel < len(self.queues) else None

    def _has(self, bits: int) -> bool:
        return self.status & bits == bits

    @property
    def _running(self) -> bool:
        return self._has(virtio.VIRTIO_CONFIG_S_DRIVER_OK) and not self._has(virtio.VIRTIO_CONFIG_S_NEEDS_RESET)

    def _accept(self, value: int) -> None:
        """Half of the features that the driver wants. Once agreed, they stay (2.2.2)."""
        if self._driver_features_sel < 2 and not self._has(virtio.VIRTIO_CONFIG_S_FEATURES_OK):
            shift = 32 * self._driver_features_sel
            self.driver_features = self.driver_features & ~(_LOW << shift) | value << shift

    def _set_status(self, value: int) -> None:
        """Writing 0 resets; else bits are added (2.1.1)."""
        if not value:
            self._forget()
            self.backend.reset()
            self._counts["resets"] += 1
            return
        new = value & ~virtio.VIRTIO_CONFIG_S_NEEDS_RESET
        # This device speaks no legacy: a driver that does not say VERSION_1 is told no, and so is one that wants more
        # than was offered (2.2.2, 6.1).
        agreed = not self.driver_features & ~self.features and self.driver_features & _VERSION_1
        if not agreed:
            new &= ~virtio.VIRTIO_CONFIG_S_FEATURES_OK
        if not (self._status | new) & virtio.VIRTIO_CONFIG_S_FEATURES_OK:
            new &= ~virtio.VIRTIO_CONFIG_S_DRIVER_OK
        if new & ~self._status & virtio.VIRTIO_CONFIG_S_FEATURES_OK:
            hear = getattr(self.backend, "agreed", None)
            if hear is not None:
                hear(self.driver_features)
        begins = new & ~self._status & virtio.VIRTIO_CONFIG_S_DRIVER_OK
        self._status |= new
        self._begin()
        started = getattr(self.backend, "started", None)
        if begins and started is not None:
            started(self.driver_features)

    def _set_up_queue(self, offset: int, value: int) -> None:
        queue = self._selected
        if queue is None:
            return
        if offset == virtio.VIRTIO_MMIO_QUEUE_READY:
            self._make_ready(queue, value)
        elif queue.ready:
            return  # what is in use does not change under us
        elif offset == virtio.VIRTIO_MMIO_QUEUE_NUM:
            queue.size = value
        elif offset in _ADDRESSES:
            area, shift = _ADDRESSES[offset]
            setattr(queue, area, getattr(queue, area) & ~(_LOW << shift) | value << shift)

    def _make_ready(self, queue: SplitQueue, value: int) -> None:
        if value != 1:
            self._end(self._queue_sel)
            queue.ready = False
        elif not queue.ready and self._has(virtio.VIRTIO_CONFIG_S_FEATURES_OK):
            indirect = self.driver_features & virtio.feature(virtio.VIRTIO_RING_F_INDIRECT_DESC)
            event_idx = self.driver_features & virtio.feature(virtio.VIRTIO_RING_F_EVENT_IDX)
            try:
                queue.start(indirect=bool(indirect), event_idx=bool(event_idx))
            except DriverError as error:
                self._need_reset(str(error))
            self._begin()

    # -- work

    def kick(self, index: int, how: str = "exit") -> None:
        """The driver says that queue `index` has something. A queue that is not ready has nothing: that is ignored."""
        with self._lock:
            if self._closed or index >= len(self.queues):
                return
            self._counts[how] += 1
            self._serve(index)

    def wake(self, index: int) -> None:
        """The host has something for queue `index`; otherwise as `kick`."""
        with self._lock:
            if not self._closed:
                self._serve(index)

    def _serve(self, index: int) -> None:
        queue = self.queues[index]
        if not self._running or not queue.ready:
            return
        if self.engine is not None and index in self.engine.serves:
            self.engine.kick(index)
            return
        try:
            self.backend.serve(index, queue, self.driver_features)
            used = queue.wants_interrupt()
        except (DriverError, GuestMemoryError) as error:
            self._need_reset(f"queue {index}: {error}")
            return
        if used:
            self._raise(virtio.VIRTIO_MMIO_INT_VRING)

    def config_changed(self) -> None:
        """The configuration space is another one now: tell the driver (2.5.3)."""
        with self._lock:
            self.generation = self.generation + 1 & _LOW
            if not self._closed and self._has(virtio.VIRTIO_CONFIG_S_DRIVER_OK):
                self._raise(virtio.VIRTIO_MMIO_INT_CONFIG)

    def _need_reset(self, why: str) -> None:
        """The end until the driver writes 0 to the status (2.1.2)."""
        self._note(why)
        if self._has(virtio.VIRTIO_CONFIG_S_DRIVER_OK):
            self._raise(virtio.VIRTIO_MMIO_INT_CONFIG)

    def _note(self, why: str) -> None:
        self._trouble = f"{self.name}: {why}"
        self._troubles.append(self._trouble)
        self._status |= virtio.VIRTIO_CONFIG_S_NEEDS_RESET

    def _raise(self, cause: int) -> None:
        self.acked.raise_bits(cause)
        if self._interrupt is not None:
            self._counts["interrupts"] += 1
            self._interrupt()

    def close(self) -> None:
        """The device goes away: nothing is served from here on. Idempotent."""
        with self._lock:
            if not self._closed:
                self._end()
                self._closed = True
                self.backend.close()

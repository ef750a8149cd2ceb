# SPDX-License-Identifier: GPL-2.0-or-later
"""What the C core (_lean.c) finishes for one machine: console bytes, and ports, MMIO addresses and MSRs that are plain
words. It knows the memory that C and Python share; who claims what is asked elsewhere.
"""

from __future__ import annotations

import time

from vmm.base.bits import MASK64
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.buffers import uncleared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Word:
    """A port, MMIO address or MSR that is a plain word, served in C: reads give `value`, writes set it; both count."""

    def __init__(self, slot: Any, owner: Any, number: int) -> None:
        self._slot, self._owner = slot, owner  # the owner keeps the C memory alive
        self._dropped = False
        self.number = number

    @property
    def value(self) -> int:
        return int(self._slot.value)

    @value.setter
    def value(self, value: int) -> None:
        self._slot.value = value

    @property
    def written_at(self) -> int:
        """When it was written last, in ns as time.monotonic_ns() has them; 0: never, or it is not `timed`."""
        return int(self._slot.written_at)

    def time_writes(self) -> None:
        """Keep `written_at` from now on."""
        self._slot.timed = 1

    def set(self, value: int, reads: int, writes: int) -> None:
        """Value and both counts at once."""
        self._slot.value, self._slot.reads, self._slot.writes = value, reads, writes

    def read(self) -> int:
        """A counted read, as the core does it."""
        self._slot.reads += 1
        return self.value

    def write(self, value: int) -> None:
        """A counted write, as the core does it."""
        self._slot.writes += 1
        self._slot.value = value
        if self._slot.timed:
            self._slot.written_at = time.monotonic_ns()

    def serve(self, address: int) -> int:
        """Let the core find it; how many slots it has to look through for that."""
        self._slot.address = address
        return self.number + 1

    def drop(self) -> None:
        """The core serves it no longer, and its slot is free; its numbers stay."""
        slot = self._slot
        slot.address = MASK64  # no port's, no MSR's, and no address that a CPU has
        if not self._dropped:
            self._slot, self._dropped = ffi.new("struct vmm_slot *", slot), True

    @property
    def reads(self) -> int:
        return int(self._slot.reads)

    @property
    def writes(self) -> int:
        return int(self._slot.writes)


class Acked:
    """A device's register of what happened (4 bytes at `address`) and the one behind it, which takes back the bits that
    are written to it. The core serves both, once it has been told (`Finish.serve_acked`); any thread may raise bits.
    """

    def __init__(self) -> None:
        self.c = ffi.new("struct vmm_acked *", {"address": MASK64})

    @property
    def bits(self) -> int:
        return int(self.c.bits)

    @bits.setter
    def bits(self, bits: int) -> None:
        self.c.bits = bits

    def raise_bits(self, bits: int) -> None:
        lib.vmm_acked_raise(self.c, bits)

    def take(self, bits: int) -> None:
        """As a write to the second register."""
        lib.vmm_acked_take(self.c, bits)

    def drop(self) -> None:
        """The core serves it no longer."""
        self.c.address = MASK64


UART_LSR: int = lib.VMM_UART_LSR
UART_IIR: int = lib.VMM_UART_IIR
UART_SIZE: int = lib.VMM_UART_SIZE


class Finish:
    """What the C core may finish for one machine; shared by its vCPUs."""

    _msrs: Any = None  # the class's: most machines have no such word

    def __init__(self, c: Any = None) -> None:
        """`c`: a struct vmm_finish that is in use already."""
        self.c = c
        if c is None:
            self.c = uncleared("struct vmm_finish *")
            lib.vmm_finish_init(self.c)
        self._taken: Any = None
        self._acked: tuple[Acked, ...] = ()  # their memory

    def sink_port(self, port: int | None) -> None:
        """Bytes written to this port are console output; None: no port's are."""
        self.c.sink_port = lib.VMM_NO_PORT if port is None else port

    def uart_port(self, port: int | None) -> None:
        """A UART at this port sends, and does nothing else: the core serves THR and LSR. None: Python does."""
        self.c.uart_port = lib.VMM_NO_PORT if port is None else port

    def lend_transmitter(self, port: int, line: tuple[int, int], pending: int, idle: int, event: bool) -> None:
        """A UART at this port, a multiple of 8, sends under THRE's interrupt: the core serves THR, IIR and LSR, and
        drives the line, a (descriptor of a VM or -1, GSI). `pending` and `idle` are IIR with that interrupt and
        without; it is pending, and the line is up, where `event` says so.
        """
        fd, gsi = line
        fields = {"port": port, "fd": fd, "gsi": gsi, "pending": pending, "idle": idle, "event": event, "level": event}
        lib.vmm_transmitter_lend(self.c, ffi.new("struct vmm_transmitter *", fields))

    def take_transmitter(self) -> tuple[bool, bool]:
        """Python serves it again: whether the interrupt is pending, and whether the line is up."""
        state = lib.vmm_transmitter_take(self.c)
        return bool(state & 1), bool(state & 2)

    def set_room(self, room: int) -> None:
        """How many bytes of output may still be taken."""
        self.c.sink_room = min(room, lib.VMM_STAGING)

    def drain(self) -> bytes:
        """The output that has come since the last call; other vCPUs may go on writing meanwhile."""
        if not self.c.sink_length and not self.c.ring:
            return b""
        if self._taken is None:
            self._taken = ffi.new("__u8[]", lib.VMM_STAGING + 8 * lib.VMM_RING)
        count = lib.vmm_drain(self.c, self._taken)
        return bytes(ffi.buffer(self._taken, count))

    def set_ring(self, ring: Any) -> None:
        """Take console bytes that KVM has collected too (`Vcpu.coalesced_ring`); None: no more."""
        self.c.ring = ffi.NULL if ring is None else ring

    def new_port_word(self) -> Word | None:
        """A word for a port, not yet served; None when all are used."""
        return _free(self.c.ports, self.c, self.c.port_count, lib.VMM_SLOTS)

    def serve_port(self, port: int, word: Word) -> None:
        self.c.port_count = max(self.c.port_count, word.serve(port))

    def new_mmio_word(self) -> Word | None:
        """A word for an MMIO address, not yet served; None when all are used."""
        return _free(self.c.mmio, self.c, self.c.mmio_count, lib.VMM_MMIO_SLOTS)

    def serve_mmio(self, address: int, word: Word) -> None:
        self.c.mmio_count = max(self.c.mmio_count, word.serve(address))

    def serve_acked(self, address: int, acked: Acked) -> None:
        """Let the core serve these two registers; where there are too many, whoever claims them goes on to do it."""
        count = self.c.acked_count
        if count < lib.VMM_ACKED:
            self._acked = (*self._acked, acked)
            acked.c.address = address
            self.c.acked[count] = acked.c
            self.c.acked_count = count + 1

    def new_msr_word(self) -> Word | None:
        """A word for an MSR, not yet served; None when all are used."""
        if self._msrs is None:
            self._msr_words: dict[int, Word] = {}
            self._msrs = self.c.msrs = ffi.new("struct vmm_slot[]", lib.VMM_MSR_SLOTS)
        return _free(self._msrs, self._msrs, self.c.msr_count, lib.VMM_MSR_SLOTS)

    def serve_msr(self, index: int, word: Word) -> None:
        self._msr_words[index] = word
        self.c.msr_count = max(self.c.msr_count, word.serve(index))

    @property
    def msr_words(self) -> dict[int, Word]:
        """The MSRs that are words, by index."""
        return {} if self._msrs is None else dict(self._msr_words)

    def forget_msr(self, index: int) -> None:
        """The core serves this MSR no longer, if it did."""
        if self._msrs is not None and (word := self._msr_words.pop(index, None)) is not None:
            word.drop()


def _free(slots: Any, owner: Any, count: int, limit: int) -> Word | None:
    """A word in the next slot; where there is none, in one that was dropped: a vCPU may still be inside of that."""
    number = count if count < limit else next((i for i in range(limit) if slots[i].address == MASK64), limit)
    if number == limit:
        return None
    slot = slots[number]
    slot.reads = slot.writes = slot.value = slot.timed = slot.written_at = 0
    return Word(slot, owner, number)

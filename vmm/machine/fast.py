# SPDX-License-Identifier: GPL-2.0-or-later
"""Who serves what on the fast way (vmm/kvm/core.py): the buses' claims, each looked up once, and the console's bytes.

It decides nothing: what it does not hand out, `loop.handle` serves. So both ways end at the same devices.
"""

from __future__ import annotations

import threading
from functools import partial

from vmm.abi.ports import DEBUG_CONSOLE
from vmm.errors import UsageError
from vmm.kvm.core import LIMITS, Finish, PortRead, PortWrite, Word
from vmm.machine.devices.console import DebugConsole
from vmm.machine.devices.sink import Sink
from vmm.machine.devices.word import WordDevice
from vmm.machine.platform import Platform


class FastLane:
    """Handlers for one machine. It follows every change of the claims."""

    def __init__(self, platform: Platform, sink: Sink) -> None:
        self.finish = Finish()
        self._lock = threading.RLock()  # a live display may run another machine
        self._ports, self._mmio, self._sink = platform.ports, platform.mmio, sink
        self._writers: dict[int, PortWrite] = {}
        self._readers: dict[int, PortRead] = {}
        platform.ports.listeners.append(self._ports_changed)
        self._ports_changed()
        self.finish.set_room(sink.room)

    def _ports_changed(self) -> None:
        self._writers.clear()
        self._readers.clear()
        claim = self._ports.writer_at(DEBUG_CONSOLE)
        self.finish.sink_port(DEBUG_CONSOLE, claim is not None and isinstance(claim.owner, DebugConsole))

    # -- vmm.kvm.core.Handlers

    def port_writer(self, port: int) -> PortWrite | None:
        write = self._writers.get(port)
        if write is None:
            claim = self._ports.writer_at(port)
            if claim is not None:
                write = self._writers[port] = partial(claim.call, port - claim.base)
        return write

    def port_reader(self, port: int) -> PortRead | None:
        read = self._readers.get(port)
        if read is None:
            claim = self._ports.reader_at(port)
            if claim is not None:
                read = self._readers[port] = partial(claim.call, port - claim.base)
        return read

    def mmio_write(self, address: int, size: int, value: int) -> bool:
        claim = self._mmio.writer_at(address)
        if claim is None or address + size > claim.stop:
            return False
        claim.call(address - claim.base, size, value)
        return True

    def mmio_read(self, address: int, size: int) -> int | None:
        claim = self._mmio.reader_at(address)
        if claim is None or address + size > claim.stop:
            return None
        value = claim.call(address - claim.base, size)
        # A wrong answer is asked for again on the slow way, which says what is wrong with it.
        return value if type(value) is int and 0 <= value < LIMITS[size] else None

    def output(self) -> None:
        """Give the console's bytes to the sink. They fit: the core never takes more than there is room for."""
        with self._lock:  # two vCPUs: what was collected first is written first
            self._sink.write(self.finish.drain())
            self.finish.set_room(self._sink.room)

    # -- words

    def port_word(self, port: int) -> Word:
        """Make a port a word that the core serves.

        Raises:
            UsageError: the port is taken, or there are too many words.
        """
        word = self._checked(self.finish.new_port_word(), "port")
        self._ports.claim(port, 1, WordDevice(word))
        self.finish.serve_port(port, word)
        return word

    def mmio_word(self, address: int) -> Word:
        """Make the 8 bytes at an MMIO address a word; only accesses that start there reach it."""
        word = self._checked(self.finish.new_mmio_word(), "MMIO")
        self._mmio.claim(address, 8, WordDevice(word))
        self.finish.serve_mmio(address, word)
        return word

    @staticmethod
    def _checked(word: Word | None, what: str) -> Word:
        if word is None:
            raise UsageError(f"no {what} word is left; claim a Device instead")
        return word

# SPDX-License-Identifier: GPL-2.0-or-later
"""The registers of kvm-unit-tests' test device. They know neither their addresses, nor memory, nor an interrupt
controller: who claims them says what is called.

Behaviour as the tests expect it (kvm-unit-tests: x86/emulator.c, x86/eventinj.c, x86/ioapic.c).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class PlainRegister:
    """`size` bytes that keep what is written, by any width that fits; zero at first. Bytes behind the end read 0."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        self._bytes = bytearray(size)
        self._lock = threading.Lock()

    def read(self, offset: int, size: int) -> int:
        """Little-endian."""
        with self._lock:
            return int.from_bytes(self._bytes[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Little-endian; what does not fit is dropped."""
        end = min(offset + size, self.size)
        with self._lock:
            self._bytes[offset:end] = value.to_bytes(size, "little")[: max(end - offset, 0)]


class FlushPage:
    """A guest-physical address, written, is one whose page shall be forgotten: `flush(address)`. Reads give 0."""

    name = "testdev: flush page"

    def __init__(self, flush: Callable[[int], object]) -> None:
        self._flush = flush

    def read(self, offset: int, size: int) -> int:
        """0."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Forget it."""
        self._flush(value)


class IrqLines:
    """A port for each of the interrupt lines from 0: what is written, if anything but 0, is the level `drive` gets."""

    name = "testdev: interrupt lines"

    def __init__(self, drive: Callable[[int, bool], object]) -> None:
        self._drive = drive

    def read(self, offset: int, size: int) -> int:
        """0: a line's level cannot be asked for."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Set line `offset`."""
        self._drive(offset, bool(value))

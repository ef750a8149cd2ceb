# SPDX-License-Identifier: GPL-2.0-or-later
"""An I/O APIC, accurate to the register. It knows neither its address nor KVM: what it sends are MSI messages.

Source: Intel 82093AA data sheet, 3.1 and 3.2 (registers), 3.2.4 (redirection entries); the MSI format is
vmm.abi.apic's. Where the data sheet leaves a choice:

* Version 0x11 with 24 pins, so there is no EOI register: the end of a level interrupt comes from the local APICs, by
  `end_of_interrupt(vector)`.
* Registers are 32 bits. A narrower or wider access is one of the register's low bytes, as on the chipsets that Linux
  knows; other offsets read 0 and take nothing.
* An edge while its pin is masked is lost (3.2.4, bit 16). A level that is active when its pin is unmasked is sent then.
* Messages take no time: delivery status always reads idle. An entry that is made edge triggered has no remote IRR.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from vmm.abi import irq
from vmm.abi.apic import msi_address, msi_data
from vmm.errors import UsageError

ID_MASK = 0x0F000000
LOW = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Message:
    """What a redirection entry sends: the 64-bit address and the data word of an MSI."""

    address: int
    data: int


def message(entry: int) -> Message:
    """A redirection entry as an MSI, mode by mode; a level is sent as asserted."""
    return Message(
        msi_address(entry >> irq.RTE_DESTINATION_SHIFT & 0xFF, logical=bool(entry & irq.RTE_LOGICAL)),
        msi_data(entry & irq.RTE_VECTOR, entry & irq.RTE_DELIVERY_MODE, level=bool(entry & irq.RTE_LEVEL)),
    )


class Ioapic:
    """24 pins. `send` is called with each message, on the thread that caused it; `changed` with (pin, entry) when the
    guest has written an entry.
    """

    name = "IOAPIC"

    def __init__(self, send: Callable[[Message], object], changed: Callable[[int, int], object] | None = None) -> None:
        self._send, self._changed = send, changed
        self._lock = threading.RLock()  # a line may be driven by what `send` sets off
        self._select = self._id = 0
        self._entries = [irq.RTE_MASKED] * irq.IOAPIC_PINS
        self._lines = [False] * irq.IOAPIC_PINS

    def get_state(self) -> tuple[int, int, tuple[int, ...], tuple[bool, ...]]:
        """Its registers and its pins, for `set_state`."""
        with self._lock:
            return self._select, self._id, tuple(self._entries), tuple(self._lines)

    def set_state(self, state: tuple[int, int, tuple[int, ...], tuple[bool, ...]]) -> None:
        """Be as `get_state` found it. Nothing is sent: what was sent before is with the local APICs."""
        with self._lock:
            self._select, self._id, entries, lines = state
            self._entries, self._lines = list(entries), list(lines)
            if self._changed:
                for pin, entry in enumerate(entries):
                    self._changed(pin, entry)

    @property
    def entries(self) -> tuple[int, ...]:
        """The redirection entries, 64 bits each."""
        return tuple(self._entries)

    def set_line(self, pin: int, level: bool) -> None:
        """Drive a pin high or low.

        Raises:
            UsageError: there is no such pin.
        """
        if not 0 <= pin < irq.IOAPIC_PINS:
            raise UsageError(f"the IOAPIC has pins 0 to {irq.IOAPIC_PINS - 1}, and no {pin}")
        with self._lock:
            was, self._lines[pin] = self._active(pin), level
            entry = self._entries[pin]
            if entry & irq.RTE_LEVEL:
                self._serve_level(pin)
            elif self._active(pin) and not was and not entry & irq.RTE_MASKED:
                self._send(message(entry))

    def end_of_interrupt(self, vector: int) -> None:
        """A local APIC has ended this vector: level entries with it are free, and sent again if still active."""
        with self._lock:
            for pin, entry in enumerate(self._entries):
                if entry & irq.RTE_REMOTE_IRR and entry & irq.RTE_VECTOR == vector:
                    self._entries[pin] = entry & ~irq.RTE_REMOTE_IRR
                    self._serve_level(pin)

    def read(self, offset: int, size: int) -> int:
        with self._lock:
            if offset == irq.IOREGSEL:
                value = self._select
            elif offset == irq.IOWIN:
                value = self._register()
            else:
                value = 0
            return value & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        with self._lock:
            if offset == irq.IOREGSEL:
                self._select = value & 0xFF
            elif offset == irq.IOWIN:
                self._set_register(value & LOW)

    def _active(self, pin: int) -> bool:
        return self._lines[pin] != bool(self._entries[pin] & irq.RTE_ACTIVE_LOW)

    def _serve_level(self, pin: int) -> None:
        entry = self._entries[pin]
        if self._active(pin) and not entry & (irq.RTE_MASKED | irq.RTE_REMOTE_IRR):
            self._entries[pin] = entry | irq.RTE_REMOTE_IRR
            self._send(message(entry))

    def _register(self) -> int:
        pin, high = divmod(self._select - irq.IOAPIC_REDTBL, 2)
        if 0 <= pin < irq.IOAPIC_PINS:
            return self._entries[pin] >> 32 * high & LOW
        if self._select == irq.IOAPIC_VERSION:
            return irq.IOAPIC_VERSION_82093AA | (irq.IOAPIC_PINS - 1) << 16
        return self._id if self._select in (irq.IOAPIC_ID, irq.IOAPIC_ARB) else 0

    def _set_register(self, value: int) -> None:
        pin, high = divmod(self._select - irq.IOAPIC_REDTBL, 2)
        if self._select == irq.IOAPIC_ID:
            self._id = value & ID_MASK
        if not 0 <= pin < irq.IOAPIC_PINS:
            return
        shift = 32 * high
        before = self._entries[pin]
        entry = before & ~(LOW << shift) | value << shift
        entry = entry & irq.RTE_WRITABLE | before & irq.RTE_REMOTE_IRR
        if not entry & irq.RTE_LEVEL:
            entry &= ~irq.RTE_REMOTE_IRR
        self._entries[pin] = entry
        if self._changed:
            self._changed(pin, entry)
        if entry & irq.RTE_LEVEL:
            self._serve_level(pin)

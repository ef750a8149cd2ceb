# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers by which a guest resets its machine or ends an emulator. They know no run: each calls what it was given.

Sources: Intel 82371AB data sheet, 4.3.1 (RC, reset control register); IBM PC/AT and PS/2 references (port 92h). The
ports of emulators are theirs by custom: vmm.abi.pc says whose.
"""

from __future__ import annotations

from vmm.abi import pc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class ResetControl:
    """Claims one port, 0xcf9 on a PC. The rising edge of RESET_CPU calls `reset(text)`."""

    name = "reset control"

    def __init__(self, reset: Callable[[str], object]) -> None:
        self._reset, self._value = reset, 0

    def get_state(self) -> int:
        """Its value."""
        return self._value

    def set_state(self, state: int) -> None:
        """As it was."""
        self._value = state

    def read(self, offset: int, size: int) -> int:
        """What was written."""
        return self._value

    def write(self, offset: int, size: int, value: int) -> None:
        """Resets on the edge."""
        before, self._value = self._value, value & (pc.RESET_SYSTEM | pc.RESET_CPU)
        if value & pc.RESET_CPU and not before & pc.RESET_CPU:
            self._reset(f"the guest wrote {value & 0xFF:#x} to the reset control register")


class Port92:
    """Claims one port: A20, which is always open here and remembers what it was told, and the fast reset."""

    name = "system control port A"

    def __init__(self, reset: Callable[[str], object]) -> None:
        self._reset, self._value = reset, pc.PORT_92_A20

    def get_state(self) -> int:
        """Its value."""
        return self._value

    def set_state(self, state: int) -> None:
        """As it was."""
        self._value = state

    def read(self, offset: int, size: int) -> int:
        """What was written."""
        return self._value

    def write(self, offset: int, size: int, value: int) -> None:
        """Setting bit 0 resets the CPU."""
        before, self._value = self._value, value & 0xFF
        if value & pc.PORT_92_RESET and not before & pc.PORT_92_RESET:
            self._reset("the guest set the reset bit of port 0x92")


class PowerPort:
    """Claims the ports of one register by which an emulator is ended: `off()` when `value` is written."""

    name = "power-off port"

    def __init__(self, value: int, off: Callable[[], object]) -> None:
        self._value, self._off = value, off

    def read(self, offset: int, size: int) -> int:
        """All ones: nobody answers there."""
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Anything else is ignored."""
        if value == self._value:
            self._off()


class ShutdownText:
    """Claims one port: the letters of SHUTDOWN_TEXT, one after the other, call `off()`."""

    name = "shutdown port"

    def __init__(self, off: Callable[[], object]) -> None:
        self._off, self._said = off, b""

    def get_state(self) -> bytes:
        """The letters so far."""
        return self._said

    def set_state(self, state: bytes) -> None:
        """As it was."""
        self._said = state

    def read(self, offset: int, size: int) -> int:
        """All ones: nobody answers there."""
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """A wrong letter begins anew."""
        for character in value.to_bytes(size, "little"):
            said = self._said + bytes((character,))
            self._said = said if pc.SHUTDOWN_TEXT.startswith(said) else b""
            if self._said == pc.SHUTDOWN_TEXT:
                self._said = b""
                self._off()

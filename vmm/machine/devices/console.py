# SPDX-License-Identifier: GPL-2.0-or-later
"""The debug console of Bochs and QEMU: every byte written is text. It knows neither its address nor where text goes."""

from __future__ import annotations

from vmm.abi.ports import DEBUG_CONSOLE
from vmm.machine.devices.sink import Sink


class DebugConsole:
    """Claims one port. A write of 2 or 4 bytes is as many characters, lowest byte first (Bochs, QEMU: bytes only).

    Reads answer 0xe9, by which a guest finds out that the console is there (Bochs `port_e9_hack`, QEMU
    `-device isa-debugcon,readback=0xe9`).
    """

    name = "debug console"

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def read(self, offset: int, size: int) -> int:
        """0xe9, zero-extended."""
        return DEBUG_CONSOLE

    def write(self, offset: int, size: int, value: int) -> None:
        """Raises OutputLimit."""
        self._sink.write(value.to_bytes(size, "little"))

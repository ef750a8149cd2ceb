# SPDX-License-Identifier: GPL-2.0-or-later
"""The devices that every machine has, put on its buses. It knows no VM: a replay has the same ones without a device."""

from __future__ import annotations

from collections.abc import Callable

from vmm.abi import ports
from vmm.abi.record import record
from vmm.machine import layout
from vmm.machine.devices.console import DebugConsole
from vmm.machine.devices.exit_port import ExitPort
from vmm.machine.devices.scratch import ScratchMmio
from vmm.machine.devices.sink import Sink
from vmm.machine.devices.uart16550 import Uart16550A
from vmm.machine.platform import Platform
from vmm.machine.steps import Stop, Why


@record
class Board:
    """The platform with its devices, and those that a caller may want to ask."""

    platform: Platform
    sink: Sink
    uart: Uart16550A
    scratch: ScratchMmio


def wire(
    sink: Sink,
    end: Callable[[Stop], object],
    *,
    strict: bool = False,
    com1_irq: Callable[[bool], object] | None = None,
) -> Board:
    """Debug console, serial port, exit port, fault port and scratch MMIO. `end` is called when the guest ends the run
    by a port, `com1_irq` with the level of the serial port's interrupt line.
    """

    def exit_port(value: int) -> None:
        end(Stop(Why.EXIT_PORT, f"the guest wrote {value:#x} to the exit port", code=value))

    def fault_port(_value: int) -> None:
        end(Stop(Why.GUEST_FAULT, "the guest took an exception that it had no handler for"))

    platform = Platform(strict=strict)
    region = layout.REGIONS["scratch_mmio"]
    board = Board(platform, sink, Uart16550A(sink, com1_irq), ScratchMmio(region.size))
    platform.ports.claim(ports.DEBUG_CONSOLE, 1, DebugConsole(sink))
    platform.ports.claim(ports.COM1, ports.COM1_SIZE, board.uart)
    platform.ports.claim(ports.EXIT, 1, ExitPort(exit_port))
    platform.ports.on_write(ports.FAULT, fault_port)
    platform.mmio.claim(region.base, region.size, board.scratch)
    return board

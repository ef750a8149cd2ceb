# SPDX-License-Identifier: GPL-2.0-or-later
"""The devices that every machine has, put on its buses. It knows no VM: a replay has the same ones without a device."""

from __future__ import annotations

from vmm.abi import ports
from vmm.machine.bus.platform import Platform
from vmm.machine.devices.console import DebugConsole
from vmm.machine.devices.exit_port import ExitPort
from vmm.machine.devices.on_demand import Asleep
from vmm.machine.devices.sink import Sink
from vmm.machine.ends import Stop, Why
from vmm.machine.memory import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.machine.devices.scratch import ScratchMmio
    from vmm.machine.devices.uart16550 import Uart16550A


class Board:
    """Debug console, serial port, exit port, fault port and scratch MMIO on the buses of a `platform`.

    `end` is called when the guest ends the run by a port, `com1_irq` with the level of the serial port's interrupt.
    """

    def __init__(
        self,
        sink: Sink,
        end: Callable[[Stop], object],
        *,
        strict: bool = False,
        com1_irq: Callable[[bool], object] | None = None,
    ) -> None:
        self.platform = Platform(strict=strict)
        self.sink = sink
        self._end, self._com1_irq = end, com1_irq
        self._uart = Asleep("16550A UART", self._make_uart)
        self._scratch = Asleep("scratch MMIO", self._make_scratch)
        self.platform.ports.claim(ports.DEBUG_CONSOLE, 1, DebugConsole(self.sink))
        self.platform.ports.claim(ports.EXIT, 1, ExitPort(self._exit_port))
        self.platform.ports.claim(ports.COM1, ports.COM1_SIZE, self._uart)
        self.platform.ports.on_write(ports.FAULT, self._fault_port)
        region = layout.REGIONS["scratch_mmio"]
        self.platform.mmio.claim(region.base, region.size, self._scratch)

    def let_go(self) -> None:
        """Of the machine: its guest runs no more."""
        self._end, self._com1_irq = _nobody, None

    @property
    def uart(self) -> Uart16550A:
        """The serial port COM1."""
        return self._uart.device

    @property
    def scratch(self) -> ScratchMmio:
        """The device of plain registers."""
        return self._scratch.device

    def _make_uart(self) -> Uart16550A:
        from vmm.machine.devices.uart16550 import Uart16550A

        return Uart16550A(self.sink, self._com1_irq)

    def _make_scratch(self) -> ScratchMmio:
        from vmm.machine.devices.scratch import ScratchMmio

        return ScratchMmio(layout.REGIONS["scratch_mmio"].size)

    def _exit_port(self, value: int) -> None:
        self._end(Stop(Why.EXIT_PORT, f"the guest wrote {value:#x} to the exit port", code=value))

    def _fault_port(self, _value: int) -> None:
        self._end(Stop(Why.GUEST_FAULT, "the guest took an exception that it had no handler for"))


def _nobody(_stop: Stop) -> None:
    """There is no run to end."""

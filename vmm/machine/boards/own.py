# SPDX-License-Identifier: GPL-2.0-or-later
"""pyvmm's own board, put on a machine's buses. It knows no VM: a replay has the same devices without one.

What a machine asks of a board is vmm.machine.boards.board's to say.
"""

from __future__ import annotations

from vmm.abi import ports
from vmm.base.light import partial
from vmm.machine.bus.bus import WriteCall, both
from vmm.machine.bus.claims import Claim
from vmm.machine.bus.platform import Platform
from vmm.machine.devices.console import DebugConsole
from vmm.machine.devices.exit_port import ExitPort, written
from vmm.machine.devices.on_demand import Asleep
from vmm.machine.devices.sink import Sink
from vmm.machine.ends import Stop, Why
from vmm.machine.memory import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmm.machine.boards.board import Tables, VirtioPlace
    from vmm.machine.devices.scratch import ScratchMmio
    from vmm.machine.devices.uart16550 import Uart16550A
    from vmm.machine.whole import Whole


class OwnBoard:
    """Debug console, serial port, exit port, fault port and scratch MMIO on the buses of a `platform`.

    `end` is called when the guest ends the run by a port, `irq` with GSI and level of an interrupt line.
    """

    name = "own"
    reserved: tuple[tuple[int, int], ...] = ()

    def __init__(
        self,
        sink: Sink,
        end: Callable[[Stop], object],
        *,
        strict: bool = False,
        irq: Callable[[int, bool], object] | None = None,
    ) -> None:
        self.sink = sink
        self._end, self._irq = end, irq
        self._uart = Asleep("16550A UART", self._make_uart)
        self._scratch = Asleep("scratch MMIO", self._make_scratch)
        # By address, as buses take them from the start: claimed one by one they cost a machine 100 calls more.
        console = both(ports.DEBUG_CONSOLE, ports.DEBUG_CONSOLE + 1, DebugConsole(sink))
        end_of_run = both(ports.EXIT, ports.EXIT + 1, ExitPort(self._exit_port))
        fault: Claim[WriteCall] = Claim(ports.FAULT, ports.FAULT + 1, "fault port", self, self._fault_port)
        com1 = both(ports.COM1, ports.COM1 + ports.COM1_SIZE, self._uart)
        region = layout.REGIONS["scratch_mmio"]
        scratch = both(region.base, region.end, self._scratch)
        self.platform = Platform(
            strict=strict,
            ports=([console[0], end_of_run[0], com1[0]], [console[1], end_of_run[1], fault, com1[1]]),
            mmio=([scratch[0]], [scratch[1]]),
        )

    def attach(self, machine: Whole, cpus: int) -> None:
        """It has no interrupt controller, and no timer."""

    def as_a_bios_leaves_it(self, machine: Whole) -> None:
        """As it is."""

    def tell_memory(self, ram: Sequence[tuple[int, int]], cpus: int) -> None:
        """Its guests know their machine."""

    def device_lines(self, irqchip: str) -> None:
        """None of its own."""

    def tables(self, apic_ids: Sequence[int], virtio: Sequence[VirtioPlace]) -> Tables:
        """None: its guests know their machine."""
        from vmm.machine.boards.board import Tables

        return Tables((), 0)

    def close(self) -> None:
        """It has no thread."""

    def let_go(self) -> None:
        """Of the machine: its guest runs no more."""
        self._end, self._irq = _nobody, None

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

        irq = self._irq
        return Uart16550A(self.sink, None if irq is None else partial(irq, ports.COM1_IRQ))

    def _make_scratch(self) -> ScratchMmio:
        from vmm.machine.devices.scratch import ScratchMmio

        return ScratchMmio(layout.REGIONS["scratch_mmio"].size)

    def _exit_port(self, value: int) -> None:
        self._end(written(value))

    def _fault_port(self, _offset: int, _size: int, _value: int) -> None:
        self._end(Stop(Why.GUEST_FAULT, "the guest took an exception that it had no handler for"))


def _nobody(_stop: Stop) -> None:
    """There is no run to end."""

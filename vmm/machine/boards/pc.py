# SPDX-License-Identifier: GPL-2.0-or-later
"""The PC that operating systems expect: serial port with its interrupt, timers, clock, keyboard controller, ACPI.

It puts devices on a platform's buses and names their lines; what a line reaches is vmm.machine.boards.lines' to know,
how the devices behave vmm.machine.devices'. Besides there are QEMU's debug console and isa-debug-exit, the ports by
which small systems end an emulator, and pyvmm's fault port, which its own exception gates use. What ends a run, and
with which exit status, is vmm.machine.boards.endings' table.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from vmm.abi import pc, ports
from vmm.errors import UsageError
from vmm.machine.boards.board import Tables, VirtioPlace
from vmm.machine.bus.platform import Platform
from vmm.machine.devices.console import DebugConsole
from vmm.machine.devices.exit_port import ExitPort
from vmm.machine.devices.i8042 import I8042
from vmm.machine.devices.power import Pm1Control, Pm1Event, PmTimer
from vmm.machine.devices.quiet import Quiet
from vmm.machine.devices.reset import Port92, PowerPort, ResetControl, ShutdownText
from vmm.machine.devices.rtc import Rtc
from vmm.machine.devices.timers import Timers
from vmm.machine.devices.uart16550 import Uart16550A
from vmm.machine.ends import Stop, Why
from vmm.machine.memory.layout import FOUR_GIB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmm.machine.devices.scratch import ScratchMmio
    from vmm.machine.devices.sink import Sink
    from vmm.machine.whole import Whole

KIB64 = 0x10000
MIB = 1 << 20


class PcBoard:
    """Arguments as of every board (vmm.machine.boards.board); `wall()` is the time in ns since 1970, UTC."""

    name = "pc"
    reserved: tuple[tuple[int, int], ...] = ((pc.VGA_BASE, MIB - pc.VGA_BASE),)

    def __init__(
        self,
        sink: Sink,
        end: Callable[[Stop], object],
        *,
        strict: bool = False,
        irq: Callable[[int, bool], object] | None = None,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self.sink = sink
        self._end = end
        self._drive = irq or _no_line
        self._apic = True  # local APICs and an IOAPIC
        self.platform = Platform(strict=strict)
        self.timers = Timers(self._failed)
        self.uart = Uart16550A(sink, self.line(pc.COM1_IRQ))
        self.rtc = Rtc(self.timers, self.line(pc.RTC_IRQ), wall)
        self.keyboard = I8042(self.line(pc.KEYBOARD_IRQ), self._reset)
        self.pm_timer = PmTimer(self.timers.now)
        self.pm_events = Pm1Event(self.pm_timer, self.line(pc.SCI_IRQ))
        self._claim()

    def line(self, gsi: int) -> Callable[[bool], object]:
        """What drives one interrupt line."""
        return partial(self._drive, gsi)

    def attach(self, machine: Whole, cpus: int) -> None:
        """Interrupt controllers, PIT, and what firmware would leave in CMOS memory."""
        from vmm.machine.boards.dead_halt import DeadHalt
        from vmm.machine.boards.lines import attach

        attach(machine, self.timers)
        if machine.irqchip != "none":
            DeadHalt(machine, lambda: self.sleeping)
        self._apic = machine.irqchip != "none"
        self._preset(machine.ram, cpus)

    def as_a_bios_leaves_it(self, machine: Whole) -> None:
        """The interrupt controllers have their vectors, and the timer ticks."""
        from vmm.machine.boards.lines import as_a_bios_leaves_them

        as_a_bios_leaves_them(machine)

    def tell_memory(self, ram: Sequence[tuple[int, int]], cpus: int) -> None:
        """The machine's RAM is this now: what a BIOS would find."""
        self._preset(ram, cpus)

    def device_lines(self, irqchip: str) -> tuple[int, ...]:
        """ISA lines first with KVM's controllers, for they need no ACPI (`virtio_mmio.device=`); with split those that
        KVM can raise by itself; and without an IOAPIC what the PICs have.
        """
        isa, pins = pc.FREE_ISA_IRQS, pc.FREE_PINS
        return {"kernel": isa + pins, "split": pins + isa, "none": isa}[irqchip]

    def tables(self, apic_ids: Sequence[int], virtio: Sequence[VirtioPlace]) -> Tables:
        """ACPI tables, in the BIOS area."""
        from vmm.machine.boards import acpi

        return acpi.tables(apic_ids, virtio, apic=self._apic)

    @property
    def sleeping(self) -> bool:
        """Whether something of the board will wake a guest that has halted with interrupts off."""
        return False

    def press_power_button(self) -> None:
        """As the button of a PC does: an operating system that listens (ACPI) shuts down."""
        self.pm_events.raise_event(pc.PM1_PWRBTN)

    @property
    def scratch(self) -> ScratchMmio:
        """Not here. UsageError."""
        raise UsageError("the pc board has no scratch MMIO device", hint='Machine(board="own"), or claim one')

    def close(self) -> None:
        """No alarm rings afterwards."""
        self.timers.close()

    def let_go(self) -> None:
        """Of the machine: its guest runs no more."""
        self._end, self._drive = _no_run, _no_line

    # -- building

    def _claim(self) -> None:
        claim = self.platform.ports.claim
        claim(ports.DEBUG_CONSOLE, 1, DebugConsole(self.sink))
        claim(pc.DEBUG_EXIT, 1, ExitPort(self._debug_exit))
        self.platform.ports.claim_writes(ports.FAULT, 1, "fault port", self._fault)
        claim(ports.COM1, ports.COM1_SIZE, self.uart)
        claim(pc.RTC_INDEX, 2, self.rtc)
        claim(pc.I8042_DATA, 1, self.keyboard.data)
        claim(pc.I8042_COMMAND, 1, self.keyboard.command)
        claim(pc.PORT_92, 1, Port92(self._reset))
        claim(pc.RESET_CONTROL, 1, ResetControl(self._reset))
        claim(pc.PM1_EVENT, 4, self.pm_events)
        claim(pc.PM1_CONTROL, 2, Pm1Control(self._sleep))
        claim(pc.PM_TIMER, 4, self.pm_timer)
        for port, value, whose in pc.POWER_OFF_PORTS:
            claim(port, 1, PowerPort(value, partial(self._power_off, f"the power-off port of {whose}")))
        claim(pc.SHUTDOWN_TEXT_PORT, 1, ShutdownText(lambda: self._power_off("the shutdown port of Bochs")))
        for first, count, what in pc.QUIET_PORTS:
            claim(first, count, Quiet(what))

    def _preset(self, ram: Sequence[tuple[int, int]], cpus: int) -> None:
        """The memory's size as a BIOS tells it (source: Bochs' and QEMU's CMOS maps)."""
        low = ram[0][1]
        above = sum(size for base, size in ram if base >= FOUR_GIB)
        for index, value, count in (
            (pc.CMOS_BASE_KIB, min(low, pc.VGA_BASE) >> 10, 2),
            (pc.CMOS_EXTENDED_KIB, min(max(low - MIB, 0) >> 10, 0xFFFF), 2),
            (pc.CMOS_EXTENDED_KIB_2, min(max(low - MIB, 0) >> 10, 0xFFFF), 2),
            (pc.CMOS_HIGH_64KIB, min(max(low - 16 * MIB, 0) // KIB64, 0xFFFF), 2),
            (pc.CMOS_ABOVE_4G_64KIB, min(above // KIB64, 0xFFFFFF), 3),
            (pc.CMOS_CPUS, min(cpus - 1, 0xFF), 1),
        ):
            self.rtc.preset(index, value.to_bytes(count, "little"))

    # -- how a guest ends its run

    def _debug_exit(self, value: int) -> None:
        self._end(Stop(Why.DEBUG_EXIT, f"the guest wrote {value:#x} to isa-debug-exit", code=value))

    def _fault(self, _offset: int, _size: int, _value: int) -> None:
        self._end(Stop(Why.GUEST_FAULT, "the guest took an exception that it had no handler for"))

    def _sleep(self, kind: int) -> None:
        if kind == pc.SLP_TYP_S5:
            self._power_off("ACPI S5")

    def _power_off(self, how: str) -> None:
        self._end(Stop(Why.POWER_OFF, f"the guest powered off, by {how}"))

    def _reset(self, text: str) -> None:
        self._end(Stop(Why.RESET, text))

    def _failed(self, error: BaseException) -> None:
        self._end(Stop(Why.INTERRUPTED, f"a timer of the board failed: {type(error).__name__}: {error}"))


def _no_line(_gsi: int, _level: bool) -> None:
    """There is no machine."""


def _no_run(_stop: Stop) -> None:
    """There is no run to end."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""The board that kvm-unit-tests' images expect: a PC with a test device, an exit by isa-debug-exit, and fw_cfg.

It puts devices on the buses of the pc board, and says what they reach; how they behave is vmm.machine.devices'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.abi import pc, testdev
from vmm.abi.x86 import PAGE
from vmm.machine.boards import suspend
from vmm.machine.boards.pc import PcBoard
from vmm.machine.devices.fw_cfg import FwCfg
from vmm.machine.devices.testdev import FlushPage, IrqLines, PlainRegister

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmm.machine.boards.board import Tables, VirtioPlace
    from vmm.machine.whole import Whole


class TestdevBoard(PcBoard):
    """As the pc board, and: ports 0xe0 and 0xe8, the flush port 0xe4, interrupt lines at 0x2000, memory that is a
    device at 0xff000000, fw_cfg at 0x510. It can sleep (ACPI S3), and the RTC or the power button wakes it.
    """

    name = "testdev"
    __test__ = False  # pytest takes a class of this name for one of tests
    _machine: Whole | None = None
    _facs = 0
    _asleep = _rings = False

    def attach(self, machine: Whole, cpus: int) -> None:
        """As the pc board's; fw_cfg tells the machine's size."""
        super().attach(machine, cpus)
        self._machine = machine
        self.fw_cfg.items.update(items(machine.ram, cpus))

    def tell_memory(self, ram: Sequence[tuple[int, int]], cpus: int) -> None:
        """As the pc board's; fw_cfg tells it too."""
        super().tell_memory(ram, cpus)
        self.fw_cfg.items.update(items(ram, cpus))

    def tables(self, apic_ids: Sequence[int], virtio: Sequence[VirtioPlace]) -> Tables:
        """As the pc board's."""
        made = super().tables(apic_ids, virtio)
        self._facs = suspend.facs_in(made)
        return made

    @property
    def sleeping(self) -> bool:
        """In S3, which ends by an NMI."""
        return self._asleep

    def line(self, gsi: int) -> Callable[[bool], object]:
        """As the pc board's; that of the RTC wakes too."""
        drive = super().line(gsi)
        if gsi != pc.RTC_IRQ:
            return drive

        def drive_and_wake(level: bool) -> None:
            drive(level)
            self._rings = level
            if level:
                self._wake(pc.PM1_RTC)

        return drive_and_wake

    def press_power_button(self) -> None:
        """As the pc board's, and it wakes."""
        super().press_power_button()
        self._wake(pc.PM1_PWRBTN)

    def let_go(self) -> None:
        """Of the machine: its guest runs no more."""
        super().let_go()
        self._machine = None

    def _sleep(self, kind: int) -> None:
        machine = self._machine
        if kind != testdev.SLP_TYP_S3 or machine is None or machine.irqchip == "none" or not self._facs:
            super()._sleep(kind)
            return
        suspend.fall_asleep(machine, self._facs)
        self._asleep = True
        if self._rings:  # before it slept: nothing would change any more
            self._wake(pc.PM1_RTC)

    def _wake(self, event: int) -> None:
        """By a fixed event, if the guest has enabled it; the power button needs no leave."""
        enabled = event == pc.PM1_PWRBTN or self.pm_events.get_state()[1] & event
        if self._asleep and enabled and self._machine is not None:
            self._asleep = False
            self.pm_events.raise_event(event | pc.PM1_WAK)
            suspend.wake(self._machine)

    def _claim(self) -> None:
        super()._claim()
        self.fw_cfg = FwCfg({})
        port, memory = self.platform.ports.claim, self.platform.mmio.claim
        port(testdev.TESTDEV_IO_PORT, testdev.TESTDEV_IO_SIZE, PlainRegister("testdev: ports", testdev.TESTDEV_IO_SIZE))
        port(testdev.TESTDEV_FLUSH_PORT, testdev.TESTDEV_FLUSH_SIZE, FlushPage(self._flush))
        port(testdev.TESTDEV_BYTE_PORT, 1, PlainRegister("testdev: byte port", 1))
        port(testdev.BIOS_CFG_IOPORT, testdev.BIOS_CFG_PORTS, self.fw_cfg)
        port(testdev.TESTDEV_IRQ_PORTS, testdev.TESTDEV_IRQ_LINES, IrqLines(self._set_line))
        memory(testdev.IORAM_BASE_PHYS, testdev.IORAM_SIZE, PlainRegister("testdev: memory", testdev.IORAM_SIZE))

    def _set_line(self, gsi: int, level: bool) -> None:
        self._drive(gsi, level)

    def _flush(self, address: int) -> None:
        """Let KVM forget what it knows of this page, so that the guest's next access to it faults in the host."""
        slot = self._machine.memory.slot_at(address) if self._machine is not None else None
        if slot is not None:
            slot.mapping.refault(slot.offset + address - address % PAGE - slot.gpa, PAGE)


def items(ram: Sequence[tuple[int, int]], cpus: int) -> dict[int, bytes]:
    """What fw_cfg holds, by key; `ram` are (base, size)."""
    size = sum(length for _, length in ram)
    return {
        testdev.FW_CFG_SIGNATURE: testdev.FW_CFG_SIGNATURE_TEXT,
        testdev.FW_CFG_ID: testdev.FW_CFG_VERSION.to_bytes(4, "little"),
        testdev.FW_CFG_RAM_SIZE: size.to_bytes(8, "little"),
        testdev.FW_CFG_NOGRAPHIC: (1).to_bytes(2, "little"),
        testdev.FW_CFG_NB_CPUS: cpus.to_bytes(2, "little"),
        testdev.FW_CFG_MAX_CPUS: cpus.to_bytes(2, "little"),
        testdev.FW_CFG_FILE_DIR: bytes(4),
    }

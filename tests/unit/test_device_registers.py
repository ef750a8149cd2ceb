# SPDX-License-Identifier: GPL-2.0-or-later
"""What devices hold, as text: nothing is read as a guest would read it, and none is made that nobody has touched."""

from __future__ import annotations

from vmm.abi import serial_reg as r
from vmm.debug.device_registers import registers
from vmm.machine.devices.i8042 import I8042
from vmm.machine.devices.ioapic import Ioapic
from vmm.machine.devices.on_demand import Asleep
from vmm.machine.devices.pic import Pics
from vmm.machine.devices.scratch import ScratchMmio
from vmm.machine.devices.sink import Sink
from vmm.machine.devices.uart16550 import Uart16550A
from vmm.machine.virtio.rng import VirtioRng
from vmm.machine.virtio.transport import VirtioMmio


def test_a_serial_port_has_its_flags_as_words_and_keeps_what_waits() -> None:
    uart = Uart16550A(Sink())
    uart.write(r.UART_IER, 1, r.UART_IER_RDI | r.UART_IER_MSI)
    uart.feed(b"abc", wait=False)
    before = uart.get_state()
    rows = dict(registers(uart))
    assert rows["ier"] == "0x9  MSI|RDI" or rows["ier"] == "0x9  RDI|MSI"
    assert "to be read" in rows["receiver"]
    assert uart.get_state() == before  # a guest that had read RBR would have taken a character


def test_a_device_that_nobody_touched_is_not_made() -> None:
    made = []
    asleep = Asleep("scratch MMIO", lambda: made.append(1) or ScratchMmio())
    assert registers(asleep) == [("", "not touched yet")]
    assert made == []
    asleep.device.write(0, 4, 0x12345678)
    rows = dict(registers(asleep))
    assert rows["bytes"].startswith("78 56 34 12")
    assert rows["writes"] == "1 of 4"


def test_an_ioapic_shows_the_pins_that_were_set() -> None:
    ioapic = Ioapic(lambda message: None)
    assert not [value for name, value in registers(ioapic) if name == "entries"]
    ioapic.write(0x00, 4, 0x10 + 2 * 4)
    ioapic.write(0x10, 4, 0x0000_0031)
    assert ("entries", "pin 4: vector 0x31, fixed, edge, to 0x0") in registers(ioapic)


def test_of_what_claims_several_places_each_shows_its_own() -> None:
    pics = Pics(lambda level: None)
    pics.master.imr = 0xFB
    assert dict(registers(pics.master_ports))["imr"] == "0xfb"
    assert dict(registers(pics.slave_ports))["imr"] == "0x0"
    keyboard = I8042(lambda level: None, lambda text: None)
    assert "control" in dict(registers(keyboard.data))


def test_a_virtio_device_has_status_features_and_queues_and_none_is_served() -> None:
    mmio = VirtioMmio(VirtioRng(lambda size: bytes(size)), memory=None)  # type: ignore[arg-type]
    rows = dict(registers(mmio))
    assert rows["status"] == "0"
    assert rows["queue 0"] == "not ready"


def test_a_callback_is_called_by_its_name() -> None:
    assert registers(test_a_callback_is_called_by_its_name)[0][0] == "callback"

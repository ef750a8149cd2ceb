# SPDX-License-Identifier: GPL-2.0-or-later
"""The IOAPIC of a machine whose local APICs are in the kernel (irqchip=split): the device, put between guest and KVM.

KVM_CAP_SPLIT_IRQCHIP leaves three things to the VMM. The registers are an MMIO device; a message is KVM_SIGNAL_MSI; and
a level must hear of its end. For that KVM looks at the routes of the first 24 GSIs: a vector that one of them sends as
a level makes the guest's EOI exit (KVM_EXIT_IOAPIC_EOI). Source: api.rst, KVM_CAP_SPLIT_IRQCHIP and kvm_run.eoi.
"""

from __future__ import annotations

from vmm.abi import irq
from vmm.abi.ports import COM1_IRQ
from vmm.errors import UsageError
from vmm.kvm.events import MsiRoute
from vmm.machine.devices.ioapic import Ioapic, message
from vmm.machine.memory import layout
from vmm.machine.whole import Whole


def add_ioapic(machine: Whole) -> Ioapic:
    """Give a machine with irqchip=split its IOAPIC, at the usual place; before its first run. `set_line` drives a pin;
    the serial port COM1 drives pin 4.

    Raises:
        UsageError: the machine has another kind of interrupt controller, or an IOAPIC already.
    """
    if machine.irqchip != "split":
        raise UsageError(f"irqchip={machine.irqchip}: an IOAPIC of pyvmm's own goes with irqchip=split")
    vm = machine.vm

    def changed(pin: int, entry: int) -> None:
        sent = message(entry)
        if entry & irq.RTE_MASKED and not entry & irq.RTE_REMOTE_IRR:
            vm.change_gsi_routing([], remove=[pin])
        else:
            vm.change_gsi_routing([MsiRoute(pin, sent.address, sent.data)])

    ioapic = Ioapic(lambda sent: vm.signal_msi(sent.address, sent.data), changed)
    machine.platform.mmio.claim(layout.REGIONS["ioapic"].base, layout.REGIONS["ioapic"].size, ioapic)
    machine.platform.on_eoi.append(ioapic.end_of_interrupt)
    machine.ioapic = ioapic
    machine.line_drivers.append(ioapic.set_line)
    ioapic.set_line(COM1_IRQ, machine.uart.interrupting)
    return ioapic

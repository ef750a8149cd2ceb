# SPDX-License-Identifier: GPL-2.0-or-later
"""What the interrupt lines of a pc board reach, by the machine's irqchip: KVM's controllers, or our own.

kernel: PICs, IOAPIC and PIT are KVM's. split: KVM has the local APICs, and 8259s, IOAPIC and PIT are ours. none: there
are the 8259s and the PIT alone, both ours, and one vCPU that takes interrupts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.abi import bios, irq, pc
from vmm.kvm import irqchip
from vmm.kvm.events import IrqchipRoute, default_routes

if TYPE_CHECKING:
    from vmm.machine.devices.timers import Timers
    from vmm.machine.whole import Whole


def attach(machine: Whole, timers: Timers) -> None:
    """Give the machine of a pc board its interrupt controllers and its PIT, which has its alarms of `timers`.

    Raises:
        MissingCapability: this KVM has no PIT, or no routes.
    """
    if machine.irqchip == "kernel":
        machine.vm.require("PIT2", "the pc board's timer")
        machine.vm.require("IRQ_ROUTING", "the pc board's interrupt lines")
        machine.vm.create_pit2(flags=pc.KVM_PIT_SPEAKER_DUMMY)
        machine.vm.set_gsi_routing(pc_routes())
    else:
        _our_own(machine, timers)


def _our_own(machine: Whole, timers: Timers) -> None:
    from vmm.machine.boards.pic_output import PicOutput
    from vmm.machine.devices.pic import Pics
    from vmm.machine.devices.pit import Pit, Port61

    claim = machine.platform.ports.claim
    pics = Pics(lambda level: output.raised(level))
    output = PicOutput(machine, pics)
    claim(irq.PIC_MASTER_CMD, 2, pics.master_ports)
    claim(irq.PIC_SLAVE_CMD, 2, pics.slave_ports)
    claim(irq.PIC_ELCR1, 2, pics.elcr)
    machine.line_drivers.append(pics.set_line)
    if machine.irqchip == "split":
        from vmm.machine.extra.split_irqchip import add_ioapic

        ioapic = add_ioapic(machine)
        machine.line_drivers[-1] = lambda gsi, level: ioapic.set_line(pin_of(gsi), level)
    pit = Pit(timers, lambda level: machine.irq_line(pc.PIT_IRQ, level))
    claim(irq.PIT_CH0, 4, pit)
    claim(pc.PORT_61, 1, Port61(pit, timers.now))


def as_a_bios_leaves_them(machine: Whole) -> None:
    """The 8259s and the 8254 of a machine of `attach`, as they are when a BIOS starts what it has loaded."""
    chips = (
        (irq.PIC_MASTER_CMD, False, bios.PIC_MASTER_BASE, 1 << irq.PIC_CASCADE_IR, bios.PIC_MASTER_MASK),
        (irq.PIC_SLAVE_CMD, True, bios.PIC_SLAVE_BASE, irq.PIC_CASCADE_IR, bios.PIC_SLAVE_MASK),
    )
    if machine.irqchip == "kernel":
        for _, slave, base, _, mask in chips:
            irqchip.initialise_pic(machine.vm, slave=slave, base=base, mask=mask)
        irqchip.start_pit(machine.vm, mode=irq.PIT_CH0_RATE >> 1 & 7)
        return
    write = machine.platform.ports.write
    for port, _, base, cascade, mask in chips:
        write(port, bytes((irq.PIC_ICW1,)))
        for word in (base, cascade, irq.PIC_ICW4, mask):
            write(port + 1, bytes((word,)))
    write(irq.PIT_MODE, bytes((irq.PIT_CH0_RATE,)))
    for _ in range(2):  # 0 stands for 65536
        write(irq.PIT_CH0, b"\0")


def pin_of(gsi: int) -> int:
    """The IOAPIC's pin that a line is at: the PIT's is at pin 2, the others at that of their number."""
    return pc.PIT_PIN if gsi == pc.PIT_IRQ else gsi


def pc_routes() -> list[IrqchipRoute]:
    """KVM's own routes, but for the PIT's line: on a PC that is at pin 2 of the IOAPIC, for the cascade is at none."""
    kept = [row for row in default_routes() if row.irqchip != irq.KVM_IRQCHIP_IOAPIC or row.gsi not in (0, pc.PIT_PIN)]
    return [*kept, IrqchipRoute(pc.PIT_IRQ, irq.KVM_IRQCHIP_IOAPIC, pc.PIT_PIN)]

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the interrupt lines of a pc board reach, by the machine's irqchip: KVM's controllers, or our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.abi import irq, pc
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


def pc_routes() -> list[IrqchipRoute]:
    """KVM's own routes, but for the PIT's line: on a PC that is at pin 2 of the IOAPIC, for the cascade is at none."""
    kept = [row for row in default_routes() if row.irqchip != irq.KVM_IRQCHIP_IOAPIC or row.gsi not in (0, pc.PIT_PIN)]
    return [*kept, IrqchipRoute(pc.PIT_IRQ, irq.KVM_IRQCHIP_IOAPIC, pc.PIT_PIN)]

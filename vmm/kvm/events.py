# SPDX-License-Identifier: GPL-2.0-or-later
"""What a VM does without leaving the kernel: eventfds for guest writes and for interrupts, routes, coalesced writes.

`Vm` inherits these; they are one subject: Documentation/virt/kvm/api.rst 4.52, 4.59, 4.75, 4.116.
"""

from __future__ import annotations

from vmm.base.light import RLock
from vmm.base.record import Record
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.buffers import put
from vmm.kvm.handle import Handle, new

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


class MsiRoute(Record):
    """A GSI that sends a message: the 64-bit MSI address and data, as `Vm.signal_msi` takes them."""

    gsi: int
    address: int
    data: int


class IrqchipRoute(Record):
    """A GSI that drives a `pin` of an in-kernel controller, `irqchip` (KVM_IRQCHIP_PIC_MASTER 0, _PIC_SLAVE 1, _IOAPIC
    2).
    """

    gsi: int
    irqchip: int
    pin: int


Route = MsiRoute | IrqchipRoute


def default_routes() -> tuple[IrqchipRoute, ...]:
    """What KVM_CREATE_IRQCHIP leaves: GSI 0 to 15 drive an input of a PIC and the IOAPIC's pin, 16 to 23 that alone."""
    from vmm.abi import irq

    chips = (irq.KVM_IRQCHIP_PIC_MASTER, irq.KVM_IRQCHIP_PIC_SLAVE)
    pics = tuple(IrqchipRoute(gsi, chips[gsi // 8], gsi % 8) for gsi in range(16))
    return pics + tuple(IrqchipRoute(gsi, irq.KVM_IRQCHIP_IOAPIC, gsi) for gsi in range(irq.IOAPIC_PINS))


class VmEvents(Handle):
    """The part of a VM descriptor that serves guests inside the kernel."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.routes: tuple[Route, ...] = ()
        self._changing = RLock()  # of what KVM replaces as a whole, and several vCPUs may change
        self._number: Any = None  # the descriptor for C, once something wants it; -1 when it is closed

    def close(self) -> None:
        if self._number is not None:
            self._number[0] = -1
        super().close()

    @property
    def number(self) -> Any:
        """The descriptor for C, as an `int *` that says -1 once it is closed.

        Raises:
            HostError: it is.
        """
        fd = self.fd
        if self._number is None:
            self._number = ffi.new("int *", fd)
        return self._number

    def ioeventfd(
        self, fd: int, address: int, size: int, *, datamatch: int | None = None, pio: bool = False,
        deassign: bool = False,
    ) -> None:  # fmt: skip
        """KVM_IOEVENTFD: a guest write of `size` bytes (1, 2, 4, 8; 0 any) signals eventfd `fd`, and does not exit.

        `datamatch` lets only that value do so. `deassign` takes back what was given with the same arguments.
        """
        raw = new("struct kvm_ioeventfd *", {"addr": address, "len": size, "fd": fd, "datamatch": datamatch or 0})
        raw.flags = (
            (datamatch is not None) * lib.KVM_IOEVENTFD_FLAG_DATAMATCH
            | pio * lib.KVM_IOEVENTFD_FLAG_PIO
            | deassign * lib.KVM_IOEVENTFD_FLAG_DEASSIGN
        )
        space = "port" if pio else "MMIO address"
        self.call("KVM_IOEVENTFD", raw, f"{'un' * deassign}binding an eventfd to {space} {address:#x}")

    def irqfd(self, fd: int, gsi: int, *, resamplefd: int | None = None, deassign: bool = False) -> None:
        """KVM_IRQFD: writing eventfd `fd` raises `gsi` by its route. `resamplefd` (level-triggered) tells its EOI."""
        raw = new("struct kvm_irqfd *", {"fd": fd, "gsi": gsi, "resamplefd": resamplefd or 0})
        raw.flags = deassign * lib.KVM_IRQFD_FLAG_DEASSIGN | (resamplefd is not None) * lib.KVM_IRQFD_FLAG_RESAMPLE
        self.call("KVM_IRQFD", raw, f"{'un' * deassign}binding an eventfd to GSI {gsi}")

    def set_gsi_routing(self, routes: Sequence[Route]) -> None:
        """KVM_SET_GSI_ROUTING: these routes in place of all that there were; needs an interrupt controller.

        Raises:
            UsageError: a number does not fit.
        """
        raw = ffi.new("struct kvm_irq_routing *", {"nr": len(routes), "entries": len(routes)})
        for slot, route in zip(raw.entries[0 : len(routes)], routes, strict=True):
            put(slot, "gsi", route.gsi, "the GSI of a route")
            if isinstance(route, MsiRoute):
                slot.type = lib.KVM_IRQ_ROUTING_MSI
                put(slot.u.msi, "address_lo", route.address & 0xFFFFFFFF, "an MSI address")
                put(slot.u.msi, "address_hi", route.address >> 32, "an MSI address")
                put(slot.u.msi, "data", route.data, "an MSI's data")
            else:
                slot.type = lib.KVM_IRQ_ROUTING_IRQCHIP
                put(slot.u.irqchip, "irqchip", route.irqchip, "the controller of a route")
                put(slot.u.irqchip, "pin", route.pin, "the pin of a route")
        with self._changing:
            self.call("KVM_SET_GSI_ROUTING", raw, f"routing {len(routes)} GSIs")
            self.routes = tuple(routes)

    def change_gsi_routing(self, add: Sequence[Route], *, remove: Iterable[int] = ()) -> None:
        """KVM_SET_GSI_ROUTING for one of several users: `add` in place of what these GSIs had, none for those of
        `remove`, and the routes of all others as they were set.
        """
        gone = {route.gsi for route in add} | set(remove)
        with self._changing:
            self.set_gsi_routing([*(route for route in self.routes if route.gsi not in gone), *add])

    def register_coalesced_mmio(self, address: int, size: int, *, pio: bool = False) -> None:
        """KVM_REGISTER_COALESCED_MMIO: writes to these addresses (or ports, KVM_CAP_COALESCED_PIO) wait in a ring.

        The ring is a page of each vCPU's mapping (vmm/kvm/coalesced.py takes them out); a full one lets a write exit.
        """
        raw = new("struct kvm_coalesced_mmio_zone *", {"addr": address, "size": size, "pio": int(pio)})
        self.call("KVM_REGISTER_COALESCED_MMIO", raw, f"collecting writes to {address:#x}..{address + size - 1:#x}")

    def unregister_coalesced_mmio(self, address: int, size: int, *, pio: bool = False) -> None:
        """KVM_UNREGISTER_COALESCED_MMIO: what waits in the ring stays there; every later write exits again."""
        raw = new("struct kvm_coalesced_mmio_zone *", {"addr": address, "size": size, "pio": int(pio)})
        self.call(
            "KVM_UNREGISTER_COALESCED_MMIO",
            raw,
            f"no longer collecting writes to {address:#x}..{address + size - 1:#x}",
        )

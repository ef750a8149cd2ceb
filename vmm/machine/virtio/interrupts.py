# SPDX-License-Identifier: GPL-2.0-or-later
"""How a device's interrupt reaches the guest: by irqfd or by an ioctl, as an MSI or over an interrupt line.

It knows a VM's GSIs; it knows no device. All are edges: a device that has news again says so again. Where the board has
lines for devices (pc), these are GSIs that its tables name; on pyvmm's own board they are the pins of KVM's IOAPIC
from 16 up, or messages where the local APICs alone are KVM's (split).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from vmm.abi import apic
from vmm.abi.irq import IOAPIC_PINS
from vmm.abi.pc import ISA_IRQS
from vmm.errors import UsageError, exhausted
from vmm.kvm.events import MsiRoute
from vmm.kvm.vm import Vm

FIRST_PIN = 16  # of the in-kernel IOAPIC: below are the pins of the PC's own devices
FIRST_GSI = IOAPIC_PINS  # for MSI routes
LAST_VECTOR = 0xFF


class Irqfd:
    """An interrupt by eventfd `fd`: whoever writes to it, in Python or not, raises it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __call__(self) -> None:
        os.eventfd_write(self.fd, 1)


class Interrupts:
    """The interrupts of one VM's devices. `irqchip` is the machine's: "none", "kernel" or "split".

    `lines` are the GSIs that its board has for devices, in their order, None where the board leaves that to us;
    `drive(gsi, level)` drives one, whichever controllers there are.
    """

    def __init__(
        self,
        vm: Vm,
        irqchip: str,
        lines: Sequence[int] | None = None,
        drive: Callable[[int, bool], object] | None = None,
    ) -> None:
        self._vm, self._irqchip = vm, irqchip
        self._lines, self._drive = lines, drive or vm.irq_line
        self.lines: list[int] = []
        """The GSIs of lines that were given, in order."""
        self._routes: list[MsiRoute] = []
        self._bound: list[tuple[int, int]] = []  # eventfd, GSI

    def line(self, vector: int, *, events: bool) -> Callable[[], object] | None:
        """Something to call for an interrupt, from any thread: an Irqfd with `events`. None where the machine has no
        interrupt controller.

        On a board with lines, the next of these. Else, irqchip=split: an MSI with `vector` to APIC id 0;
        irqchip=kernel: the next free pin of the IOAPIC from FIRST_PIN up, and the guest says there which vector it
        wants. `events`: by irqfd, else by ioctl.

        Raises:
            UsageError: no such vector, or no line is left.
        """
        if self._lines is not None:
            return self._line(self._lines, events)
        if self._irqchip == "none":
            return None
        if self._irqchip == "kernel":
            return self._pin(events)
        if not 0x10 <= vector <= LAST_VECTOR:
            raise UsageError(f"interrupt vector {vector:#x}: a device may have 0x10 to {LAST_VECTOR:#x}")
        address, data = apic.msi_address(0), apic.msi_data(vector)
        if not events:
            return lambda: self._vm.signal_msi(address, data)
        gsi = FIRST_GSI + len(self._routes)
        route = MsiRoute(gsi, address, data)
        self._vm.change_gsi_routing([route])  # those of others stay: an IOAPIC of our own has some
        self._routes.append(route)
        return self._irqfd(gsi)

    def _pin(self, events: bool) -> Callable[[], object]:
        gsi = FIRST_PIN + len(self.lines)
        if gsi >= IOAPIC_PINS:
            raise UsageError(
                f"the IOAPIC has {IOAPIC_PINS - FIRST_PIN} pins for devices, and all are taken", hint="irqchip=split"
            )
        self.lines.append(gsi)
        return self._irqfd(gsi) if events else lambda: self._pulse(gsi)

    def _line(self, lines: Sequence[int], events: bool) -> Callable[[], object]:
        """An irqfd reaches what KVM routes: with split those pins alone that no PIC of ours has, and none without."""
        if len(self.lines) == len(lines):
            raise UsageError(f"the board has {len(lines)} interrupt lines for devices, and all are taken")
        gsi = lines[len(self.lines)]
        self.lines.append(gsi)
        routed = self._irqchip == "kernel" or (self._irqchip == "split" and gsi >= ISA_IRQS)
        return self._irqfd(gsi) if events and routed else lambda: self._pulse(gsi)

    def _pulse(self, gsi: int) -> None:
        self._drive(gsi, True)
        self._drive(gsi, False)

    def _irqfd(self, gsi: int) -> Irqfd:
        try:
            fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError as error:
            raise exhausted("an interrupt of a device", "eventfd", error.errno or 0) from error
        try:
            self._vm.irqfd(fd, gsi)
        except BaseException:
            os.close(fd)
            raise
        self._bound.append((fd, gsi))
        return Irqfd(fd)

    def close(self) -> None:
        """Take the eventfds back from KVM. Idempotent; nobody may raise an interrupt after it.

        Raises:
            HostError: KVM refused one of the calls; all are closed all the same.
        """
        while self._bound:
            fd, gsi = self._bound.pop()
            try:
                if not self._vm.closed and not self._vm.inherited:
                    self._vm.irqfd(fd, gsi, deassign=True)
            except BaseException:
                self.close()
                raise
            finally:
                os.close(fd)

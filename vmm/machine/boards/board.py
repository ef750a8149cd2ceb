# SPDX-License-Identifier: GPL-2.0-or-later
"""What a board is to its machine. It knows no board.

A board puts its devices on the buses of a `platform` of its own when it is made, with (sink, end, strict, irq):

* `end(stop)` ends the run; `irq(gsi, level)` drives an interrupt line, whichever controllers the machine has.
* `attach(machine, cpus)` is called once there is a VM and before its vCPUs, `cpus` of them: controllers and timers are
  made there.
* `as_a_bios_leaves_it(machine)` is called for an image that starts where a BIOS was before it.
* `reserved` are (base, size) of RAM that an operating system must not use; `tables(apic_ids, virtio)` gives the tables
  that describe the machine (ACPI), as (base, bytes) and the address of the RSDP.
* `device_lines(irqchip)` are the GSIs that are free for virtio devices, in the order in which they are given; None
  where the board has no such lines, and devices have what vmm.machine.virtio.interrupts gives them.
* `close()` ends its threads while the VM is still there; `let_go()` lets go of the machine afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmm.machine.bus.platform import Platform
    from vmm.machine.devices.scratch import ScratchMmio
    from vmm.machine.devices.sink import Sink
    from vmm.machine.devices.uart16550 import Uart16550A
    from vmm.machine.ends import Stop
    from vmm.machine.whole import Whole


class VirtioPlace(NamedTuple):
    """What the tables say of a virtio-mmio device: the address and size of its registers, and its interrupt."""

    base: int
    size: int
    gsi: int


class Tables(NamedTuple):
    """`segments` are (guest-physical address, bytes); `rsdp` is the address of the first table, 0 for none."""

    segments: tuple[tuple[int, bytes], ...]
    rsdp: int


NO_TABLES = Tables((), 0)


class Board(Protocol):
    """What a machine asks of its board."""

    def __init__(
        self,
        sink: Sink,
        end: Callable[[Stop], object],
        *,
        strict: bool = False,
        irq: Callable[[int, bool], object] | None = None,
    ) -> None: ...

    name: str
    platform: Platform
    reserved: tuple[tuple[int, int], ...]

    @property
    def uart(self) -> Uart16550A: ...

    @property
    def scratch(self) -> ScratchMmio: ...

    def attach(self, machine: Whole, cpus: int) -> None: ...

    def as_a_bios_leaves_it(self, machine: Whole) -> None: ...

    def tell_memory(self, ram: tuple[tuple[int, int], ...], cpus: int) -> None: ...

    def device_lines(self, irqchip: str) -> tuple[int, ...] | None: ...

    def tables(self, apic_ids: Sequence[int], virtio: Sequence[VirtioPlace]) -> Tables: ...

    def close(self) -> None: ...

    def let_go(self) -> None: ...

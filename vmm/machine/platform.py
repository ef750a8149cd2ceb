# SPDX-License-Identifier: GPL-2.0-or-later
"""What answers a guest's exits: the two buses, and the hooks for MSRs and hypercalls.

It is the whole world that `loop.handle` sees, so handling is tested with exits as values and no device.
"""

from __future__ import annotations

from collections.abc import Callable

from vmm.machine.bus import Bus, mmio_bus, port_bus

MsrRead = Callable[[], int | None]
MsrWrite = Callable[[int], bool | None]
HypercallHook = Callable[..., int]


class Platform:
    """Ports, MMIO, MSRs and hypercalls of one machine.

    An MSR read hook returns the value, or None to refuse (the guest takes #GP); a write hook refuses by returning
    False. A hypercall hook gets the arguments a0, a1, ... and returns what RAX shall hold.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.ports: Bus = port_bus(strict=strict)
        self.mmio: Bus = mmio_bus(strict=strict)
        self.msr_reads: dict[int, MsrRead] = {}
        self.msr_writes: dict[int, MsrWrite] = {}
        self.hypercalls: dict[int, HypercallHook] = {}

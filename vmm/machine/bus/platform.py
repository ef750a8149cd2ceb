# SPDX-License-Identifier: GPL-2.0-or-later
"""What answers a guest's exits: the two buses, and the hooks for MSRs, hypercalls and debug events.

It is the whole world that `handle` sees, so handling is tested with exits as values and no device.
"""

from __future__ import annotations

from vmm.base.light import TypeVar
from vmm.kvm.exits import Debug
from vmm.kvm.lean import HypercallHook, MsrRead, MsrWrite
from vmm.machine.bus.bus import Bus, First, mmio_bus, port_bus
from vmm.machine.ends import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from vmm.machine.bus.unclaimed import Missed

CallT = TypeVar("CallT")

DebugHook: TypeAlias = "Callable[[Debug], Step | None]"


class Calls(dict[int, CallT]):
    """Callbacks by MSR, or by hypercall. `listeners` are called after every change, as those of a bus."""

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[Callable[[], object]] = []


def _told(name: str) -> Callable[..., Any]:
    change = getattr(dict, name)

    def call(self: Calls[Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return change(self, *args, **kwargs)
        finally:
            for listener in self.listeners:
                listener()

    return call


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    setattr(Calls, _name, _told(_name))


class Platform:
    """Ports, MMIO, MSRs and hypercalls of one machine.

    An MSR read hook returns the value, or None to refuse (the guest takes #GP); a write hook refuses by returning
    False. A hypercall hook gets the arguments a0, a1, ... and returns what RAX shall hold. `ports` and
    `mmio` are the claims that its buses start with. Lists hold whoever wants to know: a device adds itself, and nobody
    takes another's place.
    """

    def __init__(self, *, strict: bool = False, ports: First = ((), ()), mmio: First = ((), ())) -> None:
        self.ports: Bus = port_bus(strict=strict, first=ports)
        self.mmio: Bus = mmio_bus(strict=strict, first=mmio)
        self.msr_reads: Calls[MsrRead] = Calls()
        self.msr_writes: Calls[MsrWrite] = Calls()
        self.hypercalls: Calls[HypercallHook] = Calls()
        self.on_debug: list[DebugHook] = []
        """Asked in order about a debug event, until one says how to go on; nobody, and it ends the run."""
        self.on_eoi: list[Callable[[int], object]] = []
        """Called with the vector of each EOI that KVM hands over (IoapicEoi)."""
        self.on_ring_full: list[Callable[[], object]] = []
        """Called when the dirty ring of a vCPU is nearly full; until somebody collects, that comes again and again."""
        self.on_irq_window: list[Callable[[], object]] = []
        """Called when a vCPU can take an interrupt, where that was asked for (Vcpu.request_interrupt_window)."""
        self.on_halt: list[Callable[[], bool]] = []
        """Asked on the thread of a vCPU that has halted and has no local APIC of KVM's: True once it goes on."""
        self.collect: Callable[[], object] | None = None
        """Called after each KVM_RUN of the plain way where KVM collects output; the lean way sees to it itself."""

    @property
    def missed(self) -> tuple[Missed, ...]:
        """Those accesses by address and direction, the first 64 of each bus."""
        return tuple(each for bus in (self.ports, self.mmio) for each in bus.unclaimed.missed(bus.what))

    @property
    def unclaimed(self) -> int:
        """Accesses that no device claims, on both buses."""
        return self.ports.unclaimed.total + self.mmio.unclaimed.total

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest can never reach: claims that nobody would ever ask, memory that would hide one. Each with its reason.

It knows memslots, claims, and what KVM answers itself; it changes nothing. Sources: api.rst, KVM_CREATE_IRQCHIP (the
ports of the PICs and of ELCR, the pages of IOAPIC and LAPIC), KVM_CREATE_PIT2, KVM_SET_USER_MEMORY_REGION.
"""

from __future__ import annotations

from vmm.abi import ports
from vmm.errors import UsageError
from vmm.machine.memory.layout import FOUR_GIB, GIB, REGIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmm.kvm.vm import Vm
    from vmm.machine.bus.claims import Claim
    from vmm.machine.bus.platform import Platform
    from vmm.machine.memory.slots import GuestMemory, Memslot


class Reach:
    """The rules of one machine. `anywhere`: the guest makes page tables of its own, beyond what those of boot reach."""

    def __init__(
        self, vm: Vm, memory: GuestMemory, platform: Platform, *, irqchip: str, ram: tuple[tuple[int, int], ...]
    ) -> None:
        """`ram` are (base, size) of each stretch of the machine's own RAM."""
        self._vm, self._memory, self._platform, self._irqchip = vm, memory, platform, irqchip
        self.ram = ram
        self.anywhere = False

    def port(self, base: int, stop: int, name: str, *, reads: bool, writes: bool) -> None:
        """Refuse a claim of ports base..stop-1 that KVM's own devices would be asked for.

        Raises:
            UsageError: with the reason.
        """
        taken = list(ports.PICS) if self._irqchip == "kernel" else []
        taken += ports.PIT if self._vm.has_pit else []
        for first, count, what in taken:
            if base < first + count and first < stop:
                raise UsageError(
                    f"claiming ports {base:#x}..{stop - 1:#x} for {name}: KVM's own {what} answers at {first:#x} with "
                    f"irqchip={self._irqchip}, and this would never be called"
                )

    def mmio(self, base: int, stop: int, name: str, *, reads: bool, writes: bool) -> None:
        """Refuse a claim of addresses where the guest finds memory or a device of KVM's, or nothing by its page tables.

        Raises:
            UsageError: with the reason.
        """
        span = f"claiming MMIO addresses {base:#x}..{stop - 1:#x} for {name}"
        slots = [(slot.gpa, slot.end) for slot in self._memory.slots if reads or not slot.readonly]
        if _covered(base, stop, slots):
            raise UsageError(
                f"{span}: all of it is memory, so no access would come here",
                hint=f"an address that no memslot holds, such as {REGIONS['scratch_mmio'].end:#x}",
            )
        for region, kinds in (("lapic", ("kernel", "split")), ("ioapic", ("kernel",))):
            row = REGIONS[region]
            if self._irqchip in kinds and base < row.end and row.base < stop:
                raise UsageError(
                    f"{span}: KVM's own {region} answers there with irqchip={self._irqchip}, "
                    "and this would never be called"
                )
        self._mapped(stop, span)

    def slot(self, gpa: int, size: int, *, readonly: bool, but: Memslot | None = None) -> None:
        """Refuse memory that hides all of a claim, or lies where the boot page tables do not reach. `but` is a slot
        that goes away for it.

        Raises:
            UsageError: with the reason.
        """
        bus, stop = self._platform.mmio, gpa + size
        span = f"a memslot at {gpa:#x}..{stop - 1:#x}"
        claims: list[Claim[Any]] = [*bus.readers, *(() if readonly else bus.writers)]
        for claim in claims:
            if gpa < claim.stop and claim.base < stop:
                slots = [(slot.gpa, slot.end) for slot in self._memory.slots if slot is not but]
                if _covered(claim.base, claim.stop, [*slots, (gpa, stop)]):
                    raise UsageError(
                        f"{span}: {claim.name} has {claim.base:#x}..{claim.stop - 1:#x}, and would never be called",
                        hint=f"another place, or platform.mmio.release({claim.base:#x}) first",
                    )
        self._mapped(stop, span)

    def _mapped(self, stop: int, what: str) -> None:
        if not self.anywhere and stop > self.mapped_end:
            raise UsageError(
                f"{what}: the boot page tables end at {self.mapped_end:#x}, so a guest that has no others cannot get "
                "there",
                hint="a lower address; `machine.reach.anywhere = True` if the guest makes its own page tables",
            )

    @property
    def mapped_end(self) -> int:
        """The first address that the boot page tables do not map: whole GiB above 4 GiB, for the RAM there."""
        high = max(FOUR_GIB, *(base + size for base, size in self.ram))
        return -(-high // GIB) * GIB


def _covered(base: int, stop: int, spans: list[tuple[int, int]]) -> bool:
    """Whether base..stop-1 lies in these spans with every byte."""
    for first, end in sorted(spans):
        if first <= base < end:
            base = end
    return base >= stop

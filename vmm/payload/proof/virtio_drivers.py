# SPDX-License-Identifier: GPL-2.0-or-later
"""What the proofs of all virtio devices have in common: the agreement on features, and how kicks and interrupts went.

Numbers only: the guest's are read from its results, the host's from the device; the judgement is a pure function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vmm.abi import virtio
from vmm.machine.virtio.attach import Attached
from vmm.machine.virtio.transport import Backend
from vmm.payload.guest import Guest
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Refusal

AGREED = virtio.VIRTIO_CONFIG_S_ACKNOWLEDGE | virtio.VIRTIO_CONFIG_S_DRIVER | virtio.VIRTIO_CONFIG_S_FEATURES_OK
RUNNING = AGREED | virtio.VIRTIO_CONFIG_S_DRIVER_OK
VERSION_1 = virtio.feature(virtio.VIRTIO_F_VERSION_1)
NOT_OFFERED = virtio.feature(virtio.VIRTIO_F_RING_PACKED)


@dataclass(frozen=True)
class Driver:
    """A driver's way through its life. `events` is whether kicks were to come by eventfd; `kicks` and `interrupts` are
    the host's counts, `by_exit` the kicks that left KVM. `status_end` and `woken` are None where it ended early.
    """

    id: int
    offered: int
    status: int
    status_end: int | None
    woken: int | None
    quiet: int | None
    events: bool
    by_event: int
    by_exit: int
    interrupts: int
    trouble: str = ""

    @property
    def numbers(self) -> dict[str, Any]:
        """The evidence, for a person."""
        return {
            "features offered": hex(self.offered),
            "status after FEATURES_OK": hex(self.status),
            "status at the end": None if self.status_end is None else hex(self.status_end),
            "kicks by ioeventfd": self.by_event,
            "kicks by exit": self.by_exit,
            "interrupts sent": self.interrupts,
            "interrupts taken for the first buffer": self.woken,
            "interrupts with callbacks off": self.quiet,
        }


def driver(guest: Guest, attached: Attached[Backend]) -> Driver:
    """The numbers of a guest that came to its end."""
    results, counts = guest.results, attached.mmio.counts
    return Driver(
        id=guest["id"],
        offered=guest["offered"],
        status=guest["status"],
        status_end=results["status_end"],
        woken=results["woken"],
        quiet=results.get("quiet", 0),
        events=attached.events,
        by_event=counts["event"],
        by_exit=counts["exit"],
        interrupts=counts["interrupts"],
        trouble=attached.mmio.trouble,
    )


def wrong(found: Driver, device_id: int, *, kicks: int, interrupts: int, late: int = 0) -> str:
    """What contradicts the standard, as a sentence; empty if nothing does. `kicks` and `interrupts` are how many there
    must have been; `late` more interrupts are right too, for buffers that a polling driver saw used before the device
    looked whether callbacks are off (VIRTIO 1.2, 2.7.7: the flag is a hint).
    """
    if found.id != device_id:
        return f"the device's id is {found.id}, and should be {device_id}"
    if not found.offered & VERSION_1:
        return f"the device offers {found.offered:#x}, without VIRTIO_F_VERSION_1"
    if found.status != AGREED:
        return f"the status is {found.status:#x} after the driver said FEATURES_OK, and should be {AGREED:#x}"
    if found.trouble or found.status_end != RUNNING:
        return found.trouble or f"the status is {found.status_end or 0:#x} at the end, and should be {RUNNING:#x}"
    by = (found.by_event, found.by_exit)
    if by != ((kicks, 0) if found.events else (0, kicks)):
        return f"{found.by_event} kicks came by ioeventfd and {found.by_exit} by exit, and {kicks} were meant"
    if not interrupts <= found.interrupts <= interrupts + late:
        return f"the device sent {found.interrupts} interrupts, and should have sent {interrupts}"
    if found.woken != 1:
        return f"{found.woken} interrupts came for the first buffer, and should have been 1"
    if found.quiet:
        return f"{found.quiet} interrupts came while callbacks were off"
    return ""


def feature_refusals(lab: Lab, attach: Any, accepted: int) -> list[Refusal]:
    """A driver that does not say VERSION_1, and one that accepts what was not offered, are told no by FEATURES_OK.

    `attach(machine)` adds the device; `accepted` is what an honest driver accepts.
    """
    rows = []
    for kind, what, features, want in (
        ("control", "features as offered", accepted, AGREED),
        ("argument", "no VIRTIO_F_VERSION_1", accepted & ~VERSION_1, AGREED & ~virtio.VIRTIO_CONFIG_S_FEATURES_OK),
        (
            "argument",
            "a feature that was not offered",
            accepted | NOT_OFFERED,
            AGREED & ~virtio.VIRTIO_CONFIG_S_FEATURES_OK,
        ),
    ):
        with lab.guest(params={"features": features}) as guest:
            attach(guest.machine)
            guest.run()
            rows.append(Refusal(kind, what, f"status {want:#x}", f"status {guest['status']:#x}"))
    return rows

# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a machine's devices as a value: what each gives by get_state(), under the place that it is found at.

A device that has a state offers get_state(), a value that pickle takes, and set_state(value); resume(), where it has
one, is called when all else has been put back. A callback has none. It knows buses and words; it knows no vCPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vmm.errors import UsageError
from vmm.machine.bus.claims import Claim
from vmm.machine.bus.platform import Platform
from vmm.machine.devices.word import WordDevice
from vmm.machine.run.lean import LeanLane

States = Mapping[str, Any]
Found = Sequence[tuple[str, Any]]
"""(place, device) of every device that has a state."""


def find(platform: Platform, lane: LeanLane) -> Found:
    """The devices that have a state, as things are; it takes as long as there are claims."""
    return tuple(_devices(platform, lane))


def get(devices: Found) -> dict[str, Any]:
    """The state of each."""
    return {place: device.get_state() for place, device in devices}


def check(states: States, devices: Found) -> None:
    """Raises UsageError: a device whose state is there is not among these."""
    missing = states.keys() - dict(devices).keys()
    if missing:
        raise UsageError(
            f"this context is of another machine: this one has no {', no '.join(sorted(missing))}",
            hint="the same devices at the same places, before restoring",
        )


def put(states: States, devices: Found) -> None:
    """Put states back; devices that have none there stay as they are."""
    for place, device in devices:
        if place in states:
            device.set_state(states[place])


def resume(devices: Found) -> None:
    """Memory and vCPUs are back, too."""
    for _, device in devices:
        if hasattr(device, "resume"):
            device.resume()


def _devices(platform: Platform, lane: LeanLane) -> Iterator[tuple[str, Any]]:
    for bus in (platform.ports, platform.mmio):
        seen = set()
        claims: list[Claim[Any]] = sorted([*bus.readers, *bus.writers], key=lambda claim: claim.base)
        for claim in claims:
            if id(claim.owner) not in seen and hasattr(claim.owner, "get_state"):
                seen.add(id(claim.owner))
                yield f"{claim.name} at {bus.what} {claim.base:#x}", claim.owner
    for index, word in lane.finish.msr_words.items():
        yield f"word at MSR {index:#x}", WordDevice(word)

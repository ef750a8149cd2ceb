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


class Kept:
    """The states of a machine's own devices, to be put back into them often: what nobody has touched costs a look."""

    def __init__(self, devices: Found) -> None:
        self._rows = tuple((place, device, _keep(device)) for place, device in devices)
        self._use(devices)

    def _use(self, devices: Found) -> None:
        now = dict(devices)
        self.puts = tuple(
            (getattr(now[place], "put_back", now[place].set_state), state) for place, _, state in self._rows
        )
        """What to call with which state to put all back; then, once memory and vCPUs are back, `resumes`."""
        self.resumes = tuple(device.resume for _, device in devices if hasattr(device, "resume"))

    @property
    def states(self) -> dict[str, Any]:
        """The state of each as a value, also for another machine."""
        return {place: device.kept(state) if hasattr(device, "kept") else state for place, device, state in self._rows}

    def find_again(self, devices: Found) -> None:
        """Who serves what has changed. Raises UsageError: one whose state is kept is not among these."""
        check({place: None for place, _, _ in self._rows}, devices)
        self._use(devices)

    def resume(self) -> None:
        """Memory and vCPUs are as they shall be."""
        for resume_one in self.resumes:
            resume_one()


def _keep(device: Any) -> Any:
    return device.keep_state() if hasattr(device, "keep_state") else device.get_state()


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

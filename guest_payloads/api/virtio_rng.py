# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of virtio_rng: a generator that remembers what it gave, and where the guest found it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from vmm.abi import virtio
from vmm.machine.machine import Machine
from vmm.payload.guest import Guest
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict
from vmm.payload.proof.virtio_drivers import AGREED, Driver, driver, feature_refusals, wrong

LENGTHS = (64, 64, 32)  # of the three chains
KICKS, INTERRUPTS = 3, 1
LATE = 1  # the third buffer is polled, and callbacks go on again right after it


@dataclass(frozen=True)
class Evidence:
    """`lengths` as the used ring gave them, `given` and `found` the bytes at both ends; `raced` as the guest saw it."""

    driver: Driver
    magic: int
    version: int
    lengths: tuple[int | None, ...] = ()
    raced: int | None = None
    given: bytes = b""
    found: bytes = b""


@dataclass
class Source:
    """Random bytes, remembered."""

    given: bytearray = field(default_factory=bytearray)

    def __call__(self, count: int) -> bytes:
        data = os.urandom(count)
        self.given += data
        return data


def _places(guest: Guest) -> list[tuple[int, int]]:
    """Address and size of each buffer, in the order of the chains; the second has two."""
    at = guest.constant
    rest = at("SECOND") + at("REST_OFFSET"), at("REST_SIZE")
    first, second, third = ((at(name), at(f"{name}_SIZE")) for name in ("FIRST", "SECOND", "THIRD"))
    return [first, second, rest, third]


def prove(lab: Lab) -> Finding:
    source = Source()
    with lab.guest() as guest:
        device = guest.machine.add_virtio_rng(source)
        run_to_pass(guest)
        found = b"".join(guest.machine.memory.read(*place) for place in _places(guest))
        results = guest.results
        return judge(
            Evidence(
                driver(guest, device),
                guest["magic"],
                guest["version"],
                tuple(results[name] for name in ("first", "second", "third")),
                results["raced"],
                bytes(source.given),
                found,
            )
        )


def judge(evidence: Evidence) -> Finding:
    """The driver found the device, they agreed, and every buffer holds what the generator gave."""
    found = evidence.driver
    numbers = {
        **found.numbers,
        "bytes by buffer": list(evidence.lengths),
        "bytes that differ": sum(a != b for a, b in zip(evidence.given, evidence.found, strict=False)),
        "used while callbacks were off": evidence.raced,
    }
    text = _wrong(evidence)
    if text:
        return Finding(Verdict.BROKEN, text, numbers)
    total = sum(LENGTHS)
    summary = (
        f"{total} random bytes in {KICKS} buffers: 1 by interrupt, 2 polled; {found.by_event} kicks without an exit"
    )
    return Finding(Verdict.WORKS, "", numbers, summary)


def _wrong(evidence: Evidence) -> str:
    if (evidence.magic, evidence.version) != (virtio.MAGIC, virtio.VERSION):
        return f"magic {evidence.magic:#x} and version {evidence.version} are not virtio-mmio's"
    if evidence.driver.status == AGREED and evidence.lengths != LENGTHS:
        return f"the buffers came back with {list(evidence.lengths)} bytes, and should have {list(LENGTHS)}"
    text = wrong(evidence.driver, virtio.VIRTIO_ID_RNG, kicks=KICKS, interrupts=INTERRUPTS, late=LATE)
    if text:
        return text
    if evidence.raced != 1:
        return "the driver was not told of the buffer that was used before it turned callbacks on"
    if evidence.given != evidence.found or len(evidence.found) != sum(LENGTHS):
        return f"the guest has other bytes than the {len(evidence.given)} that the generator gave"
    return ""


def refusals(lab: Lab) -> list[Refusal]:
    return feature_refusals(lab, Machine.add_virtio_rng, lab.param("features"))

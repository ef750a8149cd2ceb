# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of ring3_ports: what came to the bus beside the #GPs that the guest took.

Sources: Intel SDM vol. 1, 19.5.2; AMD APM vol. 2, 12.2.4.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmm.payload.proof.compare import compare, results
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

ANSWER = 0x5A
WANTED = {"allowed": 0, "read": 0, "value": ANSWER, "wide": 0, "denied": 1, "partly": 1}
ON_THE_BUS = ((0x80, 1, 0x11), (0x80, 2, 0x4433))  # (port, bytes, value) of each OUT that may come there
WATCHED = (0x80, 0x81, 0x82)


@dataclass(frozen=True)
class Evidence:
    """The guest's results by name; (port, bytes, value) of each OUT that came, and how many INs did."""

    results: dict[str, int]
    written: tuple[tuple[int, int, int], ...]
    reads: int


class Ports:
    """A device at the ports that the guest tries."""

    name = "ring3_ports"

    def __init__(self) -> None:
        self.written: list[tuple[int, int, int]] = []
        self.reads = 0

    def read(self, offset: int, size: int) -> int:
        self.reads += 1
        return ANSWER

    def write(self, offset: int, size: int, value: int) -> None:
        self.written.append((WATCHED[0] + offset, size, value))


def prove(lab: Lab) -> Finding:
    with lab.guest() as guest:
        device = Ports()
        guest.machine.platform.ports.claim(WATCHED[0], len(WATCHED), device)
        run_to_pass(guest)
        return judge(Evidence(results(guest), tuple(device.written), device.reads))


def judge(seen: Evidence) -> Finding:
    """Allowed ports are reached, the others are #GP and never come to the bus."""
    numbers = {
        "OUTs that came": ", ".join(f"{port:#x}: {value:#0{2 + 2 * size}x}" for port, size, value in seen.written),
        "INs that came": seen.reads,
    }
    finding = compare(seen.results, WANTED, "the bitmap's ports reach the bus, the others are #GP", numbers)
    if finding.verdict is Verdict.WORKS and (seen.written != ON_THE_BUS or seen.reads != 1):
        text = f"as many #GPs as should be, but {numbers['OUTs that came'] or 'no OUT'} and {seen.reads} IN came"
        return Finding(Verdict.BROKEN, text, numbers)
    return finding

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of virtio_console: somebody at the other end, who answers the first line and then widens the window."""

from __future__ import annotations

from dataclasses import dataclass

from vmm.abi import virtio
from vmm.machine.machine import Machine
from vmm.machine.virtio.attach import Attached
from vmm.machine.virtio.console import VirtioConsole
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict
from vmm.payload.proof.virtio_drivers import AGREED, Driver, driver, feature_refusals, wrong

HELLO = b"guest: anybody there?\n"
ANSWER = b"host: yes\n"
ECHO = b"echo: " + ANSWER
WIDTHS = (80, 132)
CAUSES = virtio.VIRTIO_MMIO_INT_VRING | virtio.VIRTIO_MMIO_INT_CONFIG
KICKS, INTERRUPTS = 3, 2


@dataclass(frozen=True)
class Evidence:
    """`heard` are the pieces of output as they came; the rest are the guest's results."""

    driver: Driver
    heard: tuple[bytes, ...] = ()
    queues: int | None = None
    widths: tuple[int | None, int | None] = (None, None)
    received: int | None = None
    echoed: int | None = None
    causes: int | None = None


class Person:
    """Who sits at the console."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.console: Attached[VirtioConsole] | None = None

    def __call__(self, data: bytes) -> None:
        assert self.console is not None
        self.heard.append(data)
        if len(self.heard) == 1:
            self.console.device.send(ANSWER)
        else:
            self.console.device.resize(WIDTHS[1], 43)


def _attach(machine: Machine) -> Person:
    person = Person()
    person.console = machine.add_virtio_console(person, cols=WIDTHS[0])
    return person


def prove(lab: Lab) -> Finding:
    with lab.guest() as guest:
        person = _attach(guest.machine)
        assert person.console is not None
        run_to_pass(guest)
        results = guest.results
        return judge(
            Evidence(
                driver(guest, person.console),
                tuple(person.heard),
                results["queues"],
                (results["cols"], results["wider"]),
                results["received"],
                results["echoed"],
                results["causes"],
            )
        )


def judge(evidence: Evidence) -> Finding:
    """Lines went both ways unchanged, and the driver learned of the new width."""
    numbers = {
        **evidence.driver.numbers,
        "output": [piece.decode("ascii", "backslashreplace") for piece in evidence.heard],
        "input taken": evidence.received,
        "widths": list(evidence.widths),
        "causes of interrupts": evidence.causes,
    }
    text = _wrong(evidence)
    if text:
        return Finding(Verdict.BROKEN, text, numbers)
    sent = len(HELLO) + len(ECHO)
    summary = (
        f"{sent} bytes out, {len(ANSWER)} in by interrupt; width {WIDTHS[0]} to {WIDTHS[1]} by configuration interrupt"
    )
    return Finding(Verdict.WORKS, "", numbers, summary)


def _wrong(evidence: Evidence) -> str:
    text = wrong(evidence.driver, virtio.VIRTIO_ID_CONSOLE, kicks=KICKS, interrupts=INTERRUPTS)
    if text or evidence.driver.status != AGREED:
        return text
    if evidence.queues != 2:
        return f"{evidence.queues} queues became ready, and should be 2"
    if evidence.heard != (HELLO, ECHO):
        return f"the host heard {list(evidence.heard)}, and the guest said {[HELLO, ECHO]}"
    if evidence.received != len(ANSWER) or evidence.echoed:
        return f"input of {evidence.received} bytes and {evidence.echoed} in output; {len(ANSWER)} and 0 are right"
    if evidence.widths != WIDTHS or evidence.causes != CAUSES:
        return f"widths {list(evidence.widths)} by causes {evidence.causes}, and should be {list(WIDTHS)} by {CAUSES}"
    return ""


def refusals(lab: Lab) -> list[Refusal]:
    return feature_refusals(lab, _attach, lab.param("features"))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of sipi: as many CPUs as the machine has, and what each one was when it started."""

from __future__ import annotations

from dataclasses import dataclass

from vmm.abi import ports
from vmm.abi.x86 import CR0, EFER
from vmm.machine.memory.layout import REGIONS
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

START_CS = REGIONS["trampoline"].base >> 4


@dataclass(frozen=True)
class Started:
    """How a CPU found itself after SIPI: CS, IP and CR0 in real mode; EFER once it is in long mode."""

    cs: int
    ip: int
    cr0: int
    efer: int


@dataclass(frozen=True)
class Evidence:
    """CPUs counted by the guest at four moments, and how all but the first `started`, by APIC id."""

    before: int
    after_init: int
    arrived: int
    again: int
    cpus: int
    started: tuple[Started, ...]


def prove(lab: Lab) -> Finding:
    with lab.guest() as guest:
        memory, at = guest.machine.memory, guest.constant("ROWS")
        cpus = len(guest.machine.cpus)
        memory.pack("Q", guest.constant("CPUS"), cpus)
        guest.machine.on_port_write(ports.DELAY, lambda value: None)
        run_to_pass(guest)
        rows = [memory.unpack("HHII", at + 16 * index) for index in range(1, cpus)]
        started = tuple(Started(*row) for row in rows)
        return judge(Evidence(guest["before"], guest["after_init"], guest["arrived"], guest["again"], cpus, started))


def judge(evidence: Evidence) -> Finding:
    """INIT starts nobody, SIPI everybody, each in real mode at the vector's page, and a second SIPI nobody again."""
    numbers = {
        "CPUs before INIT, after it, after SIPI, after another SIPI": [
            evidence.before,
            evidence.after_init,
            evidence.arrived,
            evidence.again,
        ],
        "CS:IP at the start": [f"{each.cs:#06x}:{each.ip:#x}" for each in evidence.started],
        "CR0 at the start": [f"{each.cr0:#x}" for each in evidence.started],
        "EFER at the end": [f"{each.efer:#x}" for each in evidence.started],
    }
    text = _wrong(evidence)
    if text:
        return Finding(Verdict.BROKEN, text, numbers)
    return Finding(
        Verdict.WORKS,
        "",
        numbers,
        f"{evidence.cpus - 1} CPUs from real mode at {START_CS:#06x}:0 to long mode; INIT alone started none",
    )


def _wrong(evidence: Evidence) -> str:
    if (evidence.before, evidence.after_init) != (1, 1):
        return f"{evidence.after_init} CPUs ran after INIT and before SIPI, and only the first should"
    if evidence.arrived != evidence.cpus:
        return f"{evidence.arrived} of {evidence.cpus} CPUs arrived after SIPI"
    if evidence.again != evidence.arrived:
        return f"a SIPI to running CPUs made {evidence.again - evidence.arrived} of them start again"
    for index, each in enumerate(evidence.started, 1):
        if (each.cs, each.ip) != (START_CS, 0):
            return f"CPU {index} started at {each.cs:#06x}:{each.ip:#x}, and SIPI said {START_CS:#06x}:0"
        if each.cr0 & (CR0.PE | CR0.PG):
            return f"CPU {index} started with CR0 {each.cr0:#x}, which is not real mode"
        if not each.efer & EFER.LMA:
            return f"CPU {index} has EFER {each.efer:#x}, and is not in long mode"
    return ""

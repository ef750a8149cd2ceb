# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of virtio_hostile: what each attack came to, and whether any byte changed that no honest request named."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from vmm.abi import virtio
from vmm.machine.memory.layout import REGIONS
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict
from vmm.payload.proof.virtio_drivers import AGREED, RUNNING

DATA = REGIONS["data"]
OUTCOMES = 0x1000  # bytes from OUTCOME on
HONEST = 32
NEEDS_RESET = virtio.VIRTIO_CONFIG_S_NEEDS_RESET
_ROW = struct.Struct("<4I")
# In the order of the .asm's table.
ATTACKS = (
    "a chain in a circle",
    "a next descriptor out of range",
    "a head out of range",
    "a length beyond memory",
    "an address without memory",
    "an address of registers",
    "an end beyond 64 bits",
    "an index one too far ahead",
    "an index that goes backwards",
    "to read after to write",
    "a size of 7",
    "a size of 32768",
    "descriptors without memory",
    "an available ring at memory's end",
    "a used ring at the end of 64 bits",
    "an indirect table of 24 bytes",
    "an indirect table without memory",
    "an indirect table in itself",
    "an indirect circle",
    "an indirect descriptor with next",
)
BEFORE_RUNNING = range(10, 15)  # seen when the queue was made ready


@dataclass(frozen=True)
class Came:
    """What one attack came to: status, causes of interrupts, used index, and the bytes of the honest request."""

    status: int
    causes: int
    used: int
    honest: int


@dataclass(frozen=True)
class Evidence:
    """`troubles` are the device's words, `changed` how many bytes did that nobody was allowed to write."""

    came: tuple[Came, ...]
    troubles: tuple[str, ...]
    changed: int
    by_event: int
    by_exit: int


def prove(lab: Lab) -> Finding:
    with lab.guest() as guest:
        memory = guest.machine.memory
        buffer, outcome = guest.constant("BUFFER"), guest.constant("OUTCOME")
        nobodys = outcome + OUTCOMES
        kept = {
            buffer: os.urandom(guest.constant("HONEST") - buffer),  # where the attacks would write
            nobodys: os.urandom(DATA.end - nobodys),
        }
        for base, data in kept.items():
            memory.write(base, data)
        device = guest.machine.add_virtio_rng()
        run_to_pass(guest)
        rows = min(guest["attacks"], len(ATTACKS))
        came = tuple(Came(*_ROW.unpack(memory.read(outcome + i * _ROW.size, _ROW.size))) for i in range(rows))
        changed = sum(
            a != b for base, data in kept.items() for a, b in zip(data, memory.read(base, len(data)), strict=True)
        )
        counts = device.mmio.counts
        return judge(Evidence(came, tuple(device.mmio.troubles), changed, counts["event"], counts["exit"]))


def judge(evidence: Evidence) -> Finding:
    """Every attack cost the device, said so in the right way, used no buffer, and was over with a reset."""
    numbers = {
        name: f"status {came.status:#x}, causes {came.causes:#x}, then {came.honest} bytes: {trouble}"
        for name, came, trouble in zip(ATTACKS, evidence.came, evidence.troubles, strict=False)
    }
    numbers["bytes that changed and should not"] = str(evidence.changed)
    text = _wrong(evidence)
    if text:
        return Finding(Verdict.BROKEN, text, numbers)
    summary = f"{len(ATTACKS)} attacks: needs-reset each time, no byte written, served again after the reset"
    return Finding(Verdict.WORKS, "", numbers, summary)


def _wrong(evidence: Evidence) -> str:
    if len(evidence.came) != len(ATTACKS):
        return f"{len(evidence.came)} of {len(ATTACKS)} attacks were made"
    for i, (name, came) in enumerate(zip(ATTACKS, evidence.came, strict=True)):
        early = i in BEFORE_RUNNING
        status = (AGREED if early else RUNNING) | NEEDS_RESET
        causes = 0 if early else virtio.VIRTIO_MMIO_INT_CONFIG
        if (came.status, came.causes, came.used) != (status, causes, 0):
            return (
                f"{name}: status {came.status:#x}, causes {came.causes:#x}, {came.used} buffers used; "
                f"{status:#x}, {causes:#x} and 0 are right"
            )
        if came.honest != HONEST:
            return f"{name}: after the reset an honest request brought {came.honest} bytes, and should bring {HONEST}"
    if len(evidence.troubles) != len(ATTACKS):
        return f"the device gave {len(evidence.troubles)} reasons for {len(ATTACKS)} resets"
    if evidence.changed:
        return f"{evidence.changed} bytes changed that no honest request named"
    kicks = 2 * len(ATTACKS) - len(BEFORE_RUNNING)
    if (evidence.by_event, evidence.by_exit) != (kicks, 0):
        return f"{evidence.by_event} kicks came by ioeventfd and {evidence.by_exit} by exit, and {kicks} were meant"
    return ""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of virtio_hostile: what each attack on each queue came to, and whether any byte changed that no honest
request named.
"""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmm.abi import virtio, virtio_net
from vmm.machine.machine import Machine
from vmm.machine.memory.layout import REGIONS
from vmm.machine.virtio.attach import Attached
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict
from vmm.payload.proof.virtio_drivers import AGREED, RUNNING

DATA = REGIONS["data"]
OUTCOMES = 0x1000  # bytes from OUTCOME on
VECTOR = 0x40  # the guest's driver has one interrupt, whichever device it drives
FRAME = bytes(60)
LINE = b"served\n"
NEEDS_RESET = virtio.VIRTIO_CONFIG_S_NEEDS_RESET
_ROW = struct.Struct("<4I")
# In the order of the .asm's table -> what the device's reason says: this rule was broken, and not one of its own.
ATTACKS = {
    "a chain in a circle": "it goes in a circle",
    "a next descriptor out of range": "descriptor 4096 of a table",
    "a head out of range": "descriptor 65535 of a table",
    "a length beyond memory": "0xffffffff bytes",
    "an address without memory": "at 0x10000000 is not all",
    "an address of registers": "at 0xd1000000 is not all",
    "an end beyond 64 bits": "at 0xfffffffffffffff0 is not all",
    "an index one too far ahead": "runs 9 ahead",
    "an index that goes backwards": "runs 65535 ahead",
    "to read after to write": "to read comes after one to write",
    "a size of 7": "a queue of 7 entries",
    "a size of 32768": "a queue of 32768 entries",
    "descriptors without memory": "the descriptor table, 0x80 bytes at 0x10000000",
    "an available ring at memory's end": "the available ring,",
    "a used ring at the end of 64 bits": "the used ring,",
    "an indirect table of 24 bytes": "an indirect table of 0x18 bytes",
    "an indirect table without memory": "an indirect table of 0x10 bytes at 0x10000000",
    "an indirect table in itself": "an indirect descriptor inside an indirect table",
    "an indirect circle": "it goes in a circle",
    "an indirect descriptor with next": "an indirect descriptor with VRING_DESC_F_NEXT",
}
BEFORE_RUNNING = range(10, 15)  # seen when the queue was made ready
# The queues in the order of the .asm's targets -> what an honest request brings, in bytes.
TARGETS = {
    "rng": 32,
    "blk": virtio.SECTOR + 1,
    "net receive": virtio_net.NET_HDR.size + len(FRAME),
    "net transmit": 0,
    "console receive": 32,
    "console transmit": 0,
    "net commands": 1,  # the answer
}
ALL = len(TARGETS) * len(ATTACKS)


@dataclass(frozen=True)
class Came:
    """What one attack came to: status, causes of interrupts, used index, and the bytes of the honest request."""

    status: int
    causes: int
    used: int
    honest: int


@dataclass(frozen=True)
class Evidence:
    """Each by target, then by attack. `troubles` are the devices' words, `changed` how many bytes did that nobody was
    allowed to write; `sent` and `said`: frames and lines of honest requests that came out; `answer` is the card's to
    the last honest command, which is written where other honest requests had their bytes before.
    """

    came: tuple[tuple[Came, ...], ...]
    troubles: tuple[tuple[str, ...], ...]
    changed: int
    by_event: int
    by_exit: int
    sent: int
    said: int
    answer: int


def prove(lab: Lab) -> Finding:
    with ExitStack() as stack:
        guest = stack.enter_context(lab.guest())
        memory = guest.machine.memory
        buffer, outcome = guest.constant("BUFFER"), guest.constant("OUTCOME")
        nobodys = outcome + OUTCOMES
        kept = {
            buffer: os.urandom(guest.constant("HONEST") - buffer),  # where the attacks would write
            nobodys: os.urandom(DATA.end - nobodys),
        }
        for base, data in kept.items():
            memory.write(base, data)
        said: list[bytes] = []
        cables = [_cable(stack) for _ in range(3)]
        devices = _devices(guest.machine, stack, cables, said)
        run_to_pass(guest)
        rows = min(guest["attacks"], ALL)
        flat = [Came(*_ROW.unpack(memory.read(outcome + i * _ROW.size, _ROW.size))) for i in range(rows)]
        each = rows // len(TARGETS)
        changed = sum(
            a != b for base, data in kept.items() for a, b in zip(data, memory.read(base, len(data)), strict=True)
        )
        counts = sum((device.mmio.counts for device in devices), Counter[str]())
        return judge(
            Evidence(
                came=tuple(tuple(flat[i * each : (i + 1) * each]) for i in range(len(TARGETS))),
                troubles=tuple(tuple(device.mmio.troubles) for device in devices),
                changed=changed,
                by_event=counts["event"],
                by_exit=counts["exit"],
                sent=_received(cables[1]),
                said=b"".join(said).count(LINE),
                answer=memory.read(guest.constant("HONEST"), 1)[0],
            )
        )


def _cable(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """(the card's end, the other one)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack.enter_context(ours)
    stack.enter_context(theirs)
    return ours, theirs


def _devices(
    machine: Machine, stack: ExitStack, cables: list[tuple[socket.socket, socket.socket]], said: list[bytes]
) -> list[Attached[Any]]:
    """One for each of TARGETS. What the receiving ones wait for is there before the guest is."""
    disk = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyvmm-"))) / "disk"
    disk.write_bytes(bytes(8 * virtio.SECTOR))
    made: list[Attached[Any]] = [
        machine.add_virtio_rng(vector=VECTOR),
        machine.add_virtio_blk(disk, vector=VECTOR),
        machine.add_virtio_net(cables[0][0], vector=VECTOR),
        machine.add_virtio_net(cables[1][0], vector=VECTOR),
        machine.add_virtio_console(said.append, vector=VECTOR),
        machine.add_virtio_console(said.append, vector=VECTOR),
        machine.add_virtio_net(cables[2][0], vector=VECTOR),
    ]
    for _ in range(4 * len(ATTACKS)):  # for honest requests and attacks; a frame that the card has at a reset is lost
        cables[0][1].send(b"\xff" * 6 + FRAME[6:])
    for _ in ATTACKS:
        made[4].device.send(bytes(TARGETS["console receive"]))
    return made


def _received(cable: tuple[socket.socket, socket.socket]) -> int:
    """Frames of the honest requests, and no other ones, at a cable's other end."""
    cable[1].setblocking(False)
    found = 0
    while True:
        try:
            found += cable[1].recv(1 << 12)[:6] == b"\xff" * 6
        except BlockingIOError:
            return found


def judge(evidence: Evidence) -> Finding:
    """Every attack cost the device, said so in the right way, used no buffer, and was over with a reset."""
    numbers: dict[str, Any] = {}
    for target, came, troubles in zip(TARGETS, evidence.came, evidence.troubles, strict=False):
        for name, each, trouble in zip(ATTACKS, came, troubles, strict=False):
            text = f"status {each.status:#x}, causes {each.causes:#x}, then {each.honest} bytes: {trouble}"
            numbers[f"{target}: {name}"] = text
    numbers["bytes that changed and should not"] = str(evidence.changed)
    text = _wrong(evidence)
    if text:
        return Finding(Verdict.BROKEN, text, numbers)
    summary = (
        f"{len(ATTACKS)} attacks on each of {len(TARGETS)} queues: needs-reset each time, no byte written, "
        "served again after the reset"
    )
    return Finding(Verdict.WORKS, "", numbers, summary)


def _wrong(evidence: Evidence) -> str:
    made = sum(map(len, evidence.came))
    if made != ALL or len(evidence.came) != len(TARGETS):
        return f"{made} of {ALL} attacks were made"
    for (target, honest), came in zip(TARGETS.items(), evidence.came, strict=True):
        for i, (name, each) in enumerate(zip(ATTACKS, came, strict=True)):
            if text := _wrong_outcome(i, each, honest):
                return f"{target}: {name}: {text}"
    for target, troubles in zip(TARGETS, evidence.troubles, strict=True):
        if len(troubles) != len(ATTACKS):
            return f"{target}: the device gave {len(troubles)} reasons for {len(ATTACKS)} resets"
        for (name, words), reason in zip(ATTACKS.items(), troubles, strict=True):
            if words not in reason:
                return f"{target}: {name}: the device says {reason!r}, and should say {words!r}"
    if evidence.changed:
        return f"{evidence.changed} bytes changed that no honest request named"
    if (evidence.sent, evidence.said) != (len(ATTACKS), len(ATTACKS)):
        return f"{evidence.sent} frames and {evidence.said} lines came out of {len(ATTACKS)} honest requests each"
    if evidence.answer != virtio_net.VIRTIO_NET_OK:
        return f"the card answered an honest command with {evidence.answer}, and VIRTIO_NET_OK is right"
    kicks = len(TARGETS) * (2 * len(ATTACKS) - len(BEFORE_RUNNING))
    if (evidence.by_event, evidence.by_exit) != (kicks, 0):
        return f"{evidence.by_event} kicks came by ioeventfd and {evidence.by_exit} by exit, and {kicks} were meant"
    return ""


def _wrong_outcome(index: int, came: Came, honest: int) -> str:
    early = index in BEFORE_RUNNING
    status = (AGREED if early else RUNNING) | NEEDS_RESET
    causes = 0 if early else virtio.VIRTIO_MMIO_INT_CONFIG
    if (came.status, came.causes, came.used) != (status, causes, 0):
        return (
            f"status {came.status:#x}, causes {came.causes:#x}, {came.used} buffers used; "
            f"{status:#x}, {causes:#x} and 0 are right"
        )
    if came.honest != honest:
        return f"after the reset an honest request brought {came.honest} bytes, and should bring {honest}"
    return ""

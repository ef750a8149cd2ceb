# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of ioeventfd: which writes signalled an eventfd and which left the guest; every one did one of both."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from vmm.abi.ports import DELAY
from vmm.machine.extra.ioeventfd import WriteEvent
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

MMIO_SIZE, PORTS = 0x100, 3
# name -> (is a port, offset, length or 0 for any, value or None for any, writes that must signal)
BINDINGS: dict[str, tuple[bool, int, int, int | None, int]] = {
    "mmio4=7": (False, 0x00, 4, 7, 1),
    "mmio8": (False, 0x10, 8, None, 2),
    "pio2=0x1234": (True, 0, 2, 0x1234, 1),
    "pio1": (True, 1, 1, None, 3),
}
ANY_LENGTH: dict[str, tuple[bool, int, int, int | None, int]] = {
    "mmio any": (False, 0x20, 0, None, 4),
    "pio any": (True, 2, 0, None, 3),
}
# What must exit although an eventfd is bound near by: (is a port, offset, length, value).
MISSES = (
    (False, 0x0, 4, 8),
    (False, 0x0, 2, 7),
    (False, 0x4, 4, 7),
    (False, 0x10, 4, 0x9ABCDEF0),
    (True, 0, 2, 0x1235),
    (True, 0, 1, 0x34),
)
AFTERWARDS = ((False, 0x0, 4, 7), (True, 0, 2, 0x1234))
Write = tuple[bool, int, int, int]


@dataclass(frozen=True)
class Evidence:
    """`counts` by binding, the writes that came as exits before the eventfds were taken back and after, and the
    number of exits for writes that KVM reports for the whole run.
    """

    counts: Mapping[str, int]
    before: tuple[Write, ...]
    after: tuple[Write, ...]
    exits: int
    any_length: bool


def prove(lab: Lab) -> dict[str, Finding]:
    with lab.guest() as guest, ExitStack() as stack:
        machine = guest.machine
        mmio, port = lab.param("mmio"), lab.param("port")
        any_length = bool(machine.vm.check_extension("IOEVENTFD_ANY_LENGTH"))
        before: list[Write] = []
        after: list[Write] = []
        told = before
        machine.platform.mmio.claim_writes(
            mmio, MMIO_SIZE, "writes that exit", lambda offset, size, value: told.append((False, offset, size, value))
        )
        machine.platform.ports.claim_writes(
            port, PORTS, "writes that exit", lambda offset, size, value: told.append((True, offset, size, value))
        )
        events = {
            name: stack.enter_context(
                WriteEvent(machine.vm, (port if pio else mmio) + offset, size, datamatch=value, pio=pio)
            )
            for name, (pio, offset, size, value, _) in (BINDINGS | (ANY_LENGTH if any_length else {})).items()
        }

        def take_back(_value: int) -> None:
            nonlocal told
            told = after
            for event in events.values():
                event.deassign()

        machine.on_port_write(DELAY, take_back)
        result = run_to_pass(guest)
        counts = {name: event.count() for name, event in events.items()}
        others = 2  # the delay port and the exit port
        exits = result.exits["MmioWrite"] + result.exits["PortOut"] - others
        return judge(Evidence(counts, tuple(before), tuple(after), exits, any_length))


def judge(seen: Evidence) -> dict[str, Finding]:
    """Both rows from the evidence alone."""
    misses = tuple(write for write in seen.before if not _any_length(write))
    numbers = {
        "signalled": dict(seen.counts),
        "exits beside them": len(misses),
        "exits after deassign": len(seen.after),
        "exits for writes": seen.exits,
    }
    return {"ioeventfd": _matched(seen, misses, numbers), "ioeventfd_any_length": _every_length(seen, numbers)}


def _any_length(write: Write) -> bool:
    return any(write[0] == pio and write[1] == offset for pio, offset, *_ in ANY_LENGTH.values())


def _matched(seen: Evidence, misses: tuple[Write, ...], numbers: dict[str, object]) -> Finding:
    for name, (*_, want) in BINDINGS.items():
        if seen.counts.get(name) != want:
            text = f"{name}: {seen.counts.get(name)} signals, and {want} writes matched"
            return Finding(Verdict.BROKEN, text, numbers)
    if misses != MISSES:
        text = f"{len(misses)} writes exited beside the eventfds, not the {len(MISSES)} that match none"
        return Finding(Verdict.BROKEN, text, numbers)
    if seen.after != AFTERWARDS:
        text = f"{len(seen.after)} of {len(AFTERWARDS)} writes exited after KVM_IOEVENTFD_FLAG_DEASSIGN"
        return Finding(Verdict.BROKEN, text, numbers)
    if seen.exits != len(seen.before) + len(seen.after):
        text = f"{seen.exits} exits for {len(seen.before) + len(seen.after)} writes that came to the VMM"
        return Finding(Verdict.BROKEN, text, numbers)
    total = sum(want for *_, want in BINDINGS.values())
    summary = (
        f"{total} writes signalled without an exit, {len(MISSES)} that match none exited, so did all after deassign"
    )
    return Finding(Verdict.WORKS, "", numbers, summary)


def _every_length(seen: Evidence, numbers: dict[str, object]) -> Finding:
    if not seen.any_length:
        return Finding(Verdict.ABSENT, "KVM lacks KVM_CAP_IOEVENTFD_ANY_LENGTH (122)", numbers)
    for name, (*_, want) in ANY_LENGTH.items():
        if seen.counts.get(name) != want:
            text = f"{name}: {seen.counts.get(name)} signals for {want} writes of different lengths"
            return Finding(Verdict.BROKEN, text, numbers)
    if any(_any_length(write) for write in seen.before):
        return Finding(Verdict.BROKEN, "a write signalled and exited too", numbers)
    return Finding(Verdict.WORKS, "", numbers, "1, 2, 4 and 8 bytes at one address, 1, 2 and 4 at one port")

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of coalesced: the devices see every write, in order, and few of the collected ones caused an exit."""

from __future__ import annotations

from dataclasses import dataclass

from vmm.abi.ports import DELAY
from vmm.machine.machine import Machine
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

ZONE_SIZE, PORT_SIZE, REGISTER = 0x100, 4, 0x800
REGISTER_WRITES = 4  # writes outside the zone while it is there
PER_EXIT = 100  # KVM's ring has more places than this: a full one may exit, but no sooner


@dataclass(frozen=True)
class Counts:
    """Writes of one kind that devices saw, and the exits for them."""

    writes: int
    exits: int


@dataclass(frozen=True)
class Evidence:
    """`order` are the numbers that devices saw, in the order in which they saw them. Counts of the two zones while they
    were there and of the same writes afterwards. `pio` is whether KVM can collect port writes.
    """

    order: tuple[int, ...]
    written: int
    mmio: Counts
    ports: Counts
    mmio_alone: Counts
    ports_alone: Counts
    pio: bool


def prove(lab: Lab) -> dict[str, Finding]:
    with lab.guest() as guest:
        machine = guest.machine
        mmio, port = lab.param("mmio"), lab.param("port")
        pio = bool(machine.vm.check_extension("COALESCED_PIO"))
        log: list[tuple[str, int]] = []
        machine.platform.mmio.claim_writes(
            mmio,
            REGISTER + 4,
            "zone",
            lambda at, _size, value: log.append(("exits" if at == REGISTER else "mmio", value)),
        )
        machine.platform.ports.claim_writes(
            port, PORT_SIZE, "zone", lambda _at, _size, value: log.append(("pio", value))
        )
        machine.coalesce_writes(mmio, ZONE_SIZE)
        if pio:
            machine.coalesce_writes(port, PORT_SIZE, pio=True)
        marks: list[tuple[int, int, int]] = []  # writes seen, and exits so far for MMIO and for ports

        def take_back(_value: int) -> None:
            machine.vm.unregister_coalesced_mmio(mmio, ZONE_SIZE)
            if pio:
                machine.vm.unregister_coalesced_mmio(port, PORT_SIZE, pio=True)
            marks.append((len(log), *_exits(machine)))

        machine.on_port_write(DELAY, take_back)
        run_to_pass(guest)
        seen, mmio_exits, port_exits = marks[0]
        mmio_end, port_end = _exits(machine)
        kinds, later = [kind for kind, _ in log[:seen]], [kind for kind, _ in log[seen:]]
        return judge(
            Evidence(
                order=tuple(value for _, value in log),
                written=guest["written"],
                mmio=Counts(kinds.count("mmio"), mmio_exits - REGISTER_WRITES),
                ports=Counts(kinds.count("pio"), port_exits - 1),  # the delay port's own
                mmio_alone=Counts(later.count("mmio"), mmio_end - mmio_exits),
                ports_alone=Counts(later.count("pio"), port_end - port_exits - 1),  # the exit port's own
                pio=pio,
            )
        )


def _exits(machine: Machine) -> tuple[int, int]:
    counts = machine.cpus[0].counts
    return counts["MmioWrite"], counts["PortOut"]


def judge(seen: Evidence) -> dict[str, Finding]:
    """Both rows from the evidence alone."""
    numbers = {
        "MMIO writes": seen.mmio.writes,
        "exits for them": seen.mmio.exits,
        "port writes": seen.ports.writes,
        "exits for these": seen.ports.exits,
        "MMIO writes, exits without the zone": f"{seen.mmio_alone.writes}, {seen.mmio_alone.exits}",
        "port writes, exits without the zone": f"{seen.ports_alone.writes}, {seen.ports_alone.exits}",
        "writes in order": len(seen.order),
    }
    wrong = _out_of_order(seen)
    rows = {
        "coalesced_mmio": _judge("MMIO", seen.mmio, seen.mmio_alone, wrong, numbers),
        "coalesced_pio": _judge("port", seen.ports, seen.ports_alone, wrong, numbers),
    }
    if not seen.pio:
        rows["coalesced_pio"] = Finding(Verdict.ABSENT, "KVM lacks KVM_CAP_COALESCED_PIO (162)", numbers)
    return rows


def _out_of_order(seen: Evidence) -> str:
    """The first write that came out of order, in words; empty if every one came once and in order."""
    if seen.order == tuple(range(1, seen.written + 1)):
        return ""
    if len(seen.order) != seen.written:
        return f"{len(seen.order)} writes came to the devices, and the guest made {seen.written}"
    first = next(i for i, value in enumerate(seen.order, 1) if value != i)
    return f"write {seen.order[first - 1]} came in place {first}"


def _judge(what: str, zone: Counts, alone: Counts, wrong: str, numbers: dict[str, object]) -> Finding:
    if wrong:
        return Finding(Verdict.BROKEN, wrong, numbers)
    if not zone.writes or zone.exits > zone.writes // PER_EXIT:
        return Finding(Verdict.BROKEN, f"{zone.exits} exits for {zone.writes} {what} writes that KVM collects", numbers)
    if not alone.writes or alone.exits != alone.writes:
        text = f"{alone.exits} exits for {alone.writes} {what} writes when the zone is gone"
        return Finding(Verdict.BROKEN, text, numbers)
    summary = (
        f"{zone.writes} {what} writes, {zone.exits} exits for them, all in order; {alone.writes}, all exits, without"
    )
    return Finding(Verdict.WORKS, "", numbers, summary)

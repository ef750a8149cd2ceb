# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of irqchip_split: gives the guest pyvmm's IOAPIC, drives its lines, counts KVM_EXIT_IOAPIC_EOI."""

from __future__ import annotations

from dataclasses import dataclass

from guest_payloads.api.irqchip_kernel import CONTENT_AFTER, EDGE_PIN, LEVEL_PIN, LEVEL_VECTOR, STORM, level
from vmm.abi import irq
from vmm.abi.ports import DELAY
from vmm.machine.extra.split_irqchip import add_ioapic
from vmm.machine.x86.lapic import in_service
from vmm.payload.proof.compare import compare, results
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

NMI_PIN = 6
VERSION = irq.IOAPIC_VERSION_82093AA | (irq.IOAPIC_PINS - 1) << 16


@dataclass(frozen=True)
class Evidence:
    """The guest's results by name; how many KVM_EXIT_IOAPIC_EOI there were; was the level's vector in service in its
    handler.
    """

    results: dict[str, int]
    eois: int
    held: bool


def prove(lab: Lab) -> dict[str, Finding]:
    return judge(observe(lab))


def observe(lab: Lab) -> Evidence:
    with lab.guest() as guest:
        machine = guest.machine
        ioapic, vcpu = add_ioapic(machine), machine.cpus[0].vcpu
        held: list[bool] = []

        def line(what: int) -> None:
            if what == 2:
                ioapic.set_line(EDGE_PIN, False)
            if what:
                ioapic.set_line({3: LEVEL_PIN, 4: NMI_PIN}.get(what, EDGE_PIN), True)

        def device(_vector: int) -> None:
            held.append(in_service(vcpu.get_lapic(), LEVEL_VECTOR))
            if len(held) >= CONTENT_AFTER:
                ioapic.set_line(LEVEL_PIN, False)
            if len(held) > STORM:
                machine.stop(f"more than {STORM} interrupts of a level that was lowered after {CONTENT_AFTER}")

        machine.on_port_write(DELAY, line)
        machine.on_port_write(DELAY + 2, device)
        result = run_to_pass(guest)
        return Evidence(results(guest), result.exits["IoapicEoi"], any(held))


def judge(seen: Evidence) -> dict[str, Finding]:
    wanted = {
        "version": VERSION,
        "id": 0x0F000000,
        "edge_up": 1,
        "edge_held": 1,
        "edge_masked": 1,
        "edge_again": 2,
        "nmi": 1,
    }
    summary = "the guest programs pyvmm's IOAPIC, and its entries arrive as MSIs: fixed and NMI"
    entries = compare(seen.results, wanted, summary)
    return {"irqchip_split": entries, "ioapic_eoi_exit": _level(seen)}


def _level(seen: Evidence) -> Finding:
    numbers = {
        "interrupts until the device was content": CONTENT_AFTER,
        "KVM_EXIT_IOAPIC_EOI": seen.eois,
        "vector in service in its handler (KVM_GET_LAPIC)": int(seen.held),
    }
    found = level(seen.results, held=seen.held, numbers=numbers)
    if found.verdict is Verdict.WORKS and seen.eois != seen.results["level"]:
        text = f"{seen.eois} KVM_EXIT_IOAPIC_EOI for {seen.results['level']} interrupts of a level"
        return Finding(Verdict.BROKEN, text, found.evidence)
    return found

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of irqchip_kernel: drives the lines that the guest asks for, and reads KVM's controllers inside handlers.

Some hosts end an interrupt when they deliver it (the in-service bit of KVM_GET_LAPIC is 0 in its handler). There a
level that is still high is latched again at once, so that one more interrupt comes than the device asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vmm.abi import irq
from vmm.abi.ports import DELAY
from vmm.kvm import irqchip
from vmm.kvm.irqchip import Pic
from vmm.machine.x86.lapic import in_service
from vmm.payload.proof.compare import Wanted, compare, results
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

PULSES = {1: 3, 2: 10}  # what the guest asks for -> the line that rises and falls
EDGE_PIN, LEVEL_PIN = 5, 11
LEVEL_VECTOR = 0x5B
NO_REMOTE_IRR = irq.RTE_LEVEL | LEVEL_VECTOR
CONTENT_AFTER = 3  # interrupts until the device behind the level is served
STORM = 50


@dataclass(frozen=True)
class Evidence:
    """The guest's results by name; `pics`: (vector, master, slave) as KVM_GET_IRQCHIP has them in each PIC handler;
    `entries`: pin 11's redirection entry in each handler of its vector; `held`: was that vector in service there.
    """

    results: dict[str, int]
    pics: tuple[tuple[int, Pic, Pic], ...] = ()
    entries: tuple[int, ...] = ()
    held: bool = True


@dataclass
class _Seen:
    pics: list[tuple[int, Pic, Pic]] = field(default_factory=list)
    entries: list[int] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)


def prove(lab: Lab) -> dict[str, Finding]:
    return judge(observe(lab))


def observe(lab: Lab) -> Evidence:
    with lab.guest() as guest:
        machine, seen = guest.machine, _Seen()
        vm, vcpu = machine.vm, machine.cpus[0].vcpu

        def line(what: int) -> None:
            if what in PULSES:
                vm.irq_line(PULSES[what], True)
                vm.irq_line(PULSES[what], False)
            elif what == 4:
                vm.irq_line(EDGE_PIN, False)
            if what in (3, 4, 5):
                vm.irq_line(LEVEL_PIN if what == 5 else EDGE_PIN, True)

        def look(vector: int) -> None:
            seen.pics.append((vector, irqchip.get_pic(vm), irqchip.get_pic(vm, slave=True)))

        def device(_vector: int) -> None:
            seen.entries.append(irqchip.get_ioapic(vm)[LEVEL_PIN])
            seen.held.append(in_service(vcpu.get_lapic(), LEVEL_VECTOR))
            if len(seen.entries) >= CONTENT_AFTER:
                vm.irq_line(LEVEL_PIN, False)
            if len(seen.entries) > STORM:
                machine.stop(f"more than {STORM} interrupts of a level that was lowered after {CONTENT_AFTER}")

        for port, hook in ((DELAY, line), (DELAY + 1, look), (DELAY + 2, device)):
            machine.on_port_write(port, hook)
        run_to_pass(guest)
        return Evidence(results(guest), tuple(seen.pics[:3]), tuple(seen.entries), any(seen.held))


def judge(seen: Evidence) -> dict[str, Finding]:
    return {"irqchip_kernel": _pics(seen), "irq_line_edge": _edge(seen), "irq_line_level": _level(seen)}


def _pics(seen: Evidence) -> Finding:
    wanted = {"pic_master": 1, "pic_slave": 1, "pic_masked": 1, "pic_latched": 2}
    numbers = {
        f"vector {vector:#x}: ISR of master, slave": f"{master.isr:#04x}, {slave.isr:#04x}"
        for vector, master, slave in seen.pics
    }
    summary = "PIC: master, slave behind it, mask and latch; the controllers' state in their handlers"
    found = compare(seen.results, wanted, summary, numbers)
    in_handler = [(vector, master.isr, slave.isr) for vector, master, slave in seen.pics[:2]]
    if found.verdict is Verdict.WORKS and in_handler != [(0x23, 1 << 3, 0), (0x2A, 1 << irq.PIC_CASCADE_IR, 1 << 2)]:
        text = "KVM_GET_IRQCHIP does not have the interrupts in service in their handlers"
        return Finding(Verdict.BROKEN, text, found.evidence)
    return found


def _edge(seen: Evidence) -> Finding:
    summary = "a rising line is one interrupt, a line held high none, falling and rising one more"
    return compare(seen.results, {"edge_up": 1, "edge_held": 1, "edge_again": 2}, summary)


def _level(seen: Evidence) -> Finding:
    numbers = {
        "interrupts until the device was content": CONTENT_AFTER,
        "pin 11's entry in each handler (KVM_GET_IRQCHIP)": ", ".join(map(hex, seen.entries)),
        "vector in service in its handler (KVM_GET_LAPIC)": int(seen.held),
    }
    found = level(seen.results, held=seen.held, numbers=numbers)
    if found.verdict is Verdict.WORKS and not all(entry & irq.RTE_LEVEL for entry in seen.entries):
        return Finding(Verdict.BROKEN, "KVM_GET_IRQCHIP does not show the pin as level triggered", found.evidence)
    return found


def level(results: dict[str, int], *, held: bool, numbers: Mapping[str, object]) -> Finding:
    """The level that both IOAPIC lessons drive. `held`: this host keeps an interrupt in service in its handler; one
    that ends it at delivery may latch the line once more before the device lets go.
    """
    count = results["level"]
    wanted: dict[str, Wanted] = {
        "level": CONTENT_AFTER if held else (CONTENT_AFTER, CONTENT_AFTER + 1),
        "level_after": count,
        "rte": NO_REMOTE_IRR,
    }
    text = f"{count} interrupts while the line was high, none after it fell"
    if count > CONTENT_AFTER:
        text += "; the last was latched before that, for this host ends an interrupt when it delivers it"
    return compare(results, wanted, text, numbers)

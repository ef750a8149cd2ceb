# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of irqchip_none: pyvmm is the interrupt controller (vmm/machine/extra/injector.py)."""

from __future__ import annotations

from dataclasses import dataclass

from vmm.abi.ports import DELAY, EXIT_VALUE_PASS
from vmm.machine.ends import Why
from vmm.machine.extra.injector import Injector
from vmm.payload.proof.compare import compare, results
from vmm.payload.proof.ending import broke
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

ORDER = (0x51, 0x52, 0x53, 0x54)


@dataclass(frozen=True)
class Evidence:
    """The guest's results by name; vectors in the order of their handlers; exits of two kinds; how often the guest was
    found halted.
    """

    results: dict[str, int]
    order: tuple[int, ...]
    windows: int
    halts: int


def prove(lab: Lab) -> Finding:
    return judge(observe(lab))


def observe(lab: Lab) -> Evidence:
    with lab.guest() as guest:
        machine = guest.machine
        injector, vcpu = Injector(machine), machine.cpus[0].vcpu
        order: list[int] = []
        windows: list[int] = []
        idle: list[int] = []

        def asked(what: int) -> None:
            for vector in {1: ORDER[:2], 2: ORDER[2:3]}.get(what, ()):
                injector.interrupt(vector)
            if what == 3:
                vcpu.nmi()

        def halted() -> int | None:
            windows.append(machine.cpus[0].counts["IrqWindowOpen"])  # counts begin anew with each run
            idle.append(1)
            return ORDER[3] if len(idle) == 1 else None

        machine.on_port_write(DELAY, asked)
        machine.on_port_write(DELAY + 1, order.append)
        guest.result = result = injector.run(halted)
        if result.stop.why is not Why.EXIT_PORT or result.stop.code != EXIT_VALUE_PASS:
            raise broke(guest, result)
        return Evidence(results(guest), tuple(order), sum(windows) + result.exits["IrqWindowOpen"], len(idle))


def judge(seen: Evidence) -> Finding:
    numbers = {
        "order of the handlers": ", ".join(map(hex, seen.order)),
        "KVM_EXIT_IRQ_WINDOW_OPEN": seen.windows,
        "KVM_EXIT_HLT": seen.halts,
    }
    wanted = {"closed": 0, "first": 1, "second": 1, "open": 1, "woken": 1, "nmi": 1}
    summary = f"4 vectors by KVM_INTERRUPT in order, {seen.windows} window exits, woken from HLT, an NMI"
    found = compare(seen.results, wanted, summary, numbers)
    if found.verdict is Verdict.BROKEN:
        return found
    if seen.order != ORDER:
        return Finding(
            Verdict.BROKEN, "the vectors did not come in the order in which they were raised", found.evidence
        )
    if not seen.windows:
        return Finding(Verdict.BROKEN, "interrupts were disabled, and no window exit told of their end", found.evidence)
    if seen.halts != 1:
        return Finding(Verdict.BROKEN, f"{seen.halts} HLT exits, and the guest halts once", found.evidence)
    return found

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of statistics: read before and after a known number of exits, and what each statistic says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vmm.abi import ports
from vmm.kvm.stats import Stats
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict


@dataclass(frozen=True)
class Evidence:
    """`rise` of the vCPU's statistics by name (0 is left out), all their `names`, how many there are `of_vm`, units."""

    outs: int
    reads: int
    rise: Mapping[str, int]
    names: frozenset[str]
    of_vm: int
    labels: Mapping[str, str]


def prove(lab: Lab) -> Finding:
    with lab.guest() as guest:
        guest.machine.on_port_write(ports.DELAY, lambda value: None)
        with guest.machine.vm.get_stats() as of_vm, guest.machine.cpus[0].vcpu.get_stats() as stats:
            before = snapshot(stats)
            run_to_pass(guest)
            return judge(
                Evidence(
                    guest.params["outs"],
                    guest.params["reads"],
                    stats.rise(before),
                    frozenset(stats),
                    len(of_vm),
                    {name: row.label for name, row in stats.descriptors.items() if row.label},
                )
            )


def snapshot(stats: Stats) -> dict[str, int]:
    """Before the run."""
    return stats.snapshot()


def judge(evidence: Evidence) -> Finding:
    """`exits` counts every exit to the VMM or more, `mmio_exits` the reads; nothing that accumulates has fallen."""
    outs, reads, rise = evidence.outs, evidence.reads, evidence.rise
    numbers = {
        "exits that the guest made": f"{outs} OUT, {reads} MMIO reads, 1 OUT to end",
        "statistics of the vCPU": len(evidence.names),
        "statistics of the VM": evidence.of_vm,
        **{f"{name} rose by": value for name, value in rise.items()},
        "units": ", ".join(f"{name} {label}" for name, label in evidence.labels.items()),
    }
    missing = [name for name in ("exits", "mmio_exits") if name not in evidence.names]
    if missing:
        return Finding(Verdict.UNPROVEN, f"this KVM has no statistic {missing[0]}", numbers)
    if rise.get("exits", 0) < outs + reads:
        text = f"exits rose by {rise.get('exits', 0)}, and the guest made {outs + reads + 1}"
        return Finding(Verdict.BROKEN, text, numbers)
    if rise.get("mmio_exits", 0) != reads:
        text = f"mmio_exits rose by {rise.get('mmio_exits', 0)}, and the guest read MMIO {reads} times"
        return Finding(Verdict.BROKEN, text, numbers)
    fallen = [name for name, value in rise.items() if value < 0]
    if fallen:
        return Finding(Verdict.BROKEN, f"{fallen[0]} fell by {-rise[fallen[0]]}", numbers)
    summary = f"{len(evidence.names)} of a vCPU: exits +{rise['exits']}, mmio_exits +{rise['mmio_exits']}"
    return Finding(Verdict.WORKS, "", numbers, summary)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of sync_regs: at each exit the registers by both ways, one set through kvm_run, and what each way costs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from vmm.abi import ports
from vmm.base.bits import MASK64
from vmm.kvm.state import Regs
from vmm.kvm.sync import SyncRegs
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict


@dataclass(frozen=True)
class Evidence:
    """Exits looked at, those where the two ways differ, the sum that the guest made, and nanoseconds per exit."""

    exits: int
    different: int
    total: int
    wanted: int
    by_ioctl: float
    by_sync: float


def prove(lab: Lab) -> Finding:
    with lab.guest() as guest:
        vcpu = guest.machine.cpus[0].vcpu
        sync = SyncRegs(vcpu, guest.machine.vm.check_extension("SYNC_REGS"), "regs", "sregs")
        seen: list[bool] = []
        spent = [0, 0]

        def look(value: int) -> None:
            begin = time.perf_counter_ns()
            by_ioctl = vcpu.get_regs()
            middle = time.perf_counter_ns()
            by_sync = sync.regs()
            spent[0] += middle - begin
            spent[1] += time.perf_counter_ns() - middle
            seen.append(by_ioctl == by_sync and (len(seen) > 2 or vcpu.get_sregs() == sync.sregs()))
            by_sync.rbx ^= MASK64
            set_regs(sync, by_sync)

        guest.machine.on_port_write(ports.DELAY, look)
        run_to_pass(guest)
        count = guest.params["exits"]
        wanted = expected(count, guest.constant("START"), guest.constant("FACTOR"))
        return judge(
            Evidence(len(seen), seen.count(False), guest["changed"], wanted, spent[0] / count, spent[1] / count)
        )


def set_regs(sync: SyncRegs, regs: Regs) -> None:
    """Let the next entry take them."""
    sync.set_regs(regs)


def expected(exits: int, start: int, factor: int) -> int:
    """The sum that the guest makes when each RBX is complemented at its OUT."""
    total, rbx = 0, start
    for rcx in range(exits, 0, -1):
        rbx ^= MASK64
        total = total + rbx & MASK64
        rbx = rbx * factor + rcx & MASK64
    return total


def judge(evidence: Evidence) -> Finding:
    """Both ways agree at every exit, and what was set arrived."""
    numbers = {
        "exits": evidence.exits,
        "exits at which the ways differ": evidence.different,
        "sum of what the host set": f"{evidence.total:#x}",
        "ns by KVM_GET_REGS": round(evidence.by_ioctl),
        "ns by kvm_run": round(evidence.by_sync),
    }
    if not evidence.exits or evidence.different:
        text = f"kvm_run and KVM_GET_REGS differ at {evidence.different} of {evidence.exits} exits"
        return Finding(Verdict.BROKEN, text, numbers)
    if evidence.total != evidence.wanted:
        text = f"the guest summed {evidence.total:#x}, and what was set in kvm_run gives {evidence.wanted:#x}"
        return Finding(Verdict.BROKEN, text, numbers)
    ratio = evidence.by_ioctl / evidence.by_sync if evidence.by_sync else 0
    summary = f"equal at {evidence.exits} exits, and taken back at each; reading costs 1/{ratio:.1f} of KVM_GET_REGS"
    return Finding(Verdict.WORKS, "", numbers, summary)

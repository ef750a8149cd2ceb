# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of irqfd: sends messages, sets routes, binds eventfds and writes them, waits for the resample eventfd."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from vmm.abi import irq
from vmm.abi.apic import msi_address, msi_data
from vmm.abi.ports import DELAY
from vmm.kvm.events import IrqchipRoute, MsiRoute
from vmm.kvm.system import Kvm
from vmm.kvm.vm import Vm
from vmm.payload.proof.compare import compare, results
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

ROUTED_GSI, EVENT_GSI, PIN = 40, 41, 11
NOBODY = 9  # an APIC id that no vCPU has
LEVEL_VECTOR = 0x65
PATIENCE = 20.0  # seconds until an eventfd that should be signalled is given up


@dataclass
class Device:
    """What the guest asks for, done. `signalled`: what KVM_SIGNAL_MSI returned for vCPU 0 and for nobody; `resamples`:
    how often the resample eventfd was signalled, counted after each EOI.
    """

    vm: Vm
    fd: int
    level_fd: int
    resample_fd: int
    signalled: list[int] = field(default_factory=list)
    resamples: list[int] = field(default_factory=list)

    def asked(self, what: int) -> None:
        match what:
            case 1:
                data = msi_data(0x61)
                self.signalled = [self.vm.signal_msi(msi_address(apic_id), data) for apic_id in (0, NOBODY)]
            case 2 | 3:
                self.vm.change_gsi_routing([MsiRoute(ROUTED_GSI, msi_address(0), msi_data(0x60 + what))])
                self.vm.irq_line(ROUTED_GSI, True)
            case 4:
                self.vm.change_gsi_routing([], remove=[ROUTED_GSI])
                self.vm.irq_line(ROUTED_GSI, True)
            case 5:
                self.vm.change_gsi_routing([MsiRoute(EVENT_GSI, msi_address(0), msi_data(0x64))])
                self.vm.irqfd(self.fd, EVENT_GSI)
                os.eventfd_write(self.fd, 1)
            case 6:
                self.vm.irqfd(self.fd, EVENT_GSI, deassign=True)
                os.eventfd_write(self.fd, 1)
            case 7:
                self.vm.change_gsi_routing([IrqchipRoute(PIN, irq.KVM_IRQCHIP_IOAPIC, PIN)])
                self.vm.irqfd(self.level_fd, PIN, resamplefd=self.resample_fd)
                os.eventfd_write(self.level_fd, 1)
            case 8 | 9:
                self.resamples.append(_count(self.resample_fd))
                if what == 8:
                    os.eventfd_write(self.level_fd, 1)
            case _:
                raise ValueError(f"the guest asked for {what}")


def _count(fd: int) -> int:
    """How often an eventfd was signalled since it was read; waits for a first time."""
    ready, _, _ = select.select([fd], [], [], PATIENCE)
    return os.eventfd_read(fd) if ready else 0


@contextmanager
def _eventfds(count: int) -> Iterator[list[int]]:
    fds = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(count)]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


@dataclass(frozen=True)
class Evidence:
    """The guest's results by name, and Device's. `resample` False: this KVM has no KVM_CAP_IRQFD_RESAMPLE."""

    results: dict[str, int]
    signalled: tuple[int, ...]
    resamples: tuple[int, ...]
    resample: bool = True


def prove(lab: Lab) -> dict[str, Finding]:
    return judge(observe(lab))


def observe(lab: Lab) -> Evidence:
    with Kvm.open() as kvm:
        offered = bool(kvm.check_extension("IRQFD_RESAMPLE"))
    resample = offered and bool(lab.param("resample"))
    with _eventfds(3) as fds, lab.guest(params={"resample": int(resample)}) as guest:
        device = Device(guest.machine.vm, fds[0], fds[1], fds[2])
        guest.machine.on_port_write(DELAY, device.asked)
        run_to_pass(guest)
        return Evidence(results(guest), tuple(device.signalled), tuple(device.resamples), resample)


def judge(seen: Evidence) -> dict[str, Finding]:
    by_eventfd = {"by_eventfd": 1, "unbound": 1}
    routes = {"routed": 1, "rerouted": 1, "old_route": 1, "unrouted": 2}
    return {
        "irqfd": compare(seen.results, by_eventfd, "a write to an eventfd is one interrupt; unbound, it is none"),
        "irqfd_resample": _resample(seen),
        "gsi_routing": compare(seen.results, routes, "a GSI sends the message of its route, of the new one, then none"),
        "msi": _msi(seen),
    }


def _resample(seen: Evidence) -> Finding:
    if not seen.resample:
        return Finding(Verdict.ABSENT, "this host lacks KVM_CAP_IRQFD_RESAMPLE (82)")
    wanted = {"level": 2, "rte": irq.RTE_LEVEL | LEVEL_VECTOR}
    numbers = {"signals of the resample eventfd after each EOI": ", ".join(map(str, seen.resamples))}
    summary = "KVM lowers the line at each EOI and says so by the resample eventfd; the device raised it twice"
    found = compare(seen.results, wanted, summary, numbers)
    if found.verdict is Verdict.WORKS and seen.resamples != (1, 1):
        return Finding(Verdict.BROKEN, "the resample eventfd was not signalled once for each EOI", found.evidence)
    return found


def _msi(seen: Evidence) -> Finding:
    numbers = {"KVM_SIGNAL_MSI returned (vCPU 0, nobody)": ", ".join(map(str, seen.signalled))}
    found = compare(seen.results, {"msi": 1}, "a message to vCPU 0 is one interrupt, one to nobody is none", numbers)
    if found.verdict is Verdict.WORKS and not (seen.signalled[0] > 0 >= seen.signalled[1]):
        return Finding(Verdict.BROKEN, "KVM_SIGNAL_MSI does not tell who was there from who was not", found.evidence)
    return found

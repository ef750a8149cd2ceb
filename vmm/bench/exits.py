# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows that are exits: which guest, which side of pyvmm, which mode of the C program, and the goal if any."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from typing import NamedTuple

from vmm.bench import guests
from vmm.bench.compare import Budget, Goal, Row, per_operation, pinned, row_of, take_turns
from vmm.bench.floor import Floor
from vmm.bench.guests import console_bytes, console_string, mmio_read, mmio_write, port_in, port_out
from vmm.bench.sides import (
    Batch,
    CoalescedConsole,
    CoalescedPort,
    CoalescedPython,
    Console,
    Ioeventfd,
    PythonHypercall,
    PythonMmio,
    PythonMsr,
    PythonPort,
    Serial,
    Touch,
    WordMmio,
    WordMsr,
    WordPort,
)
from vmm.bench.two_threads import Doorbell, Supplied, Woken
from vmm.errors import MissingCapability
from vmm.kvm.system import Kvm

FloorGoal = Callable[[float], Goal]


def at_most(ratio: float) -> FloorGoal:
    return lambda floor: Goal(ratio, f"at most {ratio:.2f} x")


def at_most_both(ratio: float, ns: float) -> FloorGoal:
    """At most so much of the floor, and at most `ns` above it."""
    return lambda floor: Goal(min(ratio, 1 + ns / floor), f"at most {ratio:.3f} x, + {ns / 1000:.1f} us")


class ExitRow(NamedTuple):
    """Batches of a guest, beside the C program in `mode`."""

    name: str
    cost: str
    what: str
    make: Callable[[], Batch]
    mode: str = "batch"
    goal: FloorGoal | None = None
    cpus: int = 1

    @property
    def row(self) -> Row:
        group = "goals" if self.goal is not None else "exits"
        return Row(self.name, group, self.what, self.cost, peer="C")

    def measure(self, budget: Budget) -> Row:
        with pinned(self.cpus):
            ours = self.make()
            try:
                with Floor(self.mode, guest=ours.image()) as floor:
                    ours.settle()
                    pair = take_turns(ours, floor, budget, between=ours.between)
            finally:
                ours.close()
        return row_of(per_operation(pair, ours.guest.count), self.row, self.goal)


def _transport() -> str:
    """The hypercall instruction that works here. MissingCapability if none does."""
    from vmm.host import hypercall_insn

    with Kvm.open() as kvm:
        transport = hypercall_insn.measure(kvm).transport
    if transport == "none":
        raise MissingCapability("no hypercall instruction of ring 0 reaches KVM on this host")
    return transport


def _without_gil() -> Batch:
    """MissingCapability: this Python has a GIL."""
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        python = f"{platform.python_implementation()} {platform.python_version()}"
        raise MissingCapability(f"needs a free-threaded Python; {python} has a GIL, and pio_out_by_two is its row")
    return PythonPort(guests.port_out_by_two(100))


PIO = at_most_both(1.035, 300)
# fmt: off
GOALS = (
    ExitRow("pio_out", "Python", "OUT to a Python handler", lambda: PythonPort(port_out(100)), goal=PIO),
    ExitRow("pio_in", "Python", "IN from a Python handler", lambda: PythonPort(port_in(100)), goal=PIO),
    ExitRow("pio_out_c", "C core", "OUT to a word of the C core", lambda: WordPort(port_out(100)), goal=at_most(1.03)),
    ExitRow("mmio_write", "Python", "MMIO write to a Python device", lambda: PythonMmio(mmio_write(100)),
            goal=at_most(1.04)),
    ExitRow("mmio_read", "Python", "MMIO read from a Python device", lambda: PythonMmio(mmio_read(100)),
            goal=at_most(1.05)),
    ExitRow("mmio_write_c", "C core", "MMIO write to a word of the C core", lambda: WordMmio(mmio_write(100)),
            goal=at_most(1.03)),
    ExitRow("console_bytes", "C core", "console, byte by byte (per byte)", lambda: Console(console_bytes(256)),
            "console", at_most(1.05)),
    ExitRow("console_string", "C core", "console, REP OUTSB (per byte)", lambda: Console(console_string(256)),
            "console", at_most(1.05)),
    ExitRow("console_coalesced", "C core", "console collected by KVM; the floor's is not",
            lambda: CoalescedConsole(console_bytes(100)), "console", at_most(1.0)),
    ExitRow("serial", "C core", "a character sent by COM1 with THRE's interrupt on, 16 for each look at IIR and LSR",
            lambda: Serial(guests.serial(8)), "serial", at_most(1.05)),
)
WAKES = (
    ExitRow("irqfd", "Python", "irqfd written to the OUT of the guest's handler, in Python",
            lambda: Woken(irqfd=True, python=True), "irqfd", at_most(1.05), cpus=2),
    ExitRow("irqfd_c", "C core", "the same; the clock is read in C, as in the floor",
            lambda: Woken(irqfd=True, python=False), "irqfd", at_most(1.05), cpus=2),
    ExitRow("hlt_wake", "Python", "HLT wake by KVM_SIGNAL_MSI to the same, in Python",
            lambda: Woken(irqfd=False, python=True), "kick", at_most(1.08), cpus=2),
    ExitRow("hlt_wake_c", "C core", "the same; the clock is read in C, as in the floor",
            lambda: Woken(irqfd=False, python=False), "kick", at_most(1.08), cpus=2),
)
KINDS = (
    ExitRow("pio_in_c", "C core", "IN from a word of the C core", lambda: WordPort(port_in(100))),
    ExitRow("mmio_read_c", "C core", "MMIO read from a word of the C core", lambda: WordMmio(mmio_read(100))),
    ExitRow("instruction", "kernel", "NOP in ring 0", lambda: Batch(guests.instruction(500))),
    ExitRow("cpuid", "kernel", "CPUID", lambda: Batch(guests.cpuid(500))),
    ExitRow("pio_out_by_two", "Python", "OUT to a Python handler by two vCPUs at once (per OUT of one)",
            lambda: PythonPort(guests.port_out_by_two(100)), cpus=2),
    ExitRow("pio_out_no_gil", "Python", "the same, in a Python without a GIL", _without_gil, cpus=2),
    ExitRow("rdmsr", "kernel", "RDMSR of MSR_KVM_POLL_CONTROL", lambda: Batch(guests.rdmsr(500))),
    ExitRow("rdmsr_c", "C core", "the same, filtered to a word of the C core", lambda: WordMsr(guests.rdmsr(100))),
    ExitRow("rdmsr_python", "Python", "the same, filtered to a Python hook", lambda: PythonMsr(guests.rdmsr(100)),
            goal=at_most(1.05)),
    ExitRow("wrmsr", "kernel", "WRMSR of MSR_KVM_POLL_CONTROL", lambda: Batch(guests.wrmsr(500))),
    ExitRow("wrmsr_c", "C core", "the same, filtered to a word of the C core", lambda: WordMsr(guests.wrmsr(100))),
    ExitRow("wrmsr_python", "Python", "the same, filtered to a Python hook", lambda: PythonMsr(guests.wrmsr(100)),
            goal=at_most(1.05)),
    ExitRow("hypercall", "kernel", "KVM_HC_VAPIC_POLL_IRQ", lambda: Batch(guests.hypercall(100, _transport()))),
    ExitRow("hypercall_python", "Python", "KVM_HC_MAP_GPA_RANGE, passed on to a Python hook",
            lambda: PythonHypercall(guests.map_gpa_range(100, _transport()))),
    ExitRow("ioeventfd", "kernel", "OUT to an ioeventfd", lambda: Ioeventfd(port_out(200))),
    ExitRow("ioeventfd_mmio", "kernel", "MMIO write to an ioeventfd", lambda: Ioeventfd(mmio_write(200), mmio=True)),
    ExitRow("ioeventfd_python", "Python", "OUT to an ioeventfd, until its thread has answered in memory",
            lambda: Doorbell(guests.doorbell(20)), goal=at_most(1.10), cpus=2),
    ExitRow("coalesced", "C core", "OUT to a coalesced port, the console's", lambda: CoalescedPort(console_bytes(100))),
    ExitRow("coalesced_python", "Python", "OUT to a coalesced port of a Python handler",
            lambda: CoalescedPython(port_out(100)), goal=at_most(1.5)),
    ExitRow("self_ipi", "kernel", "self-IPI to the end of its handler", lambda: Batch(guests.self_ipi(100))),
    ExitRow("ipi", "kernel", "IPI until the other vCPU has counted it", lambda: Batch(guests.ipi(20)), cpus=2),
    ExitRow("tsc_deadline", "kernel", "TSC deadline that has passed, HLT, handler",
            lambda: Batch(guests.tsc_deadline(50))),
    ExitRow("page_fault", "kernel", "first touch of a page", lambda: Touch(guests.touch()), "touch"),
    ExitRow("page_fault_uffd", "Python", "first touch, the page from a userfaultfd",
            lambda: Supplied(guests.touch()), "uffd", at_most(1.3), cpus=2),
)
# fmt: on

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of smp: no addition was lost, and every vCPU was there."""

from __future__ import annotations

from vmm.machine.memory.layout import REGIONS
from vmm.payload.guest import Guest


def check(guest: Guest) -> None:
    cpus = len(guest.machine.cpus)
    guest.equal("vCPUs that arrived", guest["arrived"], cpus)
    guest.equal("the shared counter", guest["total"], cpus * guest.params["rounds"])
    marks = guest.machine.memory.read(REGIONS["data"].base + 0x1000, cpus)
    guest.equal("marks of the vCPUs", list(marks), [index + 1 & 0xFF for index in range(cpus)])

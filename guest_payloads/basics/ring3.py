# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of ring3: the allowed ports were reached and no others, and each refusal was the CPU's."""

from __future__ import annotations

from functools import partial

from vmm.abi.x86 import PF
from vmm.machine.memory.layout import REGIONS
from vmm.payload.guest import Guest

ALLOWED = (0x80, 0x81)
DENIED = 0x82


def setup(guest: Guest) -> None:
    reached: list[str] = []
    guest.evidence["ports reached"] = reached

    def note(port: int, value: int) -> None:
        reached.append(f"{port:#x}={value:#x}")

    for port in (*ALLOWED, DENIED):
        guest.machine.on_port_write(port, partial(note, port))


def check(guest: Guest) -> None:
    guest.equal("the privilege level in ring 3", guest["cpl"], 3)
    guest.equal("the argument", guest["argument"], 0x1234)
    guest.equal("RCX at SYSCALL", guest["return_rip"], guest.symbol("back"))
    guest.equal("#GP for a denied port, CLI and RDMSR", guest["gp_count"], 3)
    guest.equal("the page fault's error code", guest["pf_error"], int(PF.PROT | PF.USER))
    guest.equal("CR2", guest["pf_address"], REGIONS["data"].base)
    guest.evidence["SYSCALL"] = (
        "inert: this host leaves the CPU in ring 3 (measured); the rest was done through the fault at LSTAR"
        if guest["by_fault"]
        else "works: it came to LSTAR in ring 0"
    )
    guest.equal("the last system call", guest["finished"], 0x600D)
    guest.equal("ports reached", guest.evidence["ports reached"], [f"{port:#x}=0x33" for port in ALLOWED])

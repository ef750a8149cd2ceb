# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of faults: vector and error code of each exception by the manual (Intel SDM vol. 3A, 6.15)."""

from __future__ import annotations

from vmm.abi.x86 import DATA16_DS
from vmm.payload.guest import Guest

EXPECTED = {
    "divide": (0, 0),
    "debug": (1, 0),
    "breakpoint": (3, 0),
    "opcode": (6, 0),
    "device": (7, 0),
    "segment": (11, DATA16_DS),
    "protection": (13, 0),
    "page": (14, 0),
}


def check(guest: Guest) -> None:
    for name, (vector, error_code) in EXPECTED.items():
        guest.equal(name, guest[name], vector << 32 | error_code)
    guest.equal("exceptions taken", guest["taken"], len(EXPECTED))

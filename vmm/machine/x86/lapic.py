# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading what KVM_GET_LAPIC gave: registers and the three vector sets of a local APIC. Bytes in, numbers out.

Source: Intel SDM vol. 3A, 11.4.1 (registers at multiples of 16 bytes), 11.8.4 (IRR, ISR, TMR).
"""

from __future__ import annotations

from vmm.abi.apic import REGISTERS

OFFSETS = {row.name: row.offset for row in REGISTERS}


def register(state: bytes, name: str) -> int:
    """A register by name (vmm.abi.apic.REGISTERS): 32 bits."""
    at = OFFSETS[name]
    return int.from_bytes(state[at : at + 4], "little")


def vectors(state: bytes, name: str) -> tuple[int, ...]:
    """The vectors in ISR, TMR or IRR, lowest first."""
    found = []
    for vector in range(256):
        at = OFFSETS[name] + (vector >> 5) * 0x10
        if state[at + (vector >> 3 & 3)] >> (vector & 7) & 1:
            found.append(vector)
    return tuple(found)


def in_service(state: bytes, vector: int) -> bool:
    """Is this interrupt being served, that is delivered and not ended?"""
    return vector in vectors(state, "ISR")

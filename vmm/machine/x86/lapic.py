# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading what KVM_GET_LAPIC gave: registers and the three vector sets of a local APIC. Bytes in, numbers out.

Source: Intel SDM vol. 3A, 11.4.1 (registers at multiples of 16 bytes), 11.8.4 (IRR, ISR, TMR).
"""

from __future__ import annotations

from vmm.abi.apic import REGISTERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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


class Lapic:
    """A local APIC as it was when it was asked: `lapic["TPR"]`, `lapic.irr`, `lapic.isr`, `lapic.tmr`."""

    def __init__(self, state: bytes) -> None:
        self.state = state
        """The page of registers, 1024 bytes (struct kvm_lapic_state)."""

    def __getitem__(self, name: str) -> int:
        """A register by name (vmm.abi.apic.REGISTERS): 32 bits. KeyError, with the names that there are."""
        if name not in OFFSETS:
            raise KeyError(f"{name}: no register of the local APIC; there are {', '.join(OFFSETS)}")
        return register(self.state, name)

    @property
    def irr(self) -> tuple[int, ...]:
        """The vectors that wait, by number from 0 to 255, lowest first."""
        return vectors(self.state, "IRR")

    @property
    def isr(self) -> tuple[int, ...]:
        """The vectors that are being served, by number from 0 to 255, lowest first."""
        return vectors(self.state, "ISR")

    @property
    def tmr(self) -> tuple[int, ...]:
        """The vectors that are level-triggered, by number from 0 to 255, lowest first."""
        return vectors(self.state, "TMR")

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Lapic) and self.state == other.state

    def __hash__(self) -> int:
        return hash(self.state)

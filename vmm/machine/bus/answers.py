# SPDX-License-Identifier: GPL-2.0-or-later
"""What counts as an answer: the one rule for what a device or a callback gives the guest, whichever way it was asked.

An integer is what says so by __index__: int, bool, IntEnum, IntFlag, numpy's. It must fit; nothing is cut off. It knows
neither exits nor buses; the C core's loop asks it only about what is not a plain int in range (run/lean.py).
"""

from __future__ import annotations

from vmm.base.bits import MASK64
from vmm.base.integer import integer
from vmm.errors import UsageError


def unsigned(value: object, size: int, asked: str, who: str) -> int:
    """`value` as an unsigned integer of `size` bytes. `asked` and `who` name the access and the answerer in the error.

    Raises:
        UsageError: it is none.
    """
    number = integer(value)
    if number is None or not 0 <= number < 1 << 8 * size:
        raise UsageError(f"{asked}: {who} answered {value!r}, which is not an unsigned integer of {in_bytes(size)}")
    return number


def msr(value: object, index: int, who: str) -> int | None:
    """The answer to RDMSR: 64 bits, or None, which refuses it. UsageError as `unsigned`."""
    return None if value is None else unsigned(value, 8, f"reading MSR {index:#x}", who)


def hypercall(value: object, nr: int, who: str) -> int:
    """What RAX shall hold, signed or unsigned: the ABI's errors are negative.

    Raises:
        UsageError: it is no integer of 64 bits.
    """
    number = integer(value)
    if number is None or not -(1 << 63) <= number <= MASK64:
        raise UsageError(f"hypercall {nr}: {who} answered {value!r}, which is not an integer of 8 bytes")
    return number


def in_bytes(size: int) -> str:
    """`1 byte`, `4 bytes`."""
    return f"{size} byte" if size == 1 else f"{size} bytes"


def name_of(f: object) -> str:
    """What a callback is called in messages."""
    return getattr(f, "__qualname__", None) or repr(f)

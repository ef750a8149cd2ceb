# SPDX-License-Identifier: GPL-2.0-or-later
"""Bits and bit fields of a register: named, decoded, checked. It knows no register."""

from __future__ import annotations

MASK64 = (1 << 64) - 1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol, overload

    class _HasRaw(Protocol):
        raw: int


def signed(value: int) -> int:
    """A register of 64 bits as the signed number that it holds; what is negative already stays so."""
    return value - (MASK64 + 1) if value >> 63 == 1 else value


def describe(value: int, table: Iterable[tuple[int, str]]) -> str:
    """Names of the set bits, joined by `|`; what no row names stays as a hexadecimal rest, so that no bit is lost.

    `table` holds (mask, name). A row counts when all bits of its mask are set. Zero is "0".
    """
    names = []
    rest = value
    for mask, name in table:
        if mask and value & mask == mask:
            names.append(name)
            rest &= ~mask
    if rest:
        names.append(hex(rest))
    return "|".join(names) or "0"


class Bits:
    """A field of `width` bits from bit `lo` up in the owner's integer `raw`; a value that does not fit is refused."""

    __slots__ = ("lo", "mask")

    def __init__(self, lo: int, width: int = 1) -> None:
        self.lo, self.mask = lo, (1 << width) - 1

    if TYPE_CHECKING:

        @overload
        def __get__(self, register: None, owner: type) -> Bits: ...

        @overload
        def __get__(self, register: _HasRaw, owner: type | None = None) -> int: ...

    def __get__(self, register: _HasRaw | None, owner: type | None = None) -> Bits | int:
        return self if register is None else register.raw >> self.lo & self.mask

    def __set__(self, register: _HasRaw, value: int) -> None:
        if value & ~self.mask:
            raise ValueError(f"{value:#x} does not fit in {self.mask.bit_length()} bits")
        register.raw = register.raw & ~(self.mask << self.lo) | value << self.lo

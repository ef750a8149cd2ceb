# SPDX-License-Identifier: GPL-2.0-or-later
"""A walk of whatever page tables a guest has loaded: 4- and 5-level, PAE, 32-bit, or none. Numbers in, values out.

It reads guest memory only through the callable it is given, and knows nothing of vCPUs. Sources: Intel SDM vol. 3A,
chapter 4; AMD APM vol. 2, chapter 5.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from vmm.abi.x86 import CR0, CR4, EFER, LARGE_PAGE, PAGE, PTE, PTE_ADDRESS_MASK, flag_rows
from vmm.base.bits import MASK64
from vmm.base.bits import describe as describe_bits
from vmm.base.record import Record
from vmm.errors import GuestMemoryError
from vmm.machine.memory.layout import GIB, describe
from vmm.machine.x86.page_entries import LINK, NX, PRESENT, PSE, RW, USER


class Fault(StrEnum):
    """Why a walk ended without a page."""

    NONE = ""
    NOT_CANONICAL = "the address is not canonical"
    TOO_WIDE = "the address does not fit in 32 bits"
    NOT_PRESENT = "not present"
    RESERVED = "reserved bit set"
    UNREADABLE = "no RAM at the entry"


class Level(Record):
    """One entry that the walk read. `raw` is None where guest memory could not be read."""

    name: str
    address: int
    raw: int | None
    flags: str


class Translation(Record):
    """What the tables make of one linear address. `gpa` is None when `fault` says why.

    `user`, `writable`, `executable` are the rights that all levels together give (SDM 4.6.1). Ring 0 may write a page
    that is not `writable` while CR0.WP is clear; SMEP, SMAP and protection keys are not looked at.
    """

    va: int
    mode: str
    levels: tuple[Level, ...] = ()
    gpa: int | None = None
    fault: Fault = Fault.NONE
    page_size: int = 0
    user: bool = False
    writable: bool = False
    executable: bool = False

    @property
    def failure(self) -> str:
        """Empty, or why there is no page: `PDE at 0xc000: not present`."""
        if self.fault and self.levels:
            return f"{self.levels[-1].name} at {self.levels[-1].address:#x}: {self.fault}"
        return str(self.fault)


class _Step(NamedTuple):
    name: str
    shift: int
    large: bool = False  # bit 7 may end the walk here
    rights: bool = True  # R/W, U/S and NX of this level count
    reserved: int = 0  # beyond what every entry of the mode reserves


class _Mode(NamedTuple):
    name: str
    steps: tuple[_Step, ...]
    root: int  # of CR3, the bits that address the first table
    width: int  # of a linear address
    entry: int = 8  # bytes


def _bits(low: int, high: int) -> int:
    """Ones from bit `low` to bit `high`, both included; none if they have crossed."""
    return (1 << high + 1) - (1 << low) if high >= low else 0


_PTE = _Step("PTE", 12)
_LONG = (_Step("PML4E", 39, reserved=PSE), _Step("PDPTE", 30, True), _Step("PDE", 21, True), _PTE)
_PDPTE_PAE = _Step("PDPTE", 30, rights=False, reserved=_bits(1, 2) | _bits(5, 8) | NX)  # SDM 4.4.1
_FOUR = _Mode("4-level", _LONG, PTE_ADDRESS_MASK, 48)
_FIVE = _Mode("5-level", (_Step("PML5E", 48, reserved=PSE), *_LONG), PTE_ADDRESS_MASK, 57)
_PAE = _Mode("PAE", (_PDPTE_PAE, _Step("PDE", 21, True), _PTE), _bits(5, 31), 32)
_32BIT = _Mode("32-bit", (_Step("PDE", 22), _PTE), _bits(12, 31), 32, entry=4)
_32BIT_PSE = _32BIT._replace(steps=(_Step("PDE", 22, True), _PTE))


def paging_mode(cr0: int, cr4: int, efer: int) -> str:
    """`off`, `32-bit`, `PAE`, `4-level` or `5-level` (SDM 4.1.1)."""
    mode = _mode(cr0, cr4, efer)
    return mode.name if mode else "off"


def _mode(cr0: int, cr4: int, efer: int) -> _Mode | None:
    if not cr0 & CR0.PG:
        return None
    if efer & EFER.LMA:
        return _FIVE if cr4 & CR4.LA57 else _FOUR
    if cr4 & CR4.PAE:
        return _PAE
    return _32BIT_PSE if cr4 & CR4.PSE else _32BIT


def walk(
    read_u64: Callable[[int], int],
    cr3: int,
    cr4: int,
    efer: int,
    cr0: int,
    va: int,
    *,
    maxphyaddr: int = 52,
    gib_pages: bool = True,
    keep: bool = True,
) -> Translation:
    """Translate `va` as the processor would with these registers, and keep every entry that was read.

    `read_u64(gpa)` is asked for 8-byte aligned addresses and raises GuestMemoryError outside RAM, which ends the walk.
    Each level is read once, so tables that point at themselves end like any others. `maxphyaddr` is CPUID 0x80000008
    EAX[7:0] (higher address bits are reserved), `gib_pages` CPUID 0x80000001 EDX[26]. Without `keep` no entry is kept,
    and where the walk fails `levels` is empty: a third of the time.
    With PAE the four PDPTEs are read from memory; a processor keeps the copies it took at the last load of CR3.
    """
    va &= MASK64
    mode = _mode(cr0, cr4, efer)
    if mode is None:
        if va >> 32:
            return Translation(va, "off", fault=Fault.TOO_WIDE)
        return Translation(va, "off", gpa=va, page_size=PAGE, user=True, writable=True, executable=True)
    if mode.width == 32 and va >> 32:
        return Translation(va, mode.name, fault=Fault.TOO_WIDE)
    if mode.width > 32 and va >> mode.width - 1 not in (0, MASK64 >> mode.width - 1):
        return Translation(va, mode.name, fault=Fault.NOT_CANONICAL)

    levels: list[Level] = []
    table, rights = cr3 & mode.root, LINK
    for step in mode.steps:
        index = va >> step.shift & PAGE // mode.entry - 1  # of a 32-bit address only 0 to 3 is left at a PDPTE
        address = table + index * mode.entry
        try:
            raw = read_u64(address & ~7) >> (address & 7) * 8 & (1 << 8 * mode.entry) - 1
        except GuestMemoryError:
            levels.append(Level(step.name, address, None, "unreadable"))
            return Translation(va, mode.name, tuple(levels), fault=Fault.UNREADABLE)
        leaf = step is _PTE or bool(step.large and raw & PSE and (gib_pages or step.shift != 30))
        if keep:
            levels.append(Level(step.name, address, raw, _entry_flags(raw, step, leaf, mode.entry)))
        if not raw & PRESENT:
            return Translation(va, mode.name, tuple(levels), fault=Fault.NOT_PRESENT)
        if raw & _reserved(mode, step, leaf, maxphyaddr, bool(efer & EFER.NX)):
            return Translation(va, mode.name, tuple(levels), fault=Fault.RESERVED)
        if step.rights:
            rights &= raw | ~LINK
            rights |= raw & NX
        if leaf:
            break
        table = raw & PTE_ADDRESS_MASK
    span = 1 << step.shift
    base = raw & PTE_ADDRESS_MASK & -span
    if mode.entry == 4 and span > PAGE:
        base |= (raw >> 13 & 0xFF) << 32  # PSE-36 (SDM 4.3)
    return Translation(
        va,
        mode.name,
        tuple(levels),
        gpa=base + va % span,
        page_size=span,
        user=bool(rights & USER),
        writable=bool(rights & RW),
        executable=not rights & NX,
    )


def _reserved(mode: _Mode, step: _Step, leaf: bool, maxphyaddr: int, nxe: bool) -> int:
    """Bits that must be zero in a present entry (SDM 4.3, 4.4.2, 4.5.4; the NX bit while EFER.NXE is clear)."""
    if mode.entry == 4:
        # A 4 MiB page keeps address bits 39:32 in 20:13; bit 21 and those beyond the processor's width are reserved.
        return _bits(min(40, maxphyaddr) - 19, 21) if leaf and step is not _PTE else 0
    mask = step.reserved | _bits(maxphyaddr, 51) | (0 if nxe else NX)
    if mode is _PAE:
        mask |= _bits(52, 62)
    if leaf and step is not _PTE:
        mask |= _bits(13, step.shift - 1)
    elif step.large:
        mask |= PSE  # bit 7 without a large page: a processor that has none of this size
    return mask


def _entry_flags(raw: int, step: _Step, leaf: bool, size: int) -> str:
    """Every set bit outside the address field: by name, the rest in hex."""
    if not raw & PRESENT:
        return "not present"
    rows = flag_rows(PTE)
    field = PTE_ADDRESS_MASK if size == 8 else _bits(12, 31)
    if step is _PTE:
        rows = [(mask, "PAT" if mask == PSE else name) for mask, name in rows]
    elif leaf:
        rows = [*rows, (PAGE, "PAT")]
        field &= -(1 << step.shift)
        if size == 4:
            field |= _bits(13, 20)
    return describe_bits(raw & ~field, rows)


_SIZES = {PAGE: "4 KiB", LARGE_PAGE: "2 MiB", 2 * LARGE_PAGE: "4 MiB", GIB: "1 GiB"}


def render(translation: Translation, place_of: Callable[[int], str] = describe) -> list[str]:
    """A walk in a few lines, for a post-mortem: the address, each entry, where it ends; `place_of` names a place."""
    t = translation
    lines = [f"{t.va:#x}, paging {t.mode}"]
    for level in t.levels:
        shown = "?" * 18 if level.raw is None else f"{level.raw:#018x}"
        lines.append(f"  {level.name:<5} at {level.address:#011x} = {shown}  {level.flags}")
    if t.gpa is None:
        lines.append(f"  no page: {t.failure}")
    else:
        place = place_of(t.gpa)
        rights = f"{'user' if t.user else 'supervisor'} r{'w' if t.writable else '-'}{'x' if t.executable else '-'}"
        lines.append(f"  -> {t.gpa:#x}{f' ({place})' if place else ''}, {_SIZES[t.page_size]} page, {rights}")
    return lines

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest leaves behind, looked at when it is closed: its memory map, who has used which of it, its page tables
and the walks of the addresses that matter. Values, and `look`, which reads a stopped machine and changes nothing.

That a guest has used a page is what its CPU noted in the page tables (the accessed and dirty flags: Intel SDM vol. 3A,
4.8; AMD APM vol. 2, 5.4.2), of the tables that a vCPU has loaded at the end. Without paging nobody notes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from vmm.abi.x86 import PAGE
from vmm.errors import VmmError
from vmm.machine.memory import layout
from vmm.machine.x86.page_leaves import MAX_TABLES, Leaf, leaves
from vmm.machine.x86.page_walk import Translation
from vmm.machine.x86.virtual import translate
from vmm.observe.postmortem import linear, place

if TYPE_CHECKING:
    from vmm.kvm.state import Regs, Sregs
    from vmm.machine.machine import Machine
    from vmm.machine.memory.watched import Uses

MAX_STRETCHES = 1024  # of each list
MAX_WALKED = 4  # vCPUs whose addresses are walked
PUSH = 8  # bytes below RSP: where the next push goes


@dataclass(frozen=True)
class Area:
    """A part of the guest-physical map: `rights` as `rwx`, `u` where ring 3 may; `ram` is false where a device is."""

    base: int
    size: int
    name: str
    rights: str
    what: str
    ram: bool


@dataclass(frozen=True)
class Used:
    """`size` bytes from guest-physical `base` that were used: by "guest", "host half" or "pyvmm". `page` are the bytes
    of the pages that this is known of, `place` the name of its first byte.
    """

    base: int
    size: int
    by: str
    read: bool
    wrote: bool
    page: int
    place: str


@dataclass(frozen=True)
class Mapped:
    """`size` bytes from linear `va` are those from guest-physical `gpa`, with these rights."""

    va: int
    gpa: int
    size: int
    rights: str


@dataclass(frozen=True)
class Walked:
    """The walk of an address that `what` names; `place` is where it ends, if that has a name."""

    what: str
    place: str
    walk: Translation


@dataclass(frozen=True)
class Left:
    """One guest, by its number in the trace. `notes` say what is not in the lists, and why."""

    guest: int
    t: int
    areas: tuple[Area, ...]
    used: tuple[Used, ...]
    mapped: tuple[Mapped, ...]
    walks: tuple[Walked, ...]
    notes: tuple[str, ...]


def look(machine: Machine, uses: Uses, guest: int, t: int) -> Left:
    """Look at a machine that does not run. Raises nothing for what a guest has done to itself: it is said in a note."""
    notes: list[str] = []
    states = list(_states(machine, notes))
    by_host = [*_host_stretches(machine, "host half", uses.half), *_host_stretches(machine, "pyvmm", uses.own)]
    found = list(_leaves(machine, states, notes))  # which reads memory, too
    stretches = [*_guest_stretches(machine, found), *by_host]
    mapped = list(_mapped(found))
    if uses.full:
        notes.append("the host used more pages than are kept")
    for name, rows in (("stretches of used memory", stretches), ("stretches of the page tables", mapped)):
        if len(rows) > MAX_STRETCHES:
            notes.append(f"{len(rows) - MAX_STRETCHES} more {name} are left out")
    return Left(
        guest, t, tuple(islice(_areas(machine), MAX_STRETCHES)), tuple(stretches[:MAX_STRETCHES]),
        tuple(mapped[:MAX_STRETCHES]), tuple(_walks(machine, states)), tuple(notes),
    )  # fmt: skip


def _states(machine: Machine, notes: list[str]) -> Iterator[tuple[int, Regs, Sregs]]:
    for cpu in machine.cpus:
        try:
            yield cpu.index, cpu.vcpu.get_regs(), cpu.vcpu.get_sregs()
        except VmmError as error:
            notes.append(f"vCPU {cpu.index}: {error.text}")


def _leaves(machine: Machine, states: list[tuple[int, Regs, Sregs]], notes: list[str]) -> Iterator[Leaf]:
    """Of each set of tables that some vCPU has loaded, once."""
    loaded = {(sregs.cr3, sregs.cr4, sregs.efer, sregs.cr0) for _, _, sregs in states if sregs.cr0 >> 31}
    if states and not loaded:
        notes.append("paging is off at the end: what the guest has used is not noted anywhere")
    if len({cr3 for cr3, *_ in loaded}) > 1:
        notes.append("the vCPUs have page tables of their own; they are shown together")
    budget = [MAX_TABLES]
    for cr3, cr4, efer, cr0 in sorted(loaded):
        yield from leaves(machine.memory.read, cr3, cr4, efer, cr0, budget)
    if not budget[0]:
        notes.append(f"there are more than {MAX_TABLES} page tables, of which only those were looked at")


def _guest_stretches(machine: Machine, found: Iterable[Leaf]) -> Iterator[Used]:
    """What the CPU noted, page by page; of a page of 1 GiB or 2 MiB, that somewhere in it is all that is known."""
    pages: dict[tuple[int, int], tuple[bool, bool]] = {}
    for leaf in found:
        if leaf.accessed and machine.memory.slot_at(leaf.gpa) is not None:
            _, wrote = pages.get((leaf.gpa, leaf.size), (True, False))
            pages[leaf.gpa, leaf.size] = (True, wrote or leaf.dirty)
    for (base, page), (size, (read, wrote)) in _joined(pages):
        yield Used(base, size, "guest", read, wrote, page, place(machine, base))


def _host_stretches(machine: Machine, by: str, of: tuple[set[int], set[int]]) -> Iterator[Used]:
    read, wrote = of
    pages = {(page * PAGE, PAGE): (page in read, page in wrote) for page in read | wrote}
    for (base, page), (size, (did_read, did_write)) in _joined(pages):
        yield Used(base, size, by, did_read, did_write, page, place(machine, base))


def _joined(
    pages: dict[tuple[int, int], tuple[bool, bool]],
) -> Iterator[tuple[tuple[int, int], tuple[int, tuple[bool, bool]]]]:
    """((base, page), (size, what was done)) of neighbours with the same."""
    begin: tuple[int, int] | None = None
    size, did = 0, (False, False)
    for (base, page), each in sorted(pages.items()):
        if begin is not None and (base, page, each) == (begin[0] + size, begin[1], did):
            size += page
            continue
        if begin is not None:
            yield begin, (size, did)
        begin, size, did = (base, page), page, each
    if begin is not None:
        yield begin, (size, did)


def _rights(leaf: Leaf) -> str:
    return f"r{'w' if leaf.writable else '-'}{'x' if leaf.executable else '-'}{'u' if leaf.user else '-'}"


def _mapped(found: Iterable[Leaf]) -> Iterator[Mapped]:
    last: Mapped | None = None
    for leaf in found:
        rights = _rights(leaf)
        if last is not None and (leaf.va, leaf.gpa, rights) == (last.va + last.size, last.gpa + last.size, last.rights):
            last = Mapped(last.va, last.gpa, last.size + leaf.size, rights)
            continue
        if last is not None:
            yield last
        last = Mapped(leaf.va, leaf.gpa, leaf.size, rights)
    if last is not None:
        yield last


def _areas(machine: Machine) -> Iterator[Area]:
    """The rows of pyvmm's own map where the guest has it, else the memslots."""
    if not own_map(machine):
        for slot in machine.memory.slots:
            rights = "r-x" if slot.readonly else "rwx"
            yield Area(slot.gpa, slot.size, f"memslot {slot.slot}", rights, place(machine, slot.gpa), ram=True)
        return
    end = max((slot.end for slot in machine.memory.slots if slot.gpa < layout.LOW_RAM_END), default=0)
    free: list[tuple[int, layout.Region]] = []
    for base, row in layout.rows_below(min(end, layout.LOW_RAM_END), len(machine.cpus)):
        if row is layout.FREE:
            free.append((base, row))
            continue
        which = layout.describe(base).rpartition("+")[0] or row.name
        yield Area(base, row.size, which, _row_rights(row), row.what, ram=True)
    if free:
        yield Area(free[0][0], end - free[0][0], "free", _row_rights(layout.FREE), "plain RAM", ram=True)
    for row in layout.MAP:
        if not row.ram:
            yield Area(row.base, row.size, row.name, _row_rights(row), row.what, ram=False)


def _row_rights(row: layout.Region) -> str:
    marks = (("r", row.mapped), ("w", row.writable), ("x", row.executable), ("u", row.user))
    return "".join(letter if has else "-" for letter, has in marks)


def own_map(machine: Machine) -> bool:
    """Do the names of pyvmm's guest map mean anything to this guest?"""
    return machine.board.name == "own" and (machine.program is None or machine.program.place_at(0) is None)


def _walks(machine: Machine, states: list[tuple[int, Regs, Sregs]]) -> Iterator[Walked]:
    """Of the entry, and of each vCPU's RIP, stack and last page fault."""
    if states and machine.program is not None:
        yield _walked(machine, states[0][2], "the entry", machine.program.entry)
    for index, regs, sregs in states[:MAX_WALKED]:
        yield _walked(machine, sregs, f"vCPU {index}: RIP at the end", linear(sregs, regs.rip))
        stack = regs.rsp - PUSH + (0 if sregs.cs.l else sregs.ss.base)
        yield _walked(machine, sregs, f"vCPU {index}: where the next push goes", stack)
        if sregs.cr2:
            yield _walked(machine, sregs, f"vCPU {index}: the last page fault (CR2)", sregs.cr2)


def _walked(machine: Machine, sregs: Sregs, what: str, address: int) -> Walked:
    walk = translate(machine.memory, sregs, address)
    return Walked(what, "" if walk.gpa is None else place(machine, walk.gpa), walk)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of translate: random tables, sound and unsound, and three who walk them."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from vmm.abi.x86 import LARGE_PAGE, PAGE
from vmm.machine.memory.layout import REGIONS
from vmm.machine.x86.page_entries import NX, PRESENT, PSE, ROOT, RW, USER
from vmm.machine.x86.page_walk import Fault, Translation, walk
from vmm.payload.guest import Guest
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

_ROW = struct.Struct("<QQQ")
POOL = REGIONS["data"].base + 0x10000  # pages for tables: by level, 3 (PDPT) to 1
PAGES = {3: 2, 2: 3, 1: 4}
FILLED = 10  # entries of each table
ROOTS = (1, 2, 3, 4)  # of the PML4
TAGGED = range(LARGE_PAGE, 2 * LARGE_PAGE)  # RAM that holds its own address
NOWHERE = 0xF_FFFF_F000  # a page that no RAM of ours backs
EVEN_ADDRESS = ~7


@dataclass(frozen=True)
class One:
    """One linear address: what each made of it (None: no page). The CPU's is -1 where it was not asked."""

    va: int
    kvm: int | None
    walked: int | None
    fault: str
    cpu: int | None


@dataclass
class Evidence:
    """All addresses of all tables."""

    looked_up: list[One] = field(default_factory=list)


@dataclass(frozen=True)
class Tables:
    """Random tables: `pages` by address, `roots` the entries of the PML4, `filled` the indices in use by level."""

    pages: dict[int, list[int]]
    roots: dict[int, int]
    filled: dict[int, tuple[int, ...]]


def random_tables(rng: random.Random, maxphyaddr: int, gib_pages: bool) -> Tables:
    """Tables of every kind: links, small and large pages, entries not present, reserved bits set, links to no RAM."""
    addresses: dict[int, list[int]] = {}
    at = POOL
    for level, count in PAGES.items():
        addresses[level] = [at + PAGE * i for i in range(count)]
        at += PAGE * count
    filled = {level: tuple(rng.sample(range(512), FILLED)) for level in PAGES}
    pages = {}
    for level, places in addresses.items():
        for place in places:
            table = [0] * 512
            for index in filled[level]:
                table[index] = _entry(rng, level, addresses.get(level - 1, []), maxphyaddr, gib_pages)
            pages[place] = table
    roots = {index: _entry(rng, 4, addresses[3], maxphyaddr, gib_pages) for index in ROOTS}
    return Tables(pages, roots, filled)


def _entry(rng: random.Random, level: int, below: Sequence[int], maxphyaddr: int, gib_pages: bool) -> int:
    rights = rng.choice((0, RW)) | rng.choice((0, USER)) | rng.choice((0, 0, 0, NX))
    kind = rng.random()
    if kind < 0.1:
        return rng.getrandbits(63) & ~PRESENT
    if level == 1:
        entry = rng.choice(TAGGED[::PAGE]) | rights | PRESENT
    elif (level == 2 and kind < 0.45) or (level == 3 and kind < (0.4 if gib_pages else 0.15)):
        entry = (TAGGED.start if level == 2 else 0) | rights | PRESENT | PSE
    else:
        entry = (NOWHERE if kind > 0.96 else rng.choice(below)) | rights | PRESENT
    if rng.random() < 0.06:  # something reserved: beyond the CPU's addresses, or below a large page's
        wide = [1 << bit for bit in range(maxphyaddr, 52)]
        low = [1 << 13] if entry & PSE and 1 < level < 4 else [PSE] if level == 4 else []
        entry |= rng.choice([*wide, *low] or [0])
    return entry


def random_address(rng: random.Random, tables: Tables) -> int:
    """Through entries in use, most of the time."""
    va = rng.choice(ROOTS) << 39
    for level, shift in ((3, 30), (2, 21), (1, 12)):
        index = rng.choice(tables.filled[level]) if rng.random() < 0.93 else rng.randrange(512)
        va |= index << shift
    return va | rng.randrange(PAGE) & EVEN_ADDRESS


def prove(lab: Lab) -> Finding:
    rng = random.Random(lab.param("seed"))
    evidence = Evidence()
    for _ in range(lab.param("tables")):
        with lab.guest() as guest:
            evidence.looked_up += _look_up(guest, rng)
    return judge(evidence)


def _look_up(guest: Guest, rng: random.Random) -> list[One]:
    machine = guest.machine
    model, memory, vcpu = machine.cpuid, machine.memory, machine.cpus[0].vcpu
    maxphyaddr = model.register(0x80000008, 0, "eax") & 0xFF or 36
    gib_pages = bool(model.register(0x80000001, 0, "edx") >> 26 & 1)
    tables = random_tables(rng, maxphyaddr, gib_pages)
    memory.write(TAGGED.start, struct.pack(f"<{len(TAGGED) // 8}Q", *TAGGED[::8]))
    for address, entries in tables.pages.items():
        memory.write(address, struct.pack("<512Q", *entries))
    for index, entry in tables.roots.items():
        memory.pack("Q", ROOT + 8 * index, entry)
    addresses = [random_address(rng, tables) for _ in range(guest.params["addresses"])]
    sregs = vcpu.get_sregs()
    walks = [
        walk(
            memory.read_u64, sregs.cr3, sregs.cr4, sregs.efer, sregs.cr0, va,
            maxphyaddr=maxphyaddr, gib_pages=gib_pages,
        )
        for va in addresses
    ]  # fmt: skip
    translated = [translate(guest, va) for va in addresses]
    read = _read(guest, [va for va, each in zip(addresses, walks, strict=True) if _readable(each)])
    return [
        One(va, kvm, each.gpa, str(each.fault), read.get(va, -1))
        for va, kvm, each in zip(addresses, translated, walks, strict=True)
    ]


def translate(guest: Guest, va: int) -> int | None:
    """KVM's answer."""
    return guest.machine.cpus[0].vcpu.translate(va)


def _readable(found: Translation) -> bool:
    """What the CPU may be asked: it ends in our RAM, or in a fault before it leaves RAM."""
    return found.gpa in TAGGED if found.gpa is not None else found.fault is not Fault.UNREADABLE


def _read(guest: Guest, addresses: list[int]) -> dict[int, int | None]:
    """What the guest itself reads there; None for a page fault."""
    memory, place = guest.machine.memory, guest.constant("LIST")
    memory.write(place, b"".join(_ROW.pack(va, 0, 0) for va in addresses) + bytes(8))
    run_to_pass(guest)
    rows = _ROW.iter_unpack(memory.read(place, _ROW.size * guest["read"]))
    return {va: None if faulted else value for va, value, faulted in rows}


def judge(evidence: Evidence) -> Finding:
    """All three agree on every address, and there were pages and faults among them."""
    pages = [one for one in evidence.looked_up if one.walked is not None]
    asked = [one for one in evidence.looked_up if one.cpu != -1]
    kinds = sorted({one.fault for one in evidence.looked_up if one.fault})
    numbers = {
        "addresses": len(evidence.looked_up),
        "of which pages": len(pages),
        "read by the guest": len(asked),
        **{f"faults: {kind}": sum(one.fault == kind for one in evidence.looked_up) for kind in kinds},
    }
    for one in evidence.looked_up:
        if one.kvm != one.walked:
            text = f"{one.va:#x}: KVM_TRANSLATE says {_shown(one.kvm)}, pyvmm's walk {_shown(one.walked)} {one.fault}"
            return Finding(Verdict.BROKEN, text.rstrip(), numbers)
        if one.cpu not in (-1, one.walked):
            text = f"{one.va:#x}: the guest finds {_shown(one.cpu)}, KVM_TRANSLATE and pyvmm {_shown(one.walked)}"
            return Finding(Verdict.BROKEN, text, numbers)
    if not pages or not kinds or not asked:
        return Finding(Verdict.UNPROVEN, "the random tables had no page, or no fault; try another seed", numbers)
    summary = f"{len(evidence.looked_up)} random addresses: KVM, pyvmm and the guest agree, {len(pages)} are pages"
    return Finding(Verdict.WORKS, "", numbers, summary)


def _shown(gpa: int | None) -> str:
    return "no page" if gpa is None else f"{gpa:#x}"

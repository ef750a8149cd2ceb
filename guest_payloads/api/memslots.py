# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of memslots: it lays the slots out, and changes one from a thread of its own while the guest reads it."""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from queue import SimpleQueue

from vmm.abi.ports import DELAY
from vmm.abi.x86 import PAGE
from vmm.errors import KvmCallError, errno_name
from vmm.kvm import memory as host
from vmm.machine.memory.layout import REGIONS
from vmm.machine.memory.slots import GuestMemory, Memslot
from vmm.payload.guest import Guest
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict

PLACES = 8
NOBODY = 0x5A5A5A5A  # what the device in the holes answers to each read of 4 bytes
HOLE_ANSWER = NOBODY << 32 | NOBODY
FIRST, SECOND, LAST, BESIDE = 0x1111_0001, 0x1111_0002, 0xAAAA_AAAA, 0xBBBB_BBBB
ROM, WRITTEN = 0x0123_4567_89AB_CDEF, 0x7777
ALIAS, ALIAS_BACK = 0x1111, 0x2222


@dataclass(frozen=True)
class Evidence:
    """What the guest `read`, by result; MMIO reads and writes that came to the VMM; what lies in the read-only page
    after all; `resize` is KVM's answer to a slot with another size.
    """

    read: Mapping[str, int]
    holes_read: int
    rom_reads: int
    rom_writes: tuple[int, ...]
    rom: int
    resize: str
    slots: int


class Changer:
    """Changes the slot, on a thread of its own, each time that the guest asks; then says so in guest memory."""

    def __init__(self, memory: GuestMemory, slot: Memslot, to: int) -> None:
        self._memory, self._slot, self._to = memory, slot, to
        self._asked: SimpleQueue[int] = SimpleQueue()
        self._errors: list[BaseException] = []
        self.resize = ""
        self._thread = threading.Thread(target=self._live, name="memslots", daemon=True)
        self._thread.start()

    def ask(self, number: int) -> None:
        """The guest wants change `number`; 0 ends the thread."""
        self._asked.put(number)

    def _live(self) -> None:
        try:
            while number := self._asked.get():
                self._change(number)
                self._memory.write_u64(REGIONS["user"].base, number)
        except BaseException as error:
            self._errors.append(error)

    def _change(self, number: int) -> None:
        memory, slot = self._memory, self._slot
        if number == 1:
            self.resize = resize_refused(memory, slot)
            self._slot = memory.move(slot, self._to)
        elif number == 2:
            self._slot = memory.resize(slot, PAGE)
        elif number == 3:
            self._slot = memory.resize(slot, 2 * PAGE)
        else:
            memory.remove(slot)

    def close(self) -> None:
        """End the thread. What it raised is raised here."""
        self.ask(0)
        self._thread.join()
        if self._errors:
            raise self._errors[0]


def resize_refused(memory: GuestMemory, slot: Memslot) -> str:
    """What KVM says to the same slot with another size: the API has no such change."""
    try:
        memory.vm.set_user_memory_region(slot.slot, slot.gpa, slot.mapping, offset=slot.offset, size=slot.size // 2)
    except KvmCallError as error:
        return errno_name(error.errno)
    return "accepted"


def lay_out(guest: Guest, base: int) -> Memslot:
    """The slots of the lesson; the one that will be changed."""
    memory = guest.machine.memory
    place = guest.constant("PLACE")
    slot = memory.add(base, 2 * PAGE)
    memory.add(base + 2 * PAGE, PAGE)
    memory.add(base + place, PAGE, readonly=True)
    page = host.Mapping(PAGE)
    memory.add(base + 2 * place, PAGE, mapping=page)
    memory.add(base + 3 * place, PAGE, mapping=page)
    memory.write_u64(base, FIRST)
    memory.write_u64(base + PAGE, SECOND)
    memory.write(base + 2 * PAGE - 4, struct.pack("<II", LAST, BESIDE))
    memory.write_u64(base + place, ROM)
    return slot


def prove(lab: Lab) -> dict[str, Finding]:
    base = lab.param("base")
    with lab.guest() as guest:
        machine = guest.machine
        slot, place = lay_out(guest, base), guest.constant("PLACE")
        guest.open_to_ring3(base, PLACES * place)
        guest.open_to_ring3(REGIONS["results"].base)
        slots = len(machine.memory.slots)
        holes, rom_writes = Holes(place), []
        mmio = machine.platform.mmio
        mmio.claim_reads(base, PLACES * place, "holes", holes.read)
        mmio.claim_writes(base, PLACES * place, "read-only memory", lambda _at, _size, value: rom_writes.append(value))
        changer = Changer(machine.memory, slot, base + 4 * place)
        machine.on_port_write(DELAY, changer.ask)
        try:
            run_to_pass(guest)
        finally:
            changer.close()
        read = {name: guest[name] for name in guest.header.results}
        rom = machine.memory.read_u64(base + place)
        return judge(Evidence(read, holes.reads, holes.rom_reads, tuple(rom_writes), rom, changer.resize, slots))


class Holes:
    """Answers reads that exit with NOBODY in every 4 bytes; counts them, and those of read-only memory."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.reads = self.rom_reads = 0

    def read(self, offset: int, size: int) -> int:
        self.reads += 1
        self.rom_reads += offset // self.place == 1
        return HOLE_ANSWER & (1 << 8 * size) - 1


def judge(seen: Evidence) -> dict[str, Finding]:
    """All four rows from the evidence alone."""
    return {
        "memslots": _judge(
            seen,
            {"hole": HOLE_ANSWER, "first": FIRST, "across": BESIDE << 32 | LAST},
            {"slots": seen.slots, "reads of holes": seen.holes_read},
            "" if seen.holes_read else "no read of a hole came to the VMM",
            f"{seen.slots} slots, a read across the edge of two, a hole that a device answers",
        ),
        "readonly_slots": _judge(
            seen,
            {"rom": ROM, "rom_after": ROM},
            {"writes that exited": len(seen.rom_writes), "reads that did": seen.rom_reads, "the page": hex(seen.rom)},
            _readonly(seen),
            "reads are memory; the write exited, and the page is what it was",
        ),
        "aliased_slots": _judge(
            seen,
            {"alias": ALIAS, "alias_back": ALIAS_BACK},
            {},
            "",
            "one page of the host at two addresses: each write is seen at the other",
        ),
        "moved_slots": _judge(
            seen,
            {
                "moved_new": FIRST,
                "moved_old": HOLE_ANSWER,
                "shrunk_in": FIRST,
                "shrunk_out": HOLE_ANSWER,
                "grown": SECOND,
                "deleted": HOLE_ANSWER,
            },
            {"reads meanwhile": seen.read["turns"], "KVM's answer to another size": seen.resize},
            "" if seen.read["turns"] >= 4 else "the guest was not reading when the slots changed",
            f"moved, resized and deleted while the guest read it {seen.read['turns']} times",
        ),
    }


def _readonly(seen: Evidence) -> str:
    if seen.rom != ROM:
        return f"a write reached the read-only page: {seen.rom:#x}"
    if seen.rom_reads:
        return f"{seen.rom_reads} reads exited, and memory should have answered them"
    if seen.rom_writes != (WRITTEN,):
        return f"{len(seen.rom_writes)} writes exited, and the guest made one"
    return ""


def _judge(seen: Evidence, want: Mapping[str, int], numbers: Mapping[str, object], wrong: str, summary: str) -> Finding:
    evidence = {name: f"{seen.read[name]:#x}" for name in want} | dict(numbers)
    for name, value in want.items():
        if seen.read[name] != value:
            return Finding(Verdict.BROKEN, f"{name}: the guest read {seen.read[name]:#x}, not {value:#x}", evidence)
    if wrong:
        return Finding(Verdict.BROKEN, wrong, evidence)
    return Finding(Verdict.WORKS, "", evidence, summary)


def refusals(lab: Lab) -> dict[str, list[Refusal]]:
    """KVM changes no size, and lets no slot lie over another."""
    with lab.guest() as guest:
        memory, base = guest.machine.memory, lab.param("base")
        slot = memory.add(base, 2 * PAGE)
        other = host.Mapping(PAGE)
        try:
            memory.vm.set_user_memory_region(100, base + PAGE, other)
            overlap = "accepted"
        except KvmCallError as error:
            overlap = errno_name(error.errno)
            other.close()
        return {
            "memslots": [Refusal("argument", "a slot over another one", "EEXIST", overlap)],
            "moved_slots": [Refusal("argument", "another size for a slot", "EINVAL", resize_refused(memory, slot))],
        }

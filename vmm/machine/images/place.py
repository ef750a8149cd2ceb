# SPDX-License-Identifier: GPL-2.0-or-later
"""An image into a machine: what goes where, and how vCPU 0 starts. First a plan of plain values, in which everything
fits or ImageError says what does not; then memory and registers are written, and nothing can go wrong any more.

Sources for the state of a CPU at the entry: boot.rst (64-bit and 32-bit protocol), Multiboot Specification 0.6.96, 3.2,
Xen's docs/misc/pvh.pandoc; Intel SDM vol. 3A, 9.8.5 (long mode).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vmm.abi.bios import BDA_ADDRESS
from vmm.abi.bootparam import BOOT_CS, BOOT_DS
from vmm.abi.x86 import LARGE_PAGE, PAGE
from vmm.errors import ImageError
from vmm.kvm import state
from vmm.machine.images.bios import DATA_AREA, data_areas, services
from vmm.machine.images.image import (
    NO_PROTOCOL,
    Handover,
    Image,
    Mode,
    Module,
    Room,
    Segment,
    Span,
    World,
    overlap,
    refuse_files,
    segment,
)
from vmm.machine.memory.layout import (
    FOUR_GIB,
    GIB,
    LOW_RAM_END,
    REGIONS,
    default_memory,
    format_size,
    host_memory,
)
from vmm.machine.x86 import boot, descriptors, modes
from vmm.machine.x86.descriptors import CODE, TSS_BUSY
from vmm.machine.x86.descriptors import Segment as Descriptor
from vmm.machine.x86.page_entries import ENTRIES, PRESENT, PSE, RW

MIB = 1 << 20
STACK = 0x4000
TASK, TASK_SELECTOR = 104, 0x20
OWN_TABLES = ("gdt", "idt", "gates", "page_tables")


@dataclass(frozen=True)
class Plan:
    """What will be written, and how vCPU 0 starts. `own`: with the tables of pyvmm's own map, and nothing else. `bios`
    is the memory map that BIOS services tell, where the guest has them.
    """

    segments: tuple[Segment, ...]
    mode: Mode
    entry: int
    registers: Mapping[str, int] = field(default_factory=dict)
    code: int = 0
    data: int = 0
    gdt: Span = (0, 0)
    idt: Span = (0, 0)
    cr3: int = 0
    task: int = 0
    own: bool = False
    bios: tuple[tuple[int, int, int], ...] = ()


def plan(
    image: Image,
    ram: tuple[Span, ...],
    *,
    reserved: tuple[Span, ...] = (),
    tables: tuple[Segment, ...] = (),
    rsdp: int = 0,
    cpus: int = 1,
    command_line: bytes = b"",
    initrd: bytes | None = None,
    modules: tuple[Module, ...] = (),
) -> Plan:
    """Where everything goes. `tables` are the board's own (ACPI), which lie in `reserved` places; an image may lie in
    those too, where there is RAM and no table: a linker's `-Ttext=0x100000` puts the file header right below. `ram` and
    `reserved` are (guest-physical address, bytes), `rsdp` the guest-physical address of ACPI's first table or 0, `cpus`
    the number of vCPUs, `command_line` and `initrd` the bytes that the image's protocol hands over.

    Raises:
        ImageError: something does not fit, or overlaps something else.
    """
    _check_fits(image, ram)
    if runs_in_own_map(image):
        refuse_files(image.name, command_line, initrd, modules, why=NO_PROTOCOL)
        return Plan(image.segments, image.mode, image.entry, own=True)
    if b"\0" in command_line:
        raise ImageError(f"{image.name}: a command line ends at its first NUL byte, and this one has one inside")
    taken = [(each.gpa, each.size) for each in (*image.segments, *tables)]
    room = Room(ram, (*taken, *reserved, (0xA_0000, 0x6_0000)))
    world = World(ram, room, reserved, command_line, initrd, modules, rsdp, cpus, tables)
    handover = Handover()
    if image.boot is not None:
        handover = image.boot(world)
    else:
        refuse_files(image.name, command_line, initrd, modules, why=NO_PROTOCOL)
    made = _surroundings(image, room, ram)
    segments = (*image.segments, *tables, *handover.segments, *made.segments)
    if image.boot is not None:
        segments = (*segments, *data_areas(segments, ram))
    served = services(segments) if image.bios else ()
    segments = (*segments, *served)
    if both := overlap(segments):
        first, second = both
        raise ImageError(f"{image.name}: {_shown(first)} and {_shown(second)} overlap")
    real = image.mode == "real"
    start = image.entry + (handover.code << 4 if image.mode == "real" else 0)
    if not any(each.gpa <= start < each.end for each in segments):
        raise ImageError(f"{image.name}: {image.format}: it would start at {start:#x}, where nothing of it lies")
    return Plan(
        segments, image.mode, image.entry, dict(made.registers) | dict(handover.registers),
        code=handover.code if real else BOOT_CS, data=handover.data if real else BOOT_DS,
        gdt=made.gdt, idt=made.idt, cr3=made.cr3, task=made.task,
        bios=tuple(world.memory_map()) if served else (),
    )  # fmt: skip


def runs_in_own_map(image: Image) -> bool:
    """A 64-bit image without a boot protocol, linked for the regions where pyvmm's payloads live, runs as they do."""
    if image.mode != "long" or image.boot is not None or not image.segments:
        return False
    low, high, code = REGIONS["code"].base, REGIONS["data"].end, REGIONS["code"]
    inside = all(low <= each.gpa and each.end <= high for each in image.segments)
    return inside and all(each.end <= code.end for each in image.segments if each.executable) and image.entry in code


def usual_memory(image: Image, files: Iterable[bytes], cpus: int) -> int:
    """Bytes of RAM for an image and the files that go with it, if nobody says how many; at most what the host has."""
    least = default_memory(cpus)
    if runs_in_own_map(image):
        return least
    # What lies where no host has memory is told by whoever places it, with its address.
    return max(least, min(image.memory(*files), host_memory() // MIB * MIB), 128 * MIB)


def _check_fits(image: Image, ram: tuple[Span, ...]) -> None:
    if both := overlap(image.segments):
        first, second = both
        raise ImageError(f"{image.name}: {_shown(first)} and {_shown(second)} overlap")
    for each in image.segments:
        if not any(base <= each.gpa and each.end <= base + size for base, size in ram):
            have = " and ".join(f"{base:#x}..{base + size - 1:#x}" for base, size in ram)
            total = format_size(sum(size for _, size in ram))
            raise ImageError(
                f"{image.name}: {_shown(each)} does not fit into the guest's memory of {total} ({have})",
                hint=_where_it_would(each),
            )


def _where_it_would(each: Segment) -> str:
    """What to try for a part that is beyond all memory: how much would be needed, or why none would help."""
    if each.gpa < FOUR_GIB and each.end > LOW_RAM_END:
        hole = f"{LOW_RAM_END:#x}..{FOUR_GIB - 1:#x}"
        return f"less of it, or another address: devices of a PC have {hole}, and no memory is there"
    least = each.end if each.end <= LOW_RAM_END else each.end - FOUR_GIB + LOW_RAM_END
    if least <= host_memory():
        return f"--memory {format_size(-(-least // MIB) * MIB)}, or more"
    if each.gpa > host_memory() + FOUR_GIB:
        return "a physical address: AT(...) in the linker's script says it (p_paddr), or -Ttext=0x100000"
    return f"less of it, or another host: {host_memory() // MIB}M is all the memory that this one has"


def _shown(each: Segment) -> str:
    return f"{each.what} at {each.gpa:#x}..{max(each.end, each.gpa + 1) - 1:#x}"


# --- what a mode needs around it -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Surroundings:
    """Descriptor table, page tables, stack: what the mode of an entry rests on, in free places."""

    segments: tuple[Segment, ...] = ()
    registers: Mapping[str, int] = field(default_factory=dict)
    gdt: Span = (0, 0)
    idt: Span = (0, 0)
    cr3: int = 0
    task: int = 0


def _surroundings(image: Image, room: Room, ram: tuple[Span, ...]) -> Surroundings:
    if image.mode == "real":
        return Surroundings()
    wide = image.mode == "long"
    parts: list[Segment] = []
    idt = _gates(room, parts) if wide and image.boot is None else (0, 0)
    task = room.take(TASK, "a task state segment", align=16)
    table = gdt(wide, task)
    gdt_at = room.take(len(table), "the GDT", align=16)
    parts += [segment(task, bytes(TASK), "a task state segment"), segment(gdt_at, table, "the GDT")]
    stack = room.take(STACK, "a stack", align=PAGE)
    parts.append(Segment(stack, b"", STACK, "a stack"))
    cr3 = 0
    if wide:
        size = sum(page_table_bytes(ram))
        cr3 = room.take(size, "page tables", align=PAGE)
        parts.append(segment(cr3, identity_map(cr3, ram), "page tables"))
    return Surroundings(tuple(parts), {"rsp": stack + STACK}, (gdt_at, len(table)), idt, cr3, task)


def _gates(room: Room, parts: list[Segment]) -> Span:
    """The gates by which pyvmm's payloads report an exception, for code that has none yet. They have one place; where
    the image lies there itself, its exceptions are a triple fault.
    """
    table, stubs = REGIONS["idt"], REGIONS["gates"]
    try:
        for region in (table, stubs):
            room.reserve(region.base, region.size, region.name)
    except ImageError:
        return 0, 0
    parts.append(segment(table.base, descriptors.idt(ist1_vectors=frozenset()), "the IDT"))
    parts.append(segment(stubs.base, descriptors.gates(), "gates"))
    return table.base, table.size


def gdt(wide: bool, task: int) -> bytes:
    """Null, flat code at KERNEL_CS and BOOT_CS, flat data at BOOT_DS, a TSS."""
    code = Descriptor(BOOT_CS, type=CODE, l=int(wide), db=int(not wide))
    tss = Descriptor(TASK_SELECTOR, task, TASK - 1, TSS_BUSY, s=0, g=0)
    return bytes(8) + 2 * code.encode() + Descriptor(BOOT_DS, db=1).encode() + tss.encode()


def page_table_bytes(ram: tuple[Span, ...]) -> tuple[int, int]:
    """Bytes of the upper tables and of the page directories that map 4 GiB and all RAM."""
    directories = -(-max(FOUR_GIB, *(base + size for base, size in ram)) // GIB)
    return PAGE * (1 + -(-directories // ENTRIES)), PAGE * directories


def identity_map(at: int, ram: tuple[Span, ...]) -> bytes:
    """Page tables for `at`: virtual equals physical for the first 4 GiB and for RAM above, by 2 MiB pages, ring 0 may
    read, write and run everything.
    """
    upper, lower = page_table_bytes(ram)
    link, leaf = PRESENT | RW, PRESENT | RW | PSE
    pointers = upper // PAGE - 1
    top = [(at + PAGE * (1 + n)) | link for n in range(pointers)]
    middle = [(at + upper + PAGE * n) | link for n in range(lower // PAGE)]
    leaves = range(leaf, leaf + lower // PAGE * GIB, LARGE_PAGE)
    return (
        struct.pack(f"<{ENTRIES}Q", *top, *[0] * (ENTRIES - len(top)))
        + struct.pack(f"<{pointers * ENTRIES}Q", *middle, *[0] * (pointers * ENTRIES - len(middle)))
        + struct.pack(f"<{len(leaves)}Q", *leaves)
    )


# --- into a machine --------------------------------------------------------------------------------------------------


def put(plan: Plan, machine: Any) -> None:
    """Write a plan's memory, and make vCPU 0 start by it; the others stay as they are after a reset."""
    if plan.own:
        boot.write_tables(machine.memory, len(machine.cpus))
    for each in plan.segments:
        if each.data:
            machine.memory.write(each.gpa, bytes(each.data))
        machine.memory.clear(each.gpa + len(each.data), each.size - len(each.data))
    if plan.own:
        machine.start(0, plan.entry)
        return
    if plan.bios:
        from vmm.machine.extra.bios import attach

        area = any(each.gpa == BDA_ADDRESS and each.what == DATA_AREA for each in plan.segments)
        attach(machine, machine.sink, plan.bios, area=area)
        machine.board.as_a_bios_leaves_it(machine)
    machine.reach.anywhere = True  # its page tables are not those of boot
    vcpu = machine.cpus[0].vcpu
    mode = {"real": modes.MODES["real"], "protected": modes.MODES["protected32"], "long": modes.KERNEL64}[plan.mode]
    real = plan.mode == "real"
    modes.enter(
        vcpu, mode, plan.entry, code=plan.code, data=plan.data,
        base=plan.code << 4 if real else 0, data_base=plan.data << 4 if real else 0, cr3=plan.cr3,
        gdt=state.Table(plan.gdt[0], plan.gdt[1] - 1) if plan.gdt[1] else None,
        idt=state.Table(plan.idt[0], plan.idt[1] - 1) if plan.idt[1] else None,
        task=(TASK_SELECTOR, plan.task, TASK - 1) if plan.task else None,
        registers=plan.registers,
    )  # fmt: skip

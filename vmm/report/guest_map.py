# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest-physical memory of a machine as areas: what lies where before the first instruction. It makes no machine.

Where: vmm.machine.memory.layout for pyvmm's own map, vmm.machine.images.place for what a person's image gets, the board
for what is reserved. `document` is schemas/map.schema.json, `lines` the same as text; the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from vmm.abi import testdev
from vmm.errors import UsageError
from vmm.machine.boards.others import OTHERS, board_class
from vmm.machine.images.image import Image, Module
from vmm.machine.images.place import plan
from vmm.machine.memory import layout
from vmm.machine.memory.layout import REGIONS, Region, format_size, ram_ranges
from vmm.report.style import Style, printable

SCHEMA = 1
KINDS = ("ram", "free", "code", "guard", "device", "kvm", "reserved", "image")
COLOURS = {
    "code": "good",
    "image": "good",
    "device": "warn",
    "kvm": "warn",
    "guard": "bad",
    "reserved": "bad",
    "free": "dim",
}
BAR = 12  # characters of the picture
MARKS = {"ram": "=", "free": ".", "code": "#", "image": "#", "guard": "!", "device": "o", "kvm": "o", "reserved": "x"}
CODE_REGIONS = ("code", "trampoline", "gates")
BLOCKS = 2  # vCPUs of which each part is an area; the blocks of all others are one


class Area(NamedTuple):
    """`size` bytes from `base`. `rights` are those of the boot page tables (`rwxu`, `-` is not mapped), empty where
    nobody has made tables.
    """

    base: int
    size: int
    name: str
    kind: str
    rights: str
    what: str

    @property
    def last(self) -> int:
        """Its last address."""
        return self.base + self.size - 1


def own_areas(memory: int, cpus: int, parts: Iterable[Area] = (), *, board: str = "own") -> list[Area]:
    """Of a machine whose vCPUs start in pyvmm's own map. `parts` lie inside its regions: code, devices of a header."""
    found = [*_own(memory, cpus), *_devices(board)]
    return _filled(_laid(found, parts), memory)


def image_areas(
    image: Image,
    memory: int,
    cpus: int,
    board: str,
    *,
    command_line: bytes = b"",
    initrd: bytes | None = None,
    modules: tuple[Module, ...] = (),
) -> list[Area]:
    """Of a machine with an image, and what its protocol hands over.

    Raises:
        ImageError: something of it does not fit.
    """
    reserved = () if board == "own" else board_class(board).reserved
    planned = plan(
        image, ram_ranges(memory), reserved=reserved, cpus=cpus, command_line=command_line, initrd=initrd,
        modules=modules,
    )  # fmt: skip
    if planned.own:
        parts = [Area(each.gpa, each.size, each.what, "image", "", image.format) for each in planned.segments]
        return own_areas(memory, cpus, parts, board=board)
    found = [
        Area(each.gpa, each.size, each.what, "image", "", image.format if each in image.segments else "made by pyvmm")
        for each in planned.segments
    ]
    # An image may need what is reserved, as a BIOS' page.
    kept = [
        Area(base, size, "reserved", "reserved", "", "screen and BIOS of a PC: none of it is used")
        for base, size in reserved
    ]
    return _filled(_laid([*kept, *_devices(board)], found), memory)


def _own(memory: int, cpus: int) -> Iterator[Area]:
    limit = min(memory, layout.LOW_RAM_END)
    blocks = REGIONS["cpus"].base, layout.CPU_BLOCK_SIZE
    for base, row in layout.rows_below(limit, min(cpus, BLOCKS)):
        if not row.ram or row.name == "free":
            continue
        name = row.name
        if base >= blocks[0]:
            name = f"vCPU {(base - blocks[0]) // blocks[1]} {row.name}"
        yield _area(base, row, name, limit)
    if cpus > BLOCKS:
        base = blocks[0] + BLOCKS * blocks[1]
        what = f"the same for each: stacks, TSS, guard, {format_size(blocks[1])}"
        yield Area(base, (cpus - BLOCKS) * blocks[1], f"vCPUs {BLOCKS} to {cpus - 1}", "ram", "rw-", what)


def _area(base: int, row: Region, name: str, limit: int = 1 << 52) -> Area:
    rights = f"r{'-w'[row.writable]}{'-x'[row.executable]}{'u' if row.user else ''}" if row.mapped else "-"
    kind = "guard" if not row.mapped else "code" if row.name in CODE_REGIONS else "ram"
    if not row.ram:
        kind = "kvm" if row.name in ("identity_map", "kvm_tss") else "device"
    return Area(base, min(row.size, limit - base), name, kind, rights, row.what)


def _devices(board: str) -> Iterator[Area]:
    for row in layout.MAP:
        if not row.ram and (board == "own" or row.name != "scratch_mmio"):
            yield _area(row.base, row, row.name)
    if board == "testdev":
        yield Area(testdev.IORAM_BASE_PHYS, testdev.IORAM_SIZE, "ioram", "device", "", "memory that is a device")


def _laid(under: Iterable[Area], over: Iterable[Area]) -> list[Area]:
    """Areas upwards; what `over` has cuts a hole into what is under it, whose rest keeps its name."""
    upper = sorted((each for each in over if each.size), key=lambda each: each.base)
    found = list(upper)
    for area in under:
        at, end = area.base, area.base + area.size
        for each in upper:
            if each.base + each.size <= at or each.base >= end:
                continue
            if each.base > at:
                found.append(area._replace(base=at, size=each.base - at))
            at = each.base + each.size
        if at < end:
            found.append(area._replace(base=at, size=end - at))
    return sorted(found, key=lambda each: each.base)


def _filled(areas: list[Area], memory: int) -> list[Area]:
    """With the RAM between and behind that has no name."""
    free = [
        Area(base, size, "free", "free", "", "RAM without a purpose of its own") for base, size in ram_ranges(memory)
    ]
    return _laid(free, areas)


def document(areas: Iterable[Area], **about: Any) -> dict[str, Any]:
    """For programs."""
    rows = [{**each._asdict(), "last": each.last} for each in areas]
    return {"schema": SCHEMA, **about, "areas": rows}


def lines(doc: dict[str, Any], style: Style, width: int) -> list[str]:
    """The picture: a bar, first and last address, size, rights, name, purpose; a gap where nothing is."""
    shown = f"board {doc['board']}, {format_size(doc['memory'])} of RAM, {doc['cpus']} vCPU{'s'[: doc['cpus'] != 1]}"
    found = [style("head", f"{printable(doc['subject'])}: " if doc["subject"] else "") + shown]
    names = max(len(printable(row["name"])) for row in doc["areas"])
    end = 0
    for row in doc["areas"]:
        if row["base"] > end:
            nothing = format_size(row["base"] - end)
            found.append(style("dim", f"  {'':{BAR}}  {'':27}  {nothing:>9}        nothing answers here"))
        end = row["last"] + 1
        bar = MARKS[row["kind"]] * _bar(row["size"])
        text = f"{row['base']:#13x} {row['last']:#13x}  {format_size(row['size']):>9}  {row['rights']:<4}"
        head = f"  {bar:<{BAR}}  {text}  {printable(row['name']):<{names}}  "
        what = printable(row["what"])
        room = max(width - len(head), 12)
        what = what if len(what) <= room else what[: room - 3] + "..."
        colour = COLOURS.get(row["kind"])
        found.append((style(colour, head) if colour else head) + what)
    legend = ", ".join(f"{mark} {kind}" for kind, mark in MARKS.items() if kind in {r["kind"] for r in doc["areas"]})
    return [
        *found,
        style("dim", f"  {legend}; each mark is four times as much; x86 rights: u from ring 3, - not mapped"),
    ]


def _bar(size: int) -> int:
    """Marks: one for a page or less, one more for each factor of four."""
    return min(BAR, max(1, (max(size, 1).bit_length() - 11) // 2))


def check_board(board: str) -> str:
    """UsageError: there is no such board."""
    if board != "own" and board not in OTHERS:
        raise UsageError(f"--board {board}: choose {', '.join(('own', *OTHERS))}")
    return board

# SPDX-License-Identifier: GPL-2.0-or-later
"""An image as values: what lies where, where it starts and how, and what its boot protocol hands over.

A loader makes an Image of bytes; place.py puts it into a machine. Nothing here knows a format, a VM or a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, Protocol, TypeAlias

from vmm.abi.bootparam import BIOS_END, E820_RAM, E820_RESERVED, EBDA
from vmm.abi.x86 import PAGE
from vmm.errors import ImageError
from vmm.machine.memory.layout import FOUR_GIB, LOW_RAM_END

Mode: TypeAlias = Literal["real", "protected", "long"]
MODES: tuple[Mode, ...] = ("real", "protected", "long")
Span: TypeAlias = tuple[int, int]  # first address, bytes

LOWEST = 0x1000
"""Below are the interrupt vectors and the data of a BIOS, as real-mode code knows them."""


@dataclass(frozen=True)
class Segment:
    """`size` bytes from guest-physical `gpa`: `data`, and zeros behind it. `what` names it for a message."""

    gpa: int
    data: bytes
    size: int
    what: str = "segment"
    executable: bool = True

    @property
    def end(self) -> int:
        return self.gpa + self.size


def segment(gpa: int, data: bytes, what: str) -> Segment:
    """A segment that its bytes fill."""
    return Segment(gpa, data, len(data), what, executable=False)


@dataclass(frozen=True)
class Module:
    """A file beside the image, with its name and the arguments that it has of its own."""

    data: bytes
    arguments: bytes = b""
    name: str = ""


class Room:
    """What is free in RAM while an image is placed. Places that are given are taken, and never given twice."""

    def __init__(self, ram: tuple[Span, ...], taken: tuple[Span, ...] = ()) -> None:
        self._ram = ram
        self._taken = sorted((base, base + size) for base, size in taken if size)

    def take(
        self, size: int, what: str, *, align: int = 16, low: int = LOWEST, high: int = FOUR_GIB, top: bool = False
    ) -> int:
        """The address of `size` free bytes in low..high-1, the lowest or (`top`) the highest that is aligned.

        Raises:
            ImageError: there is no such place.
        """
        size = max(size, 1)
        found = [at for span in self._free(low, high) if (at := _fit(span, size, align, top)) is not None]
        if not found:
            most = min(high, LOW_RAM_END) - low  # where no machine has RAM in high and above
            smaller = f"a smaller one: a guest has at most {most} bytes of memory there"
            raise ImageError(
                f"{what}: no room in the guest's memory for {size} bytes at {low:#x}..{high - 1:#x}",
                hint=smaller if size > most and high <= FOUR_GIB else "more memory (--memory)",
            )
        at = found[-1] if top else found[0]
        self._taken.append((at, at + size))
        self._taken.sort()
        return at

    def reserve(self, base: int, size: int, what: str) -> None:
        """Take this place and no other.

        Raises:
            ImageError: it is not free.
        """
        if not any(first <= base and base + size <= end for first, end in self._free(base, base + size)):
            raise ImageError(f"{what}: {base:#x}..{base + size - 1:#x} is not free in the guest's memory")
        self._taken.append((base, base + size))
        self._taken.sort()

    def reserve_rest(self, at: int, align: int) -> None:
        """Take what is left of a unit of `align` bytes: who is told of pages may use all of the last."""
        if at % align:
            self._taken.append((at, -(-at // align) * align))
            self._taken.sort()

    def _free(self, low: int, high: int) -> list[Span]:
        """(first, end) of each free stretch, upwards."""
        free = []
        for base, size in self._ram:
            at, end = max(base, low), min(base + size, high)
            for first, last in self._taken:
                if first >= end:
                    break
                if last > at:
                    if first > at:
                        free.append((at, first))
                    at = last
            if at < end:
                free.append((at, end))
        return free


def _fit(span: Span, size: int, align: int, top: bool) -> int | None:
    first, end = span
    at = (end - size) // align * align if top else -(-first // align) * align
    return at if first <= at and at + size <= end else None


@dataclass(frozen=True)
class World:
    """What a machine tells a boot protocol: `ram` and, in it or not, what is `reserved`; the user's words and files;
    the board's `tables`, and where ACPI's root pointer is among them.
    """

    ram: tuple[Span, ...]
    room: Room
    reserved: tuple[Span, ...] = ()
    command_line: bytes = b""
    initrd: bytes | None = None
    modules: tuple[Module, ...] = ()
    rsdp: int = 0
    cpus: int = 1
    tables: tuple[Segment, ...] = ()

    def table(self, gpa: int, size: int) -> bytes:
        """Bytes of the board's tables; empty where they have none."""
        for each in self.tables:
            if each.gpa <= gpa and gpa + size <= each.end:
                return each.data[gpa - each.gpa : gpa - each.gpa + size]
        return b""

    def lower_and_upper(self) -> tuple[int, int]:
        """(KiB of memory from 0, KiB from 1 MiB to the first hole), as a PC's BIOS counts them."""
        rows = {base: size for base, size, kind in self.memory_map() if kind == E820_RAM.value}
        return min(rows.get(0, 0), EBDA) >> 10, min(rows.get(BIOS_END, 0) >> 10, 0xFFFF_FFFF)

    def memory_map(self) -> list[tuple[int, int, int]]:
        """(first address, bytes, E820 type), upwards and without overlap. A PC's memory ends at its BIOS data, and
        begins again at 1 MiB, whatever the machine has in between.
        """
        reserved = sorted([(EBDA, BIOS_END - EBDA), *self.reserved])
        rows = [(base, size, E820_RESERVED.value) for base, size in _merged(reserved)]
        for base, size in self.ram:
            at, end = base, base + size
            for first, count in _merged(reserved):
                if first < end and first + count > at:
                    if first > at:
                        rows.append((at, first - at, E820_RAM.value))
                    at = first + count
            if at < end:
                rows.append((at, end - at, E820_RAM.value))
        return sorted(rows)


def _merged(spans: list[Span]) -> list[Span]:
    """Spans in order, those that meet as one."""
    merged: list[Span] = []
    for base, size in spans:
        if merged and base <= sum(merged[-1]):
            first, count = merged.pop()
            merged.append((first, max(first + count, base + size) - first))
        else:
            merged.append((base, size))
    return merged


@dataclass(frozen=True)
class Handover:
    """What a boot protocol adds: structures in memory, and registers. `code` and `data` are segments of real mode, in
    paragraphs, where `entry` counts from `code`; in the other modes they are the selectors of flat ones.
    """

    segments: tuple[Segment, ...] = ()
    registers: Mapping[str, int] = field(default_factory=dict)
    code: int = 0
    data: int = 0


Boot: TypeAlias = Callable[[World], Handover]


class Names(Protocol):
    """What an image's code is called. Addresses are as its linker has them, which may be virtual ones."""

    @property
    def symbols(self) -> Mapping[str, int]: ...

    def linked(self, address: int) -> int | None:
        """The address as linked of a virtual or physical one; None outside the image."""

    def source(self, address: int) -> str:
        """`file.c:12`, or empty."""

    @property
    def debug_bytes(self) -> int:
        """How large its line programs are."""

    def rows(self) -> Iterable[tuple[int, int, str, int]]:
        """(address, bytes, file, line) of every stretch of code that they tell of, by address."""


@dataclass(frozen=True)
class Image:
    """What a file is, ready to be placed.

    `format` names it for a person, `protocol` how it is started, `board` the hardware that it expects. `boot` makes
    what its protocol hands over, None where nothing is. `usual` are the bytes of memory that such an image is given if
    nobody says how many. `names` tells of its code, where the file does. `bios`: it may call a BIOS, in real mode.
    `notes` are what a person should know of it.
    """

    name: str
    format: str
    protocol: str
    segments: tuple[Segment, ...]
    entry: int
    mode: Mode
    boot: Boot | None = None
    board: str = "own"
    usual: int = 0
    names: Names | None = None
    bios: bool = False
    notes: tuple[str, ...] = ()

    @property
    def placed(self) -> Image:
        """The same without its bytes: what is still to be known of it once they are in guest memory."""
        segments = tuple(replace(each, data=b"") for each in self.segments)
        return replace(self, segments=segments, boot=None)

    def memory(self, *files: bytes) -> int:
        """Bytes of RAM for it and these files, if nobody says how many; whole MiB."""
        end = max((each.end for each in self.segments), default=0)
        extra = sum(len(each) for each in files)
        least = end + 2 * extra + (1 << 20)
        if end > LOW_RAM_END:
            least = end - FOUR_GIB + LOW_RAM_END if end > FOUR_GIB else 0
        return -(-max(least, self.usual + 4 * extra) // (1 << 20)) * (1 << 20)


def overlap(segments: tuple[Segment, ...]) -> tuple[Segment, Segment] | None:
    """Two segments that share a byte, if any do."""
    rows = sorted((each for each in segments if each.size), key=lambda each: each.gpa)
    for before, after in pairwise(rows):
        if after.gpa < before.end:
            return before, after
    return None


def refuse_files(
    name: str, command_line: bytes, initrd: bytes | None, modules: tuple[Module, ...], *, why: str
) -> None:
    """ImageError where something is given that nobody would find."""
    for given, what in ((command_line, "a command line"), (initrd, "an initrd"), (modules, "modules")):
        if given:
            raise ImageError(
                f"{name}: {why}, so nobody would find {what}", hint="a multiboot or PVH header, or a bzImage"
            )


NO_PROTOCOL = "it has no boot protocol"


def pages(size: int) -> int:
    """`size` in whole pages, as bytes."""
    return -(-size // PAGE) * PAGE

# SPDX-License-Identifier: GPL-2.0-or-later
"""What multiboot and PVH hand over alike: words and files in free memory, and where they came to lie."""

from __future__ import annotations

from typing import NamedTuple

from vmm.abi.x86 import PAGE
from vmm.machine.images.image import Module, Segment, World, segment

LOADER = b"pyvmm"
ABOVE = 0x10_0000


class Placed(NamedTuple):
    """A module in guest memory, and its words: its name, and its arguments."""

    at: int
    size: int
    words: bytes


class Handing:
    """Collects the segments of a handover while places are taken for them."""

    def __init__(self, world: World, image_end: int) -> None:
        self.world = world
        self.segments: list[Segment] = []
        self._above = max(image_end, ABOVE)

    def give(self, data: bytes, what: str, *, align: int = 8) -> int:
        """Put bytes into low memory, where a kernel finds them before it has any map; their address."""
        at = self.world.room.take(len(data), what, align=align)
        self.segments.append(segment(at, data, what))
        return at

    def words(self, text: bytes, what: str) -> int:
        """A string with its NUL."""
        return self.give(text + b"\0", what, align=1)

    def above(self, data: bytes, what: str) -> int:
        """Put bytes above the image, where there is room for many; their address."""
        at = self.world.room.take(len(data), what, align=PAGE, low=self._above)
        self.segments.append(segment(at, data, what))
        return at

    def module(self, module: Module, number: int) -> Placed:
        """A module on pages of its own, above the image as loaders have it."""
        what = f"module {number}" + (f" ({module.name})" if module.name else "")
        at = self.above(module.data, what)
        self.world.room.reserve_rest(at + len(module.data), PAGE)
        words = b" ".join(each for each in (module.name.encode("utf-8", "surrogateescape"), module.arguments) if each)
        return Placed(at, len(module.data), words)

    def modules(self) -> list[Placed]:
        """The initrd, where one is given, and all modules, in order."""
        first = [Module(self.world.initrd, name="initrd")] if self.world.initrd else []
        return [self.module(each, number) for number, each in enumerate((*first, *self.world.modules))]


def with_name(name: str, command_line: bytes) -> bytes:
    """The command line as multiboot loaders give it: the image's own name is its first word."""
    own = name.rpartition("/")[2].replace(" ", "_").encode("utf-8", "surrogateescape")
    return b" ".join(each for each in (own, command_line) if each)

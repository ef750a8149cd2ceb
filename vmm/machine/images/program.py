# SPDX-License-Identifier: GPL-2.0-or-later
"""A loaded image as the Program of its machine: who asks a machine for names finds those of the image."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property, lru_cache
from pathlib import Path

from vmm.asm.program import Line, Program
from vmm.machine.images.image import Image

MAX_SOURCE = 4 << 20  # bytes of a source file of which a line is shown
MAX_DEBUG = 8 << 20
"""Bytes of line programs of which all are read: a kernel's take minutes, and a line of one address takes no time."""
FAR = 1 << 20
"""Bytes behind a symbol beyond which nobody would say that an address belongs to it."""


class ImageProgram(Program):
    """A Program without a text. Its symbols and source lines are the image's, read when somebody first asks: `symbols`
    are addresses as linked, and what is looked up may be such a one or a physical one. `own`: it runs in pyvmm's map.
    """

    image: Image  # type: ignore[misc]  # these two are its own __init__'s
    own: bool  # type: ignore[misc]

    def __init__(self, image: Image, *, own: bool = False) -> None:
        low = min((each.gpa for each in image.segments), default=0)
        super().__init__(image.name, low, b"", {}, (), notes=image.notes)
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "own", own)

    def __reduce__(self) -> tuple[object, ...]:
        """As a Program that knows the names, for a saved state: an image itself has functions and an open file."""
        return Program, (self.name, self.base, b"", self.symbols, (), {}, self.notes)

    @property  # type: ignore[misc]  # read when asked, where a Program has them
    def symbols(self) -> dict[str, int]:
        return dict(self.image.names.symbols) if self.image.names else {}

    @property
    def end(self) -> int:
        """The first address behind all of it."""
        return max((each.end for each in self.image.segments), default=self.base)

    @cached_property
    def _sorted(self) -> tuple[list[int], list[str]]:
        rows = sorted((address, name) for name, address in self.symbols.items())
        return [row[0] for row in rows], [row[1] for row in rows]

    def symbolize(self, address: int) -> str | None:
        """`name`, or `name+0x10`; None outside the image's segments, before the first symbol, or far behind one."""
        names = self.image.names
        if names is None:
            return None
        there = names.linked(address)
        if there is None:
            return None
        addresses, called = self._sorted
        at = bisect_right(addresses, there) - 1
        if at < 0 or there - addresses[at] > FAR:
            return None
        while at > 0 and addresses[at - 1] == addresses[at]:
            at -= 1
        return called[at] if addresses[at] == there else f"{called[at]}+{there - addresses[at]:#x}"

    def place_at(self, address: int) -> str | None:
        """The part of the image that holds a physical address; in pyvmm's own map that map's names are right."""
        if self.own:
            return None
        for each in self.image.segments:
            if each.gpa <= address < each.end:
                return f"{each.what}+{address - each.gpa:#x}"
        return ""

    @cached_property
    def written(self) -> tuple[Line, ...]:
        """The lines of all of its code; none where its debug information is more than anybody would wait for."""
        names = self.image.names
        rows = names.rows() if names is not None and names.debug_bytes <= MAX_DEBUG else ()
        return tuple(Line(address, size, file, line, "") for address, size, file, line in rows if size)

    def source(self, address: int) -> Line | None:
        """The line that a compiler made this code of; its text, where the file is there to be read."""
        names = self.image.names
        there = names.linked(address) if names else None
        if names is None or there is None:
            return None
        file, _, line = names.source(there).rpartition(":")
        if not file:
            return None
        number = int(line)
        return Line(address, 1, file, number, _text(file, number))


@lru_cache(maxsize=1024)
def _text(file: str, line: int) -> str:
    """A line of a source file; empty where it cannot be read."""
    path = Path(file)
    try:
        if not path.is_file() or path.stat().st_size > MAX_SOURCE:
            return ""
        rows = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        return ""
    return rows[line - 1].strip() if 0 < line <= len(rows) else ""

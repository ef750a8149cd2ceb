# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests to begin with: files of guest_payloads/new, with the name of the new one in them. It writes none."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import guest_payloads

FOLDER = Path(guest_payloads.__file__).parent / "new"
PLACE = "NAME"


class Start(NamedTuple):
    """One kind of beginning: what a person reads of it, and its files, template -> name. The first is the guest.

    `folder`: the files go into a new folder of that name.
    """

    kind: str
    what: str
    files: tuple[tuple[str, str], ...]
    folder: bool = False

    @property
    def suffix(self) -> str:
        """Of the guest: `.asm` or `.c`."""
        return Path(self.files[0][1]).suffix


STARTS = (
    Start("plain", "says hello and adds up: results, a parameter, the console", (("plain.asm", "NAME.asm"),)),
    Start("interrupt", "takes a timer's interrupts in a handler of its own", (("interrupt.asm", "NAME.asm"),)),
    Start("ring3", "runs a program in ring 3, and a kernel of a few lines serves it", (("ring3.asm", "NAME.asm"),)),
    Start("two-vcpus", "shares a counter between two vCPUs", (("two_vcpus.asm", "NAME.asm"),)),
    Start("c", "is written in C: printf, an interrupt handler, results", (("plain.c", "NAME.c"),)),
    Start("host-half", "talks to a device that Python plays, in a file beside it",
          (("hosted.asm", "NAME.asm"), ("hosted.py.in", "NAME.py"))),
    Start("pytest", "is a folder with a guest and its tests",
          (("plain.asm", "NAME.asm"), ("triangle.asm", "triangle.asm"), ("test_project.py.in", "test_NAME.py"),
           ("README.md.in", "README.md")), folder=True),
)  # fmt: skip
BY_KIND = {start.kind: start for start in STARTS}


def files(start: Start, name: str) -> dict[str, str]:
    """File name -> text, of a guest called `name`."""
    return {
        to.replace(PLACE, name): (FOLDER / template).read_text(encoding="utf-8").replace(PLACE, name)
        for template, to in start.files
    }

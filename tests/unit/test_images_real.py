# SPDX-License-Identifier: GPL-2.0-or-later
"""Images that nobody here made, cut off and damaged: of each one line, or an image that is placed as a whole.

PYVMM_IMAGES names a folder of them (docs/images.md); without it there is nothing to damage.
"""

from __future__ import annotations

import gzip
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vmm.errors import ImageError
from vmm.machine.images.image import Module, overlap
from vmm.machine.images.place import plan
from vmm.machine.images.recognise import read_image

FOLDER = os.environ.get("PYVMM_IMAGES", "")
FILES = sorted(each for each in Path(FOLDER).iterdir() if each.is_file()) if FOLDER else []
RAM = ((0, 0xC000_0000), (1 << 32, 1 << 33))
VALUES = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF)

pytestmark = pytest.mark.skipif(not FILES, reason="PYVMM_IMAGES names no folder with images")


def headers(data: bytes) -> list[tuple[int, int]]:
    """(first, end) of what a loader reads: ELF's headers, multiboot's, a setup header."""
    found = [(0, 64)]
    if data.startswith(b"\x7fELF"):
        wide = data[4] == 2
        (at,) = struct.unpack_from("<Q" if wide else "<I", data, 32 if wide else 28)
        size, count = struct.unpack_from("<HH", data, 54 if wide else 42)
        found.append((at, at + size * count))
        for row in range(at, at + size * count, size):
            if data[row : row + 4] == b"\x04\0\0\0":  # PT_NOTE
                (begin,) = struct.unpack_from("<Q" if wide else "<I", data, row + (8 if wide else 4))
                found.append((begin, begin + 64))
        (table,) = struct.unpack_from("<Q" if wide else "<I", data, 40 if wide else 32)
        found.append((table, min(len(data), table + 512)))
    if data[0x202:0x206] == b"HdrS":
        found.append((0x1F0, 0x270))
    for magic, size in ((0x1BADB002, 48), (0xE85250D6, 128)):
        at = data.find(struct.pack("<I", magic), 0, 32768)
        if at >= 0:
            found.append((at, at + size))
    return found


def damaged(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(what was done, the bytes): every field of a header with several values, and the file cut off in many places."""
    for first, end in headers(data):
        for at in range(first, min(end, len(data)) - 3, 2):
            for value in VALUES:
                made = bytearray(data)
                size = 2 if value <= 0xFFFF else 4
                made[at : at + size] = value.to_bytes(size, "little")
                yield f"{value:#x} at {at:#x}", bytes(made)
    dice = random.Random(1)
    cuts = {1, 2, 4, 63, 64, 511, 512, 1024, *(dice.randrange(len(data)) for _ in range(20)), len(data) - 1}
    for cut in sorted(cuts):
        yield f"cut off at {cut:#x}", data[:cut]


def told(data: bytes, name: str) -> str:
    """The error's line, or nothing where it is placed, in memory and without two parts in one place."""
    try:
        image = read_image(data, name)
        files: dict[str, Any] = {}
        if image.boot is not None and image.protocol != "flat":
            files = {"command_line": b"a b", "initrd": bytes(5000)}
        if image.protocol in ("multiboot", "multiboot2", "pvh"):
            files["modules"] = (Module(b"one", b"words", "a.img"), Module(bytes(9000)))
        placed = plan(image, RAM, **files)
        if image.names is not None:
            assert isinstance(image.names.source(image.entry), str)
    except ImageError as error:
        return error.text
    assert not overlap(placed.segments)
    for each in placed.segments:
        assert any(low <= each.gpa and each.end <= high for low, high in RAM), each.what
    return ""


@pytest.mark.parametrize("file", FILES, ids=[each.name for each in FILES])
def test_a_damaged_one_is_one_line_or_placed_as_a_whole(file: Path) -> None:
    data = file.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    assert not told(data, file.name)  # as it is
    lines = {what: line for what, made in damaged(data) if (line := told(made, file.name))}
    assert len(lines) > 10
    wrong = {
        what: line
        for what, line in lines.items()
        if "\n" in line or not (line.startswith(file.name) or "no room in the guest" in line)
    }
    assert not wrong

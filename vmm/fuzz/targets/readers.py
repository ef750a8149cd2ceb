# SPDX-License-Identifier: GPL-2.0-or-later
"""What reads a stranger's file: the loaders of images, a target for each format, and the reader of traces.

A loader refuses by ImageError, and what it takes can be placed or is refused in the same way. A trace's lines get their
sums here, so that what is inside of them is reached.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Sequence
from itertools import islice

from vmm.abi import multiboot, pvh
from vmm.abi.x86 import PAGE
from vmm.asm.elf_out import elf
from vmm.asm.program import Line, Program
from vmm.errors import ImageError, UsageError
from vmm.fuzz.target import HostTarget, Wrong, files_of
from vmm.machine.images.place import plan
from vmm.machine.images.recognise import read_image
from vmm.observe import trace
from vmm.observe.codec import encode

MEMORY = 64 << 20
CODE = bytes.fromhex("b04fe6e9f4")  # mov al, 'O'; out 0xe9, al; hlt
AT = 0x10_0000
# Of a Linux kernel's setup: its sectors, marks, version, places and sizes (Documentation/arch/x86/boot.rst).
SETUP = ((0x1F1, b"\1"), (0x1FE, b"\x55\xaa"), (0x200, b"\xeb\x6a"), (0x202, b"HdrS\x0f\2"), (0x211, b"\1"),
         (0x22C, b"\xff\xff\xff\x7f"), (0x236, b"\1"), (0x238, b"\xff\7"), (0x25A, b"\0\1"),
         (0x260, b"\0\0\1"), (0x214, b"\0\0\x10"), (0x230, b"\0\0\x20\0\1\x15"))  # fmt: skip
LOADERS = files_of(*(f"vmm.machine.images.{name}" for name in (
    "recognise", "elf", "multiboot1", "multiboot2", "pvh", "bzimage", "flat", "raw", "image", "place", "program"
)))  # fmt: skip


class Image(HostTarget):
    """One format of image: read, its names asked for, and placed into 64 MiB."""

    name = "image"
    most = 8 << 10
    allowed = (ImageError,)
    files = LOADERS
    seed = b""

    def seeds(self) -> Sequence[bytes]:
        return (self.seed,)

    def play(self, data: bytes) -> None:
        image = read_image(data, "fuzzed")
        names = image.names
        if names is not None:
            for address in (*islice(names.symbols.values(), 16), image.entry):
                linked = names.linked(address)
                names.source(address if linked is None else linked)
            if names.debug_bytes < 1 << 16:
                for _ in islice(names.rows(), 256):
                    pass
        planned = plan(
            image,
            ((0, MEMORY),),
            command_line=b"words" if image.boot else b"",
            initrd=bytes(64) if image.boot else None,
        )
        for each in planned.segments:
            if each.gpa < 0 or each.end > MEMORY or len(each.data) > each.size:
                raise Wrong(f"{each.what} at {each.gpa:#x}..{each.end:#x} with {len(each.data)} bytes")


def _elf64() -> bytes:
    lines = (Line(AT, 2, "a.asm", 1, "mov al, 0x4f"), Line(AT + 2, 2, "a.asm", 2, "out 0xe9, al"),
             Line(AT + 4, 1, "a.asm", 3, "hlt"))  # fmt: skip
    return elf(Program("a.asm", AT, CODE, {"start": AT, "end": AT + 4}, lines), "/")


def _elf32(body: bytes, *notes: bytes) -> bytes:
    """A 32-bit ELF file with one segment, and notes in segments of their own."""
    at = 52 + 32 * (1 + len(notes))
    rows = struct.pack("<8I", 1, at, AT, AT, len(body), len(body), 7, PAGE)
    for each in notes:
        rows += struct.pack("<8I", 4, at + len(body), 0, 0, len(each), 0, 4, 4)
    head = b"\x7fELF\1\1\1" + bytes(9)
    head += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, AT, 52, 0, 0, 52, 32, 1 + len(notes), 40, 0, 0)
    return head + rows + body + b"".join(notes)


def _multiboot1() -> bytes:
    magic, flags = multiboot.HEADER_MAGIC, 3
    return _elf32(struct.pack("<3I", magic, flags, -(magic + flags) & 0xFFFFFFFF) + CODE)


def _multiboot2() -> bytes:
    magic, size = multiboot.HEADER2_MAGIC, 24
    return _elf32(
        struct.pack("<4I", magic, 0, size, -(magic + size) & 0xFFFFFFFF) + struct.pack("<HHI", 0, 0, 8) + CODE
    )


def _pvh() -> bytes:
    note = struct.pack("<3I", 4, 4, pvh.XEN_ELFNOTE_PHYS32_ENTRY) + b"Xen\0" + AT.to_bytes(4, "little")
    return _elf32(CODE, note)


def _bzimage() -> bytes:
    setup = bytearray(1024)
    for at, value in SETUP:
        setup[at : at + len(value)] = value
    return bytes(setup) + CODE.ljust(0x210, b"\xf4")


class Elf(Image):
    name = "image-elf"
    seed = _elf64()


class Elf32(Image):
    name = "image-elf32"
    seed = _elf32(CODE)


class Multiboot1(Image):
    name = "image-multiboot1"
    seed = _multiboot1()


class Multiboot2(Image):
    name = "image-multiboot2"
    seed = _multiboot2()


class Pvh(Image):
    name = "image-pvh"
    seed = _pvh()


class BzImage(Image):
    name = "image-bzimage"
    seed = _bzimage()


class Flat(Image):
    name = "image-flat"
    seed = CODE.ljust(510, b"\0") + b"\x55\xaa"


class Trace(HostTarget):
    """A recorded run: each line of the input is sealed, then all of it is read."""

    name = "trace"
    most = 4 << 10
    allowed = (UsageError,)
    files = files_of("vmm.observe.trace", "vmm.observe.codec")

    def __init__(self) -> None:
        super().__init__()
        self._fd = os.memfd_create("trace")

    def seeds(self) -> Sequence[bytes]:
        head = trace.Trace(trace.SCHEMA, "0", "a", False, "0" * 64, "hlt", False)
        made = trace.Made(0, 0, "a", {}, (0,), 1 << 21, "kernel", False, 1 << 20, {"start": 0x20000})
        begun = trace.Run(0, 1, (0,), (trace.Claim("port", "w", 0xE9, 1, "console"),), (), (), ())
        note = trace.Note(0, 2, "a note")
        event = trace.Event(0, 2, None, "host", "msi", 32, None, "a message")
        end = trace.End(3, 0, 0, "pass", 0, "", {"a": 1, "b": None}, (), {}, {"hlt": 1}, 0, 0.5)
        lines = [
            json.dumps(encode(each), separators=(",", ":")).encode() for each in (head, made, begun, note, event, end)
        ]
        return (b"\n".join(lines),)

    def play(self, data: bytes) -> None:
        running, made = hashlib.blake2b(digest_size=trace.DIGEST), b""
        for line in data.split(b"\n"):
            body = line[:-1]
            running.update(body)
            made += body + f',"sum":"{running.hexdigest()}"}}\n'.encode()
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, made, 0)
        for _ in trace.read(f"/proc/self/fd/{self._fd}"):
            pass

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

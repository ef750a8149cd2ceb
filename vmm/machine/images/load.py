# SPDX-License-Identifier: GPL-2.0-or-later
"""`Machine.load_image`: what a caller gives becomes an image, the image a plan, and the plan guest memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vmm.base.integer import integer
from vmm.errors import ImageError, UsageError
from vmm.machine.images.files import read_file
from vmm.machine.images.image import Image, Mode, Module, Segment, Span, segment
from vmm.machine.images.place import plan, put, usual_memory
from vmm.machine.images.program import ImageProgram
from vmm.machine.images.recognise import read_image
from vmm.machine.memory.grow import grow


def load_image(
    machine: Any,
    what: str | Path | bytes | Image,
    *,
    name: str | None = None,
    args: str | bytes = "",
    initrd: bytes | Path | None = None,
    modules: Iterable[bytes | Path | Module] = (),
    base: int | None = None,
    entry: int | str | None = None,
    mode: Mode | None = None,
    protocol: str | None = None,
) -> Image:
    """Put an image into guest memory, and make vCPU 0 start it by its own boot protocol; the other vCPUs wait for INIT
    and SIPI.

    `what` is a file's path, or its bytes, or what `read_image` gave. `args` is the command line, `initrd` and `modules`
    are files or bytes. `base`, `entry` and `mode` are for code without a header; `entry` may name a symbol of an ELF
    file. `protocol` picks one of several ways to start it (vmm.machine.images.recognise.PROTOCOLS). A machine that was
    made without a size of memory gets what the image and its files need, as `pyvmm run` gives it.

    Raises:
        ImageError: it is damaged or foreign, does not fit into this machine, or has no use for what was given. Nothing
            has been written then.
        UsageError: vCPU 0 is running.
    """
    if machine.cpus[0].thread_id is not None:
        raise UsageError("loading an image: the machine is running", hint="load before run()")
    words = _words(args)
    if isinstance(what, Image):
        image = what
    else:
        data, shown = _bytes(what, "image")
        if not isinstance(name, str | None):
            raise ImageError(f"name={name!r:.80}: give text")
        begin = entry if isinstance(entry, str) else _number("entry", entry)
        image = read_image(data, name or shown, base=_number("base", base), entry=begin, mode=mode, protocol=protocol)
    brought = None if initrd is None else _bytes(initrd, "initrd")[0]
    files = _modules(modules)
    if machine.grows:
        sizes = [each.data for each in files] + ([brought] if brought else [])
        try:
            grow(machine, usual_memory(image, sizes, len(machine.cpus)))
        except UsageError as error:
            raise ImageError(f"{image.name}: {error.text}", error.hint or "Machine(memory=...)") from error
    reserved, tables, rsdp = _board(machine)
    planned = plan(
        image,
        machine.ram,
        reserved=reserved,
        tables=tables,
        rsdp=rsdp,
        cpus=len(machine.cpus),
        command_line=words,
        initrd=brought,
        modules=files,
    )
    machine.program = ImageProgram(image.placed, own=planned.own)
    put(planned, machine)
    return image


def _words(args: object) -> bytes:
    """The command line as bytes; what a shell gave that is no UTF-8 stays as it is."""
    if isinstance(args, (bytes, bytearray, memoryview)):
        return bytes(args)
    if not isinstance(args, str):
        raise ImageError(f"args={args!r:.80}: give text, or bytes")
    try:
        return args.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ImageError(f"args: character {error.start} is no text ({error.reason})") from error


def _number(what: str, value: object) -> int | None:
    number = integer(value)
    if value is not None and number is None:
        raise ImageError(f"{what}={value!r:.80} is no whole number")
    return number


def _modules(modules: object) -> tuple[Module, ...]:
    """A list of them; one alone would be taken apart into its bytes or characters."""
    if isinstance(modules, (str, bytes, bytearray, memoryview)) or not isinstance(modules, Iterable):
        raise ImageError(f"modules={modules!r:.80}: give a list of paths, or of bytes")
    return tuple(each if isinstance(each, Module) else Module(_bytes(each, "module")[0]) for each in modules)


def _bytes(what: object, kind: str) -> tuple[bytes, str]:
    """(the bytes, a name for messages) of bytes or a path."""
    if isinstance(what, (bytes, bytearray, memoryview)):
        return bytes(what), "<bytes>"
    if isinstance(what, (str, Path)):
        return read_file(what, kind), str(what)
    raise ImageError(f"{kind} {what!r:.80}: give a path, or bytes")


def _board(machine: Any) -> tuple[tuple[Span, ...], tuple[Segment, ...], int]:
    """What the machine's board keeps for itself, its tables in memory, and the address of ACPI's root pointer."""
    board = machine.board
    made = board.tables([cpu.vcpu.id for cpu in machine.cpus], machine.virtio_places)
    segments = tuple(segment(base, data, "the board's tables") for base, data in made.segments)
    return board.reserved, segments, made.rsdp

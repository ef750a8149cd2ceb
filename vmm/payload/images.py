# SPDX-License-Identifier: GPL-2.0-or-later
"""An image that a person brings, as a payload: read by its content and the user's words, loaded into a machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from vmm.errors import ImageError, UsageError
from vmm.machine.images.bzimage import PROTOCOLS
from vmm.machine.images.files import read_file
from vmm.machine.images.image import MODES, Image, Mode, Module
from vmm.machine.images.place import runs_in_own_map, usual_memory
from vmm.machine.images.program import ImageProgram
from vmm.machine.images.recognise import read_image
from vmm.machine.memory.layout import REGIONS, parse_size
from vmm.machine.run.limits import MAX_TIMEOUT
from vmm.payload.catalog import whole
from vmm.payload.options import BootOptions

if TYPE_CHECKING:
    from vmm.machine.machine import Machine
    from vmm.payload.catalog import Payload
    from vmm.payload.options import Options


class Files(TypedDict):
    """The command line as bytes, an initial RAM disk, modules; arguments of vmm.machine.images.place.plan."""

    command_line: bytes
    initrd: bytes | None
    modules: tuple[Module, ...]


class BroughtImage:
    """An image and the files that go with it, all read; nothing of a machine exists yet.

    Raises:
        ImageError: damaged, foreign, too large for code without a header, or a file cannot be read.
        UsageError: the payload is no image, and options of images were given.
    """

    def __init__(self, payload: Payload, options: Options) -> None:
        boot = options.boot or BootOptions()
        if payload.code is None:
            kind = "a guest in C" if payload.in_c else "a payload of assembly"
            raise UsageError(f"{boot.named}: {payload.name} is {kind}, which takes none of it", hint="--param K=V")
        plain = boot.base is None and boot.mode is None and boot.protocol is None
        if plain and not payload.image and len(payload.code) > REGIONS["code"].size:
            raise _too_large(payload)
        if boot.mode is not None and boot.mode not in MODES:
            raise UsageError(f"--mode {boot.mode}: there are {', '.join(MODES)}")
        mode: Mode | None = boot.mode
        read = partial(
            read_image, whole(payload), payload.file, base=_address(boot.base, "--base"), entry=_entry(boot.entry),
            mode=mode, protocol=boot.protocol,
        )  # fmt: skip
        if options.apart:
            from vmm.payload.apart import readable

            readable(read, payload.file)
        self.image: Image = read()
        if plain and self.image.format.startswith("flat, long") and len(payload.code) > REGIONS["code"].size:
            raise _too_large(payload)
        self._args = boot.args.encode("utf-8", "surrogateescape")
        self._initrd = read_file(boot.initrd, "initrd") if boot.initrd is not None else None
        self._modules = tuple(_module(text) for text in boot.modules)

        self.program = ImageProgram(self.image, own=runs_in_own_map(self.image))

    def machine(self, memory: str | int | None, cpus: int | Sequence[int], board: str | None) -> tuple[str | int, str]:
        """(memory, board) of its machine: what was asked for, else what such an image expects."""
        count = cpus if isinstance(cpus, int) else len(cpus)
        return self._memory(count) if memory is None else memory, board or self.image.board

    def _memory(self, cpus: int) -> int:
        files = [each.data for each in self._modules] + ([self._initrd] if self._initrd else [])
        return usual_memory(self.image, files, cpus)

    @property
    def timeout(self) -> float | None:
        """Seconds of its run, where nobody says how many: an operating system runs until it is told to end."""
        return MAX_TIMEOUT if self.image.protocol in PROTOCOLS else None

    @property
    def files(self) -> Files:
        """What goes with it into guest memory, until `load` has put it there."""
        return {"command_line": self._args, "initrd": self._initrd, "modules": self._modules}

    def load(self, machine: Machine) -> None:
        """Put it into guest memory; its bytes and those of its files are let go of then."""
        machine.load_image(self.image, args=self._args, initrd=self._initrd, modules=self._modules)
        self.image = self.image.placed
        object.__setattr__(self.program, "image", self.image)
        self._initrd, self._modules = None, ()


def _too_large(payload: Payload) -> ImageError:
    limit = REGIONS["code"].size
    return ImageError(
        f"{payload.file} is too large: a raw payload has at most {limit} bytes ({limit >> 10} KiB)",
        hint="--base A, for code that lies elsewhere",
    )


def _address(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    try:
        return parse_size(text)
    except UsageError as error:
        raise UsageError(f"{option} {text}: not an address; give a number such as 0x7c00 or 1M") from error


def _entry(text: str | None) -> int | str | None:
    """An address where it begins with a digit, else a symbol."""
    return _address(text, "--entry") if text and text[0].isdigit() else text


def _module(text: str) -> Module:
    """`FILE` or `FILE,ARGS`; a file may have a comma in its name, where one of that name is there."""
    file, _, arguments = (text, "", "") if Path(text).exists() else text.partition(",")
    data = read_file(file, "module")
    return Module(data, arguments.encode("utf-8", "surrogateescape"), Path(file).name)

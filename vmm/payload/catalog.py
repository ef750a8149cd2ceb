# SPDX-License-Identifier: GPL-2.0-or-later
"""Where payloads are: the shipped ones by name, a person's own files by path. It reads source; it assembles nothing."""

from __future__ import annotations

import os
import stat

import guest_payloads
from vmm.base.light import cache, lru_cache
from vmm.base.record import Record
from vmm.errors import PayloadError, UsageError, os_reason
from vmm.machine.memory.layout import REGIONS
from vmm.payload.header import ASM, C, Header, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from vmm.payload.half import HostHalf

ROOT = os.path.dirname(guest_payloads.__file__)
INCLUDES = os.path.join(ROOT, "inc")
GROUPS = ("basics", "pv", "api")
PROVING = ("pv", "api")
ELSEWHERE = frozenset((".cc", ".cpp", ".cxx", ".rs", ".go", ".zig", ".h", ".d", ".nim"))
"""Suffixes of sources that other compilers make images of."""
MAX_SOURCE = 1 << 20  # bytes of assembly that anybody can mean


class Payload(Record):
    """A guest: `text` with its header, in assembly or in C, or `code`: raw, or an `image` with a header of its
    format's. `group` is empty for a person's own file.
    """

    name: str
    file: str
    group: str
    header: Header
    text: str | None = None
    code: bytes | None = None
    image: bool = False

    @property
    def in_c(self) -> bool:
        """Is the text C?"""
        return self.text is not None and self.file.lower().endswith(".c")

    def overlooked(self) -> tuple[str, ...]:
        """A note where a module stands beside a person's own .asm, looks as if it was meant, and has no part in it."""
        if self.text is None or self.group or not os.path.exists(os.path.splitext(self.file)[0] + ".py"):
            return ()
        from vmm.payload.own import overlooked

        return overlooked(self.file)

    def host_half(self) -> HostHalf | None:
        """The Python module beside the .asm, where there is one. Of a person's own, see vmm.payload.own.

        Raises:
            PayloadError: it is no host half, or a person's own cannot be imported.
        """
        if self.text is None or not os.path.exists(os.path.splitext(self.file)[0] + ".py"):
            return None
        if not self.group:
            from vmm.payload.own import load

            return load(self.file)
        import importlib

        from vmm.payload.half import half_of

        try:
            return half_of(importlib.import_module(f"guest_payloads.{self.group}.{self.name}"))
        except ValueError as error:
            raise PayloadError(f"the host half: {error}", file=os.path.splitext(self.file)[0] + ".py") from error


@cache
def shipped() -> dict[str, Path]:
    """Name -> path of every shipped payload, in the order of the groups."""
    from pathlib import Path

    return {path.stem: path for group in GROUPS for path in sorted(Path(ROOT, group).glob("*.asm"))}


def find(name: str) -> Payload:
    """A shipped payload by name, or a file by path: .asm is assembled, .c compiled, anything else an image or raw code.

    Raises:
        UsageError: neither exists (the nearest names are offered), or the file cannot be read, does not fit, or is
            plainly no code.
        PayloadError: the header is wrong.
    """
    for group in GROUPS if name.isidentifier() else ():  # without a look at all the others
        file = os.path.join(ROOT, group, f"{name}.asm")
        if os.path.exists(file):
            return _source(name, file, group)
    base = os.path.basename(name)
    stem, kind = os.path.splitext(base)
    if kind.lower() == ".asm":
        return _source(stem, name, "")
    if kind.lower() == ".c":
        return _source(stem, name, "", C)
    if "." in name or "/" in name or _exists(name):
        code, image = _raw(name)
        return Payload(base, name, "", Header(), code=code, image=image)
    from vmm.base.names import unknown

    said, files = unknown("payload", name, shipped()), "the path of an .asm or .c file, an image or raw code"
    if name and "?" not in said:
        said += ", and there is no such file"
    raise UsageError(said, hint=f"`pyvmm list`, or {files}")


def _exists(file: str) -> bool:
    try:
        return os.path.lexists(file)
    except ValueError:  # a NUL in it
        return False


def _source(name: str, file: str, group: str, mark: str = ASM) -> Payload:
    text = read_source(file)
    return Payload(name, file, group, _header(text, file, group, mark), text=text)


@lru_cache(128)  # whoever asks for each proof or runs one again has the same text again; a changed file has another
def _header(text: str, file: str, group: str, mark: str) -> Header:
    return _checked(parse(text, file, mark), file, group)


def read_source(file: str, otherwise: str = "a raw binary needs the suffix .bin") -> str:
    """The text of a payload's source; `otherwise` is what to do where it is no text.

    Raises:
        UsageError: it cannot be read, is no regular file, too large, or no UTF-8.
    """
    data = _read(file, MAX_SOURCE, "a payload's source")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not UTF-8 text at byte {error.start}; {otherwise}") from error
    return text.removeprefix("\ufeff")  # an editor's byte order mark is no instruction


def _checked(header: Header, file: str, group: str) -> Header:
    """Only a payload of pv/ or api/ says what it proves; a feature by a name that is in the facts."""
    if header.cflags and not file.lower().endswith(".c"):
        raise PayloadError("cflags: only a guest in C is compiled", file=file)
    if header.proves and group not in PROVING:
        raise PayloadError("proves: only what comes with pyvmm has rows in its tables; check() can fail", file=file)
    if group == "pv" and header.proves:
        from vmm.abi import pv

        for name in header.proves:
            if name.isupper() and not pv.names_a_row(name):  # what is no name of the kernel's is told in words
                raise PayloadError(f"proves: {pv.unknown(name)}", file=file)
    return header


def _raw(file: str) -> tuple[bytes, bool]:
    """(machine code or a whole image from a file, whether it is an image). What is plainly something else is refused,
    for as code it would only crash.
    """
    suffix = os.path.splitext(file)[1].lower()
    if suffix in (".s", ".nasm", ".inc"):
        raise UsageError(f"{file} looks like assembly, which pyvmm knows by the suffix .asm (Intel syntax)")
    limit = REGIONS["code"].size
    code = _read(file, limit, "a raw payload", more=True)
    if not code:
        raise UsageError(f"{file} is empty: there is nothing to run")
    from vmm.machine.images import raw

    if raw.is_image(code):
        return code, True
    if suffix in ELSEWHERE and raw.is_text(code[:4096].rsplit(b"\n", 1)[0]):  # `#![no_std]` is no script
        raise UsageError(
            f"{file} is source text, and pyvmm compiles C alone (.c)",
            hint="a static ELF file of it: `pyvmm docs c#rust-and-anything-else-that-makes-an-elf-file`",
        )
    if why := raw.refusal(code, file):
        raise UsageError(*why)
    if not file.lower().endswith(".bin") and raw.is_text(code):
        copy = f"cp {file} {os.path.basename(file)}"
        raise UsageError(
            f"{file} is text, and without the suffix .asm it would run as machine code",
            hint=f"`{copy}.asm`, if it is assembly (Intel syntax); `{copy}.bin`, if it is code",
        )
    return _whole(code, file), False


def whole(payload: Payload) -> bytes:
    """All bytes of an image: of a large file a payload has only the beginning, for nobody needs the rest once it is in
    guest memory.

    Raises:
        ImageError: the file cannot be read any more.
    """
    return _whole(payload.code or b"", payload.file) if payload.image else payload.code or b""


def _whole(begin: bytes, file: str) -> bytes:
    """All of a file that begins so."""
    if len(begin) <= REGIONS["code"].size:
        return begin
    from vmm.machine.images.files import read_file

    return read_file(file, "image")


def _read(file: str, limit: int, what: str, *, more: bool = False) -> bytes:
    """The bytes of a regular file; never more than `limit` are read, so a huge one is refused early (or, with `more`,
    is given with one byte too many).

    Nothing else is opened: a pipe that nobody writes to would be waited for without end.
    """
    try:
        mode = os.stat(file).st_mode
        if not stat.S_ISREG(mode):
            from vmm.host.node import KINDS

            kind = KINDS.get(stat.S_IFMT(mode), "special file")
            raise UsageError(f"{file} is a {kind}, and a payload is a regular file")
        with open(file, "rb") as source:
            data = source.read(limit + 1)
    except (OSError, ValueError) as error:
        from vmm.base.nearby import to_try

        raise UsageError(f"reading {file}: {os_reason(error)}", to_try(error, file)) from error
    if len(data) > limit and not more:
        raise UsageError(f"{file} is too large: {what} has at most {limit} bytes ({limit >> 10} KiB)")
    return data

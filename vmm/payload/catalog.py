# SPDX-License-Identifier: GPL-2.0-or-later
"""Where payloads are: the shipped ones by name, a person's own files by path. It reads source; it assembles nothing."""

from __future__ import annotations

import functools
import importlib
import stat
from pathlib import Path
from types import ModuleType

import guest_payloads
from vmm.abi.names import unknown
from vmm.abi.record import record
from vmm.errors import UsageError
from vmm.machine.layout import REGIONS
from vmm.payload.header import Header, parse

ROOT = Path(guest_payloads.__file__).parent
INCLUDES = ROOT / "inc"
GROUPS = ("basics", "pv", "api")
MAX_SOURCE = 1 << 20  # bytes of assembly that anybody can mean


@record
class Payload:
    """A guest: assembly `text` with its header, or raw `code`. `group` is empty for a person's own file."""

    name: str
    path: Path
    group: str
    header: Header
    text: str | None = None
    code: bytes | None = None

    def host_half(self) -> ModuleType | None:
        """The Python module beside a shipped .asm, where there is one."""
        if not self.group or not self.path.with_suffix(".py").exists():
            return None
        return importlib.import_module(f"guest_payloads.{self.group}.{self.name}")


@functools.cache
def shipped() -> dict[str, Path]:
    """Name -> path of every shipped payload, in the order of the groups."""
    return {path.stem: path for group in GROUPS for path in sorted((ROOT / group).glob("*.asm"))}


def find(name: str) -> Payload:
    """A shipped payload by name, or a file by path (.asm is assembled, anything else is taken as raw code).

    Raises:
        UsageError: neither exists (the nearest names are offered), or the file cannot be read, does not fit, or is
            plainly no code.
        PayloadError: the header is wrong.
    """
    path = shipped().get(name)
    if path is not None:
        return _source(name, path, path.parent.name)
    path = Path(name)
    kind = path.suffix.lower()
    if kind == ".asm":
        return _source(path.stem, path, "")
    if kind == ".bin" or "/" in name or (name and _exists(path)):
        return Payload(path.name, path, "", Header(), code=_raw(path))
    raise UsageError(f"{unknown('payload', name, shipped())}\n  try: `pyvmm list`, or the path of an .asm or .bin file")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a name, or a NUL in it
        return False


def _source(name: str, path: Path, group: str) -> Payload:
    data = _read(path, MAX_SOURCE, "a payload's source")
    try:
        text = data.decode("utf-8-sig")  # an editor's byte order mark is no instruction
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text at byte {error.start}; a raw binary needs the suffix .bin") from error
    return Payload(name, path, group, parse(text, str(path)), text=text)


def _raw(path: Path) -> bytes:
    """Machine code from a file; what is plainly something else is refused, for as code it would only crash."""
    if path.suffix.lower() in (".s", ".nasm", ".inc"):
        raise UsageError(f"{path} looks like assembly, which pyvmm knows by the suffix .asm (Intel syntax)")
    code = _read(path, REGIONS["code"].size, "a raw payload")
    if not code:
        raise UsageError(f"{path} is empty: there is nothing to run")
    if code.startswith(b"\x7fELF"):
        raise UsageError(f"{path} is an ELF file, not raw code\n  try: `objcopy -O binary {path} {path.name}.bin`")
    return code


def _read(path: Path, limit: int, what: str) -> bytes:
    """The bytes of a regular file; never more than `limit` are read, so a huge one is refused early.

    Nothing else is opened: a pipe that nobody writes to would be waited for without end.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            from vmm.observe.unusable import KINDS

            kind = KINDS.get(stat.S_IFMT(mode), "special file")
            raise UsageError(f"{path} is a {kind}, and a payload is a regular file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"reading {path}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > limit:
        raise UsageError(f"{path} is too large: {what} has at most {limit} bytes ({limit >> 10} KiB)")
    return data

# SPDX-License-Identifier: GPL-2.0-or-later
"""Assembled programs on disk, by content. It knows files and keys; it knows nothing of assembling.

An entry is a hint, never a need: a folder that cannot be written, a full disk or a damaged entry cost one warning and
time, no more. Entries are `marshal`, which loads in microseconds; a digest before the data catches damage, because
`marshal` itself does not promise to.
"""

from __future__ import annotations

import marshal
import os
import sys
from _thread import get_ident

from vmm.asm.program import Line, Program
from vmm.base.cache_place import folder as folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

try:  # what hashlib has of it; hashlib itself would load all of OpenSSL, 3 MiB and two milliseconds
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

_MAGIC = b"pyvmm-asm-3\n"
KINDS = {".asm": 64, ".run": 16}  # what is kept here, and by how many digits: programs, prepared guests
MAX_ENTRIES = 1000  # a few kilobytes each; all shipped payloads are a tenth of it


def _silent(text: str) -> None:
    """The default of `warn`: below the command line nothing prints."""


warn: Callable[[str], None] = _silent  # replaced by who can print
notice: str | None = None  # the last warning, for who asks afterwards


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


def key(parts: Any) -> str:
    """A name for everything that decides the result; `parts` is built of tuples, str, bytes and int."""
    return _digest(marshal.dumps((sys.version_info[:2], parts), 2)).hex()


def load(name: str) -> Program | None:
    """The program of a key, or None. Never raises."""
    try:
        with open(os.path.join(folder(), f"{name}.asm"), "rb") as file:
            data = file.read()
    except (OSError, ValueError):
        return None
    head = len(_MAGIC) + 32
    if data[: len(_MAGIC)] != _MAGIC or _digest(data[head:]) != data[len(_MAGIC) : head]:
        return None
    try:
        title, base, code, symbols, lines, constants = marshal.loads(data[head:])
        return Program(title, base, code, symbols, tuple(Line(*row) for row in lines), constants)
    except (ValueError, EOFError, TypeError):
        return None


def store(name: str, program: Program) -> None:
    """Writes the entry whole or not at all. Warns at most once per process; never raises."""
    lines = [(row.address, row.size, row.file, row.line, row.text, row.origin) for row in program.lines]
    data = marshal.dumps((program.name, program.base, program.code, program.symbols, lines, program.constants), 2)
    data = _MAGIC + _digest(data) + data
    try:
        write(os.path.join(folder(), f"{name}.asm"), data)
    except (OSError, ValueError) as e:
        _warn(f"the assembler's cache cannot be written ({e}); set PYVMM_CACHE to a folder that can")


def write(path: str, data: bytes) -> None:
    """An entry, whole or not at all; too many others go. Raises OSError, and ValueError for a path that cannot be."""
    where, name = os.path.split(path)
    os.makedirs(where, exist_ok=True)
    # A name of this thread alone; tempfile would do the same and take four milliseconds to import.
    temporary = os.path.join(where, f".{name}.{os.getpid()}.{get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass  # it was never there
        raise
    _thin_out(where)


def _is_entry(name: str) -> bool:
    """Sources end in .asm too, and the folder may be anybody's: only a key's digits make an entry."""
    stem, kind = os.path.splitext(name)
    return len(stem) == KINDS.get(kind) and not stem.strip("0123456789abcdef")


def _thin_out(where: str) -> None:
    """Drop the oldest quarter of too many entries: every edit of a payload, or of pyvmm, makes new ones."""
    try:
        entries = [os.path.join(where, each) for each in os.listdir(where) if _is_entry(each)]
        if len(entries) > MAX_ENTRIES:
            entries.sort(key=lambda path: os.stat(path).st_mtime_ns)
            for path in entries[: len(entries) - MAX_ENTRIES * 3 // 4]:
                os.unlink(path)
    except OSError:
        pass  # another process is at it


def _warn(text: str) -> None:
    global notice
    if notice is None:
        notice = text
        warn(text)

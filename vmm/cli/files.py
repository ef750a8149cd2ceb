# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are named on the command line: a report is written whole or not at all, a document is read with a limit.
When it cannot be, there is one clear line with the file's name.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from vmm.errors import UsageError, os_reason

SOURCES = frozenset(
    (".asm", ".inc", ".s", ".nasm", ".c", ".h", ".cc", ".cpp", ".rs", ".py", ".md", ".rst", ".toml", ".sh")
)
USUAL = {
    "--trace": ".jsonl",
    "--timeline": ".svg",
    "--html": ".html",
    "--save": ".json",
    "--junit": ".xml",
    "--console": ".txt",
    "--elf-out": ".elf",
}
MAX_JSON = 16 << 20  # bytes; a full probe is 70 KiB


class OutputFile:
    """A file that can be written, found out before there is anything to write: `file` takes bytes, `keep` puts it in
    its place, whole. Until then whoever reads the name sees the old file, and without `keep` it stays.

    A symbolic link stays one. What is no regular file (a pipe, a terminal) is written to as it is: it cannot be
    replaced. So is with `in_place` a regular file, which is emptied at once: who has given up making files can only
    write to one that is open.

    Raises:
        UsageError: it cannot be written; names the file and why.
    """

    def __init__(self, name: str, *, in_place: bool = False) -> None:
        self.name = name
        self._temporary: Path | None = None
        try:
            given = Path(name)
            self._mode = _mode(given)
            if self._mode is not None and stat.S_ISDIR(self._mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if in_place or (self._mode is not None and not stat.S_ISREG(self._mode)):
                self.file: BinaryIO = given.open("wb")  # by the name given: /dev/stdout may lead to a pipe without one
                return
            self._path = given.resolve()
            handle, temporary = tempfile.mkstemp(prefix=f".{self._path.name[:64]}.", dir=self._path.parent)
            self._temporary = Path(temporary)
            self.file = os.fdopen(handle, "wb")
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unwritable(error) from error

    def keep(self) -> None:
        """What was written is the file."""
        try:
            try:
                self.file.close()
            except OSError:
                self.discard()
                raise
            if self._temporary is not None:
                self._temporary.chmod(stat.S_IMODE(self._mode) if self._mode is not None else 0o666 & ~_umask())
                self._temporary.replace(self._path)
                self._temporary = None
        except (OSError, ValueError, RuntimeError) as error:
            self.discard()
            raise self._unwritable(error) from error

    def discard(self) -> None:
        """What was written is gone; after `keep` it does nothing."""
        with contextlib.suppress(OSError):
            self.file.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None

    def _unwritable(self, error: Exception) -> UsageError:
        return UsageError(f"writing {self.name!r}: {os_reason(error)}")


def check_outputs(outputs: dict[str, str | None], inputs: Iterable[str] = ()) -> None:
    """Refuse to write over what somebody wrote by hand: before anything is run or opened. `outputs` is option -> file.

    Raises:
        UsageError: an output is one of `inputs`, or of another output's, or is an existing source; names the options.
    """
    taken = dict.fromkeys(inputs, "the input")
    for option, name in outputs.items():
        if name is None or not _same_kind(name):
            continue
        for other, what in taken.items():
            if _same(name, other):
                raise UsageError(f"{option} {name}: that is {what}, and would be overwritten", hint="another name")
        if Path(name).suffix.lower() in SOURCES and Path(name).exists():
            raise UsageError(
                f"{option} {name}: a source of that name exists, and would be overwritten",
                hint=f"another name, such as {Path(name).with_suffix(USUAL.get(option, '.out')).name}",
            )
        taken[name] = f"the file of {option}, too"


def _same_kind(name: str) -> bool:
    """A file that a write replaces; a pipe or a terminal is not."""
    try:
        return Path(name).is_file() or not Path(name).exists()
    except (OSError, ValueError):
        return False  # whoever opens it says why


def _same(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            return Path(one).resolve() == Path(other).resolve()
        return False


def write_file(name: str, text: str) -> None:
    """Write a whole file at once. Errors as OutputFile."""
    output = OutputFile(name)
    try:
        output.file.write(text.encode())
        output.keep()
    except (OSError, ValueError) as error:
        raise UsageError(f"writing {name!r}: {os_reason(error)}") from error
    finally:
        output.discard()


def _mode(path: Path) -> int | None:
    """Kind and permissions of what the path leads to; None if that does not exist."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _umask() -> int:
    """The process's file mode mask; asking means setting it for a moment."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def read_json(name: str) -> object:
    """What a JSON file holds; `-` is standard input. At most MAX_JSON bytes are read, so nothing is without end.

    Raises:
        UsageError: it cannot be read, or is no JSON; names the file, and the line where that is known.
    """
    shown = "standard input" if name == "-" else name
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_JSON + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(MAX_JSON + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"reading {shown!r}: {os_reason(error)}") from error
    if len(data) > MAX_JSON:
        raise UsageError(f"{shown}: too large for a document of pyvmm's, which has at most {MAX_JSON >> 20} MiB")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{shown}: not UTF-8 text at byte {error.start}") from error
    except json.JSONDecodeError as error:
        what = "it is empty" if not data.strip() else f"line {error.lineno} column {error.colno}: {error.msg}"
        raise UsageError(f"{shown}: not JSON: {what}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        raise UsageError(f"{shown}: no document of pyvmm's: {error}") from error

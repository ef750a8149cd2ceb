# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing a report into a file: whole or not at all, and one clear line when it cannot be."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from vmm.errors import UsageError


def write_file(name: str, text: str) -> None:
    """Write `text`, so that whoever reads the file meanwhile sees the old or the new one and never a part.

    A symbolic link stays one. What is no regular file (a pipe, a terminal) is written to as it is: it cannot be
    replaced.

    Raises:
        UsageError: it cannot be written; names the file and why.
    """
    try:
        given = Path(name)
        mode = _mode(given)
        if mode is not None and not stat.S_ISREG(mode):
            given.write_text(text, encoding="utf-8")  # by the name given: /dev/stdout may lead to a pipe without one
            return
        path = given.resolve()
        handle, temporary_name = tempfile.mkstemp(prefix=f".{path.name[:64]}.", dir=path.parent)
        temporary = Path(temporary_name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            temporary.chmod(stat.S_IMODE(mode) if mode is not None else 0o666 & ~_umask())
            temporary.replace(path)
        except BaseException:
            temporary.unlink()
            raise
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"writing {name!r}: {reason}") from error


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

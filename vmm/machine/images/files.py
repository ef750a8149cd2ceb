# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that become images, initrds and modules: read whole, regular ones only, errors by the file's name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vmm.base.nearby import to_try
from vmm.errors import ImageError, os_reason

MAX_FILE = 4 << 30


def read_file(file: Path | str, what: str) -> bytes:
    """The bytes of a regular file. Nothing else is opened: a pipe that nobody writes to would be waited for.

    Raises:
        ImageError: it cannot be read, is no regular file, is empty, or is larger than any image.
    """
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as source:
            facts = os.fstat(source.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise ImageError(f"{what} {file}: not a regular file")
            if facts.st_size > MAX_FILE:
                raise ImageError(f"{what} {file}: {facts.st_size} bytes; at most {MAX_FILE} are read")
            data = source.read(facts.st_size + 1)[: facts.st_size]  # read(n) takes n bytes of memory first
    except (OSError, ValueError) as error:
        raise ImageError(f"reading {what} {file}: {os_reason(error)}", to_try(error, file)) from error
    if not data:
        raise ImageError(f"{what} {file}: it is empty")
    return data

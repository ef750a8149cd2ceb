# SPDX-License-Identifier: GPL-2.0-or-later
"""Things that take long to make, kept by what they were made of: a key is a hash of every input.

A thing is a folder under $XDG_CACHE_HOME/pyvmm/hostlab (~/.cache without that variable), made under another name and
put in place whole; a lock keeps two runs from making it at once. Those not used for a month are removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MONTH = 30 * 24 * 3600.0


def folder() -> Path:
    """Where it all is; made when missing."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base) / "pyvmm" / "hostlab"
    path.mkdir(parents=True, exist_ok=True)
    return path


def key(*parts: object) -> str:
    """A hash of the parts; a path stands for the bytes of its file."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else str(part).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time. The kernel lets go when the process ends, however it does."""
    path = folder() / f"{name}.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def get(kind: str, digest: str, make: Callable[[Path], object]) -> Path:
    """The folder `kind-digest`; `make` fills an empty one if it is not there yet."""
    path = folder() / f"{kind}-{digest}"
    with locked(kind):
        if not path.is_dir():
            with scratch(kind) as work:
                make(work)
                work.chmod(0o755)
                work.rename(path)
        os.utime(path)
    return path


@contextmanager
def scratch(kind: str) -> Iterator[Path]:
    """An empty folder that is gone afterwards, unless it was renamed."""
    work = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=folder()))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def prune(now: float | None = None) -> list[str]:
    """Remove what was not used for a month, and what a run that was killed left half made a day ago; their names."""
    now = time.time() if now is None else now
    gone = []
    for path in folder().iterdir():
        age = MONTH if not path.name.startswith(".") else MONTH / 30
        if path.is_dir() and now - path.stat().st_mtime > age:
            shutil.rmtree(path, ignore_errors=True)
            gone.append(path.name)
    return gone

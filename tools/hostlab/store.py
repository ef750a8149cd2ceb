# SPDX-License-Identifier: GPL-2.0-or-later
"""Things that take long to make, kept by what they were made of: a key is a hash of every input.

A thing is a folder under $XDG_CACHE_HOME/pyvmm/hostlab (~/.cache without that variable), made under another name and
put in place whole; a lock keeps two runs from making it at once. Those not used for a month are removed, and so is what
a run that was killed had begun: whoever works in a folder holds its lock, and the kernel lets go of it in any case.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import tools
from .errors import LabError, Stopped
from .progress import Say, silent, working

MONTH = 30 * 24 * 3600.0
SCRATCH = "work"  # the folder of folders that are gone when their run is


def folder() -> Path:
    """Where it all is; made when missing. Raises: LabError."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base) / "pyvmm" / "hostlab"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"the lab's cache: {error}", hint="XDG_CACHE_HOME=FOLDER, with 3 GB of space") from error
    return path


def key(*parts: object) -> str:
    """A hash of the parts; a path stands for the bytes of its file."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else str(part).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


@contextmanager
def locked(name: str, say: Say = silent) -> Iterator[None]:
    """One at a time, threads and processes alike. The kernel lets go when the process ends, however it does.

    Raises:
        Stopped: while waiting.
    """
    told = False
    with (folder() / f"{name}.lock").open("a") as file:
        while not _taken(file.fileno()):
            if not told:
                say(f"waiting: another run, or another host of this one, is at {name}")
                told = True
            if tools.stopping.wait(0.2):
                raise Stopped
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def has(kind: str, digest: str) -> bool:
    """Whether `get` would make nothing."""
    return (folder() / f"{kind}-{digest}").is_dir()


def get(kind: str, digest: str, make: Callable[[Path], object], say: Say = silent, what: str = "") -> Path:
    """The folder `kind-digest`; `make` fills an empty one if it is not there yet, with `what` told to `say`."""
    path = folder() / f"{kind}-{digest}"
    if not path.is_dir():
        with locked(kind, say):
            if not path.is_dir():
                with scratch(kind) as work, working(say, what or kind):
                    made = work / "made"
                    made.mkdir()
                    make(made)
                    made.rename(path)
    os.utime(path)
    return path


@contextmanager
def scratch(kind: str) -> Iterator[Path]:
    """An empty folder that is gone afterwards."""
    with contextlib.ExitStack() as stack:
        with locked("scratch"):  # or prune() could take it for a dead run's before its lock is taken
            base = folder() / SCRATCH
            base.mkdir(exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=base))
            stack.callback(shutil.rmtree, work, ignore_errors=True)
            file = stack.enter_context((work / "in-use").open("a"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield work


def prune(now: float | None = None) -> list[str]:
    """Remove what was not used for a month, and what a run that was killed left half made; their names."""
    now = time.time() if now is None else now
    gone = []
    with locked("scratch"):
        old = [path for path in _entries() if now - path.stat().st_mtime > MONTH]
        for path in (*old, *filter(_abandoned, sorted((folder() / SCRATCH).glob("*")))):
            shutil.rmtree(path, ignore_errors=True)
            gone.append(path.name)
    return gone


def _entries() -> list[Path]:
    return sorted(path for path in folder().iterdir() if path.is_dir() and path.name != SCRATCH)


def _abandoned(path: Path) -> bool:
    """Nobody holds its lock. One without a lock file is of nobody that we know, and left alone until it is old."""
    try:
        with (path / "in-use").open("r") as file:
            return _taken(file.fileno())
    except OSError:
        return False

# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands of this machine that the lab calls: looked for first, run with a limit, named when they fail, and ended with
the lab, however that ends: by their ids, each with the session that it was given.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from .errors import LabError, Stopped, TookLonger

# Command, or file by its path -> Debian package. tools/install-host-tools reads the same table.
PACKAGES = dict(line.split() for line in (Path(__file__).parent / "commands.txt").read_text().splitlines() if line)
SBIN = "/usr/sbin:/sbin"
LOCALE = {"LC_ALL": "C.UTF-8"}  # words that a program can read, names of files in any alphabet
GRACE = 20.0  # seconds for a command to put its own things away (mmdebstrap unmounts) before it is killed
TAIL = 12  # lines of what a failed command said

stopping = threading.Event()
_running: set[subprocess.Popen[bytes]] = set()
_lock = threading.Lock()


def path_of(command: str) -> str | None:
    """Where it is, also where only root's PATH leads to."""
    return shutil.which(command, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}")


def need(*wanted: str) -> None:
    """Raises: LabError with every command, or file by its whole path, that is missing, and their packages."""
    missing = [each for each in wanted if not (Path(each).exists() if each.startswith("/") else path_of(each))]
    if missing:
        packages = sorted({PACKAGES.get(each, each) for each in missing})
        raise LabError(
            f"missing on this machine: {', '.join(missing)}",
            hint=f"tools/install-host-tools, or apt install {' '.join(packages)}",
        )


@contextlib.contextmanager
def started(
    words: Sequence[str | Path],
    *,
    output: int | IO[bytes],
    errors: int | IO[bytes] = subprocess.STDOUT,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    grace: float = GRACE,
) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs while the block does, and is gone with what it started when the block is left.

    Raises:
        LabError: there is no such command.
        Stopped: the lab is being ended.
    """
    command = str(words[0])
    need(command) if "/" not in command else None
    found = [path_of(command) or command, *map(str, words[1:])]
    # Should the lab be killed outright, the kernel tells its children: those of the thread that waits here.
    wrapper = path_of("setpriv")
    with _lock:
        if stopping.is_set():
            raise Stopped
        process = subprocess.Popen(
            [wrapper, "--pdeathsig", "TERM", *found] if wrapper else found,
            cwd=cwd,
            env={**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:{SBIN}", **LOCALE, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        _running.add(process)
    try:
        yield process
    finally:
        _end(process, grace)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)  # its session is its own, so its group is


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    _signal(process, signal.SIGKILL)  # also what it left behind
    process.wait()
    with _lock:
        _running.discard(process)


def stop() -> None:
    """End everything that runs, and let nothing be started any more: each wait in any thread raises Stopped."""
    with _lock:
        stopping.set()
        running = list(_running)
    for process in running:
        _signal(process, signal.SIGTERM)


def waited(process: subprocess.Popen[bytes], limit: float) -> int | None:
    """Its status, or None after `limit` seconds. Raises: Stopped."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(min(0.2, limit))
            if stopping.is_set():
                raise Stopped
            return status
        if stopping.is_set():
            raise Stopped
    return None


def call(
    words: Sequence[str | Path],
    *,
    limit: float,
    what: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    into: Path | None = None,
) -> str:
    """Standard output of a command; with `into` it goes there, and nothing is given. `limit` in seconds.

    Raises:
        LabError: it failed, or (TookLonger) took longer; with `what` it was for and the last lines it said.
        Stopped: the lab is being ended.
    """
    command = str(words[0])
    with tempfile.TemporaryFile() as own, tempfile.TemporaryFile() as errors, contextlib.ExitStack() as stack:
        output = stack.enter_context(into.open("wb")) if into else own
        with started(words, output=output, errors=errors, cwd=cwd, env=env) as process:
            status = waited(process, limit)
        if status is None:
            raise TookLonger(f"{what}: {command} took longer than {limit:g} s")
        said = _read(own)
        if status != 0:
            lines = "\n".join(f"    {line}" for line in (said + _read(errors)).splitlines()[-TAIL:])
            raise LabError(f"{what}: {command} ended with status {status}\n{lines}")
        return said


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")

# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of an emulator: its console followed line by line, three limits, and an end by its process id.

The limits are of wall-clock time: of the whole run, of silence (a host that says nothing is hung; the steps say
something every few seconds), and of the time to power off after the end.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import HostFailed

# The emulators that run now. A signal comes to the main thread, and each emulator is followed by another.
_running: set[subprocess.Popen[bytes]] = set()
SILENCE = 420.0  # seconds without a line; the longest test says nothing for two minutes on the slower emulator
FAREWELL = 60.0
PANIC = re.compile(r"Kernel panic|end Kernel panic|soft lockup|Unable to mount root|hostlab: failed:")


@dataclass(frozen=True)
class Disks:
    """Images: the root file system (never written to), the parcel, and an empty one for the results."""

    root: Path
    parcel: Path
    results: Path


def run(
    words: Sequence[str], console: Path, *, limit: float, silence: float = SILENCE, say: Callable[[str], object]
) -> float:
    """Start it, write its console into a file, hand each line that begins with "hostlab:" to `say`; seconds it took.

    Raises:
        HostFailed: it did not come to its end in time, or its kernel panicked; with the console's last lines.
    """
    begin = last = time.monotonic()
    ended: float | None = None
    pending = b""
    process = subprocess.Popen(
        list(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    _running.add(process)
    try:
        with console.open("wb") as file, selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if selector.select(timeout=1.0):
                    data = process.stdout.read()
                    if data == b"":
                        break
                    if data:
                        file.write(data)
                        file.flush()
                        last = time.monotonic()
                        *lines, pending = (pending + data).split(b"\n")
                        for raw in lines:
                            line = raw.decode(errors="replace").strip()
                            if line.startswith("hostlab:"):
                                say(line.removeprefix("hostlab:").strip())
                            if PANIC.search(line):
                                raise _failed(line, console)
                            if line == "hostlab: end":
                                ended = time.monotonic()
                now = time.monotonic()
                if ended is not None and now - ended > FAREWELL:
                    break  # the steps are done and the results are written; it need not power off
                if now - begin > limit:
                    raise _failed(f"it did not end within {limit:g} s", console)
                if now - last > silence:
                    raise _failed(f"it said nothing for {silence:g} s", console)
    finally:
        _end(process)
        _running.discard(process)
    if ended is None:
        raise _failed(f"the emulator ended early, with status {process.returncode}", console)
    return ended - begin


def end_all() -> None:
    """End every emulator that this process runs; those who follow them see an early end."""
    for process in list(_running):
        _kill(process, signal.SIGKILL)


def _kill(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process we started, by its id; its group too, for an emulator may have children."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            _kill(process, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
    process.wait()
    if process.stdout:
        process.stdout.close()


def _failed(why: str, console: Path) -> HostFailed:
    said = console.read_bytes().decode(errors="replace").splitlines()[-15:]
    lines = "\n".join(f"    {line.rstrip()}" for line in said)
    return HostFailed(f"{why}; the console's last lines ({console}):\n{lines}")

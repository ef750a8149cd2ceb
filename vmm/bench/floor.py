# SPDX-License-Identifier: GPL-2.0-or-later
"""The C program of bench/: found, built where it is missing or older than its source, and run beside us in rounds."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vmm.errors import HostError
from vmm.kvm.handle import Closes

SOURCE = Path(__file__).resolve().parents[2] / "bench" / "floor.c"
FLAGS = ("-O2", "-Wall", "-Wextra")
PATIENCE = 60.0  # seconds: no turn takes a tenth of it


class NoFloor(HostError):
    """There is no C program to compare with; the message says why."""


def build() -> Path:
    """The program's path, compiled first where that is needed.

    Raises:
        NoFloor: no source (pyvmm comes from a wheel), no compiler, or it fails.
    """
    program = SOURCE.with_suffix("")
    if not SOURCE.exists():
        raise NoFloor("bench/floor.c is not here: it comes with pyvmm's source, not with an installed wheel")
    if program.exists() and program.stat().st_mtime >= SOURCE.stat().st_mtime:
        return program
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise NoFloor("no C compiler to build bench/floor with", hint="on Debian or Ubuntu, `apt install gcc`")
    made = program.with_suffix(f".{os.getpid()}")  # renamed when done: another pyvmm may build it too
    command = [compiler, *FLAGS, "-o", str(made), str(SOURCE), "-lpthread"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoFloor(f"building bench/floor: {done.stderr.strip() or compiler}")
        made.replace(program)
    except OSError as error:
        raise NoFloor(f"building bench/floor: {error}") from error
    finally:
        made.unlink(missing_ok=True)
    return program


class Rounds(Closes):
    """A program that waits for rounds: each line on its standard input is a number of them, and the answer is one line
    with a number for each. Close it, or use `with`.
    """

    def __init__(self, command: Sequence[str], what: str, fds: Sequence[int] = ()) -> None:
        """`what` it is called in messages; it inherits `fds`."""
        self._what = what
        self._process = subprocess.Popen(
            command, pass_fds=tuple(fds), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def measure(self, rounds: int) -> list[float]:
        """One number for each round, in ns (the floor's mode spawn: three for each).

        Raises:
            HostError: the program ended, with what it said; or its guest hangs.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.write(f"{rounds}\n")
            process.stdin.flush()
            if not select.select([process.stdout], [], [], PATIENCE)[0]:
                raise HostError(f"{self._what} has not answered within {PATIENCE:g} s: its guest hangs")
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            process.wait()
            raise HostError(f"{self._what} ended: {process.stderr.read().strip() or process.returncode}")
        return [float(word) for word in line.split()]

    def close(self) -> None:
        """End the program."""
        process = self._process
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


class Floor(Rounds):
    """The C program in one of its modes.

    Raises:
        NoFloor: `build` does.
    """

    def __init__(self, mode: str, *arguments: str, guest: bytes | None = None, fds: Sequence[int] = ()) -> None:
        program = build()
        shared = -1
        try:
            if guest is not None:  # in memory: a file would stay behind where nobody can remove it
                shared = os.memfd_create("guest", 0)
                with open(shared, "wb", closefd=False) as file:
                    file.write(guest)
                arguments = (f"/proc/self/fd/{shared}", *arguments)
            inherited = (*fds, shared) if guest is not None else fds
            super().__init__([str(program), mode, *arguments], "the C floor", inherited)
        finally:
            if shared >= 0:
                os.close(shared)


def spawner(command: Sequence[str]) -> Floor:
    """A floor that starts `command` once a round."""
    return Floor("spawn", *command)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows of the debugger: what a step and a conditional breakpoint cost in gdb, beside the same gdb on QEMU's gdbstub.

Both guests go round an endless loop of two instructions, `inc eax; jmp`; gdb takes the time itself, in its Python.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from vmm.bench.compare import Budget, Row, pinned, row_of, take_turns
from vmm.bench.processes import LOAD, PATIENCE, QEMU, NoPeer
from vmm.bench.spec import Spec

GDB = "gdb"
LOOP = b"\xff\xc0\xeb\xfc"  # inc eax; jmp
OURS = "loop:\n    inc   eax\n    jmp   loop\n"
STEPS = """
import time, gdb
def steps(n):
    t = time.monotonic_ns()
    for _ in range(n):
        gdb.execute("stepi", False, True)
    return time.monotonic_ns() - t
def condition(n):
    at = int(gdb.parse_and_eval("$pc")) if not hasattr(condition, "at") else condition.at
    condition.at = at
    wanted = (int(gdb.parse_and_eval("$rax")) + n) & 0x7fffffff
    b = gdb.Breakpoint("*%d" % at, type=gdb.BP_HARDWARE_BREAKPOINT, internal=True)
    b.silent = True
    b.condition = "$rax == %d" % wanted
    t = time.monotonic_ns()
    gdb.execute("continue", False, True)
    t = time.monotonic_ns() - t
    b.delete()
    return t
"""


def specs() -> Iterator[Spec]:
    """The rows of this module."""
    yield _row("debug_step", "steps", "stepi in gdb, one instruction")
    yield _row("debug_condition", "condition", "a breakpoint in gdb whose condition is wrong, and on")


def _row(name: str, call: str, what: str) -> Spec:
    row = Row(name, "exits", what, "Python", peer="QEMU's gdbstub")

    def measure(budget: Budget) -> Row:
        if shutil.which(GDB) is None:
            return replace(row, why="gdb is not installed")
        with TemporaryDirectory() as folder, pinned(1), ExitStack() as stack:
            ours = stack.enter_context(Client(Path(folder), call, _pyvmm))
            try:
                peer = stack.enter_context(Client(Path(folder), call, _qemu))
            except NoPeer as error:
                return replace(row_of(take_turns(ours, None, budget), row), why=str(error))
            return row_of(take_turns(ours, peer, budget), row)

    return Spec(row, measure)


def _pyvmm(folder: Path, socket: Path) -> list[str]:
    (folder / "loop.asm").write_text(OURS, encoding="utf-8")
    return [sys.executable, "-m", "vmm", "run", str(folder / "loop.asm"), "--gdb", str(socket), "--wait"]


def _qemu(folder: Path, socket: Path) -> list[str]:
    if shutil.which(QEMU) is None:
        raise NoPeer(f"{QEMU} is not installed")
    has_addresses, magic = 1 << 16, 0x1BADB002
    checksum = -(magic + has_addresses) & 0xFFFFFFFF
    head = struct.pack("<8I", magic, has_addresses, checksum, LOAD, LOAD, 0, 0, LOAD + 32)
    (folder / "loop.bin").write_bytes(head + LOOP + bytes(64))
    return [
        QEMU, "-M", "microvm", "-accel", "kvm", "-m", "16M", "-kernel", str(folder / "loop.bin"), "-nodefaults",
        "-no-user-config", "-no-reboot", "-display", "none", "-S", "-chardev",
        f"socket,path={socket},server=on,wait=off,id=g", "-gdb", "chardev:g",
    ]  # fmt: skip


class Client:
    """A gdb that stays, its server, and its guest in its loop. Raises NoPeer: the guest does not come there."""

    def __init__(self, folder: Path, call: str, make: Callable[[Path, Path], list[str]]) -> None:
        self._call = call
        socket = folder / f"{make.__name__}.sock"
        command = make(folder, socket)
        self._what = command[0].rpartition("/")[2]
        quiet = subprocess.DEVNULL
        self._server = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
        self._gdb: subprocess.Popen[str] | None = None
        try:
            end = time.monotonic() + PATIENCE
            while not socket.exists():
                if self._server.poll() is not None or time.monotonic() > end:
                    raise NoPeer(f"{command[0]} gives no gdb server")
                time.sleep(0.02)
            self._gdb = subprocess.Popen(
                [GDB, "-nx", "-q"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            script = folder / "bench.py"
            script.write_text(STEPS, encoding="utf-8")
            at = [f"hbreak *{LOAD + 32:#x}", "continue", "delete"] if make is _qemu else []
            self._say("set pagination off", "set confirm off", f"target remote {socket}", *at, f"source {script}")
            self.measure(1)
        except BaseException:
            self.close()
            raise

    def _say(self, *lines: str) -> None:
        assert self._gdb is not None
        assert self._gdb.stdin is not None
        self._gdb.stdin.write("".join(f"{line}\n" for line in lines))
        self._gdb.stdin.flush()

    def measure(self, rounds: int) -> list[float]:
        """The mean of these rounds, in ns."""
        assert self._gdb is not None
        assert self._gdb.stdout is not None
        guard = threading.Timer(PATIENCE, self._gdb.kill)
        guard.start()
        try:
            self._say(f"python print('took', {self._call}({rounds}))")
            for line in self._gdb.stdout:
                if "took " in line:
                    return [int(line.rpartition("took ")[2]) / rounds]
        finally:
            guard.cancel()
        raise NoPeer(f"{self._what}: its gdb ended, or said nothing for {PATIENCE:g} s")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all of it."""
        for process in (self._gdb, self._server):
            if process is not None:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        pipe.close()

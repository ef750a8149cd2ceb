# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole processes: `pyvmm run hello` beside QEMU's smallest machine, whose guest prints the same line and exits."""

from __future__ import annotations

import os
import platform
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from vmm.abi import ports
from vmm.bench import ending
from vmm.bench.compare import Budget, Goal, Row, row_of
from vmm.bench.floor import spawner
from vmm.bench.spec import Spec
from vmm.bench.stats import Pair
from vmm.errors import HostError

QEMU = "qemu-system-x86_64"
TEXT = b"Hello from ring 0 of a virtual machine.\n"
LOAD = 0x10_0000
FEWEST, MOST = 5, 60  # turns
PATIENCE = 60.0  # seconds for one run of the peer


def multiboot() -> bytes:
    """A flat multiboot image (the GNU Multiboot Specification 0.6.96, section 3.1), entered in 32-bit protected mode.

    mov esi, text; L: lodsb; test al, al; jz done; out 0xe9, al; jmp L; done: mov al, 0; out 0xf4, al; hlt; jmp hlt
    """
    has_addresses = 1 << 16
    magic = 0x1BADB002
    code_at = LOAD + 32
    after = b"\xac\x84\xc0\x74\x04\xe6" + bytes((ports.DEBUG_CONSOLE,)) + b"\xeb\xf7"
    after += b"\xb0\x00\xe6" + bytes((ports.EXIT,)) + b"\xf4\xeb\xfd"
    text_at = code_at + 5 + len(after)
    checksum = -(magic + has_addresses) & 0xFFFFFFFF
    head = struct.pack("<8I", magic, has_addresses, checksum, LOAD, LOAD, 0, 0, code_at)
    return head + b"\xbe" + struct.pack("<I", text_at) + after + TEXT + bytes(64)


def qemu_command(kernel: Path) -> list[str]:
    """QEMU without anything it does not need."""
    return [
        QEMU, "-M", "microvm", "-accel", "kvm", "-m", "16M", "-kernel", str(kernel), "-nodefaults", "-no-user-config",
        "-no-reboot", "-display", "none", "-chardev", "stdio,id=c",
        "-device", f"isa-debugcon,iobase={ports.DEBUG_CONSOLE:#x},chardev=c",
        "-device", f"isa-debug-exit,iobase={ports.EXIT:#x},iosize=1",
    ]  # fmt: skip


QEMU_STATUS = 1  # isa-debug-exit: value * 2 + 1


class Process:
    """One command, started by the C program once a round. `kib` are the peaks of memory."""

    def __init__(self, command: list[str], status: int) -> None:
        self._floor, self._command, self._status = spawner(command), command, status
        self.kib: list[float] = []

    def measure(self, rounds: int) -> list[float]:
        numbers = self._floor.measure(rounds)
        if any(status != self._status for status in numbers[2::3]):
            bad = next(status for status in numbers[2::3] if status != self._status)
            said = f"{self._command[0]} ended with status {bad:.0f}, and not {self._status}"
            raise NoPeer(said) if self._command[0] == QEMU else HostError(said)
        self.kib += numbers[1::3]
        return numbers[0::3]

    def close(self) -> None:
        self._floor.close()


class NoPeer(HostError):
    """There is no other program to compare with, or it does not do what it is asked for."""


def peer_name(program: str) -> str:
    """`QEMU 7.2.22`, by what it says of itself.

    Raises:
        NoPeer: it is not installed, or does not run.
    """
    if not shutil.which(program):
        raise NoPeer(f"{program} is not installed")
    done = _asked([program, "--version"])
    found = re.search(r"version (\d[\w.]*)", done.stdout.decode("utf-8", "replace"))
    return f"QEMU {found[1]}" if found else "QEMU"


def check_peer(command: list[str], status: int) -> None:
    """Run it once, and look at what it printed.

    Raises:
        NoPeer: that is not the line, or it ended otherwise.
    """
    done = _asked(command)
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    if done.returncode != status:
        raise NoPeer(
            f"{command[0]} ended with status {done.returncode}, and not {status}{''.join(f': {s}' for s in said)}"
        )
    if done.stdout != TEXT:
        raise NoPeer(f"{command[0]} printed {done.stdout[:60]!r}, and not {TEXT!r}")


def _asked(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise NoPeer(f"{command[0]} did not end within {PATIENCE:g} s") from error
    except OSError as error:
        raise NoPeer(f"{command[0]}: {error.strerror or error}") from error


def qemu(folder: Path) -> tuple[str, Process]:
    """The peer whose guest prints the same line. NoPeer: it is not there, or does not do it."""
    kernel = folder / "guest"
    kernel.write_bytes(multiboot())
    name = peer_name(QEMU)
    check_peer(qemu_command(kernel), QEMU_STATUS)
    return name, Process(qemu_command(kernel), QEMU_STATUS)


def python(_folder: Path) -> tuple[str, Process]:
    """The peer that is a part of pyvmm: this interpreter, which starts and ends."""
    return f"Python {platform.python_version()}", Process([sys.executable, "-c", "pass"], 0)


def _compare(
    budget: Budget, cached: bool, other: Callable[[Path], tuple[str, Process]], options: tuple[str, ...] = ()
) -> tuple[Pair, Process, Process | None, str]:
    """`pyvmm run hello` and another program, taking turns. Without one that does it: None, and why; else its name."""
    with ExitStack() as stack:
        folder = stack.enter_context(ending.folder())
        cache = str(folder / "cache")
        command = [*_pyvmm(), "run", "hello", *options]
        stack.enter_context(_environment("PYVMM_CACHE", cache))
        # Where it is set, every start compiles all modules anew: nobody who waits for pyvmm has it set.
        stack.enter_context(_environment("PYTHONDONTWRITEBYTECODE", None))
        here = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        stack.enter_context(_environment("PYTHONPATH", os.pathsep.join(here)))  # this pyvmm, from any folder
        ours = Process(command, 0)
        stack.callback(ours.close)
        peer: Process | None = None
        try:
            name, peer = other(folder)
            stack.callback(peer.close)
            peer.measure(1)
        except NoPeer as error:
            name = str(error)
        pair = Pair()
        ours.measure(2)
        ours.kib.clear()
        turns = FEWEST if budget.quick else MOST
        for turn in range(turns):
            if not cached:
                shutil.rmtree(cache, ignore_errors=True)
            pair.ours.append(ours.measure(1))
            if peer is not None:
                try:
                    pair.floor.append(peer.measure(1))
                except NoPeer as error:
                    peer, name = None, str(error)
                    pair.floor.clear()  # a ratio against half of it would be none
            if turn >= 2 * FEWEST and pair.settled:
                break
        return pair, ours, peer, name


def _pyvmm() -> list[str]:
    """The command as it is installed beside this interpreter, else the package itself."""
    script = Path(sys.executable).with_name("pyvmm")
    return [str(script)] if script.exists() else [sys.executable, "-m", "vmm"]


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """A variable is set, or with None unset, for a while."""
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def _row(
    name: str,
    what: str,
    goal: Goal,
    *,
    cached: bool = True,
    memory: bool = False,
    other: Callable[[Path], tuple[str, Process]] = qemu,
    peer: str = "QEMU",
) -> tuple[Row, Callable[[Budget], Row]]:
    row = Row(name, "goals", what, "process", "bytes" if memory else "ns", peer=peer, goal=goal)

    def measure(budget: Budget) -> Row:
        pair, ours, theirs, name = _compare(budget, cached, other)
        if memory:
            floor = [[kib * 1024] for kib in theirs.kib[1:]] if theirs is not None else []
            pair = Pair([[kib * 1024] for kib in ours.kib], floor)
        made = row_of(pair, row)
        if theirs is None:
            return replace(made, why=name)
        return replace(made, peer=name)

    return row, measure


SANDBOX = Row(
    "sandbox", "goals", "what `pyvmm run hello --sandbox` takes beyond the same run without", "process",
    goal=Goal(2e6, "at most 2.0 ms", of="median"),
)  # fmt: skip


def _unconfined(_folder: Path) -> tuple[str, Process]:
    return "without", Process([*_pyvmm(), "run", "hello", "--no-sandbox"], 0)


def _sandbox(budget: Budget) -> Row:
    """The difference of each turn: both parse arguments, assemble nothing and run the same guest."""
    pair = _compare(budget, True, _unconfined, ("--sandbox",))[0]
    turns = zip(pair.ours, pair.floor, strict=True)
    differences = [[mine - its for mine, its in zip(with_it, without, strict=True)] for with_it, without in turns]
    return row_of(Pair(differences), SANDBOX)


def specs() -> Iterator[Spec]:
    yield Spec(*_row("hello", "`pyvmm run hello`, payload cached", Goal(0.45, "at most 0.45 x")))
    yield Spec(
        *_row(
            "hello_python",
            "the same, beside `python -c pass`",
            Goal(2.0, "at most 2.00 x"),
            other=python,
            peer="Python",
        )
    )
    yield Spec(*_row("hello_memory", "the same, peak memory", Goal(0.45, "at most 0.45 x"), memory=True))
    yield Spec(SANDBOX, _sandbox)
    yield Spec(*_row("hello_uncached", "`pyvmm run hello`, not cached", Goal(1.3, "at most 1.30 x"), cached=False))

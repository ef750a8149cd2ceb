# SPDX-License-Identifier: GPL-2.0-or-later
"""Standard input as the other end of a guest's COM1, or of its virtio console: a terminal in raw mode with an escape
key, a pipe, a file.

Only a board that has a serial port for an operating system gets it; a payload of pyvmm's own board reads nothing, and
so takes nothing from whoever runs it. A terminal's escape key is QEMU's: C-a, then x to quit, h for help, C-a (or a)
for one C-a to the guest. What a pipe or a file holds goes to the guest as it is; its end is the end of the input, and
nothing is made of it. The UART gives each character when the guest takes it (Uart16550A.feed), so none is lost.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from vmm.cli.terminal import RawTerminal, in_foreground

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.machine.machine import Machine
    from vmm.payload.guest import AnyGuest
    from vmm.payload.options import Options

ESCAPE = 0x01  # C-a
HELP = "\nC-a x    quit\nC-a h    this help\nC-a C-a  send C-a to the guest\n"
HINT = "the keyboard is at the guest's COM1: C-a x quits, C-a h helps\n"
QUIT = "ended from the keyboard (C-a x)"
CHUNK = 4096
AHEAD = 1 << 16
"""Characters that may wait in front of the guest; what is beyond stays in the pipe."""
PAUSE = 0.02
INTERACTIVE_OUTPUT = 1 << 28


class Screen(Protocol):
    """Where the guest's output is shown."""

    def obey(self) -> None:
        """Show every character, at once, and as it is."""

    def say(self, text: str) -> None:
        """Lines of our own."""


class Escapes:
    """What is typed, without the escape key and what follows it. `do` is told x and h."""

    def __init__(self, do: Callable[[str], object]) -> None:
        self._do = do
        self._escaped = False

    def filter(self, data: bytes) -> bytes:
        """What of it is the guest's. An unknown letter after the escape key is dropped with it."""
        kept = bytearray()
        for byte in data:
            if self._escaped:
                self._escaped = False
                if byte in (ESCAPE, ord("a")):
                    kept.append(ESCAPE)
                elif byte in b"xXhH?":
                    self._do("x" if byte in b"xX" else "h")
            elif byte == ESCAPE:
                self._escaped = True
            else:
                kept.append(byte)
        return bytes(kept)


class Feeder:
    """A thread that reads `fd` and gives it to `feed`, as long as fewer than AHEAD characters are `unread`."""

    def __init__(
        self, fd: int, feed: Callable[[bytes], object], unread: Callable[[], int], escapes: Escapes | None
    ) -> None:
        self._fd, self._feed, self._unread, self._escapes = fd, feed, unread, escapes
        self._ended = threading.Event()
        self._wake_reader, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._live, name="stdin", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Read no more. Idempotent; also from the thread itself."""
        if self._ended.is_set():
            return
        self._ended.set()
        os.write(self._wake, b".")
        if self._thread is not threading.current_thread():
            self._thread.join()
            os.close(self._wake)
            os.close(self._wake_reader)

    def _live(self) -> None:
        while not self._ended.is_set():
            if self._unread() >= AHEAD or (self._escapes is not None and not in_foreground(self._fd)):
                self._ended.wait(PAUSE)
                continue
            ready = select.select([self._fd, self._wake_reader], [], [])[0]
            if self._wake_reader in ready:
                return
            try:
                data = os.read(self._fd, CHUNK)
            except BlockingIOError:  # somebody else made it so, and took what was there
                continue
            except OSError:  # a terminal that has hung up
                return
            if not data:
                return
            data = data if self._escapes is None else self._escapes.filter(data)
            if data and not self._ended.is_set():
                self._feed(data)


class Stdin:
    """Use it with `with`, around a run; `watch` is for its Options. `fd` is standard input, `shown` whether the guest's
    output goes to a terminal: without that nobody can type blindly at it.

    A guest that is given a terminal runs without the default limits of time and output, for a person sees what it does.
    """

    def __init__(self, console: Screen, options: Options, *, shown: bool, fd: int = 0) -> None:
        self._console, self._options, self._shown, self._fd = console, options, shown, fd
        # Asked now: where it is closed, the next descriptor that we open gets its number.
        self._there = sys.stdin is not None and readable(fd)
        self._stack = ExitStack()
        self._used = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def watch(self, guest: AnyGuest) -> None:
        """A guest has been made: the first with an operating system's board gets the input."""
        machine = guest.machine
        if self._used or machine.board.name == "own" or not self._there:
            return
        self._used = True
        escapes = None
        if os.isatty(self._fd):
            if not self._shown or not in_foreground(self._fd):
                return
            escapes = Escapes(lambda letter: self._escaped(machine, letter))
            self._stack.enter_context(RawTerminal(self._fd))
            self._console.say(HINT if not self._options.virtio_console else HINT.replace("COM1", "virtio console"))
            self._console.obey()
            if self._options.timeout is None:
                machine.timeout = None
            if self._options.output_limit is None:
                machine.sink.limit = INTERACTIVE_OUTPUT
        feed, unread = self._other_end(guest)
        feeder = Feeder(self._fd, feed, unread, escapes)
        guest.on_close.append(feeder.close)

    def _other_end(self, guest: AnyGuest) -> tuple[Callable[[bytes], object], Callable[[], int]]:
        """(who takes what is typed, how much of it waits there): the virtio console that was asked for, or COM1."""
        if self._options.virtio_console:
            console = guest.devices["virtio_console"].device
            return console.send, lambda: console.waiting
        uart = guest.machine.uart
        return uart.feed, lambda: uart.unread

    def _escaped(self, machine: Machine, letter: str) -> None:
        if letter == "x":
            machine.stop(QUIT)
        else:
            self._console.say(HELP)


def readable(fd: int) -> bool:
    """Whether there is something to read from at all: not a closed descriptor, not /dev/null."""
    try:
        there = os.fstat(fd)
    except OSError:
        return False
    return not os.path.samestat(there, Path(os.devnull).stat())

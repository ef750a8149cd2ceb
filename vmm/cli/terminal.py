# SPDX-License-Identifier: GPL-2.0-or-later
"""A terminal in raw mode, and back: after a return, an exception, ^C, a signal that ends the process, a stop by job
control. It knows no guest.

In raw mode every key is the guest's, ^C too (termios(3), cfmakeraw). What is written goes through the terminal as
before, so lines of our own stay lines.
"""

from __future__ import annotations

import os
import signal
import termios
from contextlib import suppress
from types import FrameType
from typing import Any, Self

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
RAW_INPUT = (
    termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR | termios.ICRNL
    | termios.IXON
)  # fmt: skip
RAW_LOCAL = termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN
INPUT, LOCAL, CHARACTERS = 0, 3, 6  # of what tcgetattr gives


def in_foreground(fd: int) -> bool:
    """Whether a read of this terminal, or a change of its mode, would not stop us."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False


class RawTerminal:
    """Use it with `with`, on the main thread: signals are handled there."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """What goes wrong in here leaves the terminal as it was."""
        try:
            for each in (*ENDING, signal.SIGTSTP):
                self._handlers[each] = signal.signal(each, self._end if each in ENDING else self._stop)
            self._make_raw()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def restore(self) -> None:
        """As it was found. Idempotent; what cannot be restored (the terminal is gone) is let be."""
        saved, self._saved = self._saved, None
        if saved is None:
            return
        with suppress(OSError, termios.error):
            termios.tcsetattr(self._fd, termios.TCSADRAIN, saved)

    def _make_raw(self) -> None:
        saved = termios.tcgetattr(self._fd)
        raw = [*saved[:CHARACTERS], [*saved[CHARACTERS]]]
        raw[INPUT] &= ~RAW_INPUT
        raw[LOCAL] &= ~RAW_LOCAL
        raw[CHARACTERS][termios.VMIN], raw[CHARACTERS][termios.VTIME] = 1, 0
        self._saved = saved  # first: whatever comes from here on, it is put back
        termios.tcsetattr(self._fd, termios.TCSADRAIN, raw)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        """The process ends as it would have, and the terminal is well."""
        self.restore()
        signal.signal(number, self._handlers.get(signal.Signals(number)) or signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        """Somebody else stops us (in raw mode ^Z is the guest's); when we go on, the mode is raw again."""
        self.restore()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stop)
        if in_foreground(self._fd):
            self._make_raw()

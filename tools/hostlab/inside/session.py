# SPDX-License-Identifier: GPL-2.0-or-later
"""A program with a Linux guest's serial console on its standard input and output: what it says is waited for, and lines
are typed. It knows no VMM.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PROMPT = re.compile(rb"(?m)^/ # $")
CLEAN = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\r")
CUT = re.compile(rb"\x1b(\[[0-9;?]*)?\Z")  # an escape sequence of which the rest is still to come


class Silent(Exception):
    """What was waited for did not come: the program ended, or its time was over."""


class Session:
    """Used as a context manager, it ends the program in any case. `text` is all that was said so far."""

    def __init__(self, words: Sequence[str], log: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        self.begin = time.monotonic()
        self._log = log.open("wb") if log else None
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0, env=env
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.process.stdout, selectors.EVENT_READ)
        self._said = b""
        self._cut = b""
        self._unread = b""  # what no expectation has used up
        self._asked = 0

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._selector.close()
        for file in (self.process.stdin, self.process.stdout, self._log):
            if file is not None:
                file.close()

    @property
    def text(self) -> str:
        return self._said.decode(errors="replace")

    def _more(self, until: float) -> bool:
        """Take what comes; False when nothing will come any more. Raises: Silent, after `until`."""
        left = until - time.monotonic()
        if left <= 0:
            raise Silent("its time was over")
        if not self._selector.select(min(left, 0.5)):
            return True
        assert self.process.stdout is not None
        data = self.process.stdout.read(1 << 16)
        if data == b"":
            return False
        if data:
            self._take(data)
            if self._log:
                self._log.write(data)
                self._log.flush()
        return True

    def _take(self, data: bytes) -> None:
        data = self._cut + data
        cut = CUT.search(data)
        self._cut = cut[0] if cut else b""
        data = CLEAN.sub(b"", data[: cut.start()] if cut else data)
        self._said += data
        self._unread += data

    def expect(self, what: bytes | re.Pattern[bytes], limit: float) -> tuple[str, float]:
        """(what came before it, seconds since the start) when it has come. Raises: Silent."""
        pattern = re.compile(re.escape(what)) if isinstance(what, bytes) else what
        until = time.monotonic() + limit
        while True:
            if found := pattern.search(self._unread):
                before = self._unread[: found.start()].decode(errors="replace")
                self._unread = self._unread[found.end() :]
                return before, time.monotonic() - self.begin
            if not self._more(until):
                raise Silent(f"the program ended before it said {pattern.pattern!r}")

    def send(self, line: str) -> None:
        """Type a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    def ask(self, line: str, limit: float) -> str:
        """What a command at the shell's prompt says, without the line itself. Raises: Silent."""
        self._asked += 1
        self.send(f"{line}; echo end-$((70000+{self._asked}))")
        said, _ = self.expect(f"end-{70000 + self._asked}".encode(), limit)
        self.expect(PROMPT, limit)
        return said.partition("\n")[2].strip()

    def wait(self, limit: float) -> int:
        """The exit status, when all was read. Raises: Silent."""
        until = time.monotonic() + limit
        while self._more(until):
            pass
        return self.process.wait(max(until - time.monotonic(), 1))

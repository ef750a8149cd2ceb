# SPDX-License-Identifier: GPL-2.0-or-later
"""What the user sees while the lab works: a line an event, with the seconds since the start and the host's name; on a
terminal and in a log alike.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Say = Callable[[str], object]
REMIND = 60.0  # seconds after which long work says that it goes on


def silent(text: str) -> None:
    """A Say for who wants none."""


class Progress:
    """Called with a host's name and a text."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, name: str, text: str) -> None:
        with self._lock:
            print(f"{time.monotonic() - self._begin:6.0f} s  {name:<12}  {text}", file=sys.stderr, flush=True)


@contextmanager
def working(say: Say, what: str) -> Iterator[None]:
    """Say that it begins, once a minute that it goes on, and how long it took."""
    begin, done = time.monotonic(), threading.Event()

    def remind() -> None:
        while not done.wait(REMIND):
            say(f"{what}: {time.monotonic() - begin:.0f} s so far")

    say(f"making {what}")
    reminder = threading.Thread(target=remind, daemon=True)
    reminder.start()
    try:
        yield
    finally:
        done.set()
        reminder.join()
    say(f"{what}: made in {time.monotonic() - begin:.0f} s")

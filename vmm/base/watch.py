# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that a person edits: which of a few named ones were saved since somebody last looked. It reads none of them.

Each name is asked for with stat(2), five times a second. A library over inotify(7) (watchfiles) was weighed against it:
the names are a handful and change from run to run; inotify hears nothing of what another machine writes into a shared
or network folder; a folder of many files would wake it for each of them; and the library is half a megabyte of
compiled code. Ten names cost 1 ms of CPU time a second here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

INTERVAL = 0.2  # seconds between two looks: a person does not notice, and a CPU does not either
SETTLE = 0.1  # seconds without another change: an editor may write a file in several pieces
GONE = 1.0  # seconds that a file may be away while an editor puts a new one in its place


class Stamp(NamedTuple):
    """What a save changes, also one that puts another file in its place (rename(2)) or keeps the time."""

    inode: int
    size: int
    modified: int


def stamp(name: str) -> Stamp | None:
    """Of what the name leads to, symbolic links followed; None where there is nothing, or nobody may look."""
    try:
        found = Path(name).stat()
    except (OSError, ValueError):
        return None
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


class Watch:
    """Tells what was saved. Names of files that do not exist yet are taken too: to be written is a change.

        watch = Watch(["a.asm", "a.py"])
        while True:
            ...                          # read the files
            saved = watch.wait()         # also what was saved while they were read

    `interval`, `settle` and `gone` are seconds, see this module's constants.
    """

    def __init__(
        self, names: Iterable[str], *, interval: float = INTERVAL, settle: float = SETTLE, gone: float = GONE
    ) -> None:
        self._interval, self._settle, self._gone = interval, settle, gone
        self._seen: dict[str, Stamp | None] = {name: stamp(name) for name in names}
        self._since = time.time_ns()

    @property
    def names(self) -> tuple[str, ...]:
        """What is watched."""
        return tuple(self._seen)

    def follow(self, names: Iterable[str]) -> None:
        """Watch these from now on, in place of the others. One that is new counts as saved if that was after the last
        `wait` (or the beginning): it was read, and found out about, in between.
        """
        fresh: dict[str, Stamp | None] = {}
        for name in names:
            known = stamp(name)
            if name not in self._seen and known is not None and known.modified > self._since:
                known = None
            fresh[name] = self._seen.get(name, known)
        self._seen = fresh

    def wait(self, timeout: float | None = None) -> tuple[str, ...]:
        """The names that were saved, as soon as nothing changes any more; empty after `timeout` seconds without any.

        A file that is removed counts when it has been away for `gone` seconds. ^C ends it as it ends any sleep.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = self._interval if deadline is None else min(self._interval, deadline - time.monotonic())
            if any(stamp(name) != seen for name, seen in self._seen.items()):
                now = self._settled()
                changed = tuple(name for name in now if now[name] != self._seen[name])
                self._seen, self._since = now, time.time_ns()
                if changed:  # else it was put back as it had been
                    return changed
            if left <= 0:
                return ()
            time.sleep(left)

    def _settled(self) -> dict[str, Stamp | None]:
        """All stamps, once they stand still; bounded by `gone`, for a file may be written to without end."""
        before = {name: stamp(name) for name in self._seen}
        end = time.monotonic() + self._gone
        while True:
            time.sleep(self._settle)
            now = {name: stamp(name) for name in self._seen}
            away = any(found is None and self._seen[name] is not None for name, found in now.items())
            if time.monotonic() >= end or (now == before and not away):
                return now
            before = now

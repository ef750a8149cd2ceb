# SPDX-License-Identifier: GPL-2.0-or-later
"""A thread that waits for eventfds and calls somebody back: a guest's kicks, when KVM turns them into events.

It knows eventfds; it knows neither KVM nor what is done at a kick.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from vmm.errors import HostError

_FLAGS = os.EFD_CLOEXEC | os.EFD_NONBLOCK


class Service:
    """Calls work(i) after event i of `count` was signalled, several signals at once counting as one.

    What `work` raises goes to `failed`, and is the end of the service: later events wait for ever.
    """

    def __init__(
        self, name: str, count: int, work: Callable[[int], object], failed: Callable[[BaseException], object]
    ) -> None:
        self._work, self._failed = work, failed
        self._fds: list[int] = []
        try:
            for _ in range(count + 1):
                self._fds.append(os.eventfd(0, _FLAGS))
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        except (OSError, RuntimeError) as error:
            self._give_back()
            raise HostError(f"starting the service of {name}: {error}\n  try: `ulimit -n`, `ulimit -u`") from error

    @property
    def events(self) -> tuple[int, ...]:
        """The eventfds, to be signalled by whom they are given."""
        return tuple(self._fds[:-1])

    def _run(self) -> None:
        poll = select.poll()
        numbers = {fd: i for i, fd in enumerate(self._fds)}
        for fd in self._fds:
            poll.register(fd, select.POLLIN)
        stop = self._fds[-1]
        try:
            while True:
                ready = [fd for fd, _ in poll.poll()]
                if stop in ready:
                    return
                for fd in ready:
                    os.eventfd_read(fd)
                    self._work(numbers[fd])
        except BaseException as error:
            self._failed(error)

    def close(self) -> None:
        """End the thread, after what it is doing, and close the eventfds. Idempotent; not to be called from `work`."""
        if self._fds:
            os.eventfd_write(self._fds[-1], 1)
            self._thread.join()
            self._give_back()

    def _give_back(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

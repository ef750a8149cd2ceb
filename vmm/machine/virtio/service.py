# SPDX-License-Identifier: GPL-2.0-or-later
"""A thread that waits for eventfds and calls somebody back: a guest's kicks, when KVM turns them into events.

It knows eventfds; it knows neither KVM nor what is done at a kick.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import weakref
from collections.abc import Callable

from vmm.errors import exhausted

_FLAGS = os.EFD_CLOEXEC | os.EFD_NONBLOCK


class Service:
    """Calls work(i) after event i of `count` was signalled, several signals at once counting as one.

    What `work` raises goes to `failed`, and is the end of the service: later events wait for ever.
    """

    def __init__(
        self, name: str, count: int, work: Callable[[int], object], failed: Callable[[BaseException], object]
    ) -> None:
        self._work, self._failed, self._pid = work, failed, os.getpid()
        self._fds: list[int] = []
        try:
            for _ in range(count + 1):
                self._fds.append(os.eventfd(0, _FLAGS))
            self._thread = threading.Thread(
                target=_live, args=(tuple(self._fds), weakref.ref(self)), name=name, daemon=True
            )
            self._thread.start()
        except OSError as error:
            self._give_back()
            raise exhausted(f"starting the service of {name}", "eventfd", error.errno or 0) from error
        except RuntimeError as error:
            self._give_back()
            raise exhausted(f"starting the service of {name}", "pthread_create", errno.EAGAIN) from error

    @property
    def events(self) -> tuple[int, ...]:
        """The eventfds, to be signalled by whom they are given."""
        return tuple(self._fds[:-1])

    @property
    def ended(self) -> bool:
        """It has been closed, and its eventfds with it."""
        return not self._fds

    def serve(self, number: int) -> bool:
        """On the thread: the work for an event; False when it has raised."""
        try:
            self._work(number)
        except BaseException as error:
            self._failed(error)
            return False
        return True

    def close(self) -> None:
        """End the thread, after what it is doing, and close the eventfds. Idempotent; in a child by fork, where the
        thread is not, the descriptors alone.
        """
        if self._fds:
            if os.getpid() == self._pid:
                os.eventfd_write(self._fds[-1], 1)
                if self._thread is not threading.current_thread():  # it let go of the last that held us
                    self._thread.join()
            self._give_back()

    def _give_back(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


def _live(fds: tuple[int, ...], who: weakref.ref[Service]) -> None:
    """The thread. While it waits it holds no service, and with that no machine: one that is dropped can go."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if fds[-1] in ready:
            return
        for fd in ready:
            os.eventfd_read(fd)
            service = who()
            if service is None or not service.serve(fds.index(fd)):
                return
            del service

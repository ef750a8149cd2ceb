# SPDX-License-Identifier: GPL-2.0-or-later
"""A thread that waits for a network device's link, and calls its transport when something can be done.

It knows poll and the wishes of a card's Frames (`wants_input`, `wants_room`, `has_more`); it knows neither KVM nor
frames.
A link that nobody wants anything of is not polled at all: what has hung up would be ready without end.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import weakref
from collections.abc import Callable

from vmm.errors import exhausted
from vmm.machine.virtio.net_frames import RECEIVE, TRANSMIT, Frames

_TROUBLE = select.POLLHUP | select.POLLERR | select.POLLNVAL


class Listener:
    """Calls wake(RECEIVE) when the link has something that is wanted, wake(TRANSMIT) when it takes something again.

    What `wake` raises goes to `failed`, and is the end of the listener.
    """

    def __init__(
        self, name: str, frames: Frames, wake: Callable[[int], object], failed: Callable[[BaseException], object]
    ) -> None:
        self._frames, self._wake, self._failed, self._pid = frames, wake, failed, os.getpid()
        self._ended = False
        self.turns = 0  # calls of `serve`
        try:
            self._poke = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError as error:
            raise exhausted(f"listening for {name}", "eventfd", error.errno or 0) from error
        try:
            self._thread = threading.Thread(
                target=_live, args=(self._poke, weakref.ref(self)), name=f"{name} link", daemon=True
            )
            self._thread.start()
        except RuntimeError as error:
            os.close(self._poke)
            raise exhausted(f"listening for {name}", "pthread_create", errno.EAGAIN) from error

    def poke(self) -> None:
        """The wishes have changed. From any thread; on the listener's own it is not needed, for it looks anyway."""
        if self._poke >= 0 and threading.current_thread() is not self._thread:
            os.eventfd_write(self._poke, 1)

    def wishes(self) -> tuple[int, int, bool]:
        """The descriptor, what to poll it for (0: nothing), and whether to call at once all the same."""
        frames = self._frames
        more = frames.has_more or (frames.blocked and not frames.link_up)
        mask = select.POLLIN * frames.wants_input | select.POLLOUT * frames.wants_room
        if frames.link is None or frames.gone or not mask:
            return -1, 0, more
        return frames.link.fileno(), mask, more

    def serve(self, events: int) -> bool:
        """On the thread: what came; False when it has raised or is to end."""
        frames = self._frames
        self.turns += 1
        if self._ended:
            return False
        try:
            # A wish is over with the call: only a queue that can go on wishes again. So a device that its driver has
            # stopped, or broken, is asked once and then left alone.
            if frames.has_more or (frames.wants_input and events & (select.POLLIN | _TROUBLE)):
                frames.wants_input = frames.has_more = False
                self._wake(RECEIVE)
            if frames.wants_room and (events & (select.POLLOUT | _TROUBLE) or (frames.blocked and not frames.link_up)):
                frames.wants_room = frames.blocked = False
                self._wake(TRANSMIT)
        except BaseException as error:
            self._failed(error)
            return False
        return True

    def close(self) -> None:
        """End the thread, after what it is doing. Idempotent; in a child by fork, where the thread is not, the
        descriptor alone.
        """
        if self._poke >= 0:
            self._ended = True
            if os.getpid() == self._pid:
                os.eventfd_write(self._poke, 1)
                if self._thread is not threading.current_thread():  # it let go of the last that held us
                    self._thread.join()
            os.close(self._poke)
            self._poke = -1


def _live(poke: int, who: weakref.ref[Listener]) -> None:
    """The thread. While it waits it holds no listener, and with that no machine: one that is dropped can go."""
    poll = select.poll()
    poll.register(poke, select.POLLIN)
    watched = (-1, 0)
    while True:
        listener = who()
        if listener is None:
            return
        fd, mask, more = listener.wishes()
        del listener  # which may close it, and all that is polled with it
        if who() is None:
            return
        if (fd, mask) != watched:
            if watched[0] >= 0:
                poll.unregister(watched[0])
            if fd >= 0:
                poll.register(fd, mask)
            watched = (fd, mask)
        ready = dict(poll.poll(0 if more else None))
        listener = who()
        if listener is None:
            return
        if poke in ready:
            os.eventfd_read(poke)
        if not listener.serve(ready.get(fd, 0) if fd >= 0 else 0):
            return
        del listener

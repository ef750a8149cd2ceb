# SPDX-License-Identifier: GPL-2.0-or-later
"""What the devices that C serves have in common (_queue.c): memory, queues, the eventfds, the thread and its end.

It knows the memory that both sides share, and when nobody may be inside; what a request means is the C's business, and
what a driver agreed to the transport's.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref

from vmm.errors import HostError, errno_name, exhausted
from vmm.kvm._kvm import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from vmm.kvm.words import Acked

ENTRIES: int = lib.VMM_ENTRIES
OURS = 1 << 32
"""What we add to an eventfd; a guest's kicks add 1."""

QUEUE = ("size", "desc", "avail", "used", "indirect", "event_idx", "last_avail", "used_idx", "told")
"""Of a queue, what both sides have."""


class Plane:
    """The C of one device, without a thread: `c` is its own structure, and `plane` what all have. `close` it when
    nobody is inside.
    """

    def __init__(self, made: Any, free: Any, plane: Callable[[Any], Any], acked: Acked) -> None:
        self._acked = acked  # the C has its address
        self._last: dict[str, int] = {}
        self.c: Any = ffi.gc(made, free)  # goes with the last call that is inside
        self._plane = plane(made)

    def memory(self, stretches: Iterable[tuple[Any, ...]]) -> None:
        """Guest memory is this now: a struct vmm_stretch each (Memslot.stretch). What is not in it any more is not
        touched after this.
        """
        rows = list(stretches)
        if self.c is not None and lib.vmm_plane_memory(self._plane, ffi.new("struct vmm_stretch[]", rows), len(rows)):
            raise exhausted("the memory of a device", "malloc", errno.ENOMEM)

    @property
    def broken(self) -> str:
        """The queue, and the rule that the driver broke, in words; empty if it has broken none."""
        if self.c is None:
            return ""
        why = ffi.new("char[]", lib.VMM_WHY)
        return str(ffi.string(why).decode()) if lib.vmm_plane_broken(self._plane, why) else ""

    def counts(self) -> dict[str, int]:
        """How many kicks of the guest, interrupts and so on there were; also after `close`."""
        if self.c is not None:
            self._last = self._counted()
        return self._last

    def _counted(self) -> dict[str, int]:
        kicks, interrupts = ffi.new("__u64 *"), ffi.new("__u64 *")
        lib.vmm_plane_counted(self._plane, kicks, interrupts)
        return {"kicks": kicks[0], "interrupts": interrupts[0]}

    def failed(self, error: int) -> HostError:
        """Why the thread ended."""
        doing = ffi.string(lib.vmm_plane_failed(self._plane)).decode()
        return HostError(f"{doing}: {os.strerror(error)} ({errno_name(error)})")

    def stop(self) -> None:
        """The thread is to end, after the request that is under way."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        if self.c is not None:
            self.counts()
            self.c = self._plane = None


def raw(queue: Any) -> Any:
    """A queue, an object with the attributes of QUEUE, for the C."""
    made = ffi.new("struct vmm_queue *")
    for name in QUEUE:
        setattr(made, name, getattr(queue, name))
    return made


def told(queue: Any, ask: Callable[[Any], object]) -> None:
    """Ask the C where a queue stands, and let it be so."""
    made = ffi.new("struct vmm_queue *")
    ask(made)
    for name in ("last_avail", "used_idx", "told"):
        setattr(queue, name, getattr(made, name))


def too_long(size: int) -> HostError:
    """No queue for C."""
    return HostError(f"serving a queue of {size} entries in C: it has {ENTRIES} at most")


def eventfds(doing: str, *flags: int) -> list[int]:
    """An eventfd for each, with these flags; on failure none is left.

    Raises:
        HostError: the host has no descriptor left.
    """
    made: list[int] = []
    try:
        for each in flags:
            made.append(os.eventfd(0, os.EFD_CLOEXEC | each))
    except OSError as error:
        for fd in made:
            os.close(fd)
        raise exhausted(doing, "eventfd", error.errno or 0) from error
    return made


class PlaneThread:
    """The thread that serves a Plane, from its making to `close`.

    What the host refuses it (an eventfd that is gone) ends it, and goes to `failed`. While it waits it holds no more
    than the C: a machine that is dropped can go, and takes it along.
    """

    def __init__(
        self,
        name: str,
        plane: Plane,
        live: Callable[[Any, weakref.ref[Any]], None],
        fds: Sequence[int],
        failed: Callable[[BaseException], object],
    ) -> None:
        """`live(plane, who)` is the thread. The descriptors are closed with it; also where this raises."""
        self.plane = plane
        self._failed, self._pid = failed, os.getpid()
        thread = threading.Thread(target=live, args=(plane, weakref.ref(self)), name=name, daemon=True)
        # Also at the end of the interpreter, which would unmap guest memory under a thread that it does not know.
        self._end = weakref.finalize(self, _end, plane, tuple(fds), thread, os.getpid())
        try:
            thread.start()
        except RuntimeError as error:
            self._end.detach()
            plane.close()
            for fd in fds:
                os.close(fd)
            raise exhausted(f"starting the service of {name}", "pthread_create", errno.EAGAIN) from error

    @property
    def inherited(self) -> bool:
        """This is a child by fork: the thread is not here, and may have been anywhere."""
        return os.getpid() != self._pid

    @property
    def ended(self) -> bool:
        """It has been closed, and its eventfds with it; also by the collection of a machine that was dropped."""
        return not self._end.alive

    def fail(self, error: BaseException) -> None:
        """On the thread: the end of it."""
        self._failed(error)

    def close(self) -> None:
        """End the thread, after the request that is under way. Idempotent; in a child by fork, where the thread is not,
        the descriptors alone.
        """
        self._end()


def _end(plane: Plane, fds: tuple[int, ...], thread: threading.Thread, pid: int) -> None:
    if os.getpid() == pid:
        plane.stop()
        if thread is not threading.current_thread():  # it let go of the last that held us
            thread.join()
            plane.close()
    for fd in fds:
        os.close(fd)

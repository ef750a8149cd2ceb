# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtio disk that C serves (_disk.c): a thread from kick to interrupt, without Python in between.

It knows the memory that both share, and when nobody may be inside; what a request means is the C's business, and what a
driver agreed to the transport's.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref

from vmm.base.record import Record
from vmm.errors import HostError, errno_name, exhausted
from vmm.kvm._kvm import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from vmm.kvm.words import Acked

ENTRIES: int = lib.VMM_DISK_ENTRIES
OURS = 1 << 32
"""What we add to the eventfd of kicks; a guest's add 1."""

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10  # FALLOC_FL_*, <linux/falloc.h>

COUNTS = ("kicks", "interrupts", "flushes")
QUEUE = ("size", "desc", "avail", "used", "indirect", "event_idx", "last_avail", "used_idx", "told")
"""Of a queue, what both sides have."""


def fallocate(fd: int, mode: int, offset: int, size: int) -> None:
    """fallocate(2), which os has without modes. Raises OSError."""
    error = lib.vmm_fallocate(fd, mode, offset, size)
    if error:
        raise OSError(-error, os.strerror(-error))


class DiskSetup(Record):
    """A disk of `capacity` sectors over `file`, and the eventfd of its interrupt (-1: it has none). At most
    `max_ranges` ranges in a discard or a request for zeroes, each of so many sectors.
    """

    file: int
    irq: int
    capacity: int
    readonly: bool
    serial: bytes
    max_ranges: int
    max_discard: int
    max_zeroes: int


class Disk:
    """The C of one disk, without a thread. `close` it when nobody is inside."""

    def __init__(self, setup: DiskSetup, kick: int, acked: Acked) -> None:
        raw = ffi.new("struct vmm_disk_setup *")
        for name in ("file", "irq", "capacity", "readonly", "max_ranges", "max_discard", "max_zeroes", "serial"):
            setattr(raw, name, getattr(setup, name))
        raw.kick = kick
        self._acked = acked  # the C has its address
        self._last = dict.fromkeys(COUNTS, 0)
        made = lib.vmm_disk_new(raw, acked.c)
        if not made:
            raise exhausted("a disk", "malloc", errno.ENOMEM)
        self.c: Any = ffi.gc(made, lib.vmm_disk_free)  # goes with the last call that is inside

    def memory(self, slots: Iterable[tuple[int, int, int, bool]]) -> None:
        """Guest memory is this now: (gpa, size, hva, readonly) of each stretch. What is not in it any more is not
        touched after this.
        """
        rows = list(slots)
        c = self.c
        if c is not None and lib.vmm_disk_memory(c, ffi.new("struct vmm_disk_slot[]", rows), len(rows)):
            raise exhausted("the memory of a disk", "malloc", errno.ENOMEM)

    def begin(self, queue: Any, *, writeback: bool, discard: bool, zeroes: bool) -> None:
        """Serve this queue, an object with the attributes of QUEUE, from its next kick on."""
        raw = ffi.new("struct vmm_disk_queue *")
        for name in QUEUE:
            setattr(raw, name, getattr(queue, name))
        if lib.vmm_disk_begin(self.c, raw, (writeback, discard, zeroes)):
            raise HostError(f"serving a queue of {queue.size} entries in C: it has {ENTRIES} at most")

    def set_mode(self, *, writeback: bool, discard: bool, zeroes: bool) -> None:
        """From the next request on."""
        lib.vmm_disk_set_mode(self.c, (writeback, discard, zeroes))

    def end(self, queue: Any) -> None:
        """Serve nothing any more; `queue` is as it was left, after the request that was under way."""
        self._told(queue, lib.vmm_disk_end)

    def settle(self, queue: Any) -> None:
        """Serve what waits now, on this thread, and let `queue` be as it is then."""
        self._told(queue, lib.vmm_disk_settle)

    def _told(self, queue: Any, ask: Callable[[Any, Any], object]) -> None:
        raw = ffi.new("struct vmm_disk_queue *")
        ask(self.c, raw)
        for name in ("last_avail", "used_idx", "told"):
            setattr(queue, name, getattr(raw, name))

    @property
    def broken(self) -> str:
        """The rule that the driver broke, in words; empty if it has broken none since `begin`."""
        c = self.c
        if c is None:
            return ""
        why = ffi.new("char[]", lib.VMM_DISK_WHY)
        return str(ffi.string(why).decode()) if lib.vmm_disk_broken(c, why) else ""

    def counts(self) -> dict[str, int]:
        """How many kicks of the guest, interrupts and flushes there were; also after `close`."""
        c = self.c
        if c is not None:
            raw = ffi.new("struct vmm_disk_counts *")
            lib.vmm_disk_counted(c, raw)
            self._last = {name: getattr(raw, name) for name in COUNTS}
        return self._last

    def failed(self, error: int) -> HostError:
        """Why the thread ended."""
        doing = ffi.string(lib.vmm_disk_failed(self.c)).decode()
        return HostError(f"{doing}: {os.strerror(error)} ({errno_name(error)})")

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        if self.c is not None:
            self.counts()
            self.c = None


class DiskThread:
    """The thread that serves a Disk, from its making to `close`.

    What the host refuses it (an eventfd that is gone) ends it, and goes to `failed`. While it waits it holds no more
    than the C: a machine that is dropped can go, and takes it along.
    """

    def __init__(self, name: str, setup: DiskSetup, acked: Acked, failed: Callable[[BaseException], object]) -> None:
        doing = f"starting the service of {name}"
        try:
            kick = os.eventfd(0, os.EFD_CLOEXEC)
        except OSError as error:
            raise exhausted(doing, "eventfd", error.errno or 0) from error
        try:
            self.disk = disk = Disk(setup, kick, acked)
        except BaseException:
            os.close(kick)
            raise
        self._kick, self._failed, self._pid = kick, failed, os.getpid()
        thread = threading.Thread(target=_live, args=(disk, weakref.ref(self)), name=name, daemon=True)
        # Also at the end of the interpreter, which would unmap guest memory under a thread that it does not know.
        self._end = weakref.finalize(self, _end, disk, kick, thread, os.getpid())
        try:
            thread.start()
        except RuntimeError as error:
            self._end.detach()
            disk.close()
            os.close(kick)
            raise exhausted(doing, "pthread_create", errno.EAGAIN) from error

    @property
    def events(self) -> tuple[int, ...]:
        """The eventfd of kicks."""
        return (self._kick,)

    @property
    def inherited(self) -> bool:
        """This is a child by fork: the thread is not here, and may have been anywhere."""
        return os.getpid() != self._pid

    def kick(self) -> None:
        """Look whether something waits."""
        os.eventfd_write(self._kick, OURS)

    def fail(self, error: BaseException) -> None:
        """On the thread: the end of it."""
        self._failed(error)

    def close(self) -> None:
        """End the thread, after the request that is under way. Idempotent; in a child by fork, where the thread is not,
        the descriptor alone.
        """
        self._end()


def _end(disk: Disk, kick: int, thread: threading.Thread, pid: int) -> None:
    if os.getpid() == pid:
        lib.vmm_disk_stop(disk.c)
        if thread is not threading.current_thread():  # it let go of the last that held us
            thread.join()
            disk.close()
    os.close(kick)


def _live(disk: Disk, who: weakref.ref[DiskThread]) -> None:
    error = lib.vmm_disk_live(disk.c)
    service = who() if error else None
    if service is not None:
        service.fail(disk.failed(-error))

# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtio disk that C serves (_disk.c): a thread from kick to interrupt, without Python in between.

It knows what C has to know of a disk; what all devices in C have in common is dataplane.py's.
"""

from __future__ import annotations

import errno
import os

from vmm.base.record import Record
from vmm.errors import exhausted
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.dataplane import OURS, Plane, PlaneThread, eventfds, raw, told, too_long

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable
    from typing import Any

    from vmm.kvm.words import Acked

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10  # FALLOC_FL_*, <linux/falloc.h>


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


class Disk(Plane):
    """The C of one disk, without a thread. `counts` has "kicks", "interrupts" and "flushes"."""

    def __init__(self, setup: DiskSetup, kick: int, acked: Acked) -> None:
        words = ffi.new("struct vmm_disk_setup *")
        for name in ("file", "irq", "capacity", "readonly", "max_ranges", "max_discard", "max_zeroes", "serial"):
            setattr(words, name, getattr(setup, name))
        words.kick = kick
        made = lib.vmm_disk_new(words, acked.c)
        if not made:
            raise exhausted("a disk", "malloc", errno.ENOMEM)
        super().__init__(made, lib.vmm_disk_free, lib.vmm_disk_plane, acked)

    def begin(self, queue: Any, *, writeback: bool, discard: bool, zeroes: bool) -> None:
        """Serve this queue, an object with the attributes of QUEUE, from its next kick on."""
        if lib.vmm_disk_begin(self.c, raw(queue), (writeback, discard, zeroes)):
            raise too_long(queue.size)

    def set_mode(self, *, writeback: bool, discard: bool, zeroes: bool) -> None:
        """From the next request on."""
        lib.vmm_disk_set_mode(self.c, (writeback, discard, zeroes))

    def end(self, queue: Any) -> None:
        """Serve nothing any more; `queue` is as it was left, after the request that was under way."""
        told(queue, lambda ring: lib.vmm_disk_end(self.c, ring))

    def settle(self, queue: Any) -> None:
        """Serve what waits now, on this thread, and let `queue` be as it is then."""
        told(queue, lambda ring: lib.vmm_disk_settle(self.c, ring))

    def _counted(self) -> dict[str, int]:
        return super()._counted() | {"flushes": lib.vmm_disk_flushes(self.c)}

    def stop(self) -> None:
        lib.vmm_disk_stop(self.c)


class DiskThread(PlaneThread):
    """The thread that serves a Disk."""

    disk: Disk

    def __init__(self, name: str, setup: DiskSetup, acked: Acked, failed: Callable[[BaseException], object]) -> None:
        (self._kick,) = eventfds(f"starting the service of {name}", 0)
        try:
            self.disk = Disk(setup, self._kick, acked)
        except BaseException:
            os.close(self._kick)
            raise
        super().__init__(name, self.disk, _live, (self._kick,), failed)

    @property
    def events(self) -> tuple[int, ...]:
        """The eventfd of kicks."""
        return (self._kick,)

    def kick(self) -> None:
        """Look whether something waits."""
        os.eventfd_write(self._kick, OURS)


def _live(disk: Disk, who: weakref.ref[DiskThread]) -> None:
    error = lib.vmm_disk_live(disk.c)
    service = who() if error else None
    if service is not None:
        service.fail(disk.failed(-error))

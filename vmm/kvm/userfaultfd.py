# SPDX-License-Identifier: GPL-2.0-or-later
"""Userfaultfd: pages that this process supplies when they are first touched, also by the kernel on a guest's behalf.

KVM touches guest memory inside the kernel, so a userfaultfd limited to faults of user mode is not enough. There are two
ways to a full one: /dev/userfaultfd (Linux 6.1) and the system call, which needs CAP_SYS_PTRACE or the sysctl
vm.unprivileged_userfaultfd=1. Sources: userfaultfd(2), ioctl_userfaultfd(2), admin-guide/mm/userfaultfd.rst.

Who touches a missing page sleeps until it is supplied, inside the kernel: the host's own Python too, with the GIL held,
so nobody here may read such memory. `close` ends every wait (the pages then are zero); it has to come before the close
of a VM that still waits, because KVM waits for its own page-fault workers there.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import weakref
from collections.abc import Callable
from typing import NamedTuple, Self

from vmm.abi.x86 import PAGE
from vmm.errors import KvmCallError, MissingCapability, UsageError, errno_name
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.handle import Closes, Handle, new
from vmm.kvm.lean import as_object

DEVICE = "/dev/userfaultfd"
FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
DONT_WAKE_COPY, DONT_WAKE_ZERO = lib.UFFDIO_COPY_MODE_DONTWAKE, lib.UFFDIO_ZEROPAGE_MODE_DONTWAKE
NULL, _supply = ffi.NULL, lib.vmm_supply  # an attribute of `lib` is looked up each time, and somebody waits
GONE = (errno.EINVAL, errno.ENOENT, errno.ESRCH, errno.ENOMEM)  # the memory was unmapped meanwhile


class NoUserfaultfd(MissingCapability):
    """No userfaultfd can be had. `device` and `call` name the errno of each way to one."""

    def __init__(self, path: str, device: str, call: str) -> None:
        super().__init__(
            f"a userfaultfd for faults of the kernel is refused: {path}: {device}; the system call: {call}",
            hint=f"read and write permission for {path}, CAP_SYS_PTRACE, or vm.unprivileged_userfaultfd=1",
        )
        self.device, self.call = device, call


class PageFault(NamedTuple):
    """Somebody waits for the page at `address` (host virtual, 4 KiB aligned). A read by KVM can count as a `write`."""

    address: int
    write: bool


def by_device(path: str) -> int:
    """A descriptor made by USERFAULTFD_IOC_NEW. OSError if the device refuses."""
    control = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fd: int = lib.vmm_ioctl_value(control, lib.USERFAULTFD_IOC_NEW, FLAGS)
    finally:
        os.close(control)
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd), path)
    return fd


def by_call(flags: int = 0) -> int:
    """A descriptor made by the system call, with `flags` (UFFD_USER_MODE_ONLY). OSError if it is refused."""
    fd: int = lib.vmm_userfaultfd(FLAGS | flags)
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd))
    return fd


class Userfaultfd(Handle):
    """A userfaultfd; made by `open`. Its methods may be called from any thread, `close` when no other is in use."""

    what = "the userfaultfd"

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.number = ffi.new("int *", fd)
        """The descriptor for C; -1 once it is closed."""
        self._ranges: list[tuple[int, int]] = []
        try:
            self.call("UFFDIO_API", new("struct uffdio_api *", {"api": lib.UFFD_API}), "agreeing on userfaultfd's API")
        except BaseException:
            super().close()
            raise

    @classmethod
    def open(cls, *, user_mode_only: bool = False, device: str = DEVICE) -> Self:
        """By the device, else by the system call. `user_mode_only` needs no permission, and is of no use to KVM.

        Raises:
            NoUserfaultfd: both refuse.
        """
        refused = ["not tried", ""]
        ways: list[Callable[[], int]] = [lambda: by_device(device), by_call]
        if user_mode_only:
            ways = [lambda: by_call(lib.UFFD_USER_MODE_ONLY)]
        for number, way in enumerate(ways, 2 - len(ways)):
            try:
                fd = way()
            except OSError as error:
                refused[number] = errno_name(error.errno or 0)
            else:
                return cls(fd)
        raise NoUserfaultfd(device, *refused)

    def close(self) -> None:
        """`release` and close. Idempotent."""
        if not self.closed:
            self.release()  # said by name: a descriptor that a forked child still holds would keep ranges registered
            self.number[0] = -1
        super().close()

    # -- ranges

    def register(self, address: int, size: int) -> None:
        """UFFDIO_REGISTER for missing pages: `size` bytes of private anonymous memory, in whole pages.

        A page that is there already stays: register before anything touches it.
        """
        raw = new("struct uffdio_register *", {"range": [address, size], "mode": lib.UFFDIO_REGISTER_MODE_MISSING})
        self.call("UFFDIO_REGISTER", raw, f"holding back {size:#x} bytes of memory at {address:#x}")
        self._ranges.append((address, size))

    def unregister(self, address: int, size: int) -> None:
        """UFFDIO_UNREGISTER: missing pages are zero from now on, and whoever waits for one goes on. Memory that has
        been unmapped is no error.
        """
        self._ranges = [each for each in self._ranges if each != (address, size)]
        try:
            self.call(
                "UFFDIO_UNREGISTER", new("struct uffdio_range *", [address, size]), "no longer holding back pages"
            )
        except KvmCallError as error:
            if error.errno not in GONE:
                raise

    def release(self) -> None:
        """Unregister everything: whoever waits for a page goes on, with zeros."""
        for address, size in self._ranges.copy():
            self.unregister(address, size)

    # -- pages

    def copy(self, address: int, data: bytes, *, wake: bool = True) -> bool:
        """UFFDIO_COPY: put whole pages of `data` at `address`; False if the first of them is there already.

        Raises:
            UsageError: not whole pages.
            KvmCallError: it is no registered memory.
        """
        if not data or len(data) % PAGE:
            raise UsageError(f"a copy of {len(data)} bytes: give whole pages of {PAGE}")
        result = _supply(self.number[0], address, ffi.from_buffer(data), len(data), 0 if wake else DONT_WAKE_COPY)
        return not result or self._supplied(result, "UFFDIO_COPY", address, len(data))

    def zeropage(self, address: int, size: int = PAGE, *, wake: bool = True) -> bool:
        """UFFDIO_ZEROPAGE: as `copy`, with zeros."""
        result = _supply(self.number[0], address, NULL, size, 0 if wake else DONT_WAKE_ZERO)
        return not result or self._supplied(result, "UFFDIO_ZEROPAGE", address, size)

    def _supplied(self, result: int, name: str, address: int, size: int) -> bool:
        """What `_supply` said that is not plainly done: False for a page that is there."""
        if self.fd >= 0 and result == -errno.EEXIST:
            return False
        raise self.refused(name, -result, f"supplying pages, {size:#x} bytes at {address:#x}")

    def wake(self, address: int, size: int = PAGE) -> None:
        """UFFDIO_WAKE: after a `copy` without."""
        self.call("UFFDIO_WAKE", new("struct uffdio_range *", [address, size]), f"waking who waits at {address:#x}")

    # -- events

    def read(self) -> PageFault | None:
        """The next fault that nobody has read, or None; it never waits."""
        address, flags = ffi.new("__u64 *"), ffi.new("__u64 *")
        while True:
            result = lib.vmm_userfaultfd_read(self.fd, address, flags)
            if result > 0:
                return PageFault(address[0] & -PAGE, bool(flags[0] & lib.UFFD_PAGEFAULT_FLAG_WRITE))
            if result == -errno.EAGAIN:
                return None
            if result < 0 and result != -errno.EINTR:
                raise KvmCallError("read", -result, f"reading {self.what}")

    def poll(self, timeout: float) -> PageFault | None:
        """The next fault, or None if none comes within `timeout` seconds."""
        fault = self.read()
        if fault is None and _readable(timeout, self.fd):
            fault = self.read()
        return fault


def _readable(timeout: float | None, *fds: int) -> set[int]:
    """Which of the descriptors have something to read, at the latest after `timeout` seconds."""
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return {fd for fd, _ in poller.poll(None if timeout is None else max(0, timeout * 1000))}


class FaultHandler(Closes):
    """A thread that calls `serve(fault)` for every fault of `uffd` until it is closed.

    A daemon thread: it keeps no process alive. If `serve` raises, the error is kept in `error` and the userfaultfd
    released, so that nobody waits for a page that will not come. `close` does not wait for a `serve`
    longer than `patience` seconds.
    """

    def __init__(self, uffd: Userfaultfd, serve: Callable[[PageFault], object], *, patience: float = 1.0) -> None:
        self.error: BaseException | None = None
        self._uffd, self._serve, self._patience = uffd, serve, patience
        self._end = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._open = True
        self._thread = threading.Thread(
            target=_live, args=(uffd, self._end, weakref.ref(self)), name="userfaultfd", daemon=True
        )
        self._thread.start()

    @property
    def _unclosed(self) -> str:
        return "handler of page faults" if self._open else ""

    @property
    def thread_id(self) -> int | None:
        """The kernel's id of the thread, for who chooses its CPU (sched_setaffinity(2))."""
        return self._thread.native_id

    def fail(self, error: BaseException) -> None:
        """On the thread, before it ends: keep the error, and let go of who waits for a page."""
        self.error = error
        self._uffd.release()

    def close(self) -> None:
        """End the thread; faults from now on are read by nobody. Idempotent."""
        if not self._open:
            return
        self._open = False
        if not self._uffd.inherited:  # else the thread is the parent's
            os.eventfd_write(self._end, 1)
        if self._thread is not threading.current_thread():
            self._thread.join(self._patience)
        if not self._thread.is_alive():  # else it still polls it: the process' end will close it
            os.close(self._end)


def _live(uffd: Userfaultfd, end: int, who: weakref.ref[FaultHandler]) -> None:
    """The thread. While it waits it does not hold its handler, so that one that nobody else holds is closed."""
    told: list[BaseException] = []
    code = lib.vmm_serve_faults(uffd.number, end, as_object(who), as_object(PageFault), as_object(told))
    if not code or (handler := who()) is None:
        return
    if code == lib.VMM_RAISED:
        handler.fail(told.pop() if told else MemoryError())
    else:  # it cannot be read; or it was closed, while a call took longer than its patience
        handler.fail(uffd.refused("read", -code, f"reading {uffd.what}"))

# SPDX-License-Identifier: GPL-2.0-or-later
"""A KVM file descriptor and the one way to call it. It knows errno and close; it knows no ioctl by itself.

Every ioctl of pyvmm goes through `Handle.call` or `Handle.value`, so that an error always names the call, the errno
and what we were doing (Documentation/virt/kvm/api.rst names the errors of each call).
"""

from __future__ import annotations

import errno
import gc
import os
import sys

from vmm.errors import HostError, KvmCallError, UsageError
from vmm.kvm._kvm import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self


def new(kind: str, value: Any) -> Any:
    """A C object of `kind` ("struct kvm_msi *") holding `value`, a number, list or dict as `ffi.new` takes it.

    Raises:
        UsageError: a number does not fit.
    """
    try:
        return ffi.new(kind, value)
    except (OverflowError, TypeError, IndexError) as error:
        raise UsageError(f"{kind.removesuffix(' *')} cannot hold {value!r}: {error}") from error


class Closes:
    """What has a close(), which `with` calls at its end. What nobody holds any more is closed too, with a
    ResourceWarning: a descriptor, a thread or a mapping of the kernel's is not left behind.
    """

    @property
    def _unclosed(self) -> str:
        """What there is to close, in words; empty if nothing is."""
        return ""

    def close(self) -> None:
        """Give back what it holds."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if finalizing():  # the kernel takes it all back, and half of Python is gone
            return
        try:
            left = self._unclosed
        except AttributeError:  # its __init__ did not come so far
            return
        if left:
            import warnings

            warnings.warn(f"unclosed {left}", ResourceWarning, source=self, stacklevel=2)
            self.close()


class Handle(Closes):
    """An open descriptor of /dev/kvm or below. Closing is idempotent; a context manager closes at its end.

    Every method that calls the kernel raises KvmCallError where that refuses, with the call and the errno, and
    HostError where the descriptor has been closed.
    """

    what = "a KVM descriptor"

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd
        self._pid = os.getpid()

    def opened_by(self, pid: int, *, closed: bool) -> None:
        """It was made around a descriptor that process `pid` has opened, and may have closed since."""
        self._pid = pid
        if closed:
            self._fd = None

    @property
    def _unclosed(self) -> str:
        return "" if self._fd is None else f"{self.what} (descriptor {self._fd})"

    @property
    def inherited(self) -> bool:
        """Another process opened it, and this one is its child by fork: it may be closed here, and nothing else."""
        return os.getpid() != self._pid

    def refused(self, call: str, err: int, doing: str) -> HostError:
        """The error for a call that the kernel refused with errno `err` (positive); not raised here. KVM serves a VM in
        the process that made it alone.
        """
        if self.inherited:
            return HostError(
                f"{doing}: {self.what} belongs to process {self._pid}, and this is {os.getpid()}, its child by fork: "
                "KVM serves a VM only in the process that made it",
                hint="make another machine in the child, or os._exit there",
            )
        return KvmCallError(call, err, doing)

    @property
    def fd(self) -> int:
        """The descriptor's number.

        Raises:
            HostError: it has been closed.
        """
        if self._fd is None:
            raise HostError(f"{self.what} has been closed; nothing can be asked of it any more")
        return self._fd

    @property
    def closed(self) -> bool:
        """It has been closed, here or by whoever owns it."""
        return self._fd is None

    def call(self, name: str, argument: Any, doing: str = "") -> int:
        """ioctl NAME with a pointer; its result, 0 or more. `doing` says to a stranger what it was for.

        Raises:
            KvmCallError: the kernel refused; carries the call's name and the errno.
        """
        result: int = lib.vmm_ioctl(self.fd, getattr(lib, name), argument)
        if result < 0:
            raise self.refused(name, -result, doing or f"calling {self.what}")
        return result

    def value(self, name: str, argument: int = 0, doing: str = "") -> int:
        """ioctl NAME with a plain number, `argument`, instead of a pointer; otherwise as `call`.

        Raises:
            UsageError: the number does not fit in 64 bits.
        """
        if not 0 <= argument < 1 << 64:
            raise UsageError(f"{doing or name}: {argument} is not an unsigned number of 64 bits")
        result: int = lib.vmm_ioctl_value(self.fd, getattr(lib, name), argument)
        if result == -errno.EMFILE and gc.collect():  # machines that were dropped may still hold some
            result = lib.vmm_ioctl_value(self.fd, getattr(lib, name), argument)
        if result < 0:
            raise self.refused(name, -result, doing or f"calling {self.what}")
        return result

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

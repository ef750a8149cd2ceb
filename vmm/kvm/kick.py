# SPDX-License-Identifier: GPL-2.0-or-later
"""Getting a thread out of KVM_RUN: a signal and a timer, neither of which can be lost.

The signal's handler (in _kvm.c) sets `immediate_exit` in the kvm_run that the thread has bound, so a kick that lands
just before the ioctl makes it return EINTR at once, and one that lands inside interrupts it: in HLT, in a guest
loop, and in the endless re-execution that `vmcall` causes on some hosts (Documentation/virt/kvm/api.rst,
`immediate_exit`). The signal is SIGRTMIN+5; a program that uses it for itself cannot use pyvmm.
"""

from __future__ import annotations

from vmm.base.light import cache
from vmm.errors import KvmCallError
from vmm.kvm._kvm import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _check(result: int, call: str, doing: str) -> None:
    if result < 0:
        raise KvmCallError(call, -result, doing)


@cache
def install() -> None:
    """Install the signal's handler, once per process."""
    _check(lib.vmm_kick_install(), "sigaction", "installing the handler that interrupts KVM_RUN")


def thread_id() -> int:
    """The kernel's id of the calling thread, for `kick` and /proc/self/task."""
    return int(lib.vmm_thread_id())


def kick(tid: int) -> None:
    """Interrupt the KVM_RUN of that thread of this process. A thread that has ended is no error."""
    lib.vmm_kick(tid)


class Timer:
    """Kicks the thread that makes it after `first` seconds (at least a microsecond), then every `every` seconds until
    closed.

    It repeats so that a Python signal handler (of ^C, say) whose signal landed just before KVM_RUN runs soon.
    """

    def __init__(self, first: float, every: float) -> None:
        slot = ffi.new("void **")
        nanoseconds = max(1000, int(first * 1e9)), int(every * 1e9)
        _check(lib.vmm_timer_start(slot, *nanoseconds), "timer_create", "setting the time limit of a run")
        self._timer: Any = slot[0]
        self._open = True

    def close(self) -> None:
        """Kick no more. Idempotent."""
        if self._open:
            self._open = False
            lib.vmm_timer_delete(self._timer)

    def __del__(self) -> None:
        # ^C may come between any two lines of the one who made it; a timer nobody holds must not go on kicking.
        if getattr(self, "_open", False):
            self.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Interrupts that are sent again and again, as functions that need no more arguments and keep the GIL (_signals.c).

It knows eventfds and KVM_SIGNAL_MSI; it knows no device and no route. With `timed` they give when they sent, in ns as
time.monotonic_ns() has them: the clock is read right before the kernel is called.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from vmm.errors import UsageError
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.handle import new
from vmm.kvm.lean import as_object
from vmm.kvm.vm import Vm


def event(fd: int, *, timed: bool = False) -> Callable[[], int]:
    """Something to call that adds 1 to the eventfd `fd`, from any thread; an irqfd raises its interrupt by it. Whoever
    closes the descriptor calls it no more. It raises what os.eventfd_write raises.

    Raises:
        UsageError: that is no descriptor.
    """
    if type(fd) is not int or not 0 <= fd < 1 << 31:
        raise UsageError(f"signalling descriptor {fd!r}: give that of an eventfd")
    return _made(ffi.new("int *", fd), 0, 0, timed, lambda: os.eventfd_write(fd, 1))


def msi(vm: Vm, address: int, data: int, *, timed: bool = False) -> Callable[[], int]:
    """`vm.signal_msi(address, data)` as something to call, from any thread: it gives and raises what that does.

    Raises:
        UsageError: a number does not fit, or the address is 0.
        HostError: the VM has been closed.
    """
    if address == 0:
        raise UsageError("an MSI to address 0: that is no local APIC's")
    return _made(vm.number, address, data, timed, lambda: vm.signal_msi(address, data))


def _made(fd: Any, address: int, data: int, timed: bool, otherwise: Callable[[], object]) -> Callable[[], int]:
    raw = new("struct vmm_signal *", {"fd": fd, "address": address, "data": data, "timed": timed})
    itself = (bytes(ffi.buffer(raw)), fd, otherwise)
    told: list[Callable[[], int]] = []
    lib.vmm_signaller(as_object(itself), as_object(told))
    if not told:
        raise MemoryError
    return told.pop()

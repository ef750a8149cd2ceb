# SPDX-License-Identifier: GPL-2.0-or-later
"""May this process hold back pages that the *kernel* touches, as an asynchronous page fault needs? Tried, not guessed.

The two ways to such a userfaultfd, and what each needs, are in vmm/kvm/userfaultfd.py; a container's seccomp filter may
refuse the system call too. What was opened is closed again at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from vmm.errors import errno_name
from vmm.kvm import userfaultfd
from vmm.kvm.userfaultfd import DEVICE


@dataclass(frozen=True, slots=True)
class Userfault:
    """`kernel_faults`: a userfaultfd for faults of the kernel can be had; `how` says by which way, or why not."""

    kernel_faults: bool
    how: str


def probe(device: str = DEVICE) -> Userfault:
    """Try the device, then the system call."""
    by_device = _by_device(device)
    if not by_device:
        return Userfault(True, device)
    by_call = _by_call()
    if not by_call:
        return Userfault(True, "the system call")
    return Userfault(
        False,
        f"{device}: {by_device}; the system call: {by_call} (it needs CAP_SYS_PTRACE or vm.unprivileged_userfaultfd=1)",
    )


def _by_device(device: str) -> str:
    """Empty if it works, else the name of the errno."""
    return _try(lambda: userfaultfd.by_device(device))


def _by_call() -> str:
    """Empty if it works, else the name of the errno."""
    return _try(userfaultfd.by_call)


def _try(way: Callable[[], int]) -> str:
    try:
        os.close(way())
    except OSError as error:
        return errno_name(error.errno or 0)
    return ""

# SPDX-License-Identifier: GPL-2.0-or-later
"""May this process hold back pages that the *kernel* touches, as an asynchronous page fault needs? Tried, not guessed.

KVM touches guest memory inside the kernel, so a userfaultfd limited to faults of user mode is not enough. There are
two ways to one: /dev/userfaultfd (Linux 6.1) and the system call, which needs CAP_SYS_PTRACE or the sysctl
vm.unprivileged_userfaultfd, and which a container's seccomp filter may refuse. Source: userfaultfd(2), admin-guide/
mm/userfaultfd.rst. What was opened is closed again at once.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass

from vmm.errors import errno_name

DEVICE = "/dev/userfaultfd"
USERFAULTFD_IOC_NEW = 0xAA00  # _IO(0xAA, 0x00), <linux/userfaultfd.h>
NR_USERFAULTFD = 323  # x86-64, <asm/unistd_64.h>


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
    try:
        control = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return errno_name(error.errno or 0)
    try:
        os.close(fcntl.ioctl(control, USERFAULTFD_IOC_NEW, os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        return errno_name(error.errno or 0)
    finally:
        os.close(control)
    return ""


def _by_call() -> str:
    """Empty if it works, else the name of the errno."""
    import ctypes  # libc's syscall() and nothing more; late, because only this question pays for it

    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(NR_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        return errno_name(ctypes.get_errno())
    os.close(fd)
    return ""

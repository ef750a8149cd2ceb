# SPDX-License-Identifier: GPL-2.0-or-later
"""What this kernel has for a process that gives up what it does not need (vmm/sandbox). Asked of it, not guessed."""

from __future__ import annotations

from dataclasses import dataclass

from vmm.abi.syscalls import SECCOMP_RET_KILL_PROCESS
from vmm.kvm import confine


@dataclass(frozen=True, slots=True)
class Sandbox:
    """`landlock_abi` is the version of landlock's ABI, 0 where there is none; `seccomp`: filters of system calls."""

    landlock_abi: int
    seccomp: bool


def probe() -> Sandbox:
    """Ask the kernel; nothing is given up by that."""
    return Sandbox(confine.landlock_abi(), confine.has_filters(SECCOMP_RET_KILL_PROCESS))

# SPDX-License-Identifier: GPL-2.0-or-later
"""This process gives up what it does not need, in one step and for good. It knows no machine.

In this order: limits, no new privileges, landlock (this thread, and those it makes), seccomp (all threads). What the
kernel lacks is told by name, and the rest is done all the same.
"""

from __future__ import annotations

import os

from vmm.abi import landlock
from vmm.kvm import confine
from vmm.sandbox import files
from vmm.sandbox.compiled import KILL, MACHINE, TSYNC, for_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

FILE_RIGHTS = landlock.READ_FILE | landlock.WRITE_FILE | landlock.TRUNCATE | landlock.IOCTL_DEV
READ = landlock.READ_FILE | landlock.READ_DIR
LARGEST = 1 << 30
"""Bytes up to which a file may grow; more where one that is open to be written is larger already."""
DESCRIPTORS = 256  # more than are open now: interrupts, timers, modules
NO_LANDLOCK = "this kernel has no landlock (Linux 5.13, enabled at boot): files can still be opened, to read"
NO_SECCOMP = "this kernel has no seccomp filters: every system call can still be made"


def enter(read: Iterable[str] = ()) -> tuple[str, ...]:
    """Give it all up; `read` are more files and folders that may be opened to be read. What could not be given up, a
    sentence each: nothing on a kernel that has landlock and seccomp.

    Raises:
        HostError: the kernel has one of them, and refuses.
    """
    missing = []
    filters = confine.has_filters(KILL)
    limit()  # which looks into a folder that is out of reach then
    confine.no_new_privileges()
    if not restrict_files(read):
        missing.append(NO_LANDLOCK)
    if filters:
        confine.filter_calls(for_process(MACHINE), TSYNC)
    else:
        missing.append(NO_SECCOMP)
    return tuple(missing)


def no_more_files(read: Iterable[str], write: Iterable[str]) -> None:
    """Before threads are made: no file but these can be opened. `enter` comes later, and leaves less.

    Raises:
        HostError: the kernel has landlock, and refuses.
    """
    confine.no_new_privileges()
    restrict_files(read, write=write)


def restrict_files(read: Iterable[str] = (), *, execute: bool = False, write: Iterable[str] = ()) -> bool:
    """Landlock: nothing but Python's modules and `read` can be opened, to read (`execute`: and be executed); all is
    left below the folders `write`. False where the kernel has no landlock.
    """
    abi = confine.landlock_abi()
    if not abi:
        return False
    rights = READ | (landlock.EXECUTE if execute else 0)
    below = [(each, rights if os.path.isdir(each) else rights & ~landlock.READ_DIR) for each in
             (*files.readable(), *read)]  # fmt: skip
    whole = landlock.known(landlock.FILES, abi)
    below += [(each, whole if os.path.isdir(each) else whole & FILE_RIGHTS) for each in write]
    handled = [whole]
    if abi >= 4:
        handled.append(landlock.known(landlock.NETWORK, abi))
    if abi >= 6:
        handled.append(landlock.known(landlock.SCOPES, abi))
    confine.restrict(handled, below)
    return True


def limit() -> None:
    """No core file, no file that grows without end, no more descriptors than a run can need. Raises HostError."""
    size, last = LARGEST, 0
    for each in os.listdir("/dev/fd"):
        last = max(last, int(each))
        try:
            size = max(size, os.fstat(int(each)).st_size)
        except OSError:
            continue  # that of the folder itself
    confine.at_most("RLIMIT_CORE", 0)
    confine.at_most("RLIMIT_FSIZE", size)
    confine.at_most("RLIMIT_NOFILE", last + DESCRIPTORS)

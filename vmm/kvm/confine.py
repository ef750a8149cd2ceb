# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own ways for a process to give something up for good: prctl, landlock, seccomp (_confine.c).

It knows calls and their errors; which files and system calls a process keeps is vmm/sandbox's. Nothing of it can be
taken back, and threads made later have it too. Sources: prctl(2), PR_SET_NO_NEW_PRIVS; landlock(7); seccomp(2).
"""

from __future__ import annotations

import errno
import os

from vmm.errors import exhausted
from vmm.kvm._kvm import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DOING = "giving up what a sandboxed process does not need"


def _done(call: str, result: int) -> int:
    if result < 0:
        raise exhausted(DOING, call, -result)
    return result


def no_new_privileges() -> None:
    """No exec of this process gives it more than it has: without this a filter needs CAP_SYS_ADMIN.

    Raises:
        HostError: the kernel refuses (it is older than Linux 3.5).
    """
    _done("prctl(PR_SET_NO_NEW_PRIVS)", lib.vmm_no_new_privs())


def landlock_abi() -> int:
    """The version of landlock's ABI that this kernel has; 0 where it has none, or it was not enabled at boot."""
    return max(0, int(lib.vmm_landlock_abi()))


def restrict(handled: Sequence[int], below: Iterable[tuple[str, int]]) -> None:
    """Take away the rights `handled` (of files; of the network; scopes: as many words as the ABI has) of this thread
    and those it makes, but for what each (path, rights) of `below` leaves. A path that is not there leaves nothing.

    Raises:
        HostError: the kernel refuses; call and errno are named.
    """
    ruleset = _done("landlock_create_ruleset", lib.vmm_landlock_new(ffi.new("__u64[]", handled), 8 * len(handled)))
    try:
        for path, rights in below:
            try:
                folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                _done("landlock_add_rule", lib.vmm_landlock_below(ruleset, folder, rights))
            finally:
                os.close(folder)
        _done("landlock_restrict_self", lib.vmm_landlock_enforce(ruleset))
    finally:
        os.close(ruleset)


def has_filters(action: int) -> bool:
    """Whether this kernel has seccomp filters, and this action (SECCOMP_RET_*) for them (Linux 4.14)."""
    return bool(lib.vmm_seccomp_has(action) == 0)


def filter_calls(program: bytes, flags: int) -> None:
    """Let every system call of this thread (with SECCOMP_FILTER_FLAG_TSYNC: of all threads) pass through `program`:
    instructions of 8 bytes, struct sock_filter. After no_new_privileges.

    Raises:
        HostError: the kernel refuses: it has no seccomp, or the program is wrong.
    """
    result = lib.vmm_seccomp(ffi.from_buffer(program), len(program) // 8, flags)
    if result > 0:  # TSYNC gives the thread that could not be brought along
        result = -errno.ESRCH
    _done("seccomp(SECCOMP_SET_MODE_FILTER)", result)


def at_most(name: str, value: int) -> None:
    """Let a resource of this process (`RLIMIT_CORE`, ...) never be more than `value`; a lower limit stays.

    Raises:
        HostError: the kernel refuses.
    """
    _done(f"setrlimit({name})", lib.vmm_at_most(getattr(lib, name), value))


def close_from(first: int) -> None:
    """Close every descriptor from `first` on, best effort (Linux 5.9): of a child, which has those of its parent."""
    if lib.vmm_close_from(first) < 0:
        os.closerange(first, 4096)

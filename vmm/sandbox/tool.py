# SPDX-License-Identifier: GPL-2.0-or-later
"""A program of the system's, such as a compiler, started with less: what stands in for `preexec_fn` of subprocess.

It may be several programs and write where it is told; it has no network, no privileges by exec, and limits. It knows no
program.
"""

from __future__ import annotations

import os
import shutil

from vmm.kvm import confine
from vmm.sandbox import enter
from vmm.sandbox.compiled import KILL, TOOL, for_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d")
MEMORY = 4 << 30
FILE = 256 << 20


def confined(program: str, *, read: Iterable[str], write: Iterable[str], cpu: int) -> Callable[[], None]:
    """What the child calls between fork and exec of `program`: files of the system and of where it is installed can be
    read and executed, those below `read` read, `write` is all its own; `cpu` seconds of CPU time, MEMORY bytes of
    address space and FILE bytes of a file for each process. It raises HostError where the kernel refuses.
    """
    found = os.path.realpath(shutil.which(program) or program)
    home = os.path.dirname(os.path.dirname(found))
    system = [*SYSTEM, *([home] if len(home) > 1 else []), os.path.dirname(found)]
    reads, writes = [os.path.abspath(each) for each in read], [*write, os.devnull]
    filtered = confine.has_filters(KILL)

    def give_up() -> None:
        confine.no_new_privileges()
        enter.restrict_files([*system, *reads], execute=True, write=writes)
        for name, value in (("RLIMIT_CORE", 0), ("RLIMIT_CPU", cpu), ("RLIMIT_AS", MEMORY), ("RLIMIT_FSIZE", FILE)):
            confine.at_most(name, value)
        if filtered:
            confine.filter_calls(for_process(TOOL), 0)

    return give_up

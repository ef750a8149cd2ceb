# SPDX-License-Identifier: GPL-2.0-or-later
"""A copy of this machine's QEMU without the one store that gives a guest of an emulated SVM host an interrupt twice.

QEMU's VMRUN delivers an interrupt that the hypervisor injects by itself, and beside that writes its vector to
`exception_index` (helper_vmrun of target/i386/tcg/.../svm_helper.c, SVM_EVTINJ_TYPE_INTR; so in 7.2 and in what is
newest). Nothing takes it back, and the next time that this CPU is asked to stop, by a timer or by another CPU's turn,
the main loop takes it for an exception that is still to be delivered: in the handler, whatever IF says, with whatever
lock the handler holds. A Linux guest then waits for that lock for good.

The value is used by nobody, so the store can go: six bytes become NOPs. They are found by the instructions around them,
which have to be there once; in another build of QEMU they may not be, and then there is no copy.
"""

from __future__ import annotations

import re
import stat
from functools import cache
from pathlib import Path

from . import store
from .progress import Say, silent
from .tools import path_of

QEMU = "qemu-system-x86_64"
BESIDE = ("share", "lib")  # what QEMU looks for beside the folder of its program: firmware, and the modules of TCG
RECIPE = 2  # counted up when the code below makes something else of the same program
NOP = b"\x90"
# mov dword ptr [r - n], r; mov dword ptr [r + n], 0; mov qword ptr [r + n], -1; test of a flag of the log, and a jump;
# mov edx, 1: exception_index = vector; exception_is_int = 0; exception_next_eip = -1; log; the last argument of
# do_interrupt_x86_hardirq(env, vector, 1)
STORE = re.compile(
    rb"(\x89[\x80-\xbf]..\xff\xff)\xc7[\x80-\x87]....\0\0\0\0\x48\xc7[\x80-\x87]....\xff\xff\xff\xff"
    rb"\xf6\x05....\x02\x0f\x85....\xba\x01\0\0\0",
    re.DOTALL,
)


def mend(program: bytes) -> bytes | None:
    """The program without the store; None: it is not found, or more than once."""
    found = list(STORE.finditer(program))
    if len(found) != 1:
        return None
    begin, end = found[0].span(1)
    return program[:begin] + NOP * (end - begin) + program[end:]


@cache
def can_be_made() -> bool:
    """Whether this machine's QEMU is one that can be mended."""
    program = path_of(QEMU)
    return program is not None and mend(Path(program).read_bytes()) is not None


def binary(say: Say = silent) -> Path:
    """The copy, made when it is not there yet; `can_be_made` has said that it can."""
    program = Path(path_of(QEMU) or QEMU).resolve()

    def make(work: Path) -> None:
        mended = mend(program.read_bytes())
        assert mended is not None
        copy = work / "bin" / QEMU
        copy.parent.mkdir()
        copy.write_bytes(mended)
        copy.chmod(copy.stat().st_mode | stat.S_IXUSR)
        for name in BESIDE:
            (work / name).symlink_to(program.parent.parent / name)

    return store.get("qemu", store.key(RECIPE, program), make, say, "QEMU, mended") / "bin" / QEMU

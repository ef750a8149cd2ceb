# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of user_program: a folder with something to find, something outside it, and every way out tried."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vmm.machine.extra.folder import Folder
from vmm.machine.extra.syscalls import SyscallService
from vmm.machine.memory.layout import REGIONS
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

HELLO = b"hello, guest\n"
SECRET = b"not for guests"
WANTED: dict[str, tuple[int, ...]] = {
    "opened": (3,),
    "got": (len(HELLO),),
    "position": (7,),
    "rest": (len(HELLO) - 7,),
    "ended": (0,),
    "closed": (0,),
    "stale": (-errno.EBADF,),
    "created": (3,),
    "wrote": (len(HELLO),),
    "said": (len(HELLO),),
    "inner": (4,),
    "missing": (-errno.ENOENT,),
    "upward": (-errno.EACCES,),
    "roundabout": (-errno.EACCES,),
    "absolute": (-errno.EACCES,),
    "linked": (-errno.ELOOP,),
    "linked_folder": (-errno.ELOOP, -errno.ENOTDIR),
    "pipe": (-errno.EACCES,),
    "folder": (-errno.EISDIR,),
    "huge": (-errno.EINVAL,),
    "into_kernel": (-errno.EFAULT,),
    "from_kernel": (-errno.EFAULT,),
    "into_text": (-errno.EFAULT,),
    "unknown": (-errno.ENOSYS,),
}
REFUSED = tuple(WANTED)[list(WANTED).index("missing") :]


@dataclass(frozen=True)
class Evidence:
    """The answers by name; what the program has in its buffers, on its console and in its file; calls served."""

    answers: Mapping[str, int]
    buffers: tuple[bytes, bytes]
    console: bytes
    copy: bytes | None
    names: tuple[str, ...]
    served: int


def prove(lab: Lab) -> Finding:
    with tempfile.TemporaryDirectory(prefix="pyvmm-") as place:
        root = Path(place)
        inside = furnish(root)
        with lab.guest() as guest, Folder(inside, writable=True) as folder:
            service = SyscallService(guest.machine, folder)
            result = run_to_pass(guest)
            buffer = REGIONS["user"].base + 0x1000
            memory = guest.machine.memory
            copy = inside / "copy.txt"
            return judge(
                Evidence(
                    {name: guest[name] for name in WANTED},
                    (memory.read(buffer, len(HELLO)), memory.read(buffer + 0x100, len(HELLO) - 7)),
                    result.console,
                    copy.read_bytes() if copy.exists() else None,
                    tuple(sorted(each.name for each in inside.iterdir())),
                    service.counts.total(),
                )
            )


def furnish(root: Path) -> Path:
    """A folder for the guest in `root`, and a secret beside it to which links lead."""
    (root / "secret").write_bytes(SECRET)
    inside = root / "folder"
    (inside / "sub").mkdir(parents=True)
    (inside / "hello.txt").write_bytes(HELLO)
    (inside / "sub" / "inner.txt").write_bytes(HELLO)
    (inside / "link").symlink_to(root / "secret")
    (inside / "out").symlink_to(root)
    os.mkfifo(inside / "pipe")
    return inside


def judge(evidence: Evidence) -> Finding:
    """Every call gave what Linux would give, or was refused as it must be, and nothing but the new file has come."""
    numbers = {**evidence.answers, "calls served": evidence.served, "files": ", ".join(evidence.names)}
    for name, wanted in WANTED.items():
        if evidence.answers[name] not in wanted:
            text = f"{name}: the program was answered {evidence.answers[name]}, and {wanted[0]} is right"
            return Finding(Verdict.BROKEN, text, numbers)
    text = _wrong(evidence)
    if text:
        return Finding(Verdict.BROKEN, text, numbers)
    done = len(WANTED) - len(REFUSED)
    summary = f"{done} calls of ring 3 did what they say, {len(REFUSED)} were refused: paths, links, sizes, addresses"
    return Finding(Verdict.WORKS, "", numbers, summary)


def _wrong(evidence: Evidence) -> str:
    if evidence.buffers != (HELLO, HELLO[7:]):
        return f"the program read {evidence.buffers!r}, and the file has {HELLO!r}"
    if evidence.console != HELLO:
        return f"standard output is {evidence.console!r}, and should be {HELLO!r}"
    if evidence.copy != HELLO:
        return f"the new file has {evidence.copy!r}, and should have {HELLO!r}"
    if evidence.names != ("copy.txt", "hello.txt", "link", "out", "pipe", "sub"):
        return f"the folder has {', '.join(evidence.names)}"
    return ""

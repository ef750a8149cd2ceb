# SPDX-License-Identifier: GPL-2.0-or-later
"""What lies at a device's path: a device or something else, whose, and whether this user's groups may open it.

It looks and never opens; what to make of it is not decided here.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

KINDS = {
    stat.S_IFCHR: "character device",
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True)
class Node:
    """What lies at the device's path. `kind` is `missing` if nothing does, and the rest is empty then.

    `mode` as ls shows it; `device` is (major, minor) of a device; `member` says whether the user is in `group`:
    yes, no, or later (in the group, but not in this session, which is older).
    """

    path: str
    kind: str
    mode: str = ""
    owner: str = ""
    group: str = ""
    device: tuple[int, int] | None = None
    member: str = "no"

    @property
    def text(self) -> str:
        if self.kind == "missing":
            return f"{self.path} does not exist"
        number = f" {self.device[0]}:{self.device[1]}" if self.device else ""
        return f"{self.path}: {self.kind}{number}, {self.mode} {self.owner}:{self.group}"


def look_at_node(path: str) -> Node:
    """The node, as far as this user may see it."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return Node(path, "missing")
    except OSError as error:
        return Node(path, f"out of sight ({error.strerror})")
    is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    return Node(
        path,
        KINDS.get(stat.S_IFMT(status.st_mode), "file of another kind"),
        stat.filemode(status.st_mode),
        user_name(status.st_uid),
        _group_name(status.st_gid),
        (os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else None,
        _membership(status.st_gid),
    )


def _membership(gid: int) -> str:
    if gid in {*os.getgroups(), os.getegid()}:
        return "yes"
    try:
        named = user_name(os.getuid()) in grp.getgrgid(gid).gr_mem
    except KeyError:
        named = False
    return "later" if named else "no"


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)

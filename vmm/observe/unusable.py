# SPDX-License-Identifier: GPL-2.0-or-later
"""Why KVM cannot be used here, and what to try. It looks at the device node, never opens it, and needs no binding.

The error that opening gave says what failed; what surrounds it (is the module there, whose is the node, is this a
container) says why, and so what to do. `hints` is a pure function of both, so every case has its test.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from vmm.errors import HostError, KvmCallError, VmmError
from vmm.observe.hostfiles import HostFiles
from vmm.observe.setting import Setting, look

KINDS = {
    stat.S_IFCHR: "character device",
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}
MISC_MAJOR = 10
DEVICE = "/dev/kvm"


class NotBuilt(HostError):
    """pyvmm's own extension is missing, so that nothing was found out about the device."""


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


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What could be found without the device. `driver` is the kernel's minor number for kvm, None without one."""

    node: Node
    setting: Setting
    driver: int | None
    user: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """`error` is what stopped us, `reason` its first line, `hints` what to try, best first."""

    error: VmmError
    reason: str
    hints: tuple[str, ...]
    found: Surroundings


def why_unusable(error: VmmError, path: str = DEVICE, files: HostFiles | None = None) -> Unusable:
    """Explain `error`, which using the device at `path` gave."""
    files = files or HostFiles()
    found = Surroundings(look_at_node(path), look(files), files.device_number(), _user_name(os.getuid()))
    reason, _, generic = str(error).partition("\n  try: ")
    return Unusable(error, reason, hints(error, found) or ((generic,) if generic else ()), found)


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
        _user_name(status.st_uid),
        _group_name(status.st_gid),
        (os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else None,
        _membership(status.st_gid),
    )


def hints(error: VmmError, found: Surroundings) -> tuple[str, ...]:
    """What to try. Empty where the error's own advice is all there is to say."""
    if isinstance(error, NotBuilt):
        return ()
    node = found.node
    refused = error.errno if isinstance(error, KvmCallError) and error.call == "open" else None
    if node.kind == "missing":
        return _missing(found)
    if node.device is None and not node.kind.startswith("out of sight"):
        if node.path != DEVICE:
            return (f"that is a {node.kind}, not a device; KVM's is {DEVICE}",)
        return (f"{DEVICE} is a {node.kind}; move it away, and let udev or the container make the device",)
    if refused in (errno.EACCES, errno.EPERM):
        return _refused(refused, found)
    if node.device and found.driver is not None and node.device != (MISC_MAJOR, found.driver):
        kvm = f"c {MISC_MAJOR} {found.driver}"
        if node.path != DEVICE:  # somebody else's device, perhaps: never advise to replace that
            return (f"that is another device; KVM's is {DEVICE} ({kvm})",)
        return (f"the node is stale: `sudo rm {DEVICE} && sudo mknod {DEVICE} {kvm}`",)
    if refused in (errno.ENODEV, errno.ENXIO):
        return _no_driver(found)
    return ()


def _missing(found: Surroundings) -> tuple[str, ...]:
    into = ("this is a container: give it the device, `--device /dev/kvm`",) if found.setting.container else ()
    if found.driver is not None:
        node = f"the driver is there and its node is not: `sudo mknod {found.node.path} c {MISC_MAJOR} {found.driver}`"
        return (*into, node)
    return (*into, *_no_driver(found))


def _no_driver(found: Surroundings) -> tuple[str, ...]:
    load = "load the module, `sudo modprobe kvm_intel` or `kvm_amd`, and read `dmesg` if it refuses"
    if found.setting.nested.guest:
        return ("this host is a virtual machine: turn on nested virtualization in the hypervisor below it", load)
    return (load, "if the module finds no support, turn on VT-x or AMD-V in the firmware")


def _refused(refused: int, found: Surroundings) -> tuple[str, ...]:
    node = found.node
    if refused == errno.EPERM:
        return ("a sandbox or device cgroup refuses the device; a container needs `--device /dev/kvm`",)
    for_user = f"`sudo setfacl -m u:{found.user}:rw {node.path}` (until the next boot)"
    if node.mode[4:6] != "rw" or node.group == "root":
        rule = 'KERNEL=="kvm", GROUP="kvm", MODE="0660"'
        return (f"only {node.owner} may open it: {for_user}", f"for good, a udev rule: {rule}")
    if node.member == "later":
        return (f"you are in group {node.group}, but this session is older: log in again, or `newgrp {node.group}`",)
    if node.member == "yes":
        return ("the group may open it and you are in it: look for a sandbox (SELinux, AppArmor, seccomp)",)
    return (f"`sudo usermod -aG {node.group} {found.user}`, then log in again", f"or, for now, {for_user}")


def _membership(gid: int) -> str:
    if gid in {*os.getgroups(), os.getegid()}:
        return "yes"
    try:
        named = _user_name(os.getuid()) in grp.getgrgid(gid).gr_mem
    except KeyError:
        named = False
    return "later" if named else "no"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Why KVM cannot be used here, and what to try. It looks at the device node, never opens it, and needs no binding.

The error that opening gave says what failed; what surrounds it (is the module there, whose is the node, is this a
container) says why, and so what to do. `hints` is a pure function of both, so every case has its test. This is the one
place with advice on the device: what the commands say is `message`, what doctor and the test plugin say is `hints`.

Who may open the node is udev's to set, each time that the node is made and each time that udev is triggered. Its rule
sets owner, group and mode: an ACL that setfacl put there stays through a trigger where the rule gives the group rw, and
has no effect after it where the rule gives less, since the group's bits of the mode are an ACL's mask (acl(5)). A node
that is made anew (another boot, the module loaded again) has no ACL.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from vmm.errors import HostError, KvmCallError, VmmError, advised
from vmm.host.node import Node, look_at_node, user_name
from vmm.host.surroundings import Setting, look
from vmm.host.sysfs import HostFiles

MISC_MAJOR = 10
DEVICE = "/dev/kvm"
GROUP = "kvm"  # as the rules that come with udev name it
RULE_FILE = "/etc/udev/rules.d/99-kvm.rules"


class NotBuilt(HostError):
    """pyvmm's own extension is missing, so that nothing was found out about the device."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What could be found without the device. `driver` is the kernel's minor number for kvm, None without one.

    `user` is the name, or the number of one without a name; `udev` says whether a udev runs here, which sets the node.
    """

    node: Node
    setting: Setting
    driver: int | None
    user: str
    udev: bool


@dataclass(frozen=True, slots=True)
class Unusable:
    """`error` is what stopped us, `reason` its text, `hints` what to try, best first."""

    error: VmmError
    reason: str
    hints: tuple[str, ...]
    found: Surroundings

    def __str__(self) -> str:
        return advised(self.reason, *self.hints)

    @property
    def one_line(self) -> str:
        """The same without a break."""
        return advised(self.reason, *self.hints, by="; try: ")


def why_unusable(error: VmmError, path: str = DEVICE, files: HostFiles | None = None) -> Unusable:
    """Explain `error`, which using the device at `path` gave."""
    files = files or HostFiles()
    found = Surroundings(look_at_node(path), look(files), files.device_number(), user_name(os.getuid()), files.udev())
    return Unusable(error, error.text, hints(error, found) or ((error.hint,) if error.hint else ()), found)


def message(error: VmmError) -> str:
    """The whole message of an error for a person; where the device could not be opened, with doctor's advice."""
    if not isinstance(error, KvmCallError) or error.call != "open":
        return str(error)
    return str(why_unusable(error))


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
    owned_by_group = node.mode[4:6] == "rw" and node.group != "root"
    if owned_by_group and node.member == "later":
        return (f"you are in group {node.group}, but this session is older: log in again, or `newgrp {node.group}`",)
    if owned_by_group and node.member == "yes":
        return (
            "the group may open it and you are in it: look for a sandbox (SELinux, AppArmor, seccomp), "
            f"and for an ACL, `getfacl {node.path}`",
        )
    allow = f"`sudo setfacl -m u:{found.user}:rw {node.path}`"
    anew = "until the node is made anew: by a boot, a restart of the container, or the module loaded again"
    if found.user.isdecimal():  # no account, so that no group can be joined
        return (f"uid {found.user} has no account here, and so no groups: {allow} ({anew})",)
    if owned_by_group:
        return (f"`sudo usermod -aG {node.group} {found.user}`, then log in again", f"or, {anew}: {allow}")
    if node.path != DEVICE or not found.udev:
        return (f"only {node.owner} may open it: {allow} ({anew})",)
    return (
        f"only {node.owner} may open it; a udev rule gives it to a group for good: `{_rule(found.user)}`, "
        "then log in again",
        f"or, until udev is triggered or the node is made anew: {allow}",
    )


def _rule(user: str) -> str:
    """One line for a shell. The file comes after the distribution's rules, for the last rule wins; groupadd -f takes a
    group that is there.
    """
    rule = f'KERNEL=="kvm", GROUP="{GROUP}", MODE="0660", OPTIONS+="static_node=kvm"'
    return (
        f"sudo groupadd -f -r {GROUP} && sudo usermod -aG {GROUP} {user} && "
        f"echo '{rule}' | sudo tee {RULE_FILE} && "
        "sudo udevadm control --reload && sudo udevadm trigger --settle --name-match=kvm"
    )

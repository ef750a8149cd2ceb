# SPDX-License-Identifier: GPL-2.0-or-later
"""Every error pyvmm raises on purpose. It knows messages and exit statuses; it knows nothing of KVM.

The types follow who can act: the owner of the host (HostError), the caller (UsageError), the author of a payload
(PayloadError), the guest itself (GuestError, GuestMemoryError). Exit statuses are those of the command `pyvmm`.
"""

from __future__ import annotations

import errno as _errno
import os

EXIT_PASS = 0
EXIT_FAIL = 1
EXIT_USAGE = 2
EXIT_CANNOT_SHOW = 77
EXIT_HOST = 99
EXIT_TIMEOUT = 124
EXIT_INTERRUPTED = 130


def advised(text: str, *hints: str, by: str = "\n  try: ") -> str:
    """`text` with what to try, best first: a line each, or `by="; try: "` where all has to stand on one."""
    return by.join((text, *(hint for hint in hints if hint)))


class VmmError(Exception):
    """Base of all: `text` says what went wrong, `hint` what to try ("" where nothing is known to help).

    `str(error)` is the whole message for a person; `exit_code` is the command's exit status.
    """

    exit_code = EXIT_HOST

    def __init__(self, text: str = "", hint: str = "") -> None:
        super().__init__(text)
        self.text, self.hint = text, hint

    def __str__(self) -> str:
        return advised(self.text, self.hint)

    @property
    def one_line(self) -> str:
        """Text and hint without a break between them."""
        return advised(self.text, self.hint, by="; try: ")


class NotTaken(UserWarning):
    """A request of the caller's that the kernel took and did not obey; said by `warnings`, since the rest stands."""


class HostError(VmmError):
    """This host (its /dev/kvm, permissions, memory) does not let us do it."""


class UsageError(VmmError):
    """The caller asked for something that cannot be: a bad value, an unknown name, a region too small."""

    exit_code = EXIT_USAGE


class ImageError(UsageError):
    """An image is damaged, foreign, or does not go with this machine: one line that says what and where. Nothing of it
    is run, and nothing was written into guest memory.
    """


class PayloadError(VmmError):
    """The payload's source is wrong. Points at file, line and column (1-based) where they are known; `row` is the line
    of source itself, which the message shows.
    """

    exit_code = EXIT_USAGE

    def __init__(
        self, what: str, hint: str = "", *, file: str = "", line: int = 0, column: int = 0, row: str = ""
    ) -> None:
        where = ":".join(str(part) for part in (file, line, column) if part)
        super().__init__(f"{where}: {what}" if where else what, hint)
        self.file, self.line, self.column, self.row = file, line, column, row

    def __str__(self) -> str:
        shown = [self.text]
        if self.row:
            shown.append(self.row)
        if self.row and self.column:
            shown.append("".join("\t" if c == "\t" else " " for c in self.row[: self.column - 1]) + "^")
        return advised("\n  ".join(shown), self.hint)


class MissingCapability(HostError):
    """This host's KVM does not offer what was asked for; nothing was run."""

    exit_code = EXIT_CANNOT_SHOW


class MissingCpus(MissingCapability):
    """Fewer host CPUs can be used than it takes; KVM itself lacks nothing."""


class GuestError(VmmError):
    """The guest did something else than it was run for: it crashed, hung, or ended where it should not."""

    exit_code = EXIT_FAIL


class GuestMemoryError(VmmError):
    """An access by guest-physical or guest-virtual address touches bytes that no memslot holds, or a page that the
    host supplies on demand and that is not there yet."""

    exit_code = EXIT_FAIL


USED_UP = frozenset({_errno.EMFILE, _errno.ENFILE, _errno.ENOMEM, _errno.EAGAIN})


def errno_name(err: int) -> str:
    """`EFAULT` for `err` 14; the number itself where the platform has no name."""
    return _errno.errorcode.get(err, str(err))


def os_reason(error: BaseException) -> str:
    """`No such file or directory (ENOENT)`: what the system says of an OSError, and its errno's name. Of another error
    its own text."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    name = _errno.errorcode.get(error.errno or 0)  # those of a resolver of names are no errno
    return f"{error.strerror} ({name})" if name else error.strerror


# What can stop an open is more than an errno tells; who looks around for the reason is vmm/host/unusable.py.
LOOK = "`pyvmm doctor`: it looks why, and says what to do"
# Hints are data, so that a test can walk them. Key: (call, errno).
HINTS: dict[tuple[str, int], str] = {
    **{("open", err): LOOK for err in (_errno.ENOENT, _errno.EACCES, _errno.EPERM, _errno.ENODEV, _errno.ENXIO)},
    ("KVM_CREATE_VM", _errno.EBUSY): "another hypervisor (VirtualBox, VMware) holds the CPU's virtualization; stop it",
    ("KVM_CREATE_VCPU", _errno.EEXIST): "this APIC id is in use; give each vCPU its own",
    ("KVM_CREATE_VCPU", _errno.EINVAL): "the id is beyond KVM_CAP_MAX_VCPU_ID; `pyvmm doctor --all` shows it",
    ("KVM_SET_USER_MEMORY_REGION", _errno.EEXIST): "the memslot overlaps another; give it its own guest-physical range",
    (
        "KVM_SET_USER_MEMORY_REGION",
        _errno.EINVAL,
    ): "address and size must be multiples of 4096 and the slot id in range",
    ("KVM_SET_CPUID2", _errno.EINVAL): "CPUID is frozen once a vCPU has run; change it before the first run",
    ("KVM_SET_CPUID2", _errno.E2BIG): "too many CPUID entries; KVM takes 256 at most",
    ("KVM_SIGNAL_MSI", _errno.EINVAL): "needs an in-kernel LAPIC (irqchip=kernel or split), and a valid destination",
    ("KVM_RUN", _errno.EFAULT): "the guest touched an address whose host page cannot be had (unmapped or protected)",
}

VM_DIED = (
    "`dmesg`: KVM met a state that it holds impossible and ended this VM (KVM_BUG_ON), and its warning has the place "
    "in the source; another kernel may not do so. (Or another process than the VM's maker asked: a forked child)"
)


def resource_hint(err: int, call: str = "") -> str:
    """Which resource `err`, an errno, says is used up, its limit now, and what to do; empty for another one."""
    import resource

    def limit(which: int, unit: int = 1, name: str = "") -> str:
        soft = resource.getrlimit(which)[0]
        return "unlimited" if soft == resource.RLIM_INFINITY else f"{soft // unit:,}{name}"

    if err == _errno.EMFILE:
        try:
            with os.scandir("/proc/self/fd") as found:  # which takes one itself
                used = f"{len(list(found)):,} of "
        except OSError:
            used = "all of "
        return (
            f"{used}{limit(resource.RLIMIT_NOFILE)} descriptors of this process are open; close machines that are done "
            "(`with Machine() as m:`), or raise the limit (`ulimit -n`)"
        )
    if err == _errno.ENFILE:
        return "the host's open files are used up (fs.file-max); close some, here or in other processes"
    if err == _errno.ENOMEM:
        return (
            f"memory is used up: the limit of this process' address space is {limit(resource.RLIMIT_AS, 1024, ' KiB')} "
            "(`ulimit -v`), other limits are the host's own memory and that of a control group; use less of it "
            "(a smaller `memory`, fewer machines), or raise the limit"
        )
    if err == _errno.EAGAIN and call == "timer_create":
        return f"timers are used up: the limit is {limit(resource.RLIMIT_SIGPENDING)} (`ulimit -i`); raise it"
    if err == _errno.EAGAIN:
        return (
            f"threads are used up: the limit of this user is {limit(resource.RLIMIT_NPROC)} (`ulimit -u`), a control "
            "group may have a lower one; use fewer vCPUs and devices, close machines that are done, or raise it"
        )
    return ""


def exhausted(doing: str, call: str, err: int) -> HostError:
    """The error for a call outside of KVM that failed with errno `err`, with what to do where a resource is used up."""
    return HostError(f"{doing}: {call}: {os.strerror(err)} ({errno_name(err)})", resource_hint(err, call))


class KvmCallError(HostError):
    """One kernel call failed. Keeps the call's name and errno, so that a caller can decide by them."""

    def __init__(self, call: str, err: int, doing: str) -> None:
        self.call, self.errno, self.doing = call, err, doing
        hint = VM_DIED if self.vm_died else HINTS.get((call, err), "")
        if not hint and err in USED_UP and call != "KVM_RUN":
            hint = resource_hint(err, call)
        super().__init__(f"{doing}: {call}: {os.strerror(err)} ({errno_name(err)})", hint)

    @property
    def vm_died(self) -> bool:
        """Has KVM ended the VM for a fault of its own? Every call on a VM or vCPU fails with EIO then."""
        return self.call.startswith("KVM_") and self.errno == _errno.EIO

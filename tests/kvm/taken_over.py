# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process tries that a guest has taken over, each in a sandboxed `pyvmm run` of its own: the program of
test_sandbox.py, which starts it and reads its lines: name, then `did it`, an errno or a signal.

The callback is planted in the handler of a port. Whatever it needs that a taker-over would bring along (numbers of
calls, a page of 32-bit code) is made before; what it tries, it tries by the bare system call where libc could get in
the way.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vmm.abi.syscalls import NUMBERS, X32_BIT
from vmm.cli import main

LIBC = ctypes.CDLL(None, use_errno=True)
PARENT = os.getpid()
SECRET = Path(sys.argv[1])  # a file that anybody may read
FOLDER = Path(sys.argv[2])  # a folder that anybody may write to
PAYLOAD = sys.argv[3]
OPTIONS = sys.argv[4:]
LISTENER = socket.create_server(("127.0.0.1", 0))
PORT = LISTENER.getsockname()[1]
PAGE = mmap.PAGESIZE


def call(name: str | int, *args: int | bytes | None) -> int:
    """A bare system call; OSError where it is refused."""
    number = NUMBERS[name] if isinstance(name, str) else name
    made = [ctypes.c_long(each) if isinstance(each, int) else each for each in args]
    result: int = LIBC.syscall(ctypes.c_long(number), *made)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def code_of_32_bits() -> Callable[[], int]:
    """getpid by int 0x80, which is 32-bit code's way into the kernel."""
    page = mmap.mmap(-1, PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20; int 0x80; ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    function: Callable[[], int] = ctypes.CFUNCTYPE(ctypes.c_int)(address)
    return function


def ring_parameters() -> bytes:
    return bytes(120)


NEW = FOLDER / "new"
LIBC_ROOM = ctypes.create_string_buffer(2 * PAGE)
RWX, ANONYMOUS = 7, 0x22
IN_32_BITS = code_of_32_bits()
TRIES: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "read a file": SECRET.read_bytes,
    "read a file by open": lambda: call("open", bytes(SECRET), os.O_RDONLY),
    "read a file by openat2": lambda: call("openat2", -100, bytes(SECRET), bytes(24), 24),
    "list a folder": lambda: list(FOLDER.iterdir()),
    "write a file": lambda: NEW.write_bytes(b"x"),
    "create a file": lambda: call("creat", bytes(NEW), 0o644),
    "make a folder": NEW.mkdir,
    "remove a file": SECRET.unlink,
    "rename a file": lambda: SECRET.rename(NEW),
    "link a file": lambda: NEW.hardlink_to(SECRET),
    "change a mode": lambda: SECRET.chmod(0o777),
    "truncate a file": lambda: os.truncate(SECRET, 0),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "execveat": lambda: call("execveat", -100, b"/bin/true", None, None, 0),
    "fork": os.fork,
    "vfork": lambda: call("clone", signal.SIGCHLD | 0x4100, 0, 0, 0, 0),
    "clone3": lambda: call("clone3", bytes(88), 88),
    "a program": lambda: subprocess.run(["/bin/true"], check=True),
    "socket": socket.socket,
    "connect": lambda: socket.create_connection(("127.0.0.1", PORT), 1),
    "an abstract socket": lambda: socket.socket(socket.AF_UNIX).connect("\0pyvmm"),
    "listen": lambda: socket.create_server(("127.0.0.1", 0)),
    "ptrace": lambda: call("ptrace", 16, PARENT, 0, 0),
    "read another's memory": lambda: call("process_vm_readv", PARENT, bytes(16), 1, bytes(16), 1, 0),
    "kill another": lambda: os.kill(PARENT, 0),
    "kill all": lambda: os.kill(-1, 0),
    "a pidfd's signal": lambda: signal.pidfd_send_signal(os.pidfd_open(PARENT), 0),
    "mount": lambda: call("mount", b"none", bytes(FOLDER), b"tmpfs", 0, None),
    "chroot": lambda: os.chroot(FOLDER),
    "pivot_root": lambda: call("pivot_root", bytes(FOLDER), bytes(FOLDER)),
    "unshare": lambda: call("unshare", 0x10000000),
    "setns": lambda: call("setns", 0, 0),
    "io_uring": lambda: call("io_uring_setup", 1, ring_parameters()),
    "bpf": lambda: call("bpf", 0, bytes(64), 64),
    "userfaultfd": lambda: call("userfaultfd", 1),
    "open /dev/kvm": lambda: os.open("/dev/kvm", os.O_RDWR),
    "open /dev/kvm to read": lambda: os.open("/dev/kvm", os.O_RDONLY),
    "undo it by prctl": lambda: call("prctl", 38, 0, 0, 0, 0),
    "another filter": lambda: call("seccomp", 1, 0, bytes(16)),
    "dumpable": lambda: call("prctl", 4, 1, 0, 0, 0),
    "setuid": lambda: os.setuid(65534),
    "setgroups": lambda: os.setgroups([]),
    "capset": lambda: call("capset", bytes(8), bytes(24)),
    "memfd": lambda: os.memfd_create("x"),
    "memory that is written and executed": lambda: mmap.mmap(-1, PAGE, prot=RWX),
    "memory that is executed": lambda: mmap.mmap(-1, PAGE, prot=5),
    "make memory executable": lambda: call("mprotect", ctypes.addressof(LIBC_ROOM) & -PAGE, PAGE, 5),
    "keyctl": lambda: call("keyctl", 0, 0, 0),
    "add_key": lambda: call("add_key", b"user", b"x", b"y", 1, -2),
    "perf_event_open": lambda: call("perf_event_open", bytes(120), 0, -1, -1, 0),
    "a kernel module": lambda: call("finit_module", 0, b"", 0),
    "reboot": lambda: call("reboot", 0, 0, 0, 0),
    "a kernel's log": lambda: call("syslog", 10, 0, 0),
    "iopl": lambda: call("iopl", 3),
    "type for the terminal's owner": lambda: call("ioctl", 0, 0x5412, b"x"),
    "a larger limit": lambda: call("prlimit64", 0, 4, bytes(16), None),
    "another's limit": lambda: call("prlimit64", PARENT, 4, None, bytes(16)),
    "a descriptor's signal to another": lambda: call("fcntl", 0, 8, PARENT),
    "another VM": lambda: call("ioctl", KVM_FDS[0], 0xAE01, 0),
    "x32": lambda: call(X32_BIT | NUMBERS["getpid"]),
    "32-bit code": IN_32_BITS,
    "a call of the future": lambda: call(600),
}


FATAL = (
    "exec", "execveat", "ptrace", "read another's memory", "mount", "chroot", "pivot_root", "unshare", "setns",
    "io_uring", "bpf", "userfaultfd", "setuid", "setgroups", "capset", "keyctl", "add_key", "perf_event_open",
    "a kernel module", "reboot", "a kernel's log", "iopl", "x32", "32-bit code",
)  # fmt: skip
"""What ends the process, so that each needs one of its own."""
KVM_FDS: list[int] = []  # that of /dev/kvm, which the process keeps


def plant(machine: Any, names: str, tell: int) -> None:
    """A handler that does them, one after the other, in place of the port's."""

    def taken(_: int) -> None:
        for each in names.split("|"):
            try:
                TRIES[each]()
            except BaseException as error:
                number = getattr(error, "errno", None)
                came = errno.errorcode.get(number, repr(error)) if number else repr(error)
            else:
                came = "did it"
            os.write(tell, f"{each}: {came}\n".encode())
        os._exit(0)

    KVM_FDS[:] = [machine.kvm.fd]
    machine.on_port_write(0x99, taken)


def lines(names: str) -> list[str]:
    """What came of them, in a process that runs the payload."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.environ["PYVMM_TRIES"] = names
        os.dup2(writer, 200)
        status = main(["run", PAYLOAD, *OPTIONS])
        os.write(writer, f"status {status}\n".encode())
        os._exit(1)
    os.close(writer)
    told = b""
    while data := os.read(reader, 4096):
        told += data
    os.close(reader)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return [*told.decode().splitlines(), f"{names}: {signal.Signals(os.WTERMSIG(status)).name}"]
    return told.decode().splitlines()


if __name__ == "__main__":
    sys.modules["taken_over"] = sys.modules["__main__"]
    main(["run", "hello"])  # what is imported once, all have
    chosen = sys.stdin.read().split("|")
    fatal = [each for each in chosen if each in FATAL]
    together = [each for each in chosen if each not in FATAL]
    for names in ("|".join(together), *fatal):
        sys.stdout.write("".join(f"{line}\n" for line in lines(names)))
        sys.stdout.flush()

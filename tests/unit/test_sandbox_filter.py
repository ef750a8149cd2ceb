# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of system calls, its numbers, and the program the kernel is given: run here by a small reader of BPF."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from tests.unit.test_abi_header import compile_errors, is_equal
from tools import sandbox_filter
from vmm.abi import landlock, syscalls
from vmm.sandbox import compiled
from vmm.sandbox.calls import KEPT, NEVER, TERMINAL, UNKNOWN
from vmm.sandbox.filter import ALLOW, ENOSYS, EPERM, KILL

PID = 1234
ARCH = syscalls.AUDIT_ARCH_X86_64
N = syscalls.NUMBERS


def answer(program: bytes, nr: int, *args: int, arch: int = ARCH) -> int:
    """What the kernel would do: the word that the program returns."""
    data = struct.pack("<IIQ6Q", nr, arch, 0, *(args + (0,) * 6)[:6])
    at, a = 0, 0
    for _ in range(syscalls.BPF_MAXINSNS):
        code, yes, no, k = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == syscalls.BPF_LD_W_ABS:
            (a,) = struct.unpack_from("<I", data, k)
        elif code == syscalls.BPF_AND_K:
            a &= k
        elif code == syscalls.BPF_JEQ_K:
            at += yes if a == k else no
        elif code == syscalls.BPF_JGE_K:
            at += yes if a >= k else no
        else:
            assert code == syscalls.BPF_RET_K
            return k
    raise AssertionError("no end")


@pytest.fixture(params=["MACHINE", "COMPUTING"])
def program(request: pytest.FixtureRequest) -> bytes:
    text: str = getattr(compiled, request.param)
    return bytes.fromhex(text.replace(compiled.PID, PID.to_bytes(4, "little").hex()))


@pytest.fixture
def machine() -> bytes:
    return bytes.fromhex(compiled.MACHINE.replace(compiled.PID, PID.to_bytes(4, "little").hex()))


def test_the_compiled_table_is_that_of_the_rows():
    assert sandbox_filter.text() == sandbox_filter.FILE.read_text(), "python -m tools.sandbox_filter"


def test_the_process_puts_its_number_in_once_for_each_row_that_asks():
    assert compiled.MACHINE.count(compiled.PID) == 3  # kill, tgkill: one block each; prlimit64
    assert os.getpid().to_bytes(4, "little") in compiled.for_process(compiled.MACHINE)
    assert bytes.fromhex(compiled.PID) not in compiled.for_process(compiled.MACHINE)


def test_numbers_are_the_kernels():
    checks = [f"#ifdef __NR_{name}\n{is_equal(f'__NR_{name}', number)}\n#endif" for name, number in N.items()]
    assert len(checks) > 370
    assert compile_errors(checks, "asm/unistd.h") == ""
    assert "error" in compile_errors([is_equal("__NR_mmap", 10)], "asm/unistd.h")


def test_words_of_the_filter_are_the_kernels():
    headers = ("linux/seccomp.h", "linux/filter.h", "linux/audit.h")
    names = [name for name in vars(syscalls) if name.startswith(("SECCOMP_", "AUDIT_", "BPF_MAX"))]
    checks = [is_equal(name, getattr(syscalls, name)) for name in names]
    checks += [
        is_equal("BPF_LD | BPF_W | BPF_ABS", syscalls.BPF_LD_W_ABS),
        is_equal("BPF_ALU | BPF_AND | BPF_K", syscalls.BPF_AND_K),
        is_equal("BPF_JMP | BPF_JEQ | BPF_K", syscalls.BPF_JEQ_K),
        is_equal("BPF_JMP | BPF_JGE | BPF_K", syscalls.BPF_JGE_K),
        is_equal("BPF_RET | BPF_K", syscalls.BPF_RET_K),
        *(f'_Static_assert(offsetof(struct seccomp_data, {field}) == {at}, "");'
          for field, at in (("nr", syscalls.NR_AT), ("arch", syscalls.ARCH_AT), ("args", syscalls.ARGS_AT))),
    ]  # fmt: skip
    assert len(checks) >= 14
    assert compile_errors(checks, *headers) == ""


def test_rights_of_landlock_are_the_kernels():
    rows = [*landlock.FILES, *landlock.NETWORK, *landlock.SCOPES]
    assert compile_errors([f"#ifdef {n}\n{is_equal(n, v)}\n#endif" for n, v, _ in rows], "linux/landlock.h") == ""
    assert landlock.known(landlock.FILES, 1) == 0x1FFF
    assert landlock.known(landlock.FILES, 7) == 0xFFFF
    assert not landlock.known(landlock.NETWORK, 3)


def test_requests_of_the_terminal_are_the_kernels():
    assert compile_errors([is_equal(*row) for row in TERMINAL.items()], "asm/ioctls.h") == ""
    assert "TIOCSTI" not in TERMINAL


def test_every_call_is_answered_as_its_row_says(program: bytes):
    kept = {name for row in KEPT for name in row.names.split()}
    for name, number in N.items():
        got = answer(program, number)
        if name in NEVER.split():
            assert got == KILL, name
        elif name in UNKNOWN.split():
            assert got == ENOSYS, name
        elif name not in kept:
            assert got == EPERM, name
    for row in KEPT:
        if not row.ways and row.part == "all":
            assert {answer(program, N[name]) for name in row.names.split()} == {ALLOW}


def test_no_name_stands_in_two_tables():
    names = [name for row in KEPT for name in row.names.split()] + NEVER.split() + UNKNOWN.split()
    assert len(names) == len(set(names))


@pytest.mark.parametrize("nr", [335, 400, 423, max(N.values()) + 1, 0x3FFFFFFF])
def test_a_call_that_the_table_does_not_know_is_not_there(program: bytes, nr: int):
    assert answer(program, nr) == ENOSYS
    assert ENOSYS & 0xFFFF == errno.ENOSYS


def test_another_architecture_and_x32_end_the_process(program: bytes):
    assert answer(program, N["read"]) == ALLOW
    assert answer(program, N["read"], arch=0x40000003) == KILL  # AUDIT_ARCH_I386, by int 0x80
    assert answer(program, syscalls.X32_BIT | N["read"]) == KILL
    assert answer(program, 0xFFFFFFFF) == KILL


@pytest.mark.parametrize(
    ("name", "args", "want"),
    [
        ("ioctl", (5, 0xAE80), ALLOW),  # KVM_RUN
        ("ioctl", (5, 0x4020AE46), ALLOW),  # KVM_SET_USER_MEMORY_REGION
        ("ioctl", (5, 0xAE01), EPERM),  # KVM_CREATE_VM
        ("ioctl", (5, 0x1_0000_AE01), EPERM),  # the kernel looks at 32 bits
        ("ioctl", (0, 0x5402), ALLOW),  # TCSETS
        ("ioctl", (0, 0x5412), EPERM),  # TIOCSTI
        ("ioctl", (5, 0xAF01), EPERM),  # vhost
        ("openat", (0, 0, os.O_RDONLY | os.O_CLOEXEC), ALLOW),
        ("openat", (0, 0, os.O_WRONLY), EPERM),
        ("openat", (0, 0, os.O_RDWR), EPERM),
        ("openat", (0, 0, os.O_CREAT), EPERM),
        ("openat", (0, 0, os.O_TRUNC), EPERM),
        ("openat", (0, 0, 3), EPERM),
        ("openat", (0, 0, 1 << 32), ALLOW),  # which the kernel does not see
        ("open", (0, 0), EPERM),
        ("mmap", (0, 4096, 3, 0x22), ALLOW),
        ("mmap", (0, 4096, 7, 0x22), EPERM),
        ("mmap", (0, 4096, 7, 0x2), EPERM),
        ("mmap", (0, 4096, 5, 0x2), ALLOW),  # a library
        ("mmap", (0, 4096, 5, 0x22), EPERM),
        ("mprotect", (0, 4096, 1), ALLOW),
        ("mprotect", (0, 4096, 5), EPERM),
        ("clone", (0x3D0F00,), ALLOW),
        ("clone", (17,), EPERM),
        ("fork", (), EPERM),
        ("tgkill", (PID, 99, 10), ALLOW),
        ("tgkill", (PID + 1, 99, 10), EPERM),
        ("kill", (PID, 2), ALLOW),
        ("kill", (0xFFFFFFFF, 9), EPERM),
        ("kill", (0, 9), EPERM),
        ("fcntl", (3, 1), ALLOW),
        ("fcntl", (3, 8), EPERM),  # F_SETOWN
        ("prctl", (15,), ALLOW),
        ("prctl", (22,), EPERM),  # PR_SET_SECCOMP
        ("prlimit64", (0, 7, 0, 0x1000), ALLOW),
        ("prlimit64", (0, 7, 0x7FFF_0000_0000, 0), EPERM),
        ("prlimit64", (0, 7, 0x1000, 0), EPERM),
        ("prlimit64", (1, 7, 0, 0x1000), EPERM),
        ("socket", (2, 1, 0), EPERM),
        ("sendto", (3,), ALLOW),
        ("execve", (), KILL),
    ],
)
def test_arguments_decide(machine: bytes, name: str, args: tuple[int, ...], want: int):
    assert answer(machine, N[name], *args) == want


def test_a_child_that_computes_has_no_machine_and_no_thread():
    program = bytes.fromhex(compiled.COMPUTING)
    for name, args in (("ioctl", (5, 0xAE80)), ("ioctl", (0, 0x5401)), ("clone", (0x3D0F00,)), ("sendto", (3,))):
        assert answer(program, N[name], *args) == EPERM


def test_a_tool_may_start_programs_and_has_no_network():
    program = bytes.fromhex(compiled.TOOL)
    for name in ("execve", "fork", "clone", "open", "unlink"):
        assert answer(program, N[name]) == ALLOW, name
    for name in ("socket", "connect", "ptrace", "mount", "bpf", "io_uring_setup", "userfaultfd"):
        assert answer(program, N[name]) == EPERM, name

# SPDX-License-Identifier: GPL-2.0-or-later
"""The user program and its kernel on this host; a kernel that hands nothing over; memory that is not the program's."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from vmm.cli import main
from vmm.kvm.state import Regs
from vmm.machine.extra.folder import Folder
from vmm.machine.extra.syscalls import SyscallService
from vmm.machine.machine import Machine
from vmm.machine.memory.layout import REGIONS
from vmm.machine.x86.page_edits import PageTables
from vmm.machine.x86.page_entries import RW
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict

PAYLOAD = find("user_program")
USER = REGIONS["user"].base
Ask = Any  # callable, with the machine as an attribute


def test_works() -> None:
    (row,) = prove(PAYLOAD)
    assert row.verdict is Verdict.WORKS, row.finding
    assert row.finding.evidence["calls served"] == 24


def test_a_kernel_that_hands_nothing_over() -> None:
    (row,) = prove(PAYLOAD, Options(params={"connected": 0}))
    assert row.verdict is Verdict.BROKEN


@pytest.fixture
def ask(tmp_path: Path, booted):
    """Calls of a program in ring 3 that never ran: numbers in, the answer out."""
    (tmp_path / "file").write_bytes(b"x" * 0x3000)
    machine: Machine = booted(b"\xf4")
    with Folder(tmp_path) as folder:
        service = SyscallService(machine, folder, lambda data: None)
        machine.memory.write(USER, b"file\0")
        sregs = machine.cpus[0].vcpu.get_sregs()

        def ask(number: int, *args: int) -> int:
            padded = (*args, 0, 0, 0)
            return service.answer(Regs(rax=number, rdi=padded[0], rsi=padded[1], rdx=padded[2]), sregs)

        ask.machine = machine
        yield ask


@pytest.mark.parametrize(
    ("address", "size"),
    [
        (0, 1),
        (REGIONS["data"].base, 1),
        (REGIONS["user"].end - 1, 2),
        (USER - 1, 2),
        (0xD000_0000, 1),
        (1 << 47, 1),
        ((1 << 64) - 1, 2),
        ((1 << 64) - 0x1000, 0x1000),
    ],
)
def test_memory_that_is_not_the_programs(ask: Ask, address: int, size: int) -> None:
    fd = ask(2, USER, os.O_RDONLY)
    assert fd == 3
    assert ask(0, fd, address, size) == -errno.EFAULT
    assert ask(1, 1, address, size) == -errno.EFAULT
    assert ask(2, address, 0) in (-errno.EFAULT, -errno.ENOENT)
    assert ask(8, fd, 0, os.SEEK_CUR) == 0  # nothing was taken from the file


def test_what_is_the_programs(ask: Ask) -> None:
    fd = ask(2, USER, os.O_RDONLY)
    assert ask(0, fd, REGIONS["user"].end - 0x1800, 0x1800) == 0x1800
    assert ask(0, fd, USER, 0) == 0
    assert ask(0, fd, USER, 1 << 40) == -errno.EINVAL
    assert ask(1, 1, USER, 1 << 40) == -errno.EINVAL
    assert ask(8, fd, (1 << 64) - 1, os.SEEK_CUR) == 0x17FF
    assert ask(3, fd) == 0
    assert ask(3, fd) == -errno.EBADF


def test_a_page_that_ring_3_may_only_read(ask: Ask) -> None:
    memory = ask.machine.memory
    tables = PageTables(memory.read_u64, lambda gpa, value: memory.pack("Q", gpa, value))
    page = USER + 0x3000
    fd = ask(2, USER, os.O_RDONLY)
    assert ask(0, fd, page, 16) == 16
    tables.change(page, clear_bits=RW)
    assert ask(0, fd, page, 16) == -errno.EFAULT
    assert ask(1, 1, page, 16) == 16


def test_a_name_that_only_the_kernel_may_read(ask: Ask) -> None:
    data = REGIONS["data"].base
    ask.machine.memory.write(data, b"file\0")
    assert ask(2, data, os.O_RDONLY) == -errno.EFAULT
    ask.machine.memory.write(USER + 0xFFC, b"file\0")  # over the end of a page
    assert ask(2, USER + 0xFFC, os.O_RDONLY) == 3
    ask.machine.memory.write(USER, b"x" * 0x2000)
    assert ask(2, USER, os.O_RDONLY) == -errno.ENAMETOOLONG


def test_other_calls(ask: Ask) -> None:
    assert ask(9, 0) == -errno.ENOSYS
    assert ask(1 << 40, 0) == -errno.ENOSYS


PROGRAM = """
; user: user_begin user_end
; ports: 0xf7
; machine: ring=3
.p2align 12
user_begin:
start:
    lea   rdi, [rip + name]
    mov   esi, {flags}
    mov   eax, 2
    out   SYSCALL_PORT, al                ; no kernel between: the port is open to ring 3
    mov   edi, eax
    mov   rsi, USER_BASE
    mov   edx, 100
    xor   eax, eax
    out   SYSCALL_PORT, al
    mov   edx, eax
    mov   eax, 1
    mov   edi, 1
    out   SYSCALL_PORT, al
    xor   edi, edi
    mov   eax, 60
    out   SYSCALL_PORT, al
name: .asciz "{name}"
.p2align 12
user_end:
"""


def test_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pyvmm run FILE --folder DIR`: a file of one's own is read; what is not there is not."""
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "text").write_text("from the host\n")
    (tmp_path / "hidden").write_text("secret\n")
    program = tmp_path / "cat.asm"
    program.write_text(PROGRAM.format(name="text", flags=0))
    assert main(["run", str(program), "--folder", str(tmp_path / "shown"), "--stats", "--no-color"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("from the host\n")
    assert "statistics of vCPU 0" in shown
    for name in ("../hidden", str(tmp_path / "hidden")):
        program.write_text(PROGRAM.format(name=name, flags=0))
        assert main(["run", str(program), "--folder", str(tmp_path / "shown"), "--no-color"]) == 0
        assert "secret" not in capsys.readouterr().out


def test_a_folder_is_read_only_unless_said_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "create.asm"
    program.write_text(PROGRAM.format(name="new", flags=0x41))
    folder = tmp_path / "folder"
    folder.mkdir()
    main(["run", str(program), "--folder", str(folder), "--json"])
    assert not (folder / "new").exists()
    main(["run", str(program), "--folder-rw", str(folder), "--json"])
    assert (folder / "new").exists()
    capsys.readouterr()


def test_what_is_no_folder_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "hello", "--folder", str(tmp_path / "nothing")]) == 99
    assert "opening the folder" in capsys.readouterr().err
    assert main(["run", "hello", "--folder", str(tmp_path), "--folder-rw", str(tmp_path)]) == 2
    capsys.readouterr()

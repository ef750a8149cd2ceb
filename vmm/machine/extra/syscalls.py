# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls of a guest's user program, served by the host: files of one folder, text, exit. It joins the two.

The guest's kernel hands a call over by OUT to ports.SYSCALL with the program's registers in place, and finds the answer
in RAX. Numbers and errors are those of Linux on x86-64 (syscalls(2)). The program may pass only memory that its page
tables give to ring 3, and may write only what ring 3 may write (EFAULT).
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable

from vmm.abi import ports
from vmm.abi.x86 import PAGE
from vmm.base.bits import MASK64, signed
from vmm.errors import GuestMemoryError, UsageError
from vmm.kvm.state import Regs, Sregs
from vmm.machine.ends import Stop, Why
from vmm.machine.extra.folder import MAX_PATH, MAX_TRANSFER, Folder
from vmm.machine.machine import Machine
from vmm.machine.x86.virtual import read_virtual, translate, write_virtual

NAMES = {0: "read", 1: "write", 2: "open", 3: "close", 8: "lseek", 60: "exit"}
STDOUT, STDERR = 1, 2


class SyscallService:
    """Serves one machine. `text` gets what the program writes to standard output and error; by default the console.

    `counts` says how often each call was served, `status` what the program gave to exit.
    """

    def __init__(self, machine: Machine, folder: Folder, text: Callable[[bytes], object] | None = None) -> None:
        self._machine, self._folder = machine, folder
        self._text = text or machine.sink.write
        self.counts: Counter[str] = Counter()
        self.status: int | None = None
        if (taken := machine.platform.ports.writer_at(ports.SYSCALL)) is not None:
            raise UsageError(
                f"system calls of this guest are served already, by {taken.name}: nobody would ask a second folder",
                hint="the payload without --folder",
            )
        machine.on_port_write(ports.SYSCALL, self._serve)

    def _serve(self, value: int) -> None:
        cpu = self._machine.current
        assert cpu is not None
        vcpu = cpu.vcpu
        vcpu.complete()
        regs = vcpu.get_regs()
        answer = self.answer(regs, vcpu.get_sregs())
        if self.status is not None:
            self._machine.all_cpus.end(
                cpu, Stop(Why.EXIT_PORT, f"the program ended with status {self.status}", code=self.status)
            )
            return
        regs.rax = answer & MASK64
        vcpu.set_regs(regs)

    def answer(self, regs: Regs, sregs: Sregs) -> int:
        """What RAX shall hold: a result, or minus an errno."""
        name = NAMES.get(regs.rax)
        if name is None:
            return -errno.ENOSYS
        self.counts[name] += 1
        try:
            return self._call(name, regs, sregs)
        except GuestMemoryError:
            return -errno.EFAULT
        except OSError as error:
            return -(error.errno or errno.EIO)

    def _call(self, name: str, regs: Regs, sregs: Sregs) -> int:
        first, second, third = _int32(regs.rdi), regs.rsi, regs.rdx
        match name:
            case "open":
                return self._folder.open(self._path(sregs, regs.rdi), _int32(second))
            case "close":
                self._folder.close_file(first)
                return 0
            case "lseek":
                return self._folder.lseek(first, _int64(second), _int32(third))
            case "read":
                if third > MAX_TRANSFER:
                    return -errno.EINVAL
                self._check(sregs, second, third, write=True)  # before the file's position moves
                data = self._folder.read(first, third)
                write_virtual(self._machine.memory, sregs, second, data)
                return len(data)
            case "write":
                if third > MAX_TRANSFER:
                    return -errno.EINVAL
                self._check(sregs, second, third, write=False)
                data = read_virtual(self._machine.memory, sregs, second, third)
                if first in (STDOUT, STDERR):
                    self._text(data)
                    return len(data)
                return self._folder.write(first, data)
            case _:
                self.status = regs.rdi & 0xFF
                return 0

    def _path(self, sregs: Sregs, address: int) -> bytes:
        """The text at `address`, to its zero byte."""
        found = b""
        while len(found) <= MAX_PATH:
            count = PAGE - (address + len(found)) % PAGE
            self._check(sregs, address + len(found), count, write=False)
            piece = read_virtual(self._machine.memory, sregs, address + len(found), count)
            text, zero, _ = piece.partition(b"\0")
            found += text
            if zero:
                return found
        return found  # too long, which the folder says

    def _check(self, sregs: Sregs, address: int, size: int, *, write: bool) -> None:
        """Raises GuestMemoryError where ring 3 may not do that to every page of [address, address + size)."""
        for page in range(address - address % PAGE, address + size, PAGE):
            found = translate(self._machine.memory, sregs, page)
            slot = None if found.gpa is None else self._machine.memory.slot_at(found.gpa)
            if slot is None or not found.user or (write and (not found.writable or slot.readonly)):
                raise GuestMemoryError(f"ring 3 may not {'write' if write else 'read'} {page:#x}")


def _int32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _int64(value: int) -> int:
    return signed(value)

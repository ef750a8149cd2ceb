# SPDX-License-Identifier: GPL-2.0-or-later
"""A program on KVM, in ring 0 or ring 3, and on Unicorn: each gives the State in which it ended."""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple, Self

from tools.oracle import programs
from tools.oracle.programs import CODE, DATA, NAMES, SIZE, STATUS
from vmm.abi.ports import EXIT
from vmm.abi.x86 import PAGE
from vmm.asm.program import Program as Bytes
from vmm.machine.ends import Why
from vmm.machine.machine import Machine
from vmm.machine.x86.faulted import unwind

FAULT = "exception"
PAD = b"\x90" * 16
"""Behind a program: a jump beyond the end of its first instructions alone comes here."""
END = {0: b"\xf4", 3: bytes((0xE6, EXIT))}  # hlt; out EXIT, al


class State(NamedTuple):
    """`ended` is "" or how else it ended: `exception 0`, `internal error of KVM`. After that flags are not compared."""

    ended: str
    regs: tuple[int, ...]
    flags: int
    data: bytes


class Kvm:
    """To be used in a `with`: one machine, a round a program."""

    def __init__(self, ring: int) -> None:
        self.ring = ring
        self._machine = Machine(irqchip="none")

    def __enter__(self) -> Self:
        user = [(CODE, CODE + PAGE), (DATA, DATA + PAGE)] if self.ring else []
        self._machine.load(
            Bytes("oracle", CODE, END[self.ring], {}, ()), ring=self.ring, user=user, allowed_ports=[EXIT]
        )
        self._snapshot = self._machine.snapshot()
        self._rounds = self._machine.rounds(self._snapshot, timeout=1.0).__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._rounds.close()
        self._snapshot.close()
        self._machine.close()

    def run(self, program: programs.Program) -> State:
        """How it ends."""
        machine, rounds = self._machine, self._rounds
        code = program.code
        rounds.reset()
        machine.memory.write(CODE, code + PAD + END[self.ring])
        machine.memory.write(DATA, program.data)
        stop = rounds.run(**program.regs, rip=CODE, rflags=program.flags)
        regs = rounds.regs
        why, end = stop.why, CODE + len(code + PAD + END[self.ring])
        ended = "" if why is (Why.EXIT_PORT if self.ring else Why.HALT) and regs.rip == end else str(why)
        if why is Why.GUEST_FAULT:
            vcpu = machine.cpus[0].vcpu
            ended = f"{FAULT} {unwind(machine.memory, vcpu.get_regs(), vcpu.get_sregs()).vector}"
        found = tuple(getattr(regs, name) for name in NAMES)
        return State(ended, found, regs.rflags & STATUS, machine.memory.read(DATA, SIZE))


class Unicorn:
    """Of PyPI's unicorn, which is QEMU's TCG as a library."""

    def __init__(self) -> None:
        self._vector = -1
        self._make()

    def _make(self) -> None:
        """Another, since what was left of a fault would make the next one a double fault."""
        import unicorn
        from unicorn import x86_const

        self._error: Any = unicorn.UcError
        self._uc: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self._uc.mem_map(CODE, PAGE)
        self._uc.mem_map(DATA, PAGE)
        self._regs = [getattr(x86_const, f"UC_X86_REG_{name.upper()}") for name in NAMES]
        self._flags = x86_const.UC_X86_REG_EFLAGS
        self._uc.hook_add(unicorn.UC_HOOK_INTR, self._interrupt)

    def _interrupt(self, uc: Any, vector: int, user: object) -> None:
        self._vector = vector
        uc.emu_stop()

    def run(self, program: programs.Program) -> State:
        """How it ends."""
        uc, code = self._uc, program.code
        uc.mem_write(CODE, code + PAD)
        uc.ctl_remove_cache(CODE, CODE + PAGE)
        uc.mem_write(DATA, program.data)
        for register, name in zip(self._regs, NAMES, strict=True):
            uc.reg_write(register, program.regs[name])
        uc.reg_write(self._flags, program.flags)
        self._vector, ended = -1, ""
        try:
            uc.emu_start(CODE, CODE + len(code + PAD))
        except self._error as error:
            ended = str(error)
        if self._vector >= 0:
            ended = f"{FAULT} {self._vector}"
        found = tuple(uc.reg_read_batch(self._regs))
        state = State(ended, found, uc.reg_read(self._flags) & STATUS, bytes(uc.mem_read(DATA, SIZE)))
        if ended:
            self._make()
        return state

# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be seen of a machine that stands still: places, registers, memory, page tables. It lets nothing run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.debug import places
from vmm.kvm.state import Regs
from vmm.machine.x86.registers import names as register_names
from vmm.machine.x86.virtual import read_virtual, translate, write_virtual

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmm.asm.disassembler import Insn
    from vmm.asm.program import Program
    from vmm.debug.values import Place
    from vmm.machine.machine import Machine
    from vmm.machine.run.cpu import Cpu
    from vmm.machine.x86.page_walk import Translation


class Looking:
    """`vcpu` is the index of the vCPU that is meant where none is named."""

    def __init__(self, machine: Machine, program: Program | None) -> None:
        self.machine, self._program = machine, program
        self.vcpu = 0

    @property
    def program(self) -> Program | None:
        """The program whose labels and lines are meant."""
        return self._program or self.machine.program

    def where(self, vcpu: int | None = None) -> Place:
        """Where a vCPU is, of an instruction that it has not run."""
        cpu = self._cpu(vcpu)
        self._finish_exit(cpu)
        return places.place(self.machine, self.program, cpu.vcpu.get_sregs(), cpu.vcpu.get_regs().rip)

    def place(self, address: int, vcpu: int | None = None) -> Place:
        """What is at a linear address, as this vCPU sees it."""
        sregs = self._cpu(vcpu).vcpu.get_sregs()
        return places.place(self.machine, self.program, sregs, address - (0 if sregs.cs.l else sregs.cs.base))

    def address(self, where: int | str) -> int:
        """A label, an address or FILE:LINE as a linear address. UsageError: there is no such place."""
        return places.address_of(self.program, where)

    def registers(self, vcpu: int | None = None) -> dict[str, int]:
        """The 64-bit values of rax to r15, rip and rflags, by name."""
        cpu = self._cpu(vcpu)
        self._finish_exit(cpu)
        regs = cpu.vcpu.get_regs()
        return {name: int(getattr(regs, name)) for name in Regs.__match_args__}

    def register(self, name: str) -> int | None:
        """Of the selected vCPU, by any name of Machine.regs; None where there is none of that name."""
        return int(getattr(self._cpu().regs, name)) if name in register_names() else None

    def set_register(self, name: str, value: int, *, vcpu: int | None = None) -> None:
        """UsageError: no such register, or the value does not fit."""
        setattr(self._cpu(vcpu).regs, name, value)

    @property
    def symbols(self) -> Mapping[str, int]:
        """The labels of the program: name -> linear address."""
        return self.program.symbols if self.program else {}

    def read(self, va: int | str, size: int, *, vcpu: int | None = None) -> bytes:
        """Guest memory at a linear address, as this vCPU's page tables have it. GuestMemoryError: it is not mapped."""
        return read_virtual(self.machine.memory, self._cpu(vcpu).vcpu.get_sregs(), self.address(va), size)

    def write(self, va: int | str, data: bytes, *, vcpu: int | None = None) -> None:
        """Write guest memory; errors as `read`."""
        write_virtual(self.machine.memory, self._cpu(vcpu).vcpu.get_sregs(), self.address(va), data)

    def walk(self, va: int | str, *, vcpu: int | None = None) -> Translation:
        """The page walk of an address; where it fails is a value, too."""
        return translate(self.machine.memory, self._cpu(vcpu).vcpu.get_sregs(), self.address(va))

    def disassemble(self, va: int | str | None = None, n: int = 8, *, vcpu: int | None = None) -> list[Insn]:
        """`n` instructions from an address, or from where the vCPU is; fewer where memory ends."""
        sregs = self._cpu(vcpu).vcpu.get_sregs()
        address = self.where(vcpu).address if va is None else self.address(va)
        return places.instructions(self.machine, sregs, address, n)

    def _cpu(self, vcpu: int | None = None) -> Cpu:
        return self.machine._cpu(self.vcpu if vcpu is None else vcpu)

    def _finish_exit(self, cpu: Cpu) -> None:
        if cpu.thread_id is None:
            cpu.vcpu.complete()

    def _depth(self, cpu: Cpu) -> int:
        return cpu.vcpu.get_regs().rsp

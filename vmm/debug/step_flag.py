# SPDX-License-Identifier: GPL-2.0-or-later
"""RFLAGS.TF of a step, where an instruction has left a copy that the guest would find: in the frame of an interrupt or
a fault, in R11 by SYSCALL, on the stack by PUSHF. Taken out there, as KVM takes it out of RFLAGS itself; and put back
where it is the guest's own, loaded by POPF or IRET: the end of a step takes that out, too.

Source: Intel SDM vol. 3B, 17.3.1.4; vol. 2, SYSCALL, PUSHF, POPF and IRET. KVM hides TF in KVM_GET_REGS alone (x86.c,
kvm_get_rflags; kvm_arch_vcpu_ioctl_set_guest_debug writes that back); what a CPU that runs the guest itself stores goes
by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.abi.x86 import RFLAGS
from vmm.asm.disassembler import MAX_LENGTH, disassemble
from vmm.base.record import replace
from vmm.machine.run.gate_entry import Gates, take_tf_out
from vmm.machine.x86.virtual import read_virtual, write_virtual
from vmm.observe.postmortem import readable

if TYPE_CHECKING:
    from vmm.kvm.state import Regs, Sregs
    from vmm.machine.machine import Machine
    from vmm.machine.run.cpu import Cpu

SYSCALL = b"\x0f\x05"
PUSHF, POPF, IRET = 0x9C, 0x9D, 0xCF
NARROW, WIDE = 0x66, 0x48
SIZES = bytes((NARROW, WIDE))
"""Prefixes of these: the operand size of 16 bits, and that of 64, which only IRET needs."""


class StepFlag:
    """Of the steps of one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._gates: dict[int, Gates] = {}

    def loaded(self, code: bytes, regs: Regs, sregs: Sregs) -> bool:
        """Does the instruction that `code` begins with load RFLAGS with TF, for the guest to step itself?"""
        bare = code.lstrip(SIZES)
        if bare[:1] not in (bytes([POPF]), bytes([IRET])):
            return False
        prefixes = code[: len(code) - len(bare)]
        size = 2 if (NARROW in prefixes) == bool(sregs.cs.db or sregs.cs.l) else 4
        if sregs.cs.l and (WIDE in prefixes or (bare[0] == POPF and size == 4)):
            size = 8
        at = regs.rsp + (2 * size if bare[0] == IRET else 0) + (0 if sregs.cs.l else sregs.ss.base)
        low = readable(self._machine, sregs, at, 2)
        return len(low) == 2 and bool(int.from_bytes(low, "little") & RFLAGS.TF)

    def give(self, cpu: Cpu) -> None:
        """That instruction was stepped: the guest has what it loaded."""
        vcpu = cpu.vcpu
        vcpu.complete()
        regs = vcpu.get_regs()
        regs.rflags |= RFLAGS.TF
        vcpu.set_regs(regs)

    def take_back(self, cpu: Cpu, code: bytes, before: Regs, old: Sregs) -> bool:
        """A step of the instruction that `code` begins with was made, from these registers. True: it has ended behind
        the first instruction of a handler."""
        vcpu = cpu.vcpu
        vcpu.complete()
        now = vcpu.look("regs")
        if before.rflags & RFLAGS.TF:
            return False  # the guest steps itself
        if code.startswith(SYSCALL):
            if now.rcx == before.rip + len(SYSCALL) and now.r11 & RFLAGS.TF:
                vcpu.set_regs(replace(vcpu.get_regs(), r11=now.r11 & ~RFLAGS.TF))
        elif now.rsp != before.rsp:
            return self._on_the_stack(cpu, code, before, old, now)
        return False

    def _on_the_stack(self, cpu: Cpu, code: bytes, before: Regs, old: Sregs, now: Regs) -> bool:
        memory, sregs = self._machine.memory, cpu.vcpu.get_sregs()
        bare = code.lstrip(SIZES)
        if bare[:1] == bytes([PUSHF]) and now.rip == before.rip + len(code) - len(bare) + 1:
            at = now.rsp + sregs.ss.base
            flags = int.from_bytes(read_virtual(memory, sregs, at, 2), "little")
            write_virtual(memory, sregs, at, (flags & ~RFLAGS.TF).to_bytes(2, "little"))
            return False

        def size(address: int) -> int:
            found = readable(self._machine, sregs, address, MAX_LENGTH)
            return len(disassemble(found, address, count=1)[0].bytes) if found else 0

        entry = self._gates.setdefault(cpu.index, Gates(memory)).entry(before, old, now, sregs, size)
        if entry is None:
            return False
        take_tf_out(memory, sregs, entry)
        return entry.inside

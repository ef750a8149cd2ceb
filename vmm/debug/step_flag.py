# SPDX-License-Identifier: GPL-2.0-or-later
"""RFLAGS.TF of a step, where an instruction has left a copy that the guest would find: in the frame of an interrupt or
a fault, in R11 by SYSCALL, on the stack by PUSHF. Taken out there, as KVM takes it out of RFLAGS itself.

Source: Intel SDM vol. 3B, 17.3.1.4; vol. 2B, SYSCALL and PUSHF. KVM hides TF in KVM_GET_REGS alone (x86.c,
kvm_get_rflags); what a CPU that runs the guest itself stores goes by it.
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
PUSHF = 0x9C
SIZES = b"\x66\x48"
"""Prefixes of PUSHF: 16 bits, and one that changes nothing."""


class StepFlag:
    """Of the steps of one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._gates: dict[int, Gates] = {}

    def take_back(self, cpu: Cpu, code: bytes, before: Regs, old: Sregs) -> None:
        """A step of the instruction that `code` begins with was made, from these registers."""
        vcpu = cpu.vcpu
        vcpu.complete()
        now = vcpu.look("regs")
        if before.rflags & RFLAGS.TF:
            return  # the guest steps itself
        if code.startswith(SYSCALL):
            if now.rcx == before.rip + len(SYSCALL) and now.r11 & RFLAGS.TF:
                vcpu.set_regs(replace(vcpu.get_regs(), r11=now.r11 & ~RFLAGS.TF))
        elif now.rsp != before.rsp:
            self._on_the_stack(cpu, code, before, old, now)

    def _on_the_stack(self, cpu: Cpu, code: bytes, before: Regs, old: Sregs, now: Regs) -> None:
        memory, sregs = self._machine.memory, cpu.vcpu.get_sregs()
        bare = code.lstrip(SIZES)
        if bare[:1] == bytes([PUSHF]) and now.rip == before.rip + len(code) - len(bare) + 1:
            at = now.rsp + sregs.ss.base
            flags = int.from_bytes(read_virtual(memory, sregs, at, 2), "little")
            write_virtual(memory, sregs, at, (flags & ~RFLAGS.TF).to_bytes(2, "little"))
            return

        def size(address: int) -> int:
            found = readable(self._machine, sregs, address, MAX_LENGTH)
            return len(disassemble(found, address, count=1)[0].bytes) if found else 0

        entry = self._gates.setdefault(cpu.index, Gates(memory)).entry(before, old, now, sregs, size)
        if entry is not None:
            take_tf_out(memory, sregs, entry)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Single-step for all vCPUs of a machine, without a change of what the guest does. It decides where KVM may step.

KVM steps by RFLAGS.TF. Two places lie on some hosts, and are left alone on all: HLT, which KVM's emulator steps over
(the exit of the step takes the place of KVM_EXIT_HLT: x86_emulate_instruction calls kvm_vcpu_do_singlestep last), and
ring 3 where the guest takes the trap itself, which is measured. KVM has no step for an OUT that it emulates ("FIXME:
return into emulator if single-stepping"), and one for an OUT that it does not: where another exit has shown an
instruction, its step is left out, and what runs next is looked up. So each instruction is one exit, and each is known.
"""

from __future__ import annotations

from vmm.abi.x86 import RFLAGS
from vmm.base.record import replace
from vmm.errors import MissingCapability, VmmError
from vmm.kvm.exits import Debug, Exit
from vmm.machine.run.cpu import WATCHED, Cpu
from vmm.machine.run.ring3_traps import step_strikes
from vmm.machine.x86.virtual import read_virtual

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.kvm.state import Regs, Sregs
    from vmm.machine.run.gate_entry import Entry, Gates
    from vmm.machine.whole import Make, Whole

HLT, POPF, IRET = 0xF4, 0x9D, 0xCF
PREFIXES = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF2, 0xF3))
REX = range(0x40, 0x50)
MAX_LENGTH = 15
ITSELF = "the guest sets RFLAGS.TF, to step itself; KVM's step would take its traps: it is not stepped any more"
RING3 = "ring 3 is not stepped: on this host the guest would take the trap of each step itself"


class Stepping:
    """`at` is where each vCPU goes on, by index, where that is known: the instruction that the next step shows."""

    def __init__(self, machine: Whole, make: Make) -> None:
        self._machine, self._make = machine, make
        self.at: dict[int, int] = {}
        self.say: Callable[[str], object] | None = None
        """Told where nothing is stepped; without anybody to tell, a run that begins there is refused."""
        self.entered: Callable[[Cpu, Entry], object] | None = None
        """Told when a step ended in the handler of an exception or interrupt."""
        self.before: dict[int, tuple[Regs, Sregs]] = {}
        """Registers of each vCPU, by index, before the instruction that `at` tells."""
        self._gates: dict[int, Gates] = {}
        self._said: set[tuple[int, str]] = set()
        self._itself: set[int] = set()  # vCPUs whose guest steps itself

    def begin(self, cpus: list[Cpu]) -> None:
        """Before a run; none of them is running.

        Raises:
            MissingCapability: vCPU 0 is in ring 3, which this host cannot step, and there is nobody to tell.
        """
        self._said.clear()
        self._itself.clear()
        step_strikes(self._machine.kvm, self._make)  # measured now, and not on a vCPU's thread
        for cpu in cpus:
            cpu.vcpu.complete()
            if cpu.index == 0 and self.say is None and self._untold(cpu.vcpu.get_sregs()):
                raise MissingCapability(f"single-step: {RING3}", hint="run it without, its exits are seen all the same")
            self._look(cpu)

    def served(self, cpu: Cpu, exit: Exit) -> None:
        """An exit was handled, and the guest goes on: where?"""
        vcpu = cpu.vcpu
        if isinstance(exit, Debug):
            self._look_for_gate(cpu)
            self._arm(cpu, exit.pc)
            return
        vcpu.complete()
        if isinstance(vcpu.stored, Debug) and not vcpu.stored.dr6 & WATCHED:
            vcpu.stored = vcpu.trapped_at = None  # the step of the very instruction: its exit has shown it
        if vcpu.stored is None:
            self._look(cpu)

    def _look_for_gate(self, cpu: Cpu) -> None:
        """Where a fault took KVM's TF along, or an interrupt did, it is taken out of what the handler's IRET loads."""
        known, wanted = self.before.get(cpu.index), cpu.vcpu.debug.singlestep
        if known is None or not wanted:
            return
        now, sregs = cpu.vcpu.get_regs(), cpu.vcpu.get_sregs()
        if now.rip - known[0].rip == self._size(known[1], known[0].rip) and now.rsp == known[0].rsp:
            return  # nearly always
        from vmm.machine.run.gate_entry import Gates, take_tf_out

        memory = self._machine.memory
        gates = self._gates.setdefault(cpu.index, Gates(memory))
        found = gates.entry(*known, now, sregs, lambda at: self._size(sregs, at))
        if found is not None:
            take_tf_out(memory, sregs, found)
            if self.entered is not None:
                self.entered(cpu, found)

    def _size(self, sregs: Sregs, address: int) -> int:
        """Bytes of the instruction there; 0 where that cannot be read."""
        from vmm.asm.disassembler import disassemble

        try:
            code = read_virtual(self._machine.memory, sregs, address, MAX_LENGTH)
        except VmmError:
            return 0
        return len(disassemble(code, address, count=1)[0].bytes)

    def _look(self, cpu: Cpu) -> None:
        self._arm(cpu, cpu.at)

    def _arm(self, cpu: Cpu, address: int) -> None:
        """Step the instruction at this address, or not."""
        self.at[cpu.index] = address
        known = cpu.vcpu.get_sregs()
        self.before[cpu.index] = cpu.vcpu.get_regs(), known
        why = ""
        code = self._opcode(known, address)
        if cpu.index in self._itself or (code in (POPF, IRET) and self._sets_tf(cpu, known, code)):
            self._itself.add(cpu.index)
            why = ITSELF
        elif self._untold(known):
            why = RING3
        elif code == HLT:
            why = f"HLT at {address:#x} is not stepped, which could step over it" if self._sleeps else "HLT"
        wanted, debug = not why, cpu.vcpu.debug
        if wanted or wanted != debug.singlestep:  # again each time: what loads RFLAGS ends it
            cpu.vcpu.put_debug(replace(debug, singlestep=wanted))
        if why and why != "HLT" and (cpu.index, why) not in self._said and self.say:
            self._said.add((cpu.index, why))
            self.say(f"vCPU {cpu.index}: {why}; nothing is, until its next exit")

    def _untold(self, sregs: Sregs) -> bool:
        """In ring 3, where the host keeps no step from the guest?"""
        return bool(sregs.ss.dpl) and not step_strikes(self._machine.kvm, self._make)

    @property
    def _sleeps(self) -> bool:
        """Is HLT no exit here?"""
        return self._machine.irqchip != "none"

    def _opcode(self, sregs: Sregs, address: int) -> int:
        """The first byte of an instruction that is no prefix; -1 where that cannot be read."""
        for at in range(address, address + MAX_LENGTH):
            try:
                (byte,) = read_virtual(self._machine.memory, sregs, at, 1)
            except VmmError:
                return -1
            if byte not in PREFIXES and not (byte in REX and sregs.cs.l):
                return byte
        return -1

    def _sets_tf(self, cpu: Cpu, sregs: Sregs, code: int) -> bool:
        """Is TF set in the RFLAGS that this POPF or IRET takes from the stack? KVM_GET_REGS does not show TF in a step.

        RFLAGS lie at the top for POPF, and behind RIP and CS for IRET, of 8, 4 or 2 bytes each: any of these counts.
        """
        regs, stack = cpu.vcpu.get_regs(), 0 if sregs.cs.l else sregs.ss.base
        for offset in (0,) if code == POPF else (16, 8, 4):
            try:
                low = int.from_bytes(read_virtual(self._machine.memory, sregs, stack + regs.rsp + offset, 4), "little")
            except VmmError:
                continue
            if low & RFLAGS.TF and low & RFLAGS.FIXED and not low >> 22:
                return True
        return False

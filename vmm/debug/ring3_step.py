# SPDX-License-Identifier: GPL-2.0-or-later
"""A step in ring 3, into it and out of it, where KVM cannot make one: a guest whose ring 0 is emulated runs ring 3
natively there, and the trap of RFLAGS.TF is the guest's own. 64-bit mode alone.

In ring 3 TF is set by us. The #DB goes the guest's way, through its IDT, and ends at a breakpoint on the handler's
first instruction: there the frame is taken off again, its ring-0 stack gets back the bytes that the frame lay on, and
the guest has seen nothing. A fault of the instruction itself, or SYSCALL, ends at the first instruction of its handler,
as a step would, without TF in what was saved; so does the trap of a guest that has set TF itself. IRETQ and SYSRETQ of
ring 0 are done by hand: to ring 3 as KVM has no step there, and to ring 0 as its emulator's step ends one instruction
behind.

Source: Intel SDM vol. 3A, 6.14 (interrupt and exception handling in 64-bit mode); vol. 2, IRET, SYSCALL, SYSRET.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from vmm.abi.x86 import EFER, HAS_ERROR_CODE, RFLAGS
from vmm.debug.abilities import measure
from vmm.debug.gates import DB, GP, PF, Gate, descriptor, gate, u64
from vmm.debug.values import BREAKPOINT, Break
from vmm.errors import MissingCapability, VmmError
from vmm.kvm.state import Segment
from vmm.machine.memory.layout import REGIONS
from vmm.machine.x86.virtual import read_virtual, translate, write_virtual

if TYPE_CHECKING:
    from vmm.debug.legs import LegEnd, Legs
    from vmm.kvm.state import Regs, Sregs
    from vmm.machine.machine import Machine
    from vmm.machine.run.cpu import Cpu

EXCEPTIONS = 32
STUBS = REGIONS["gates"]
MSR_STAR, MSR_LSTAR = 0xC0000081, 0xC0000082
SYSRET_FLAGS = 0x3C7FD7
IRETQ, SYSRETQ, SYSCALL = b"\x48\xcf", b"\x48\x0f\x07", b"\x0f\x05"
RSP0, IST1 = 4, 0x24  # in the 64-bit TSS (SDM vol. 3A, 7.7)
FRAME = 40
CANNOT = "single-step: this vCPU is in ring 3, where on this host the guest would take the trap of each step itself"


def returns(machine: Machine, regs: Regs, sregs: Sregs, code: bytes) -> bool:
    """Is this instruction of ring 0 an IRETQ or SYSRETQ that loads what it can load?"""
    if code.startswith(SYSRETQ):
        return bool(sregs.cs.l)
    if not code.startswith(IRETQ) or not sregs.cs.l:
        return False
    try:
        cs, ss = u64(machine, sregs, regs.rsp + 8), u64(machine, sregs, regs.rsp + 32)
        if cs & 3 == 3:
            return True
        return not (cs | ss) & 7 and descriptor(machine, sregs, cs & 0xFFFF).l == 1
    except VmmError:
        return False  # its fault is KVM's to make


def do_return(cpu: Cpu, machine: Machine, code: bytes) -> None:
    """Do that instruction."""
    vcpu = cpu.vcpu
    regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
    if code.startswith(SYSRETQ):
        base = vcpu.get_msrs([MSR_STAR])[MSR_STAR] >> 48
        selectors = base + 16 | 3, base + 8 | 3
        regs.rip, regs.rflags = regs.rcx, regs.r11 & SYSRET_FLAGS | RFLAGS.FIXED
    else:
        rip, cs, flags, rsp, ss = (u64(machine, sregs, regs.rsp + 8 * i) for i in range(5))
        selectors = cs & 0xFFFF, ss & 0xFFFF
        regs.rip, regs.rflags, regs.rsp = rip, flags | RFLAGS.FIXED, rsp
        for name in ("ds", "es", "fs", "gs"):
            old = getattr(sregs, name)
            if cs & 3 and old.selector & ~3 and old.dpl < 3:
                setattr(sregs, name, Segment(base=old.base if name in ("fs", "gs") else 0, unusable=1))
        events = vcpu.get_vcpu_events()
        if events.nmi_masked:
            events.nmi_masked = 0
            vcpu.set_vcpu_events(events)
    sregs.cs = descriptor(machine, sregs, selectors[0])
    sregs.ss = descriptor(machine, sregs, selectors[1]) if selectors[1] else Segment(unusable=1)
    vcpu.set_sregs(sregs)
    vcpu.set_regs(regs)


class Ring3Step:
    """One step of a vCPU that is in ring 3."""

    def __init__(self, legs: Legs, cpu: Cpu) -> None:
        """MissingCapability: this guest has no handlers that a step could end at."""
        self._legs, self._cpu, self._machine = legs, cpu, legs.machine
        self._regs, self._sregs = cpu.vcpu.get_regs(), cpu.vcpu.get_sregs()
        if not self._sregs.efer & EFER.LMA:
            raise MissingCapability(CANNOT, hint="a breakpoint in ring 0, where it comes back to")
        self._gates = {
            each.handler: each for each in (gate(self._machine, self._sregs, v) for v in (DB, GP, PF)) if each
        }
        self._faults = self._other_handlers()
        self._debug = next((each for each in self._gates.values() if each.vector == DB), None)
        if self._debug is None:
            raise MissingCapability(f"{CANNOT}, and it has no handler of #DB", hint="a breakpoint in ring 0")
        self._system_call = self._lstar()

    def _other_handlers(self) -> dict[int, Gate]:
        """Of the guest's own, those that no debug register is left for: INT3 lies there, where it strikes in ring 0."""
        if not measure(self._machine).int3_ring0:
            return {}
        gates = (gate(self._machine, self._sregs, vector) for vector in range(EXCEPTIONS))
        return {
            each.handler: each
            for each in gates
            if each and each.handler not in self._gates and not STUBS.base <= each.handler < STUBS.end
            and not translate(self._machine.memory, self._sregs, each.handler).user
        }  # fmt: skip

    def _lstar(self) -> int:
        return self._cpu.vcpu.get_msrs([MSR_LSTAR]).get(MSR_LSTAR, 0) if self._sregs.efer & EFER.SCE else 0

    def make(self) -> LegEnd:
        """Run to whatever the instruction leads to; the leg's end is as after any breakpoint."""
        vcpu, debug = self._cpu.vcpu, self._cpu.vcpu.get_debugregs()
        places = [*self._gates, *([self._system_call] if self._system_call else [])]
        kept = self._below_the_stack()
        before = self._regs.rflags
        self._regs.rflags |= RFLAGS.TF
        vcpu.set_regs(self._regs)
        self._regs.rflags = before
        traps = [Break(0, BREAKPOINT, f"{each:#x}", each, hardware=True) for each in dict.fromkeys(places)]
        traps += [Break(0, BREAKPOINT, f"{each:#x}", each) for each in self._faults if each not in places]
        end = self._legs.leg(traps, [self._cpu], served=self._cpu)
        self._cpu.vcpu.complete()
        cause = end.cause
        taken = (self._gates | self._faults).get(cause.address) if cause and cause.kind == BREAKPOINT else None
        if taken is self._debug and taken is not None and not before & RFLAGS.TF:
            self._unwind(kept)
            vcpu.set_debugregs(debug)
        else:
            self._forget_flag(taken)
        return end

    def _below_the_stack(self) -> tuple[int, bytes] | None:
        """Where the frame of #DB will lie, and what is there now."""
        assert self._debug is not None
        at = self._sregs.tr.base + (IST1 + 8 * (self._debug.ist - 1) if self._debug.ist else RSP0)
        try:
            top = u64(self._machine, self._sregs, at) & ~0xF
            return top - FRAME, read_virtual(self._machine.memory, self._sregs, top - FRAME, FRAME)
        except VmmError:
            return None

    def _unwind(self, kept: tuple[int, bytes] | None) -> None:
        """Back to ring 3, as if #DB had never been."""
        vcpu = self._cpu.vcpu
        regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
        rip, cs, flags, rsp, ss = (u64(self._machine, sregs, regs.rsp + 8 * i) for i in range(5))
        if kept is not None and kept[0] == regs.rsp:
            write_virtual(self._machine.memory, sregs, *kept)
        regs.rip, regs.rsp, regs.rflags = rip, rsp, flags & ~RFLAGS.TF
        for name, selector in (("cs", cs), ("ss", ss)):
            old = getattr(self._sregs, name)
            same = old.selector == selector & 0xFFFF
            setattr(sregs, name, old if same else descriptor(self._machine, sregs, selector & 0xFFFF))
        vcpu.set_sregs(sregs)
        vcpu.set_regs(regs)

    def _forget_flag(self, taken: Gate | None) -> None:
        """TF was ours: it is neither in the flags now nor in what the CPU has saved."""
        if self._regs.rflags & RFLAGS.TF:
            return
        vcpu = self._cpu.vcpu
        regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
        regs.rflags &= ~RFLAGS.TF
        code = b""
        with contextlib.suppress(VmmError):
            code = read_virtual(self._machine.memory, self._sregs, self._regs.rip, 2)
        if code == SYSCALL:
            regs.r11 &= ~RFLAGS.TF
        vcpu.set_regs(regs)
        events = vcpu.get_vcpu_events()
        if events.exception_nr == DB and (events.exception_injected or events.exception_pending):
            events.exception_injected = events.exception_pending = 0
            vcpu.set_vcpu_events(events)
        if taken is not None:
            at = regs.rsp + 16 + (8 if taken.vector in HAS_ERROR_CODE else 0)
            flags = u64(self._machine, sregs, at)
            write_virtual(self._machine.memory, sregs, at, (flags & ~RFLAGS.TF).to_bytes(8, "little"))

# SPDX-License-Identifier: GPL-2.0-or-later
"""One instruction of one vCPU, on whatever host this is: by KVM's single-step where that is right, else another way,
and what is not as asked is said. It knows instructions and legs; it knows no client.

KVM steps by RFLAGS.TF. HLT is left alone: KVM's emulator steps over it (run/stepping.py has the sources). Where the CPU
runs the guest itself an exception clears TF on its way in, and IRET sets it again: such a step ends behind the handler
and one more instruction, which is told (Intel SDM vol. 3B, 17.3.1.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmm.abi.x86 import RFLAGS
from vmm.asm.disassembler import MAX_LENGTH, disassemble
from vmm.debug.abilities import measure
from vmm.debug.gates import DB, gate
from vmm.debug.legs import Cause
from vmm.debug.ring3_step import CANNOT, EXCEPTIONS, Ring3Step, do_return, returns
from vmm.debug.step_flag import StepFlag
from vmm.debug.values import BREAKPOINT, CATCH, STEP, Break
from vmm.errors import MissingCapability
from vmm.machine.ends import Stop, Why
from vmm.observe.postmortem import code_bits, readable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmm.debug.legs import LegEnd, Legs
    from vmm.kvm.state import Sregs
    from vmm.machine.run.cpu import Cpu

HLT = b"\xf4"
CATCHES = "a step of ring 3 by the guest's own trap: no catch is looked at in it"
TOOK = "more than one instruction: it took an exception, whose handler has run as a whole, and so has what came next"
INSIDE = "more than one instruction: it took an exception or interrupt, and the handler's first was made with it"
ELSEWHERE = ("j", "call", "ret", "iret", "loop", "sys", "int", "lcall", "ljmp", "ud")
"""Beginnings of names of instructions that may lead anywhere."""
ITSELF = "the guest steps itself by RFLAGS.TF: this is where its own trap has led"
TAKEN = "the guest steps itself by RFLAGS.TF, and has no handler of #DB to stop at: this step took its trap"
SLEPT = "HLT as a whole: the next stop is behind it, and behind the interrupt that woke it"


@dataclass(frozen=True)
class Did:
    """How a step ended; `note` says what was not as asked."""

    stop: Stop
    by: Cpu | None
    cause: Cause | None
    note: str = ""


class Steps:
    """Makes steps on one machine."""

    def __init__(self, legs: Legs) -> None:
        self._legs = legs
        self._flag = StepFlag(legs.machine)

    def step(self, cpu: Cpu, breaks: Sequence[Break], run: Sequence[Cpu], *, without: int) -> Did:
        """One instruction of `cpu`, which is one of those that run; at `without`, where it stands, nothing strikes.

        Raises:
            MissingCapability: it cannot be done here.
        """
        machine, vcpu = self._legs.machine, cpu.vcpu
        vcpu.complete()
        sregs = vcpu.look("sregs")
        code, before = readable(machine, sregs, without, MAX_LENGTH), vcpu.look("regs")
        if not measure(machine).step_ring3:
            if sregs.ss.dpl == 3:
                return self._in_ring3(cpu, breaks, code, sregs)
            if not before.rflags & RFLAGS.TF and returns(machine, before, sregs, code):
                do_return(cpu, machine, code)
                return Did(Stop(Why.DEBUG, "a step"), cpu, Cause(STEP, cpu, cpu.at))
        if code.startswith(HLT):
            return self._sleep(cpu, breaks, run, without)
        own = bool(before.rflags & RFLAGS.TF)
        if own and (handler := gate(machine, sregs, DB)):
            return self._own(cpu, breaks, run, without, handler.handler)
        bits, native, loads = code_bits(sregs), measure(machine).step_ring3, self._flag.loaded(code, before, sregs)
        end = self._legs.leg(breaks, run, stepping=cpu, without=without)
        inside = self._flag.take_back(cpu, code, before, sregs)
        stepped = end.cause and end.cause.kind == STEP
        if loads and stepped:
            self._flag.give(cpu)
        if own and stepped:
            return Did(end.stop, end.by, end.cause, TAKEN)
        took = native and end.cause and end.cause.kind == STEP and self._took(cpu, without, code, bits)
        return Did(end.stop, end.by, end.cause, TOOK if took else INSIDE if inside and stepped else "")

    def _own(self, cpu: Cpu, breaks: Sequence[Break], run: Sequence[Cpu], at: int, handler: int) -> Did:
        """The step that the guest makes itself: to its handler of #DB."""
        there = Break(0, BREAKPOINT, "", handler)
        end = self._legs.leg([*breaks, there], run, without=at)
        cause = end.cause
        if cause and cause.cpu is cpu and (cause.kind, cause.address) == (BREAKPOINT, handler):
            return Did(end.stop, end.by, Cause(STEP, cpu, handler, cause.exit), ITSELF)
        return _did(end)

    def _took(self, cpu: Cpu, before: int, code: bytes, bits: int) -> bool:
        """Is this vCPU where that instruction cannot have led, and at no handler's begin?"""
        at = cpu.at
        row = next(iter(disassemble(code, before, count=1, bits=bits)), None)
        if row is None or at in (before, before + len(row.bytes)) or row.text.startswith(ELSEWHERE):
            return False
        sregs = cpu.vcpu.get_sregs()
        gates = (gate(self._legs.machine, sregs, vector) for vector in range(EXCEPTIONS)) if bits == 64 else ()
        return all(each is None or each.handler != at for each in gates)

    def _in_ring3(self, cpu: Cpu, breaks: Sequence[Break], code: bytes, old: Sregs) -> Did:
        """By the guest's own trap (ring3_step.py)."""
        if not measure(self._legs.machine).hardware:
            raise MissingCapability(CANNOT)
        before = cpu.vcpu.get_regs()
        loads = self._flag.loaded(code, before, old)
        end = Ring3Step(self._legs, cpu).make()
        self._flag.take_back(cpu, code, before, old)
        if loads and end.cause and cpu.vcpu.get_sregs().ss.dpl == 3:
            self._flag.give(cpu)
        own = before.rflags & RFLAGS.TF and (handler := gate(self._legs.machine, old, DB)) and cpu.at == handler.handler
        note = ITSELF if own else CATCHES if any(each.kind == CATCH and each.enabled for each in breaks) else ""
        if end.cause and end.cause.kind == BREAKPOINT:
            return Did(end.stop, end.by, Cause(STEP, cpu, cpu.at, end.cause.exit), note)
        return Did(end.stop, end.by, end.cause, note)

    def _sleep(self, cpu: Cpu, breaks: Sequence[Break], run: Sequence[Cpu], at: int) -> Did:
        """HLT: where it ends the run it does so; else to the instruction behind it."""
        can = measure(self._legs.machine)
        if self._legs.machine.irqchip == "none":
            return _did(self._legs.leg(breaks, run, without=at))
        if not (can.hardware or can.int3_ring0):  # KVM steps to behind it, and sleeps in what comes next
            return _did(self._legs.leg(breaks, run, stepping=cpu, without=at))
        behind = Break(0, BREAKPOINT, "", at + 1)
        end = self._legs.leg([*breaks, behind], run, without=at)
        cause = end.cause
        there = bool(cause and cause.cpu is cpu and (cause.kind, cause.address) == (BREAKPOINT, behind.address))
        if there and not any(each.enabled and each.kind == BREAKPOINT and each.address == at + 1 for each in breaks):
            exit = cause.exit if cause else None
            return Did(end.stop, end.by, Cause(STEP, cpu, behind.address, exit), SLEPT)
        return _did(end)


def _did(end: LegEnd) -> Did:
    return Did(end.stop, end.by, end.cause)

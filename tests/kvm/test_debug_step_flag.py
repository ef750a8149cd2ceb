# SPDX-License-Identifier: GPL-2.0-or-later
"""A step is made by RFLAGS.TF, and a guest that reads its flags does not find it there."""

from __future__ import annotations

import pytest

from vmm.abi.x86 import PAGE, RFLAGS
from vmm.asm.assembler import assemble
from vmm.debug.session import Session
from vmm.debug.step_flag import StepFlag
from vmm.machine.machine import Machine
from vmm.machine.memory.layout import REGIONS

BASE = REGIONS["code"].base
PUSHES = """
start:
    lea   rsp, [rip + room + 32]
    pushfq
    pop   rax
    pushf
    pop   rbx
    nop
room:
    .zero 32
"""
CALLS = """
start:
    mov   ecx, MSR_EFER
    rdmsr
    or    eax, 1                          # SCE
    wrmsr
    mov   ecx, MSR_STAR
    mov   edx, 8                          # CS of ring 0; SS is the next
    xor   eax, eax
    wrmsr
    mov   ecx, MSR_LSTAR
    lea   rax, [rip + there]
    xor   edx, edx
    wrmsr
    mov   ecx, MSR_SYSCALL_MASK
    xor   eax, eax
    wrmsr
    syscall
there:
    nop
"""


@pytest.mark.every_host
@pytest.mark.on_demand
@pytest.mark.parametrize("ring", [0, 3])
def test_pushf_pushes_the_guests_own_flags(ring: int) -> None:
    program = assemble(PUSHES, base=BASE)
    with Machine() as machine, Session(machine) as session:
        machine.load(program, ring=ring, **({"user": [(BASE, BASE + PAGE)]} if ring else {}))
        if ring and not session.can.step_ring3 and not session.can.hardware:
            pytest.skip("no step of ring 3 on this host")
        session.step(5)
        pushed = session.registers()
        assert pushed["rax"] & 2, "flags that were pushed"
        assert not (pushed["rax"] | pushed["rbx"]) & RFLAGS.TF


@pytest.mark.every_host
@pytest.mark.on_demand
def test_syscall_saves_the_guests_own_flags() -> None:
    with Machine() as machine, Session(machine) as session:
        program = machine.load(CALLS)
        stopped = session.step(16)
        assert stopped.where.address == program.symbols["there"], str(stopped)
        assert not session.registers()["r11"] & RFLAGS.TF
        assert session.registers()["rcx"] == program.symbols["there"]


def test_what_a_cpu_has_stored_is_taken_out_but_not_the_guests_own() -> None:
    """As where a CPU runs ring 0 itself: there R11 and the stack have the step's TF."""
    with Machine() as machine:
        machine.load("start: syscall\nhlt\n")
        vcpu, flag = machine.cpus[0].vcpu, StepFlag(machine)
        before, sregs = vcpu.get_regs(), vcpu.get_sregs()
        for own, left in ((0, 0), (RFLAGS.TF, RFLAGS.TF)):
            after = vcpu.get_regs()
            after.rcx, after.r11, after.rip = before.rip + 2, 2 | RFLAGS.TF, REGIONS["code"].base
            vcpu.set_regs(after)
            before.rflags = 2 | own
            flag.take_back(machine.cpus[0], b"\x0f\x05", before, sregs)
            assert vcpu.get_regs().r11 == 2 | left
        for code, own, left in ((b"\x9c", 0, 0), (b"\x66\x9c", 0, 0), (b"\x9c", RFLAGS.TF, RFLAGS.TF)):
            after = vcpu.get_regs()
            after.rip, after.rsp = before.rip + len(code), before.rsp - 8
            vcpu.set_regs(after)
            machine.memory.write_u64(after.rsp, 0x302)
            before.rflags = 2 | own
            flag.take_back(machine.cpus[0], code, before, sregs)
            assert machine.memory.read_u64(after.rsp) == 0x202 | left

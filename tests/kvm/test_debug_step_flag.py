# SPDX-License-Identifier: GPL-2.0-or-later
"""A step is made by RFLAGS.TF, and a guest that reads its flags does not find it there."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmm.abi.x86 import DR6, PAGE, RFLAGS
from vmm.asm.assembler import assemble
from vmm.debug.legs import Legs
from vmm.debug.one_step import INSIDE, ITSELF, TOOK
from vmm.debug.session import Session
from vmm.debug.step_flag import StepFlag
from vmm.debug.values import PLAIN_STEP, Stopped
from vmm.kvm.exits import Debug
from vmm.kvm.vcpu import GuestDebug
from vmm.machine.ends import GO_ON
from vmm.machine.machine import Machine
from vmm.machine.memory.layout import REGIONS
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.run import run_payload

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


SELF_STEPPER = """
; user:    user_begin user_end
; result:  traps u64   how often its handler of #DB ran
; result:  sum u64     of what it does while it steps itself
%include "results.inc"
%include "idt.inc"
%include "ring3.inc"
start:
    mov   edi, 1
    lea   rsi, [rip + on_debug]
    call  set_gate
    mov   edi, 6
    lea   rsi, [rip + on_end]
    call  set_gate
    BEGIN
on_debug:
    inc   r15
    cmp   r15, 5
    jb    more
    and   qword ptr [rsp + 16], ~X86_EFLAGS_TF
more:
    iretq
on_end:
    mov   rax, r15
    RESULT traps
    mov   rax, rbx
    RESULT sum
    PASS
.p2align 12
user_begin:
program:
    xor   ebx, ebx
    xor   r15d, r15d
    pushfq
    or    qword ptr [rsp], X86_EFLAGS_TF
    popfq
    add   ebx, 1
    add   ebx, 2
    pushfq
    pop   rcx
    add   ebx, 4
    add   ebx, 8
    ud2
.p2align 12
user_end:
"""


@pytest.mark.parametrize("ring", [0, 3])
def test_a_guest_that_steps_itself_keeps_its_trap_however_it_is_stepped(ring: int, tmp_path: Path) -> None:
    """POPF and IRET give it TF; who steps is told where the guest's own trap has led, and may go on at any time."""
    file = tmp_path / "steps.asm"
    file.write_text(SELF_STEPPER.replace("BEGIN", "ENTER_RING3 program" if ring else "jmp program"), encoding="utf-8")
    payload = find(str(file))
    without = run_payload(payload, Options())
    assert without.results == {"traps": 5, "sum": 15}

    def stepped(steps: int) -> list[str]:
        stops: list[Stopped] = []

        def front(session: Session) -> None:
            if ring and not session.can.hardware:
                pytest.skip("no step of ring 3 on this host")
            session.until("program")
            while not session.ended and len(stops) < steps:
                stops.append(session.step())
            session.detach()

        outcome = run_payload(payload, Options(watch=lambda guest: Session(guest.machine, front=front, history=0)))
        assert outcome.results == without.results, f"after {len(stops)} steps"
        return [each.text for each in stops]

    assert stepped(200).count(ITSELF) == 5
    for steps in range(4, 24, 5):
        stepped(steps)


RETURNS = """
start:
    mov   rax, rsp
    push  0x10
    push  rax
    pushfq
    push  0x08
    lea   rax, [rip + there]
    push  rax
    iretq
there:
    inc   r14
    inc   r15
"""


@pytest.mark.every_host
@pytest.mark.on_demand
def test_a_step_of_iretq_within_ring_0_is_one_instruction() -> None:
    with Machine() as machine, Session(machine) as session:
        program = machine.load(RETURNS)
        stopped = session.step(8)
        assert (stopped.text, stopped.where.address) == (PLAIN_STEP, program.symbols["there"])
        before = session.registers()
        assert session.step().why == "step"
        assert (session.registers()["r14"], session.registers()["r15"]) == (1, 0)
        assert session.registers()["rsp"] == before["rsp"]


def test_a_step_that_an_exception_made_longer_says_so(tmp_path: Path) -> None:
    """Of UD2, to its handler's first instruction or, where KVM cannot do that, behind it."""
    file = tmp_path / "steps.asm"
    file.write_text(SELF_STEPPER.replace("BEGIN", "wrong: ud2"), encoding="utf-8")
    stops: list[Stopped] = []

    def front(session: Session) -> None:
        session.until("wrong")
        stops.append(session.step())
        session.detach()

    run_payload(find(str(file)), Options(watch=lambda guest: Session(guest.machine, front=front, history=0)))
    assert stops[0].text in ((PLAIN_STEP,) if "<on_end> " in str(stops[0]) else (INSIDE, TOOK)), stops[0]


@pytest.mark.parametrize("others", [False, True])
def test_the_guests_trap_that_a_debug_register_brings_to_us_is_given_back(
    others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the CPU runs the guest itself: there KVM gives us each #DB while a breakpoint is set."""
    with Machine() as machine, Session(machine) as session:
        machine.load("start: nop\nhlt\n")
        cpu = machine.cpus[0]
        legs = Legs(machine)
        monkeypatch.setattr("vmm.debug.legs.current", lambda: cpu)
        legs.running = True
        legs.arms.now.told[0] = GuestDebug(software=others)
        trap = Debug(exception=1, pc=BASE + 1, dr6=0xFFFF4FF0, dr7=0x400)
        assert legs._debug(trap) is (None if others else GO_ON)
        events = cpu.vcpu.get_vcpu_events()
        assert (events.exception_injected, events.exception_nr) == ((0, 0) if others else (1, 1))
        assert bool(cpu.vcpu.get_debugregs().dr6 & DR6.BS) is not others
        legs.close()
        assert not session.ended


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

# SPDX-License-Identifier: GPL-2.0-or-later
"""A session: breakpoints, steps, catches, conditions and the way back, on real guests."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from vmm.abi.x86 import PAGE
from vmm.debug import abilities
from vmm.debug.legs import Cause
from vmm.debug.session import Session
from vmm.debug.values import WATCHPOINT, Stopped
from vmm.errors import HostError, MissingCapability, UsageError
from vmm.kvm.exits import PortOut
from vmm.machine.ends import Stop, Why
from vmm.machine.machine import Machine
from vmm.machine.memory.layout import REGIONS
from vmm.observe.postmortem import examine
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.run import run_payload

every_host = pytest.mark.every_host
DATA = 0x10_0000
LOOP = f"""
start:
    mov   ecx, 5
    mov   edi, {DATA:#x}
again:
    inc   eax
    mov   dword ptr [rdi], eax
    out   0x80, al
    dec   ecx
    jnz   again
    call  twice
    mov   al, 0x10
    out   0xf4, al
    hlt
twice:
    add   eax, eax
    ret
"""

COUNTS = f"""
start:
    lea   ebx, [rdi * 8 + {DATA:#x}]
count:
    inc   qword ptr [rbx]
    jmp   count
"""
"""Each vCPU counts in a word of its own."""

TOUCHES = f"""
start:
    mov   ebx, {DATA:#x}
    mov   rsp, {DATA + 16:#x}
    mov   eax, dword ptr [rbx]
    mov   eax, dword ptr [rbx + 8]        ; read
    mov   byte ptr [rbx + 7], 1
    mov   byte ptr [rbx + 15], 0          ; read: the same as before
    mov   byte ptr [rbx + 15], 1          ; changes
    lea   rcx, [rbx + 8]
    clflush byte ptr [rbx + 8]
    mov   ecx, 2
    cmp   word ptr [rbx + rcx * 4 + 6], 5 ; read
    push  rax                             ; changes
    pop   rdx                             ; read
    mov   edx, 65
    bt    dword ptr [rbx], edx            ; read
    mov   edx, 63
    bt    dword ptr [rbx], edx
    lea   rsi, [rbx + 6]
    lodsb
    lodsw                                 ; read
    lea   rdi, [rbx + 15]
    cmpsb                                 ; read
    lea   rsi, [rbx + 16]
    cmpsb
    add   dword ptr [rbx + 8], 0          ; read
    xchg  qword ptr [rbx + 8], rbx        ; changes
    mov   ebx, {DATA:#x}
    call  there                           ; changes
there:
    mov   al, 0x10
    out   0xf4, al
    hlt
"""


@pytest.fixture
def loop() -> Iterator[Session]:
    with Machine() as machine:
        machine.load(LOOP)
        with Session(machine) as session:
            yield session


def line(stopped: Stopped) -> str:
    return stopped.where.text


@every_host
def test_a_breakpoint_stops_before_its_instruction_each_time_and_the_run_ends_as_without(loop: Session) -> None:
    made = loop.break_at("again")
    for count in range(5):
        stopped = loop.go()
        assert (stopped.why, stopped.breakpoint, stopped.where.symbol) == ("breakpoint", made, "again")
        assert (loop.registers()["rax"], loop.registers()["rcx"]) == (count, 5 - count)
    end = loop.go()
    assert end.ended
    assert end.result is not None
    assert (end.result.stop.why, end.result.stop.code) == (Why.EXIT_PORT, 0x10)
    assert end.result.counts["PortOut"] == 6
    assert made.hits == 5


def test_more_breakpoints_than_debug_registers_are_int3_that_nobody_sees(loop: Session) -> None:
    program = loop.program
    assert program is not None
    lines = [row.address for row in program.lines]
    for address in lines:
        loop.break_at(address)
    before = loop.read(program.base, len(program.code))
    places = []
    while not (stopped := loop.go()).ended:
        places.append(stopped.where.address)
        assert loop.read(program.base, len(program.code)) == before == program.code
    assert places == [lines[0], lines[1], *lines[2:7] * 5, lines[7], lines[11], lines[12], *lines[8:10]]
    assert {each.how for each in loop.breaks} == ({"hardware", "INT3"} if loop.can.hardware else {"step"})
    assert loop.read(DATA, 4) == b"\5\0\0\0"


def test_int3_alone_and_a_guest_that_reads_its_own_text() -> None:
    """While the guest runs, an INT3 is there; a debug register is not. Said, and true: the guest's sum tells."""
    text = """
    start:
        xor   ecx, ecx
        xor   eax, eax
    sum:
        movzx edx, byte ptr [rcx + start]
        add   eax, edx
        inc   ecx
        cmp   ecx, 8
        jne   sum
    done:
        out   0xf4, al
        hlt
    """
    with Machine() as machine, Session(machine) as session:
        program = machine.load(text)
        session.break_at("done")
        session.break_at("start")
        assert session.go().where.symbol == "start"
        assert session.go().where.symbol == "done"
        assert session.registers()["rax"] == sum(program.code[:8])


@every_host
@pytest.mark.on_demand
def test_steps_are_one_instruction_each_and_tell_what_changed(loop: Session) -> None:
    texts = [loop.where().text]
    for _ in range(8):
        stopped = loop.step()
        assert stopped.why == "step"
        texts.append(line(stopped))
        if len(texts) == 4:
            assert stopped.changed["rax"] == (0, 1)
    assert [" ".join(each.split()) for each in texts] == [
        "mov ecx, 5", f"mov edi, {DATA:#x}", "inc eax", "mov dword ptr [rdi], eax", "out 0x80, al", "dec ecx",
        "jnz again", "inc eax", "mov dword ptr [rdi], eax",
    ]  # fmt: skip


def test_a_step_in_which_a_handler_ran_as_a_whole_says_so(loop: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the CPU clears RFLAGS.TF on the way into a handler; here, as if by one trap for two instructions."""
    monkeypatch.setattr(abilities, "_all", [replace(loop.can, step_ring3=True)])
    assert "handler" not in loop.step().text
    whole = loop._legs.leg
    monkeypatch.setattr(loop._legs, "leg", lambda *args, **more: (whole(*args, **more), whole(*args, **more))[1])
    assert "whose handler has run" in loop.step().text


def test_over_a_call_into_it_and_out_again(loop: Session) -> None:
    loop.until("again")
    call = next(row.address for row in loop.program.lines if row.text.startswith("call")) if loop.program else 0
    assert loop.until(call).where.address == call
    over = loop.step_over()
    assert (over.why, over.where.address, loop.registers()["rax"]) == ("step", call + 5, 10)
    loop.back(-1)
    assert loop.step().where.symbol == "twice"
    out = loop.finish()
    assert (out.where.address, loop.registers()["rax"]) == (call + 5, 10)


def test_conditions_and_hits_let_pass(loop: Session) -> None:
    loop.break_at("again", when=f"rax == 3 and u32[{DATA:#x}] == 3")
    assert loop.go().why == "breakpoint"
    assert loop.registers()["rcx"] == 2
    loop.remove(1)
    counted = loop.break_at("again", when=lambda session: session.registers()["rcx"] == 1)
    assert loop.go().breakpoint is counted
    assert loop.registers()["rcx"] == 1
    assert loop.go().ended


def test_the_first_hits_do_not_stop(loop: Session) -> None:
    loop.break_at("again", hits=3)
    loop.go()
    assert loop.registers()["rax"] == 3


@pytest.mark.parametrize("when", ["rax ==", "rax.b", "__import__('os')", "f(1)", "[1, 2]", "'a'", "x" * 2000, "1.5"])
def test_a_condition_that_is_none_is_refused(loop: Session, when: str) -> None:
    with pytest.raises(UsageError, match="condition"):
        loop.break_at("again", when=when)
    assert loop.breaks == []


def test_an_unknown_name_in_a_condition_is_told_where_it_is_needed(loop: Session) -> None:
    loop.break_at("again", when="raxx == 1")
    with pytest.raises(UsageError, match="raxx"):
        loop.go()


def test_an_exit_is_caught_before_it_is_served() -> None:
    seen: list[int] = []
    with Machine() as machine, Session(machine) as session:
        machine.load(LOOP)
        machine.on_port_write(0x80, seen.append)
        made = session.catch(port=0x80, when="rcx == 4")
        stopped = session.go()
        assert (stopped.why, stopped.exit, stopped.breakpoint) == ("catch", PortOut(0x80, 1, b"\2"), made)
        assert seen == [1]
        session.remove(made)
        session.catch(exit="PortOut", hits=1)
        session.go()
        assert seen == [1, 2, 3][: len(seen)]
        assert seen == [1, 2, 3]
        session.remove(session.breaks[0])
        assert session.go().ended
        assert seen == [1, 2, 3, 4, 5]


def test_an_msr_is_caught_and_then_is_kvms_own() -> None:
    text = """
    start:
        mov   ecx, 0xc0000102
        mov   eax, 0x1234
        xor   edx, edx
        wrmsr
        xor   eax, eax
        rdmsr
        out   0xf4, al
        hlt
    """
    with Machine() as machine, Session(machine) as session:
        machine.load(text)
        session.catch(msr=0xC000_0102)
        assert session.go().why == "catch"
        assert session.go().why == "catch"
        session.breaks.clear()
        end = session.go()
        assert end.result is not None
        assert (end.result.stop.why, end.result.stop.code) == (Why.EXIT_PORT, 0x34)


def interrupt_once_it_runs(session: Session) -> None:
    """What is interrupted before it runs is not: a thread that sleeps a while may wake too early."""

    def wait() -> None:
        while not session.running:
            time.sleep(0.001)
        session.interrupt()

    threading.Thread(target=wait, daemon=True).start()


def test_no_interrupt_is_lost_on_the_way_from_go_to_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    with Machine() as machine, Session(machine) as session:
        machine.load("start: jmp start")
        begin = session._legs.begin

        def begun(*given: object) -> None:
            begin(*given)
            session.interrupt()

        monkeypatch.setattr(session._legs, "begin", begun)
        assert session.go().why == "interrupted"


def test_an_endless_loop_is_interrupted_from_another_thread() -> None:
    with Machine() as machine, Session(machine) as session:
        machine.load("start: jmp start")
        interrupt_once_it_runs(session)
        stopped = session.go()
        assert (stopped.why, stopped.where.symbol) == ("interrupted", "start")
        assert session.step().why == "step"
        begin = time.monotonic()
        assert session.go(timeout=0.2).why == "interrupted"
        assert time.monotonic() - begin < 10
        end = session.kill()
        assert end.ended
        assert end.result is not None
        assert (end.result.stop.why, end.result.stop.text) == (Why.STOPPED, "ended by the debugger")


def test_back_to_an_earlier_stop_and_another_way_from_there(loop: Session) -> None:
    loop.break_at("again")
    first, second = loop.go(), loop.go()
    third = loop.go()
    for _ in range(3):
        loop.step()
    assert loop.back(second.number) is second
    assert (loop.registers()["rax"], loop.read(DATA, 4)) == (1, b"\1\0\0\0")
    loop.set_register("rcx", 1)
    end = loop.go()
    assert end.ended
    assert loop.read(DATA, 4) == b"\2\0\0\0"
    assert loop.back(first.number).number == first.number
    assert loop.registers()["rcx"] == 5
    with pytest.raises(UsageError, match="no earlier stop"):
        loop.back(third.number)


def test_back_by_steps_from_the_nearest_snapshot(loop: Session) -> None:
    loop.break_at("again")
    loop.go()
    stops = [loop.step() for _ in range(6)]
    registers = loop.registers()
    loop.step()
    assert loop.back(-1) is stops[-1]
    assert loop.registers() == registers
    assert loop.back(stops[2].number) is stops[2]
    assert loop.where().address == stops[2].where.address


def test_two_vcpus_one_is_stepped_and_the_other_stands_still() -> None:
    with Machine(cpus=2) as machine, Session(machine) as session:
        machine.load(COUNTS)
        machine.start(1, "start")
        made = session.break_at("count")
        stopped = session.go()
        session.remove(made)
        other = 1 - stopped.vcpu
        before = session.read(DATA + 8 * other, 8)
        for _ in range(10):
            assert session.step(vcpu=stopped.vcpu).vcpu == stopped.vcpu
        assert session.read(DATA + 8 * stopped.vcpu, 8) == b"\5" + bytes(7)
        assert session.read(DATA + 8 * other, 8) == before
        session.step(4, vcpu=other)
        assert session.vcpu == other
        session.break_at("count")
        assert {session.go().vcpu for _ in range(40)} <= {0, 1}
        session.kill()


def test_both_vcpus_come_to_a_breakpoint_and_none_is_lost() -> None:
    """smp: each comes by `add_one` `rounds` times; whoever comes at the same moment is told next."""
    with Machine(cpus=2) as machine, Session(machine) as session:
        program = machine.load(f"""
        start:
            mov   ecx, 20
        add_one:
            lock  inc qword ptr [{DATA:#x}]
            dec   ecx
            jnz   add_one
            hlt
        """)
        machine.start(1, program.entry)
        for address in range(DATA, DATA + 64, 8):
            session.break_at(address)  # debug registers are taken: INT3 for the rest
        session.breaks[:] = session.breaks[:4]
        session.break_at("add_one")
        seen = {0: 0, 1: 0}
        while not (stopped := session.go()).ended:
            if stopped.why == "breakpoint":
                seen[stopped.vcpu] += 1
        assert seen == {0: 20, 1: 20}
        assert session.read(DATA, 8) == (40).to_bytes(8, "little")
        assert stopped.result is not None
        assert stopped.result.stop.why is Why.HALT


@every_host
@pytest.mark.on_demand
@pytest.mark.parametrize("strikes", [True, False])
def test_a_vcpu_gets_past_a_condition_that_is_wrong_though_another_was_stopped_last(
    strikes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vCPU 0 waits for vCPU 1, which comes by the breakpoint again and again: each time it must get past it. And it
    halts, which is no stop as long as vCPU 0 has not; also where no breakpoint strikes, and both are stepped in turns.
    """
    text = f"""
    start:
        mov   ecx, 20
        test  edi, edi
        jz    wait
    add_one:
        inc   qword ptr [{DATA:#x}]
        dec   ecx
        jnz   add_one
        mov   byte ptr [{DATA + 8:#x}], 1
        hlt
    wait:
        pause
        cmp   byte ptr [{DATA + 8:#x}], 1
        jne   wait
        hlt
    """
    with Machine(cpus=2) as machine, Session(machine) as session:
        machine.load(text)
        machine.start(1, "start")
        if not strikes:
            can = replace(session.can, hardware=False, int3_ring0=False)
            monkeypatch.setattr(abilities, "_all", [can])
        never = session.break_at("add_one", when="rcx == 21")
        session.step(vcpu=0)
        stopped = session.go(timeout=30)
        assert (stopped.why, session.read(DATA, 8)) == ("ended", (20).to_bytes(8, "little")), str(stopped)
        assert never.hits == 0


@every_host
@pytest.mark.on_demand
def test_a_step_with_others_lets_them_off_where_they_stand() -> None:
    with Machine(cpus=2) as machine, Session(machine) as session:
        machine.load(COUNTS)
        machine.start(1, "start")
        session.break_at("count")
        for vcpu in (0, 1):
            session.go(vcpus=[vcpu])
        before = session.where(1).address
        stopped = session.step(vcpu=0, others=True)
        assert session.where(1).address != before or session.read(DATA + 8, 8) != bytes(8)
        assert stopped.vcpu == 0 or session.read(DATA + 8, 8) != bytes(8), "vCPU 1 struck where it stood"
        session.kill()


@every_host
@pytest.mark.on_demand
def test_what_is_not_to_run_is_not_let_off_its_breakpoint() -> None:
    with Machine(cpus=2) as machine, Session(machine) as session:
        program = machine.load("start: inc eax\n jmp start")
        machine.start(1, program.entry)
        session.break_at("start")
        session.go(vcpus=[0])
        session.go(vcpus=[1])
        session.go(vcpus=[1])
        assert [session.registers(vcpu)["rax"] for vcpu in (0, 1)] == [0, 1]
        session.kill()


def test_a_payload_whose_host_half_runs_it_is_held() -> None:
    stops: list[Stopped] = []

    def front(session: Session) -> None:
        session.break_at("wait")
        session.break_at("add_one", hits=3)
        while not (stopped := session.go()).ended and len(stops) < 20:
            stops.append(stopped)
        session.detach()

    def watch(guest) -> None:
        Session(guest.machine, front=front)

    outcome = run_payload(find("smp"), Options(watch=watch))
    assert (outcome.outcome, outcome.results) == ("pass", {"arrived": 2, "total": 2000})
    assert len(stops) == 20
    assert {each.where.symbol for each in stops} <= {"wait", "add_one"}


@every_host
@pytest.mark.on_demand
def test_a_watchpoint_strikes_by_a_debug_register_or_by_steps(loop: Session) -> None:
    """Which of them is measured; where none strikes, what steps cannot see is refused."""
    made = loop.watch(DATA, 4)
    assert made.how in (("", "hardware") if loop.can.watchpoints else ("step",))
    for value in (1, 2):
        stopped = loop.go()
        assert (stopped.why, stopped.breakpoint, stopped.where.instruction.split()[0]) == ("watchpoint", made, "out")
        assert loop.read(DATA, 4) == value.to_bytes(4, "little")
    assert made.hits == 2


@pytest.mark.usefixtures("by_steps")
class TestWatchedBySteps:
    """As on a host where no debug register strikes."""

    @pytest.fixture
    def by_steps(self, loop: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        can = replace(loop.can, watchpoints=False)
        monkeypatch.setattr(Session, "can", property(lambda _session: can))

    def test_a_change_stops_behind_its_instruction_and_says_from_what_to_what(self, loop: Session) -> None:
        made = loop.watch(DATA, 4, when="rax == 3")
        stopped = loop.go()
        assert (stopped.why, stopped.breakpoint) == ("watchpoint", made)
        assert "0x2 -> 0x3" in stopped.text

    def test_a_breakpoint_stops_it_before_and_the_end_ends_it(self, loop: Session) -> None:
        made = loop.watch(DATA, 4, when="0")
        loop.break_at("twice")
        assert loop.go().where.symbol == "twice"
        assert loop.go().ended
        assert made.hits == 0

    def test_a_step_and_a_call_as_a_whole_see_it_too(self, loop: Session) -> None:
        loop.watch(DATA, 4)
        whys = [loop.step().why for _ in range(4)]
        assert whys == ["step", "step", "step", "watchpoint"]
        loop.breaks.clear()
        while not loop.where().instruction.startswith("call"):
            loop.step()
        stack = loop.registers()["rsp"] - 8
        loop.watch(stack, 8)
        assert loop.step_over().why == "watchpoint"  # where the return address is pushed
        assert loop.where().symbol == "twice"

    @pytest.mark.parametrize("kind", ["read", "access"])
    def test_reads_and_accesses_are_seen_by_operands(self, loop: Session, kind: str) -> None:
        program = loop.machine.load(TOUCHES)
        loop.watch(DATA + 8, 8, kind)
        seen = []
        while not (stopped := loop.go()).ended:
            behind = next(i for i, row in enumerate(program.lines) if row.address == stopped.where.address)
            seen.append(program.lines[behind - 1].line)
        said = {number: text.partition(";")[2].strip() for number, text in enumerate(TOUCHES.splitlines(), 1)}
        wanted = ("read",) if kind == "read" else ("read", "changes")
        assert seen == [number for number, text in said.items() if text.startswith(wanted)]

    def test_one_for_accesses_sees_a_string_as_far_as_it_came_and_calls(self, loop: Session) -> None:
        loop.machine.load(f"""
            mov   edi, {DATA + 0x100:#x}
            mov   ecx, 4
            rep   stosb
            mov   ecx, 6
            std
            rep   stosb
            cld
            hlt
        """)
        loop.watch(DATA + 0x104, 1, "access")
        assert (loop.go().why, loop.where().instruction.split()[0]) == ("watchpoint", "rep")
        assert loop.registers()["rdi"] == DATA + 0xFE
        assert loop.go().ended
        loop.breaks.clear()
        loop.machine.load(f"mov edi, {DATA + 0x100:#x}\n mov ecx, 4\n rep stosb\n hlt")
        loop.watch(DATA + 0x104, 1, "access")
        assert loop.go().ended

    def test_it_can_be_interrupted(self, loop: Session) -> None:
        loop.watch(DATA, 4, when="rax == 77")
        loop.machine.load("start: jmp start")
        assert loop.go(timeout=0.2).why == "interrupted"


@pytest.mark.usefixtures("nothing_strikes")
class TestNothingStrikes:
    """As on a host where neither a debug register nor INT3 does, and single-step is all that there is."""

    @pytest.fixture
    def nothing_strikes(self, loop: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        can = replace(
            loop.can, hardware=False, breakpoints_ring3=False, int3_ring0=False, int3_ring3=False, watchpoints=False
        )
        monkeypatch.setattr(abilities, "_all", [can])

    def test_breakpoints_are_made_by_steps_and_told(self, loop: Session) -> None:
        made = loop.break_at("again", when="rax != 1", hardware=True)
        assert (made.how, loop.too_many) == ("step", "")
        assert "stepped" in loop.doubts(made)[0]
        stops = [(loop.go().why, loop.registers()["rax"]) for _ in range(4)]
        assert stops == [("breakpoint", 0), ("breakpoint", 2), ("breakpoint", 3), ("breakpoint", 4)]
        loop.watch(DATA, 4)
        assert [loop.step().why for _ in range(2)] == ["step", "watchpoint"]
        loop.breaks.clear()
        end = loop.go()
        assert end.result is not None
        assert end.result.stop.code == 0x10

    def test_a_call_as_a_whole_and_until(self, loop: Session) -> None:
        call = next(row.address for row in loop.program.lines if row.text.startswith("call")) if loop.program else 0
        assert loop.until(call).where.address == call
        over = loop.step_over()
        assert (over.why, over.where.address, loop.registers()["rax"]) == ("step", call + 5, 10)
        assert loop.breaks == []

    def test_the_first_instruction_of_a_run_and_a_step_to_one(self, loop: Session) -> None:
        for label in ("start", "start+5"):
            loop.break_at(label)
        assert [loop.go().why, loop.step().why] == ["breakpoint"] * 2

    def test_without_steps_it_is_refused(self, loop: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(abilities, "_all", [replace(loop.can, step_ring0=False)])
        with pytest.raises(MissingCapability, match="never strikes"):
            loop.break_at("again")


def test_an_interrupt_counts_where_hits_that_do_not_hold_come_all_the_time() -> None:
    """Each hit ends a leg: an interrupt that comes in such a one is not lost."""
    with Machine() as machine, Session(machine) as session:
        machine.load("start: xor eax, eax\nagain: inc rax\njmp again")
        session.break_at("again", when="rax == 0xffffffffff")
        assert session.go(timeout=0.3).why == "interrupted"


def test_an_interrupt_counts_between_two_steps_of_a_line() -> None:
    with Machine() as machine, Session(machine) as session:
        machine.load("start: jmp start")
        interrupt_once_it_runs(session)
        assert session.step(1_000_000).why == "interrupted"


def test_a_held_run_begins_with_a_stop_to_which_one_can_go_back_from_its_end() -> None:
    seen = []

    def front(session: Session) -> None:
        begin = session.stops[0]
        seen.append((begin.why, begin.where.symbol, len(session.stops)))
        with pytest.raises(UsageError, match="has not ended"):
            session.ending()
        end = session.go()
        seen.append((end.why, session.ending().stop.code))
        assert session.back() is begin
        seen.append(session.where().symbol)
        assert session.go().ended

    with Machine() as machine:
        machine.load(LOOP)
        session = Session(machine, front=front)
        result = machine.run()
        assert result.stop.code == 0x10
        session.close()
    assert seen == [("begin", "start", 1), ("ended", 0x10), "start"]


def test_exits_of_the_debuggers_own_are_told_from_the_guests(loop: Session) -> None:
    kinds: dict[bool, set[str]] = {True: set(), False: set()}
    loop.machine.observe(lambda cpu, exit: kinds[loop.ours(cpu, exit)].add(type(exit).__name__))
    for label in ("again", "again+2", "again+4", "again+6", "again+7", "twice"):
        loop.break_at(label, hits=0)
    while not loop.go().ended:
        pass
    assert "Debug" in kinds[True]
    assert kinds[False] == {"PortOut"}


def test_places_are_labels_lines_and_addresses(loop: Session) -> None:
    program = loop.program
    assert program is not None
    again = program.symbols["again"]
    assert loop.address("again") == loop.address(again) == loop.address(hex(again)) == loop.address("again+0")
    row = next(each for each in program.lines if each.address == again)
    assert loop.address(f"{row.file}:{row.line}") == again
    assert loop.address(f":{row.line}") == again
    for wrong in ("agian", "x.asm:3", f":{10**6}", "0xzz", -1, 1 << 64):
        with pytest.raises(UsageError):
            loop.address(wrong)
    assert loop.place(program.end).note == "past the end of the program"


@every_host
@pytest.mark.on_demand
def test_steps_go_into_ring3_through_it_and_back() -> None:
    """On every host, and the payload ends as it does without: SYSCALL, faults, IRETQ and SYSRETQ are steps, too."""
    rings: list[int] = []
    texts: list[str] = []
    notes: list[str] = []

    def front(session: Session) -> None:
        while not session.ended and len(texts) < 400:
            stopped = session.step()
            notes.append(stopped.text)
            texts.append(" ".join(stopped.where.text.split()))
            rings.append(session.machine.cpus[0].vcpu.get_sregs().ss.dpl)
        session.detach()

    outcome = run_payload(find("ring3"), Options(watch=lambda guest: Session(guest.machine, front=front, history=0)))
    assert outcome.outcome == "pass", (outcome.reason, outcome.results, texts[-20:])
    assert outcome.results["cpl"] == 3
    assert outcome.results["gp_count"] == 3
    back = texts.index("mov al, 0x33")
    assert texts[back : back + 4] == ["mov al, 0x33", "out 0x80, al", "out 0x81, al", "out 0x82, al"]
    assert rings[back : back + 4] == [3, 3, 3, 3]
    if "exception" in notes[back + 4]:  # where the CPU runs ring 3 itself, and a handler as a whole
        assert texts[back + 4] == "rdmsr"
    else:
        assert texts[back + 4] == "inc qword ptr [FAULTS]"
        assert rings[back + 4] == 0
    changes = sum(a != b for a, b in itertools.pairwise(rings))
    assert changes >= (4 if "exception" in notes[back + 4] else 8)  # IRETQ, SYSCALL, SYSRETQ, SYSCALL; and four faults


@every_host
@pytest.mark.on_demand
def test_breakpoints_strike_in_ring3_and_the_guest_notices_nothing() -> None:
    """Where KVM has none there, by the guest's handlers, which its own faults come to as well; each is taken off."""
    seen: list[tuple[str, str, int]] = []

    def front(session: Session) -> None:
        assert session.program is not None
        rows = session.program.lines  # not the very place that a fault's IRETQ leads to: RFLAGS.RF lets that one pass
        last = next(b.address for a, b in itertools.pairwise(rows) if a.text.split() == ["mov", "edi,", "0x600d"])
        for where in ("back", "finish", last):
            doubts = session.doubts(session.break_at(where, when="rcx != 0"))
            assert all("no breakpoint strikes on this host" in each for each in doubts), doubts  # then it is stepped
        while not session.ended:
            stopped = session.go()
            ring = session.machine.cpus[0].vcpu.get_sregs().ss.dpl
            seen.append((stopped.why, " ".join(stopped.where.text.split()), ring))
        session.detach()

    outcome = run_payload(find("ring3"), Options(watch=lambda guest: Session(guest.machine, front=front, history=0)))
    assert outcome.outcome == "pass", (outcome.reason, outcome.results, seen)
    assert outcome.results["gp_count"] == 3
    assert seen[:2] == [("breakpoint", "mov al, 0x33", 3), ("breakpoint", "mov eax, 2", 3)]
    assert [each[0] for each in seen[2:]] == ["breakpoint", "ended"]


OWN_INT3 = f"""
program:
    mov   ebx, 1
    int3
second:
    mov   ebx, 2
    int3
spin:
    jmp   spin
own:
    inc   qword ptr [{DATA:#x}]
    iretq
"""


@pytest.fixture
def with_int3() -> Iterator[Session]:
    """A guest in ring 3 that takes its own #BP, by a gate that is open to ring 3."""
    with Machine() as machine, Session(machine) as session:
        program = machine.load(OWN_INT3)
        machine.load(program, ring=3, user=[(program.base, program.base + PAGE)])
        own, gate = program.symbols["own"], machine.cpus[0].vcpu.get_sregs().idt.base + 3 * 16
        machine.memory.write_u16(gate, own & 0xFFFF)
        machine.memory.write_u16(gate + 6, own >> 16)
        machine.memory.write_u32(gate + 8, 0)
        machine.memory.write_u8(gate + 5, machine.memory.read_u8(gate + 5) | 0x60)
        yield session


def test_an_int3_of_ring3s_own_goes_to_the_guest_and_one_of_ours_does_not(with_int3: Session) -> None:
    for where in ("second", "spin"):
        with_int3.break_at(where)
    counted = []
    for _ in range(3):
        with_int3.go()
        counted.append((with_int3.where().symbol, with_int3.registers()["rbx"], with_int3.read(DATA, 8)[0]))
    assert counted == [("second", 1, 1), ("spin", 2, 2), ("spin", 2, 2)]


def test_without_handlers_a_breakpoint_in_ring3_is_doubted(with_int3: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    vcpu = with_int3.machine.cpus[0].vcpu
    sregs = vcpu.get_sregs()
    sregs.idt.limit = 0
    vcpu.set_sregs(sregs)
    monkeypatch.setattr(abilities, "_all", [replace(with_int3.can, breakpoints_ring3=False, int3_ring3=False)])
    assert "handlers of #BP and #GP" in with_int3.doubts(with_int3.break_at("spin"))[0]
    assert with_int3.doubts(with_int3.break_at(DATA)) == []


def test_a_crash_is_shown_at_its_instruction_and_goes_on_from_there_when_it_is_mended() -> None:
    with Machine() as machine:
        machine.load("start: mov ebx, 7; bad: ud2; inc ebx; hlt")
        with Session(machine) as session:
            ended = session.go()
            assert (ended.why, ended.where.symbol) == ("fault", "bad")
            before = session.registers()
            found = session.postmortem()
            assert found.fault is not None
            assert (found.fault.vector, found.vcpus[0].rip) == (6, machine.address("bad"))
            assert session.registers() == before
            assert session.go().why == "fault", "it is tried again"
            session.write("bad", b"\x90\x90")
            assert session.go().text == "the guest halted"
            assert session.registers()["rbx"] == 8


def test_without_its_debugger_a_crash_is_left_as_the_run_left_it_and_another_can_look_at_it() -> None:
    with Machine() as machine:
        machine.load("start: ud2")
        with Session(machine) as session:
            result = session.go().result
        assert result is not None
        found = examine(machine, result)
        assert found.fault is not None
        assert found.fault.vector == 6
        with Session(machine) as session:
            stopped = session.stand_at_end(result)
            assert (stopped.why, stopped.where.symbol) == ("fault", "start")
            assert "own gate of #UD" in session.step().where.note


def test_a_crash_of_ring3_is_shown_in_ring3() -> None:
    with Machine() as machine:
        base = REGIONS["code"].base
        machine.load("start: nop; bad: cli; nop", ring=3, user=[(base, base + 4096)])
        with Session(machine) as session:
            ended = session.go()
            assert (ended.why, ended.where.symbol, ended.where.mode) == ("fault", "bad", "64-bit ring 3")


EXITS = 100


def calls_of_a_run(machine: Machine) -> int:
    """How often Python calls something, from the begin of a run to its end."""
    machine.load(f"start: mov ecx, {EXITS}; again: out 0x80, al; dec ecx; jnz again; hlt")
    calls = itertools.count()

    def seen(_frame: object, event: str, _of: object) -> None:
        if event == "call":
            next(calls)

    sys.setprofile(seen)
    try:
        machine.run()
    finally:
        sys.setprofile(None)
    return next(calls)


@pytest.mark.parametrize("fast", [True, False])
def test_the_way_of_an_exit_is_as_if_there_had_never_been_a_debugger(fast: bool) -> None:
    with Machine(fast=fast) as machine:
        assert len(machine.cpus) == 1, "it is a whole machine from here on"
        before = min(calls_of_a_run(machine) for _ in range(3))
        machine.start(0, "start")
        with Session(machine) as session:
            session.break_at("again", hits=3)
            session.catch(port=0x80)
            assert session.go().why == "catch"
            assert session.step().why == "step"
            session.kill()
        after = min(calls_of_a_run(machine) for _ in range(3))
        assert abs(after - before) < EXITS // 2, "a call more for each exit would be twice that"


def test_a_machine_that_is_closed_has_no_session() -> None:
    machine = Machine()
    machine.close()
    with pytest.raises(HostError, match="debugging it: this machine has been closed"):
        Session(machine)


def test_a_debug_register_for_reads_stops_at_no_write(loop: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """x86 has none for reads alone. As if one struck here: a leg's end is made up, what is in memory is not."""
    can = replace(loop.can, watchpoints=True)
    monkeypatch.setattr(Session, "can", property(lambda _session: can))
    made = loop.watch(DATA, 4, "read")
    cpu = loop.machine.cpus[0]
    struck = Stop(Why.DEBUG, "a watchpoint"), cpu, Cause(WATCHPOINT, cpu, DATA)
    loop._begin()
    stopped = loop._seen(*struck)
    assert stopped is not None
    assert (stopped.breakpoint, made.hits) == (made, 1)
    loop.write(DATA, b"new!")  # by the guest, as it were
    assert loop._seen(*struck) is None
    assert loop._seen(*struck) is not None
    loop.write(DATA, b"more")
    loop._begin()
    assert loop._seen(*struck) is not None


@every_host
@pytest.mark.on_demand
@pytest.mark.parametrize(("payload", "steps"), [("faults", 120), ("faults", 400), ("memslots", 80), ("pv_eoi", 260)])
def test_who_steps_a_while_and_goes_on_leaves_no_trap_flag(payload: str, steps: int) -> None:
    """Neither in what a fault or an interrupt has saved, of ring 0 and of ring 3, nor in ring 3 itself; and the guest's
    own trap flag is the guest's. The payload ends as it does without a debugger.
    """
    made: list[int] = []

    def front(session: Session) -> None:
        while not session.ended and len(made) < steps:
            made.append(session.step().where.address)
        session.detach()

    with Machine() as machine:
        if steps == 400 and abilities.measure(machine).step_ring3:
            pytest.skip("where the CPU runs ring 3, KVM's step takes the trap of a guest that sets TF itself")
    without = run_payload(find(payload), Options())
    outcome = run_payload(find(payload), Options(watch=lambda guest: Session(guest.machine, front=front, history=0)))
    assert made
    assert outcome.outcome == without.outcome, outcome.reason

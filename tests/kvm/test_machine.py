# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines that run: how a run ends, and that it always does.

The goal for every limit is 100 ms from the limit to the end; a loaded test machine gets MARGIN. The guests are raw
bytes with their assembly beside them, so that a fault of the assembler cannot hide one of the machine.
"""

from __future__ import annotations

import itertools
import linecache
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import pytest

from vmm.abi import apic
from vmm.abi.cpuid import CpuidEntry
from vmm.errors import NotTaken, UsageError
from vmm.kvm import Vcpu
from vmm.kvm.exits import Halt, InternalError, MmioRead, MmioWrite, PortIn, PortOut, Shutdown
from vmm.machine.ends import Why
from vmm.machine.machine import Machine
from vmm.machine.memory import layout
from vmm.machine.run import all_cpus
from vmm.machine.run.all_cpus import AllCpus
from vmm.machine.x86 import boot
from vmm.machine.x86.cpuid import CpuidModel, not_taken
from vmm.machine.x86.descriptors import FAULT_FRAME_SIZE, FaultFrame
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import Lab

MARGIN = 2.0
CODE = layout.REGIONS["code"].base
HEX = bytes.fromhex

HLT = HEX("f4")
SPIN = HEX("ebfe")  # jmp $
STORM = HEX("e680 ebfc")  # L: out 0x80, al; jmp L
HLT_FOR_EVER = HEX("fb f4 ebfd")  # sti; L: hlt; jmp L
VMCALL = HEX("0f01c1 ebfb")  # L: vmcall; jmp L


def out(port: int, value: int) -> bytes:
    """mov al, value; out port, al"""
    return bytes((0xB0, value, 0xE6, port))


# -- ordinary ends ----------------------------------------------------------------------------------------------------


def test_a_guest_writes_and_halts(booted):
    result = booted(out(0xE9, 0x48) + out(0xE9, 0x69) + HLT).run()
    assert (result.text, result.stop.why, result.vcpu) == ("Hi", Why.HALT, 0)
    assert result.exits == {"PortOut": 2, "Halt": 1}
    assert result.recent[0] == (PortOut(0xE9, 1, b"H"), PortOut(0xE9, 1, b"i"), Halt())
    assert 0 < result.wall < MARGIN
    assert not result.stop.crashed
    assert not result.stop.limited


@pytest.mark.parametrize("value", [0, 1, 77, 255])
def test_the_exit_port_ends_the_run_with_its_value(booted, value):
    result = booted(out(0xF4, value) + SPIN).run()
    assert (result.stop.why, result.stop.code, result.vcpu) == (Why.EXIT_PORT, value, 0)


def test_the_exit_port_takes_every_size(booted):
    # mov eax, 0x12345678; out 0xf4, eax
    assert booted(HEX("b878563412 e7f4") + SPIN).run().stop.code == 0x1234_5678


def test_vcpus_know_their_number(booted):
    # test edi, edi; jz L; mov eax, esi; out 0xe9, al; L: hlt          RDI index, RSI count
    code = HEX("85ff 7404 89f0 e6e9 f4")
    machine = booted(code, cpus=3, aps={1: 0, 2: 0})
    result = machine.run()
    assert result.console == b"\x03\x03"
    assert result.stop.why is Why.HALT
    assert result.exits["Halt"] == 3


def test_one_vcpu_halts_and_the_others_go_on(booted):
    # the boot vCPU halts at once; vCPU 1 counts to 10,000 and writes the exit port
    counts = HEX("b910270000 ffc9 75fc") + out(0xF4, 5)  # mov ecx, 10000; L: dec ecx; jnz L
    result = booted(HLT + counts, cpus=2, aps={1: 1}).run()
    assert (result.stop.why, result.stop.code, result.vcpu) == (Why.EXIT_PORT, 5, 1)


def test_only_started_vcpus_run_without_a_lapic(booted):
    result = booted(out(0xE9, 0x41) + HLT, cpus=3).run()
    assert (result.console, result.stop.why) == (b"A", Why.HALT)


def test_ring_three(booted):
    machine = booted(b"")
    boot.write_tables(machine.memory, 1, user=((CODE, CODE + 0x1000),), allowed_ports=[0xF4])
    machine.memory.write(CODE, HEX("8cc8") + HEX("e6f4"))  # mov eax, cs; out 0xf4, al
    machine.start(0, CODE, ring=3)
    assert machine.run().stop.code & 3 == 3  # an emulated host shows its own selector, but the ring is the ring
    with pytest.raises(UsageError, match="ring 0 or 3, not 1"):
        machine.start(0, CODE, ring=1)


# -- faults -----------------------------------------------------------------------------------------------------------

FAULTS = {
    "ud2": (HEX("0f0b"), 6, 0),
    "divide by zero": (HEX("31c9 f7f1"), 0, 0),  # xor ecx, ecx; div ecx
    "page fault, read": (HEX("8b042500000000"), 14, 0),  # mov eax, [0]
    "page fault, write": (HEX("89042508000000"), 14, 2),  # mov [8], eax
    "general protection": (HEX("48b80000000000008000 8b00"), 13, 0),  # mov rax, 1 << 47 (not canonical); mov eax, [rax]
    "bad selector": (HEX("66b8f0ff 8ed8"), 13, 0xFFF0),  # mov ax, 0xfff0; mov ds, ax
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_default_gate_reports_the_fault(booted, name):
    code, vector, error_code = FAULTS[name]
    machine = booted(code + SPIN)
    result = machine.run(timeout=5)
    assert (result.stop.why, result.vcpu, result.stop.crashed) == (Why.GUEST_FAULT, 0, True)
    vcpu = machine.cpus[0].vcpu
    vcpu.complete()
    frame = FaultFrame.parse(machine.memory.read(vcpu.get_regs().rsp, FAULT_FRAME_SIZE))
    assert (frame.vector, frame.error_code) == (vector, error_code)
    assert CODE <= frame.rip < CODE + len(code)
    if vector == 14:
        assert vcpu.get_sregs().cr2 == (8 if error_code else 0)


def test_a_fault_of_another_vcpu_names_it(booted):
    result = booted(SPIN + HEX("0f0b"), cpus=2, aps={1: 2}).run(timeout=5)
    assert (result.stop.why, result.vcpu) == (Why.GUEST_FAULT, 1)


def test_a_triple_fault_is_a_shutdown(booted):
    # lidt [rip+2]; ud2; 10 zero bytes
    result = booted(HEX("0f011d02000000 0f0b") + bytes(10)).run(timeout=5)
    assert result.stop.why is Why.SHUTDOWN
    assert result.stop.exit == Shutdown()
    assert result.stop.crashed


def test_garbage_ends_one_way_or_another(booted):
    chance = random.Random(20)
    for _ in range(50):
        machine = booted(chance.randbytes(256))
        assert machine.run(timeout=0.2).stop.text
        machine.close()


# -- limits -----------------------------------------------------------------------------------------------------------

HANGS = {
    "spin": (SPIN, "none"),
    "spin with LAPIC": (SPIN, "split"),
    "halted in the kernel": (HLT_FOR_EVER, "split"),
    "halted, interrupts off": (HLT, "kernel"),
    "storm": (STORM, "none"),
    "storm with LAPIC": (STORM, "split"),
    "vmcall": (VMCALL, "none"),
    "vmcall with LAPIC": (VMCALL, "split"),
}


def ended_in_time(machine: Machine, timeout: float, record=None) -> None:
    begin = time.monotonic()
    result = machine.run(timeout=timeout)
    late = time.monotonic() - begin - timeout
    # A hypercall instruction may be none to this host: then it is a fault or a failed emulation, at once.
    assert result.stop.why is Why.TIME_LIMIT or result.stop.crashed
    if result.stop.why is Why.TIME_LIMIT:
        assert result.stop.limited
        assert late >= 0
        if record:
            record("late_ms", round(late * 1000, 1))
    assert late < MARGIN
    for runner in machine.cpus:
        runner.vcpu.complete()
        runner.vcpu.get_regs()  # would block if it still ran


@pytest.mark.parametrize("hang", HANGS)
def test_a_hang_ends_at_its_limit(booted, hang, record_property):
    code, irqchip = HANGS[hang]
    ended_in_time(booted(code, irqchip=irqchip), 0.1, record_property)


@pytest.mark.parametrize("hang", HANGS)
@pytest.mark.parametrize("first", ["halts", "hangs"])
def test_a_hang_of_every_vcpu_ends_at_its_limit(booted, hang, first, record_property):
    code, irqchip = HANGS[hang]
    aps = {1: 1, 2: 1} if first == "halts" else {1: 0, 2: 0}
    machine = booted(HLT + code if first == "halts" else code, cpus=3, irqchip=irqchip, aps=aps)
    ended_in_time(machine, 0.1, record_property)


@pytest.mark.parametrize("timeout", [0, 0.001, 0.019, 0.021])
def test_a_limit_of_any_length_is_kept(booted, timeout):
    ended_in_time(booted(SPIN), timeout)


def test_the_default_limit_is_the_machines_own(booted):
    machine = booted(SPIN)
    assert machine.timeout == 10
    machine.timeout = 0.05
    assert machine.run().stop.why is Why.TIME_LIMIT


def test_the_output_limit(booted):
    # mov al, 0x78; L: out 0xe9, al; jmp L
    result = booted(HEX("b078 e6e9 ebfc"), console_limit=1000).run(timeout=30)
    assert (result.stop.why, result.console, result.stop.limited) == (Why.OUTPUT_LIMIT, b"x" * 1000, True)


def test_the_exit_limit_counts_every_vcpu(booted):
    for cpus, aps in ((1, {}), (3, {1: 0, 2: 0})):
        result = booted(STORM, cpus=cpus, aps=aps).run(timeout=30, exit_limit=100)
        assert result.stop.why is Why.EXIT_LIMIT
        assert result.exits["PortOut"] == 100
    assert booted(out(0xE9, 1) + HLT).run(exit_limit=2).stop.why is Why.HALT


def test_strict_stops_at_the_first_unclaimed_access(booted):
    result = booted(STORM, strict=True).run(timeout=5)
    assert (result.stop.why, result.exits["PortOut"], result.stop.crashed) == (Why.UNCLAIMED, 1, True)
    assert booted(out(0x80, 1) + HLT).run().unclaimed == 1


# -- hooks and exceptions ---------------------------------------------------------------------------------------------


class Mine(Exception):
    pass


def boom(*_):
    raise Mine


def test_hooks_see_values_and_answer(booted):
    # in al, 0x81; out 0x80, al; mov eax, [0xd0002000]; out 0xf4, eax
    machine = booted(HEX("e481 e680 a1002000d000000000 e7f4"), strict=True)
    seen = []
    machine.on_port_read(0x81, lambda: 0x5A)
    machine.on_port_write(0x80, lambda value: seen.append((value, machine.current.index)))
    machine.on_mmio_read(0xD000_2000, lambda: 0x1234_5678)
    assert machine.run().stop.code == 0x1234_5678
    assert seen == [(0x5A, 0)]
    assert machine.current is None


@pytest.mark.parametrize("irqchip", ["none", "split"])
@pytest.mark.parametrize("who", [0, 1])
def test_what_a_hook_raises_comes_out_of_run(booted, who, irqchip):
    aps = {1: 4} if who == 0 else {1: 2}  # the other one spins
    code = (out(0x80, 1) + SPIN) if who == 0 else (SPIN + out(0x80, 1) + SPIN)
    machine = booted(code, cpus=2, irqchip=irqchip, aps=aps)
    machine.on_port_write(0x80, boom)
    begin = time.monotonic()
    with pytest.raises(Mine):
        machine.run(timeout=30)
    assert time.monotonic() - begin < MARGIN
    assert machine.run(timeout=0.05).stop.why is Why.TIME_LIMIT  # and the machine is as good as before


def test_what_on_exit_raises_comes_out_of_run(booted):
    machine = booted(out(0x80, 1) + SPIN)
    machine.on_exit = boom
    with pytest.raises(Mine):
        machine.run(timeout=30)


def test_on_exit_sees_every_exit(booted):
    machine, seen = booted(out(0x80, 1) + HLT), []
    machine.on_exit = lambda runner, exit: seen.append((runner.index, exit))
    machine.run()
    assert seen == [(0, PortOut(0x80, 1, b"\x01")), (0, Halt())]


def test_a_hook_may_run_another_machine(booted):
    outer, inner = booted(out(0x80, 1) + out(0xF4, 7)), booted(SPIN)
    inside, bound = [], [Vcpu.bound()]

    def port(value: int) -> None:
        bound.append(Vcpu.bound())
        inside.append(inner.run(timeout=0.05).stop.why)
        bound.append(Vcpu.bound())

    outer.on_port_write(0x80, port)
    result = outer.run(timeout=10)
    bound.append(Vcpu.bound())
    assert bound[0] == bound[3] != bound[1] == bound[2]  # a kick finds the vCPU that runs, and after it none
    assert inside == [Why.TIME_LIMIT]
    assert (result.stop.why, result.stop.code) == (Why.EXIT_PORT, 7)


def test_a_hook_of_another_vcpu_may_run_a_machine_too(booted):
    outer, inner = booted(SPIN + out(0x80, 1) + out(0xF4, 7), cpus=2, aps={1: 2}), booted(SPIN)
    inside = []
    outer.on_port_write(0x80, lambda value: inside.append(inner.run(timeout=0.05).stop.why))
    assert outer.run(timeout=10).stop.code == 7
    assert inside == [Why.TIME_LIMIT]


@pytest.mark.parametrize("act", ["run", "close"])
def test_a_hook_can_neither_run_nor_close_its_own_machine(booted, act):
    machine = booted(out(0x80, 1) + SPIN)
    machine.on_port_write(0x80, lambda value: getattr(machine, act)())
    with pytest.raises(UsageError, match=r"runs already|hook cannot close"):
        machine.run(timeout=10)
    assert machine.run(timeout=0.05).stop.why is Why.TIME_LIMIT


def test_a_vcpu_that_runs_cannot_be_started_again(booted):
    """KVM would make the caller wait for the end of the other's KVM_RUN, which may never come."""
    machine = booted(out(0x80, 1) + SPIN, cpus=2, irqchip="split")  # vCPU 1 waits for SIPI inside KVM_RUN

    def start_again(_value: int) -> None:
        while machine.cpus[1].thread_id is None:  # its thread may come later than this exit
            time.sleep(0.001)
        machine.start(1, CODE)

    machine.on_port_write(0x80, start_again)
    with pytest.raises(UsageError, match="is running"):
        machine.run(timeout=10)


# -- stopping and going on --------------------------------------------------------------------------------------------


def test_a_further_run_goes_on(booted):
    # L: inc bl; mov al, bl; out 0xf4, al; jmp L
    machine = booted(HEX("fec3 88d8 e6f4 ebf8"))
    assert [machine.run().stop.code for _ in range(5)] == [1, 2, 3, 4, 5]


def test_a_read_that_ended_a_run_is_answered_in_the_next(booted):
    # in al, 0x80; out 0xf4, al
    machine = booted(HEX("e480 e6f4"))

    def read() -> int:
        machine.stop("enough")
        return 0x5A

    machine.on_port_read(0x80, read)
    first = machine.run()
    assert (first.stop.why, first.stop.text) == (Why.STOPPED, "enough")
    assert machine.run().stop.code == 0x5A


PENDING = {
    PortOut: HEX("e680"),  # out 0x80, al
    PortIn: HEX("e480"),  # in al, 0x80
    MmioRead: HEX("a1002000d000000000"),  # mov eax, [0xd0002000]
    MmioWrite: HEX("a3002000d000000000"),  # mov [0xd0002000], eax
    "REP OUTS": HEX("be00000200 b900400000 66ba8000 f36e"),  # mov esi, CODE; mov ecx, 0x4000; mov dx, 0x80; rep outsb
    "REP INS": HEX("bf00000a00 b900400000 66ba8000 f36c"),  # mov edi, DATA; mov ecx, 0x4000; mov dx, 0x80; rep insb
    "MMIO across a page": HEX("48a1fc1f00d000000000"),  # mov rax, [0xd0001ffc]
}


@pytest.mark.parametrize("pending", PENDING, ids=lambda pending: getattr(pending, "__name__", pending))
def test_a_vcpu_can_be_started_anew_inside_an_exit(booted, pending):
    """What the guest was inside of is done with; nothing of it reaches the new start."""
    machine, inside = booted(PENDING[pending] + SPIN), []

    def stop(runner, exit) -> None:
        inside.append(exit)
        machine.stop()

    machine.on_exit = stop
    assert machine.run(timeout=5).stop.why is Why.STOPPED
    assert isinstance(inside[0], pending if isinstance(pending, type) else (PortOut, PortIn, MmioRead))
    assert getattr(inside[0], "port", 0x80) == 0x80  # not the fault port
    machine.on_exit = None
    # mov ebx, eax; mov eax, ecx; add eax, ebx; out 0xf4, eax: the sum of what must be zero
    machine.memory.write(CODE + 0x100, HEX("89c3 89c8 01d8 e7f4"))
    machine.start(0, CODE + 0x100)
    result = machine.run(timeout=5)
    assert (result.stop.why, result.stop.code) == (Why.EXIT_PORT, 0)
    assert result.exits == {"PortOut": 1}


def test_an_interrupt_before_a_run_ends_nothing(booted):
    machine = booted(SPIN)
    machine.cpus[0].interrupt()
    assert machine.run(timeout=0.05).stop.why is Why.TIME_LIMIT


def test_a_stop_before_a_run_is_not_lost(booted):
    machine = booted(SPIN, cpus=2, aps={1: 0})
    machine.stop("early")
    result = machine.run(timeout=30)
    assert (result.stop.why, result.stop.text) == (Why.STOPPED, "early")
    assert machine.run(timeout=0.05).stop.why is Why.TIME_LIMIT  # and it ends one run only


@pytest.mark.parametrize(("cpus", "count"), [(1, 300), (2, 200)])
def test_a_stop_at_any_moment_ends_the_run(booted, cpus, count):
    machine = booted(SPIN, cpus=cpus, aps=dict.fromkeys(range(1, cpus), 0))
    chance = random.Random(cpus)
    for _ in range(count):
        delay = chance.choice((0, chance.random() * 0.0005, chance.random() * 0.003))

        def stop(delay: float = delay) -> None:
            time.sleep(delay)
            machine.stop()

        thread = threading.Thread(target=stop)
        thread.start()
        begin = time.monotonic()
        result = machine.run(timeout=30)
        assert result.stop.why is Why.STOPPED
        assert time.monotonic() - begin < MARGIN
        thread.join()


def test_a_signal_handler_may_stop_the_run(booted):
    machine = booted(SPIN)
    before = signal.signal(signal.SIGALRM, lambda *_: machine.stop("alarm"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert machine.run(timeout=30).stop.text == "alarm"
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_stop_inside_a_stop_does_not_wait_for_itself():
    """The handler of a signal runs between any two lines of its thread, those that hold the machine's lock too."""
    machine = Machine()  # not closed if this fails: close() would wait as well
    machine.load(SPIN)

    def stop() -> None:
        with machine.all_cpus._lock:
            machine.stop("inside")

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert machine.run(timeout=5).stop.text == "inside"
    machine.close()


def test_machines_in_threads_do_not_mix(booted):
    results: dict[int, object] = {}
    machines = {i: booted(out(0xE9, 0x30 + i) + (SPIN if i % 2 else out(0xF4, i))) for i in range(6)}

    def run(index: int) -> None:
        results[index] = machines[index].run(timeout=0.2)

    threads = [threading.Thread(target=run, args=(i,)) for i in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for index, result in results.items():
        assert result.console == bytes([0x30 + index])
        assert result.stop.why is (Why.TIME_LIMIT if index % 2 else Why.EXIT_PORT)
        assert result.stop.code == (None if index % 2 else index)
    assert len(results) == 6


def test_a_machine_closes_though_two_interrupts_left_a_vcpu_running(monkeypatch):
    """The second ^C comes before the first has told anybody to stop: close() has to."""
    with Machine(cpus=2) as machine:
        machine.load("start:\n hlt\nsecond:\n pause\n jmp second\n")
        machine.start(1, "second")
        tick, end_all, ticks = AllCpus.tick, AllCpus._end_all, itertools.count()

        def first(self, runner):
            if next(ticks) == 2:
                raise KeyboardInterrupt
            tick(self, runner)

        def second(self):
            monkeypatch.setattr(AllCpus, "_end_all", end_all)
            raise KeyboardInterrupt

        monkeypatch.setattr(AllCpus, "tick", first)
        monkeypatch.setattr(AllCpus, "_end_all", second)
        with pytest.raises(KeyboardInterrupt):
            machine.run(timeout=600)
        closing = threading.Thread(target=machine.close, daemon=True)
        closing.start()
        closing.join(30)
        assert not closing.is_alive()


def test_a_machine_closes_again_wherever_the_first_time_was_interrupted():
    """^C at every line of the end, with a second thread: a second close() ends, and everything is given back."""
    traced = {AllCpus.close.__code__, AllCpus.end.__code__}

    def interrupted_at(line: int) -> bool:
        machine = Machine(cpus=2)
        machine.load("start:\n mov al, 1\n out 0xf4, al\n hlt\nsecond:\n pause\n jmp second\n")
        machine.start(1, "second")
        machine.run(timeout=60)
        lines, struck = itertools.count(1), []

        def trace(frame, event, _):
            if frame.f_code not in traced:
                return trace if event == "call" else None
            # A signal is looked at behind a call, never between the end of a `with` block and its exit.
            leaves = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with ")
            if event == "line" and not leaves and next(lines) == line:
                struck.append(line)
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            machine.close()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        again = threading.Thread(target=machine.close, daemon=True)
        again.start()
        again.join(30)
        assert not again.is_alive(), f"line {line}"
        assert machine.vm.closed
        return bool(struck)

    line = 1
    while interrupted_at(line):
        line += 1
    assert line > 10


# -- ^C ---------------------------------------------------------------------------------------------------------------

IMPORTING = """
    import sys, threading
    from vmm.machine.memory import layout
    from vmm.machine.x86 import boot
    from vmm.machine.machine import Machine

    class Watch:
        def find_spec(self, name, path=None, target=None):
            if threading.current_thread() is not threading.main_thread():
                print(name)

    code = layout.REGIONS["code"].base
    with Machine(cpus=2) as machine:
        boot.write_tables(machine.memory, 2)
        machine.memory.write(code, bytes.fromhex("ebfe" "e440" "e6f4"))  # 0 spins, 1 reads a port and ends the run
        machine.start(0, code)
        machine.start(1, code + 2)
        sys.meta_path.insert(0, Watch())
        machine.run(timeout=20)
    print("ended")
"""


def test_nothing_is_imported_on_a_thread_of_a_vcpu(uncovered: dict[str, str]) -> None:
    """An import that a ^C breaks off on the main thread may keep Python's import lock; a thread would wait for it."""
    script = [sys.executable, "-c", textwrap.dedent(IMPORTING)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=100, check=False, env=uncovered)
    assert (done.stdout, done.stderr) == ("ended\n", "")


INTERRUPTED = """
    import os, random, signal, sys, threading, time
    from vmm.machine.memory import layout
    from vmm.machine.x86 import boot
    from vmm.machine.machine import Machine

    code, irqchip, cpus = bytes.fromhex(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    chance, slowest, came = random.Random(7), 0.0, 0
    for _ in range(50):
        sent = []

        def interrupt(delay):
            time.sleep(delay)
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt, args=(chance.random() ** 3 * 0.02,))
        try:
            with Machine(cpus=cpus, irqchip=irqchip) as machine:
                boot.write_tables(machine.memory, cpus)
                machine.memory.write(layout.REGIONS["code"].base, code)
                for index in range(cpus):
                    machine.start(index, layout.REGIONS["code"].base)
                thread.start()
                machine.run(timeout=60)
        except KeyboardInterrupt:
            came += 1
            slowest = max(slowest, time.monotonic() - sent[0])
        thread.join()
    def threads():  # the kernel's: threading keeps the name of a thread that ^C kept from starting
        return len(os.listdir("/proc/self/task"))

    deadline = time.monotonic() + 5
    while threads() > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    print(came, round(slowest * 1000), threads())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "irqchip", "cpus"),
    [(SPIN, "none", 1), (SPIN, "split", 3), (STORM, "none", 2), (HLT_FOR_EVER, "split", 2), (VMCALL + SPIN, "none", 1)],
    ids=["spin", "spin on three", "storm", "hlt", "vmcall"],
)
def test_an_interrupt_from_the_keyboard_ends_any_run_at_any_moment(code, irqchip, cpus, record_property, uncovered):
    script = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), code.hex(), irqchip, str(cpus)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=100, check=False, env=uncovered)
    assert done.returncode == 0, done.stderr
    came, slowest, threads = map(int, done.stdout.split())
    record_property("slowest_ms", slowest)
    assert came == 50 or code.startswith(VMCALL)
    assert slowest < 1000
    assert threads == 1


# -- several vCPUs with LAPICs ----------------------------------------------------------------------------------------

# AP in real mode at the trampoline, 0x8000: mov al, 0x41; out 0x81, al; cli; hlt
AP_CODE = HEX("b041 e681 fa f4")


def write_icr(value: int) -> bytes:
    """x2APIC: mov ecx, 0x830; mov eax, low; mov edx, high; wrmsr"""
    low, high = value & 0xFFFF_FFFF, value >> 32
    return b"\xb9\x30\x08\0\0\xb8" + low.to_bytes(4, "little") + b"\xba" + high.to_bytes(4, "little") + b"\x0f\x30"


# mov ecx, 0x1b; rdmsr; or eax, 0xc00; wrmsr          x2APIC mode
X2APIC_ON = HEX("b91b000000 0f32 0d000c0000 0f30")


@pytest.mark.parametrize("irqchip", ["split", "kernel"])
@pytest.mark.parametrize("ids", [[0, 1], [0, 7], [0, 7, 300]], ids=str)
def test_init_and_sipi_start_vcpus_by_their_ids(booted, ids, irqchip):
    sipis = b"".join(
        write_icr(apic.icr(0, apic.DM_INIT, destination=i)) + write_icr(apic.icr(8, apic.DM_STARTUP, destination=i))
        for i in ids[1:]
    )
    machine = booted(X2APIC_ON + sipis + SPIN, cpus=ids, irqchip=irqchip)
    machine.memory.write(layout.REGIONS["trampoline"].base, AP_CODE)
    started = []

    def port(value: int) -> None:
        started.append(machine.current.vcpu.id)
        if len(started) == len(ids) - 1:
            machine.stop("all there")

    machine.on_port_write(0x81, port)
    result = machine.run(timeout=5)
    assert result.stop.text == "all there", started
    assert sorted(started) == ids[1:]


def test_a_broadcast_starts_them_all(booted):
    everyone = apic.DEST_ALLBUT
    code = X2APIC_ON + write_icr(apic.icr(0, apic.DM_INIT, shorthand=everyone))
    code += write_icr(apic.icr(8, apic.DM_STARTUP, shorthand=everyone)) + SPIN
    machine = booted(code, cpus=[0, 7, 300], irqchip="split")
    machine.memory.write(layout.REGIONS["trampoline"].base, AP_CODE)
    started = []
    machine.on_port_write(0x81, lambda value: started.append(machine.current.vcpu.id))
    machine.run(timeout=0.3)
    assert sorted(started) == [7, 300]


@pytest.mark.parametrize("irqchip", ["none", "split", "kernel"])
def test_ids_with_holes_start_directly(booted, irqchip):
    ids = [0, 7, 300] if irqchip == "split" else [0, 7, 33]
    # mov eax, edi; out 0x80, al; L: jmp L
    machine = booted(HEX("89f8 e680 ebfe"), cpus=ids, irqchip=irqchip, aps={1: 0, 2: 0})
    seen = {}
    machine.on_port_write(0x80, lambda value: seen.update({machine.current.vcpu.id: value}))
    machine.run(timeout=0.2)
    assert seen == {apic_id: index for index, apic_id in enumerate(ids)}


def test_cpuid_tells_each_vcpu_its_own_id(booted):
    # mov eax, 0xb; xor ecx, ecx; cpuid; mov eax, edx; out 0x80, eax; jmp $
    machine = booted(HEX("b80b000000 31c9 0fa2 89d0 e780 ebfe"), cpus=[0, 7, 300], irqchip="split", aps={1: 0, 2: 0})
    seen = {}
    machine.on_port_write(0x80, lambda value: seen.update({machine.current.vcpu.id: value}))
    machine.run(timeout=0.2)
    assert seen == {0: 0, 7: 7, 300: 300}


def test_a_vcpu_keeps_its_thread_over_runs(booted):
    machine = booted(out(0x80, 1) * 4 + SPIN, cpus=2, irqchip="split", aps={1: 0})
    threads = []

    def port(value: int) -> None:
        if machine.current.index == 1:
            threads.append(machine.current.thread_id)
            machine.stop()

    machine.on_port_write(0x80, port)
    for _ in range(4):
        machine.run(timeout=5)
    assert len(threads) == 4
    assert len(set(threads)) == 1


# -- building ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [{"cpus": 0}, {"cpus": 5000}, {"cpus": [0, 0]}, {"memory": 0}, {"memory": "1T"}, {"irqchip": "none "}],
    ids=str,
)
def test_a_machine_that_cannot_be_is_a_usage_error(wrong):
    with pytest.raises(UsageError):
        Machine(**wrong)


def test_memory_above_the_device_hole(booted):
    # mov rax, 0x100000000; mov dword [rax], 0x41; mov eax, [rax]; out 0xf4, al
    size = layout.LOW_RAM_END + 0x20_0000
    if size > layout.host_memory():
        pytest.skip(f"this host has less than {layout.format_size(size)} of memory")
    machine = booted(HEX("48b80000000001000000 c70041000000 8b00 e6f4"), memory=size)
    assert machine.run(timeout=5).stop.code == 0x41
    assert machine.memory.read_u32(layout.FOUR_GIB) == 0x41


def test_an_emulation_failure_or_the_instruction(booted):
    """popcnt runs on a native ring 0; where ring 0 is emulated, KVM gives up and tells the bytes."""
    # mov eax, 0xff; popcnt eax, eax; out 0xf4, al
    result = booted(HEX("b8ff000000 f30fb8c0 e6f4")).run(timeout=5)
    if result.stop.why is Why.EXIT_PORT:
        assert result.stop.code == 8
        return
    assert result.stop.why is Why.INTERNAL_ERROR
    exit = result.stop.exit
    assert isinstance(exit, InternalError)
    assert exit.suberror == 1
    assert exit.instruction.startswith(HEX("f30fb8c0"))
    assert "f3 0f b8 c0" in result.stop.text


def test_before_vcpus_and_cpuid_are_called_in_time():
    order = []

    def before(machine: Machine) -> None:
        order.append(("vm", len(machine.cpus)))
        machine.vm.enable_cap("X86_USER_SPACE_MSR", 2)

    with Machine(before_vcpus=before, cpuid=lambda model: order.append(("cpuid", bool(model.entries())))) as machine:
        assert order == [("vm", 0), ("cpuid", True)]
        assert machine.cpuid.entries()


def test_an_msr_hook_answers_the_guest(booted):
    # mov ecx, 0xdead0000; rdmsr; out 0xf4, eax
    machine = booted(
        HEX("b90000adde 0f32 e7f4"), before_vcpus=lambda machine: machine.vm.enable_cap("X86_USER_SPACE_MSR", 2)
    )
    machine.platform.msr_reads[0xDEAD_0000] = lambda: 0x1234_5678
    assert machine.run(timeout=5).stop.code == 0x1234_5678


def test_a_refused_msr_is_a_general_protection_fault(booted):
    machine = booted(HEX("b90000adde 0f32") + SPIN, before_vcpus=lambda m: m.vm.enable_cap("X86_USER_SPACE_MSR", 2))
    assert machine.run(timeout=5).stop.why is Why.GUEST_FAULT


def test_an_unanswered_mmio_read_is_all_ones(booted):
    # mov eax, [0xd0002000]; out 0xf4, eax
    machine = booted(HEX("a1002000d000000000 e7f4"))
    result = machine.run(timeout=5)
    assert result.stop.code == 0xFFFF_FFFF
    assert result.recent[0][0] == MmioRead(0xD000_2000, 4)
    assert result.unclaimed == 1


# -- loading ----------------------------------------------------------------------------------------------------------


def test_load_takes_bytes_text_or_a_program():
    with Machine() as machine:
        program = machine.load(out(0xF4, 1))
        assert (program.base, program.code) == (CODE, out(0xF4, 1))
        assert machine.run(timeout=5).stop.code == 1
        program = machine.load("nop\nstart: mov al, 2\nout 0xf4, al")
        assert machine.address("start") == machine.address(CODE + 1)
        assert machine.run(timeout=5).stop.code == 2
        machine.load(program, entry=CODE)
        assert machine.run(timeout=5).stop.code == 2
        with pytest.raises(UsageError, match="no symbol 'stop'"):
            machine.start(0, "stop")


def test_load_in_ring_three_obeys_the_bitmap():
    with Machine() as machine:
        for allowed, why in (([0xF4], Why.EXIT_PORT), ([], Why.GUEST_FAULT)):
            machine.load(out(0xF4, 3), ring=3, user=[(CODE, CODE + 0x1000)], allowed_ports=allowed)
            assert machine.run(timeout=5).stop.why is why


@pytest.mark.parametrize(
    ("size", "at"),
    [(layout.REGIONS["code"].size + 1, None), (0x1001, 0xA_0000 + 0x5_E000), (1, 0xD000_0000), (1, 1 << 40)],
)
def test_what_does_not_fit_is_refused_before_it_is_written(size, at):
    with Machine() as machine, pytest.raises(UsageError, match="do not fit"):
        machine.load(bytes(size), at=at)


def test_load_at_another_place():
    with Machine() as machine:
        machine.load(out(0xF4, 9), at=CODE + 0x5_0000)
        assert machine.run(timeout=5).stop.code == 9


@pytest.mark.parametrize("count", [0, 1, 3, 10])
def test_the_exit_limit_is_the_number_of_exits(count):
    with Machine() as machine:
        machine.load("inc ecx\n" * 50 + "hlt")
        machine.debugger.stepping = True
        result = machine.run(timeout=30, exit_limit=count)
        assert (result.stop.why, result.exits["Debug"], machine.regs.ecx) == (Why.EXIT_LIMIT, count, count)


def test_the_exit_that_ends_a_run_by_itself_is_its_reason_and_the_next_run_begins_with_the_next_exit(booted):
    machine = booted(out(0x80, 1) + out(0x80, 2) + HLT)
    seen: list[int] = []
    machine.on_port_write(0x80, seen.append)
    assert machine.run(timeout=30, exit_limit=1).stop.why is Why.EXIT_LIMIT
    assert seen == [1]
    assert machine.run(timeout=30, exit_limit=2).stop.why is Why.HALT
    assert seen == [1, 2]


@pytest.mark.parametrize("limits", [{"exit_limit": -1}, {"exit_limit": 1.5}, {"exit_limit": "3"}])
def test_an_exit_limit_that_is_no_number_of_exits_is_refused(booted, limits):
    with pytest.raises(UsageError, match="exit_limit"):
        booted(HLT).run(**limits)


NO_LIMITS = [float("nan"), float("inf"), 1e300, 86401, -1, "3", b"1"]


@pytest.mark.parametrize("seconds", NO_LIMITS)
def test_a_time_limit_that_limits_nothing_is_refused(booted, seconds):
    machine = booted(HLT)
    with pytest.raises(UsageError, match="a time limit of"):
        machine.run(timeout=seconds)
    machine.timeout = seconds
    with pytest.raises(UsageError, match="a time limit of"):
        machine.run()


def test_what_kvm_does_not_take_of_cpuid_is_said_and_what_it_takes_is_not():
    """Compared with KVM_GET_CPUID2, feature by feature: hosts differ in what they let a VMM hide."""
    said = {}
    for name in ("avx2", "x2apic", "smep", "KVM_FEATURE_CLOCKSOURCE", "osxsave"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with Machine(cpuid=lambda model, name=name: model.disable(name)) as machine:
                there = CpuidModel(machine.cpus[0].vcpu.get_cpuid2()).has(name)
                said[name] = machine.cpuid_not_taken
        assert bool(caught) == bool(said[name]) == there
        if there:
            assert caught[0].category is NotTaken
            assert caught[0].filename == __file__
            assert f"{name} is still set" in str(caught[0].message)
    assert said["KVM_FEATURE_CLOCKSOURCE"] == ()


def test_a_cpuid_that_differs_is_named_by_what_was_asked_for():
    leaf = CpuidEntry(7, 0, 1, ebx=1 << 5 | 1 << 8)
    offered, asked = CpuidModel([leaf, CpuidEntry(0x40000010)]), CpuidModel([leaf])
    asked.disable("avx2")
    asked.enable("smap")
    assert not_taken(offered, asked, asked) == []
    assert not_taken(offered, asked, offered) == [
        "0x7.0:EBX avx2 is still set", "0x7.0:EBX smap is still clear", "0x40000010 is still there"
    ]  # fmt: skip
    other = CpuidModel([leaf._replace(ebx=1 << 20, edx=1)])  # what nobody asked for is not said
    assert not_taken(offered, asked, other) == []


def looks_until_the_limit(machine: Machine, limit: float, pause: float) -> int:
    """How many looks, one at each beat, come before the time limit. A look that takes `pause` seconds stands for a host
    that gives this process little time.
    """
    seen: list[None] = []

    def slow(_: object) -> None:
        seen.append(None)
        time.sleep(pause)

    machine.all_cpus.on_tick.append(slow)
    assert machine.run(limit).stop.why is Why.TIME_LIMIT
    return len(seen)


@pytest.mark.parametrize(("patient", "least", "most"), [(False, 1, 4), (True, 6, 60)])
def test_a_patient_limit_leaves_out_what_beats_were_late(booted, patient, least, most):
    machine = booted(SPIN)
    machine.all_cpus.patient = patient
    assert least <= looks_until_the_limit(machine, 0.3, 0.1) <= most


def test_the_patience_of_a_limit_ends(booted, monkeypatch):
    monkeypatch.setattr(all_cpus, "MOST_PATIENCE", 2)
    machine = booted(SPIN)
    machine.all_cpus.patient = True
    assert looks_until_the_limit(machine, 0.2, 0.5) <= 2  # without an end it would take five


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_a_proof_is_patient_unless_the_user_gave_a_limit(timeout):
    lab = Lab(find("kvmclock"), Options(timeout=timeout))
    with lab.guest() as guest:
        assert guest.machine.all_cpus.patient is (timeout is None)

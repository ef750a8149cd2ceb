# SPDX-License-Identifier: GPL-2.0-or-later
"""A plain machine beside the whole one: the same guest ends the same, whoever looks at whatever in between."""

from __future__ import annotations

import errno
import gc
import importlib
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vmm import HostError, Machine, UsageError, Why
from vmm.errors import KvmCallError
from vmm.kvm import memory
from vmm.kvm.plain import NotPlain, PlainVm
from vmm.machine.ends import Result
from vmm.machine.images import own

GUESTS = {
    "halts": "mov al, 0x41; out 0xe9, al; hlt",
    "ends by the exit port": "mov al, 0x41; out 0xe9, al; mov al, 0x10; out 0xf4, al; hlt",
    "writes the exit port as 32 bits": "mov eax, 0x12345; out 0xf4, eax; hlt",
    "string output": "mov edx, 0xe9; mov ecx, 100; mov esi, 0x20000; rep outsb; hlt",
    "reads the console": "in al, 0xe9; out 0xe9, al; hlt",
    "a port that nobody claims": "mov al, 0x41; out 0xe9, al; out 0x80, al; in al, 0x81; out 0xe9, al; hlt",
    "an address that nobody claims": "mov ebx, 0x10000000; mov eax, [rbx]; mov [rbx], eax; hlt",
    "the serial port": "mov al, 0x42; out 0xe9, al; mov dx, 0x3f8; out dx, al; out 0xe9, al; hlt",
    "the scratch device": "mov ebx, 0xd0000000; mov eax, [rbx]; hlt",
    "a fault": "mov al, 0x41; out 0xe9, al; ud2",
    "a triple fault": "mov al, 0x41; out 0xe9, al; lidt [rip + n]; ud2; n: .quad 0, 0",
    "more than a run may print": "mov al, 0x41; l: out 0xe9, al; jmp l",
}


def whole(machine: Machine) -> Machine:
    assert machine.cpus
    assert machine._plain is None
    return machine


def facts(result: Result) -> tuple[object, ...]:
    """All of a result but how long it took, and how often a heartbeat came."""
    counts = {name: count for name, count in result.counts.items() if name != "Interrupted"}
    return result.stop, result.vcpu, result.console, counts, result.recent, result.unclaimed, result.missed


def outcome(text: str, look: Callable[[Machine], object], **options: Any) -> tuple[object, ...]:
    with Machine(console_limit=5000, **options) as machine:
        machine.load(text)
        look(machine)
        first = facts(machine.run(timeout=5))
        regs = machine.cpus[0].vcpu.get_regs()
        return first, regs, machine.memory.read(0, machine.memory.size)


@pytest.mark.every_host
@pytest.mark.parametrize("guest", GUESTS)
def test_it_ends_as_the_whole_machine(guest: str) -> None:
    text = GUESTS[guest]
    with Machine() as machine:
        assert machine._plain is not None
    plainly = outcome(text, lambda machine: None)
    assert plainly == outcome(text, whole)
    assert plainly == outcome(text, whole, fast=True, before_vcpus=lambda machine: None)


@pytest.mark.parametrize("guest", ["halts", "ends by the exit port", "string output"])
def test_what_few_ask_for_is_as_it_was_when_the_run_ended(guest: str) -> None:
    with Machine() as machine:
        machine.load(GUESTS[guest])
        first = machine.run(timeout=5)
        assert machine._plain is not None
        second = machine.run(timeout=5)  # it goes on behind HLT, and overwrites what the core has kept
        assert machine.regs.rip
    with Machine() as machine:
        whole(machine).load(GUESTS[guest])
        assert facts(machine.run(timeout=5)) == facts(first)
        assert facts(machine.run(timeout=5)) == facts(second)


def test_what_kvm_is_asked_once_holds_for_every_machine() -> None:
    """The second of a process does not ask again what its vCPU had after its making."""

    def begun(**options: Any) -> object:
        with Machine(**options) as machine:
            machine.load(GUESTS["halts"])
            return machine.cpus[0].vcpu.get_sregs()

    whole_one = begun(before_vcpus=lambda machine: None)
    assert [begun(), begun()] == [whole_one, whole_one]


def test_a_small_code_is_one_program_and_a_large_one_is_nobodys_to_keep() -> None:
    small, large = bytes([0xF4]) * own.SMALL, bytes([0xF4]) * (own.SMALL + 1)
    assert own.as_program(small, 0x20000) is own.as_program(bytearray(small), 0x20000)
    assert own.as_program(small, 0x20000) is not own.as_program(small, 0x21000)
    assert own.as_program(large, 0x20000) is not own.as_program(large, 0x20000)


def test_nobody_names_what_other_machines_have_too() -> None:
    """The value is one for all: a name that one machine's user adds would be known in the next."""
    program = own.as_program(b"\xf4", 0x20000)
    changes: tuple[Callable[[Any], object], ...] = (
        lambda names: names.update(here=0x20000),
        lambda names: names.setdefault("here", 0x20000),
        lambda names: names.__setitem__("here", 0x20000),
        lambda names: names.__ior__({"here": 0x20000}),
    )
    for change in changes:
        for names in (program.symbols, program.constants):
            with pytest.raises(UsageError, match="has no names, and takes none"):
                change(names)
    assert pickle.loads(pickle.dumps(program)) == program
    assert own.as_program(b"\xf4", 0x20000).symbols == {}
    with Machine() as m:
        m.load(b"\xf4")
        assert m.program is not None
        with pytest.raises(UsageError, match="has no names"):
            m.program.symbols["here"] = 0x20000


def test_what_a_machine_does_not_have_is_named() -> None:
    with Machine() as machine:
        with pytest.raises(AttributeError, match="'Machine' object has no attribute 'vms'"):
            _ = machine.vms  # type: ignore[attr-defined]
        assert machine.is_plain


def test_whoever_looks_from_the_console_finds_the_machine_of_the_run() -> None:
    seen: list[object] = []

    def live(data: bytes) -> None:
        assert machine.current is machine.cpus[0]
        seen.append((data, machine.regs.rax & 0xFF, machine.memory.read(0x20000, 1)))
        with pytest.raises(UsageError, match="a hook cannot close"):
            machine.close()
        with pytest.raises(UsageError, match="runs already"):
            machine.run()

    with Machine(live=live) as machine:
        machine.load("mov al, 0x41; out 0xe9, al; in al, 0x80; mov al, 0x42; out 0xe9, al; hlt")
        result = machine.run(timeout=5)
        assert machine.current is None
    assert (result.console, result.stop.why) == (b"AB", Why.HALT)
    assert [row[0] for row in seen] == [b"A", b"B"]  # type: ignore[index]


def test_what_the_console_raises_goes_through_and_the_guest_goes_on() -> None:
    def live(data: bytes) -> None:
        if data == b"A":
            raise KeyError(data)

    for look in (lambda machine: None, whole):
        with Machine(live=live) as machine:
            machine.load("mov al, 0x41; out 0xe9, al; mov al, 0x33; out 0xf4, al; hlt")
            look(machine)
            with pytest.raises(KeyError):
                machine.run(timeout=5)
            result = machine.run(timeout=5)
            assert (result.stop.code, result.stop.why) == (0x33, Why.EXIT_PORT)


@pytest.mark.parametrize("way", ["stop", "close", "observe", "signal"])
def test_another_thread_reaches_a_run(way: str) -> None:
    machine = Machine()
    machine.load("l: jmp l" if way != "observe" else "l: out 0x80, al; jmp l")
    begun = threading.Event()
    seen: list[object] = []

    def other() -> None:
        begun.wait()
        if way == "close":
            machine.close()
        elif way == "observe":
            machine.observe(lambda cpu, exit: seen.append(exit) or (len(seen) > 3 and machine.stop()))
        elif way == "signal":
            os.kill(os.getpid(), signal.SIGUSR1)
        else:
            machine.stop("enough")

    before = signal.signal(signal.SIGUSR1, lambda *_: machine.stop("enough"))
    thread = threading.Thread(target=other)
    thread.start()
    threading.Timer(0.05, begun.set).start()
    result = machine.run(timeout=60)
    thread.join()
    signal.signal(signal.SIGUSR1, before)
    assert result.stop.why is Why.STOPPED
    assert bool(seen) == (way == "observe")
    machine.close()


def test_an_interrupt_comes_through_and_nothing_is_bound() -> None:
    with Machine() as machine:
        machine.load("l: jmp l")
        threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            machine.run(timeout=60)
        assert machine._plain is not None
        assert machine.run(timeout=0.01).stop.why is Why.TIME_LIMIT


@pytest.mark.every_host
def test_the_memory_that_a_plain_machine_leaves_is_zeros_and_nobody_elses() -> None:
    with Machine() as first:
        first.load("mov rax, 0x5ec7e75ec7e7; mov edi, 0xa0000; mov ecx, 0x2000; rep stosq; hlt")
        assert first.run().stop.why is Why.HALT
        assert first._plain is not None
        mapping = first._plain.mapping
        assert mapping is not None
    assert memory._left == [mapping]
    with Machine() as second, Machine() as third:
        assert second._plain is not None
        assert third._plain is not None
        assert second._plain.mapping is mapping
        assert third._plain.mapping is not mapping
        with pytest.raises(HostError, match="has been closed"):
            first.memory.read(0xA0000, 8)
        assert second.memory.read(0, second.memory.size) == bytes(second.memory.size)
        with pytest.raises(HostError, match="has been closed"):
            first.memory.write(0xA0000, b"late")
        assert second.memory.read(0xA0000, 4) == bytes(4)
    assert mapping not in memory._left, "the second was whole, and its memory went with it"


class Refusing:
    """A mapping's bytes where the kernel takes no advice."""

    def __init__(self, mapped: Any) -> None:
        self._mapped, self.closed = mapped, False

    def madvise(self, _advice: int) -> None:
        raise OSError(errno.EINVAL, "no advice")

    def close(self) -> None:
        self._mapped.close()
        self.closed = True


def test_memory_that_another_may_not_have_is_unmapped() -> None:
    def left(size: int, refusing: bool = False) -> memory.Mapping:
        mapping = memory.Mapping(size)
        if refusing:
            mapping.bytes = Refusing(mapping.bytes)  # type: ignore[assignment]
        memory.leave(mapping)
        return mapping

    def mapped(mapping: memory.Mapping) -> bool:
        return not mapping.bytes.closed

    while memory._left:
        memory._left.pop().close()
    assert [mapped(left(memory.LEFT + 4096)), mapped(left(4096, refusing=True))] == [False, False]
    kept = left(8192)
    assert [mapped(kept), mapped(left(8192))] == [True, False], "one is kept"
    other = memory.left_or_new(4096)
    assert [mapped(kept), other.size, memory._left] == [False, 4096, []]
    other.close()
    gone = memory.Mapping.unmapped(4096)
    assert [gone.size, mapped(gone)] == [4096, False]


def test_a_closed_one_says_so_everywhere() -> None:
    machine = Machine()
    machine.close()
    machine.close()
    for act in (
        machine.run,
        lambda: machine.load("hlt"),
        lambda: machine.regs.rax,
        machine.save,
        machine.kvm.create_vm,
    ):
        with pytest.raises(HostError, match="closed"):
            act()
    assert machine.vm.closed


def test_a_child_by_fork_is_told() -> None:
    with Machine() as machine:
        machine.load("hlt")
        pid = os.fork()
        if not pid:
            try:
                machine.run(timeout=1)
            except HostError as error:
                os._exit(0 if "child by fork" in str(error) else 2)
            os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert machine.run(timeout=1).stop.why is Why.HALT


FILES = Path("/proc/self/fd")


@pytest.fixture
def swept() -> None:
    """What an earlier test left for the collector has files open, which may be closed at any moment, and leave room."""
    gc.collect()


def open_files() -> list[str]:
    return sorted(str(each.readlink()) for each in FILES.iterdir() if each.is_symlink())


@contextmanager
def descriptors(free: int) -> Iterator[None]:
    """As many more may be opened."""
    held = [os.dup(0)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(each.name) for each in FILES.iterdir()) + 8, hard))
    try:
        while True:
            try:
                held.append(os.dup(0))
            except OSError:
                break
        for _ in range(free):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in held:
            os.close(each)


@pytest.mark.usefixtures("swept")
@pytest.mark.parametrize(("free", "call"), [(0, "open"), (1, "KVM_CREATE_VM"), (2, "KVM_CREATE_VCPU")])
def test_a_start_that_fails_names_the_call(free: int, call: str) -> None:
    importlib.import_module("vmm.machine.build")  # whose file could not be opened then
    before = open_files()
    with descriptors(free), pytest.raises(KvmCallError, match=r"EMFILE") as caught:
        Machine()
    assert caught.value.call == call
    assert open_files() == before
    with descriptors(3), Machine() as machine:
        machine.load(b"\xf4")  # HLT: text would want files, where no cache has it
        assert machine.run(timeout=1).stop.why is Why.HALT


@pytest.mark.parametrize("step", ["cpuid", "start"])
def test_a_refusal_of_one_call_is_left_to_the_other_way(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if step == "cpuid":
        monkeypatch.setattr("vmm.machine.plain.of_first_vcpu", lambda kvm: None)
    else:
        monkeypatch.setattr(PlainVm, "load", refuse)
    before = open_files()
    with Machine() as machine:
        machine.load("hlt")
        assert machine._plain is None
        assert machine.run(timeout=1).stop.why is Why.HALT
    assert open_files() == before


def refuse(*_: object) -> None:
    raise NotPlain


@pytest.mark.parametrize("looks", [False, True])
def test_nothing_is_left_open(looks: bool) -> None:
    before = open_files()
    maps = Path("/proc/self/maps").read_text().count("kvm-vcpu")
    for _ in range(5):
        with Machine() as machine:
            machine.load("mov al, 0x41; out 0xe9, al; hlt")
            machine.run(timeout=1)
            if looks:
                assert machine.vm
        del machine
    with pytest.warns(ResourceWarning, match="unclosed machine with 1 vCPU"):
        dropped()
    assert open_files() == before
    assert Path("/proc/self/maps").read_text().count("kvm-vcpu") == maps


def dropped() -> None:
    Machine()


NOT_LOADED = {"vmm.machine.build", "vmm.machine.run.all_cpus", "vmm.machine.bus.bus", "vmm.machine.memory.slots"} | {
    f"vmm.kvm.{name}" for name in ("system", "vm", "vcpu", "exits", "lean")
}


def test_a_plain_run_of_the_command_loads_no_part_of_a_whole_machine() -> None:
    code = "import sys\nfrom vmm.cli import main\nsys.exit(main(['run', 'hello']) or print(*sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "vmm.machine.plain" in loaded
    assert not loaded & NOT_LOADED

# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine.rounds on the device: what a round does is what reset and run do, and nothing of one is left to the next."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.kvm.test_snapshot import LEAVES, differences, state
from tests.left_behind import files_before, open_files
from vmm import Machine
from vmm.errors import UsageError
from vmm.machine.ends import Stop, Why

pytestmark = pytest.mark.kvm

# What ends a run, each once: by the core, by a device in Python, by KVM, by a callback in between.
GUESTS = {
    "halts": "start: mov rax, [0x40000]; inc rax; mov [0x40000], rax; hlt",
    "ends by the port": "start: add rbx, 3; mov al, 7; out 0xf4, al; hlt",
    "asks a callback": "start: in al, 0x77; mov [0x40000], al; mov rcx, rax; hlt",
    "prints": "start: mov al, 0x41; out 0xe9, al; inc qword ptr [0x41000]; hlt",
    "falls": "start: mov rax, 5; lidt [0x50000]; ud2",
    "touches the serial port": "start: mov dx, 0x3fb; in al, dx; mov bl, al; mov al, 3; out dx, al; hlt",
    "touches nothing that is there": "start: mov edi, 0xd8000000; mov eax, [rdi]; hlt",
}


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine() as made:
        yield made


def seen(machine: Machine, stop: Stop) -> tuple[object, ...]:
    regs = machine.cpus[0].vcpu.get_regs()
    return stop.why, stop.text, stop.code, regs, machine.memory.read(0x40000, 0x2000)


@pytest.mark.every_host
@pytest.mark.parametrize("name", GUESTS)
def test_a_round_is_a_reset_and_a_run(machine: Machine, name: str) -> None:
    answers = iter(range(200))
    machine.on_port_read(0x77, lambda: next(answers) % 3)
    machine.load(GUESTS[name])
    with machine.snapshot() as snap:
        before = state(machine)
        plainly = []
        for _ in range(3):
            stop = machine.run(5).stop
            machine.cpus[0].vcpu.complete()
            plainly.append(seen(machine, stop))
            machine.reset(snap)
        lean = []
        with machine.rounds(snap, timeout=5) as rounds:
            for _ in range(3):
                stop = rounds.run()
                lean.append((*seen(machine, stop)[:3], rounds.regs.rip, seen(machine, stop)[4]))
            rounds.reset()
        assert lean == [(*each[:3], each[3].rip, each[4]) for each in plainly]  # type: ignore[attr-defined]
        assert differences(before, state(machine)) == []
        assert machine.run(5).stop.why is plainly[0][0]  # and it is a machine like any


@pytest.mark.parametrize("part", LEAVES)
def test_nothing_is_smuggled_from_round_to_round(part: str) -> None:
    """As in test_snapshot, where each piece of the state is changed; what KVM_RUN left in kvm_run is believed here."""
    irqchip = "kernel" if part in ("chips", "pit", "vcpu 0 lapic") else "none"
    with Machine(irqchip=irqchip) as machine:  # type: ignore[arg-type]
        if part == "pit" and not machine.vm.has_pit:
            pytest.skip("this board has no PIT of KVM's")
        machine.load(LEAVES[part].replace("hlt", "mov al, 0; out 0xf4, al"))
        snap = machine.snapshot()
        before, memory = state(machine), machine.memory.read(0, machine.memory.size)
        with machine.rounds(snap, timeout=5) as rounds:
            for _ in range(3):
                stop = rounds.run()
                if stop.why is not Why.EXIT_PORT:
                    pytest.skip(f"this host's guests cannot do that: {stop.text}")
        assert part in differences(before, state(machine))
        with machine.rounds(snap, timeout=5) as rounds:
            for _ in range(3):
                rounds.run()
            rounds.reset()
        assert differences(before, state(machine)) == []
        assert machine.memory.read(0, machine.memory.size) == memory


REMAPS = """
start:  cmp r8, 1
        je  look
        mov rdi, 0x300000
        mov qword ptr [rdi], 0x320007
look:   mov rbx, [0x400000]
        mov al, 0
        out 0xf4, al
        jmp start
"""


@pytest.mark.every_host
# Ring 3 ends by OUT, which QEMU's TCG does not let through there (fault qemu-ring3-io of tools/hostlab/expected).
@pytest.mark.parametrize("ring", [0, pytest.param(3, marks=pytest.mark.on_demand)])
@pytest.mark.parametrize("lean", [False, True], ids=["reset", "rounds"])
def test_what_the_guest_made_of_its_page_tables_is_gone(ring: int, lean: bool) -> None:
    """The table is put back, and so is what KVM and the CPU keep of it: shadow pages, where KVM has those."""
    with Machine(memory="8M") as machine:
        memory = machine.memory
        machine.load(REMAPS, ring=ring, allowed_ports=[0xF4], user=[(0x20000, 0x21000)])
        root = machine.cpus[0].vcpu.get_sregs().cr3
        third = memory.read_u64(root) & 0xFFFFFF000
        second = memory.read_u64(third) & 0xFFFFFF000
        for table in (root, third):
            memory.write_u64(table, memory.read_u64(table) | 7)
        memory.write_u64(second + 8, 0x200087)  # 2 MiB with the table in it
        memory.write_u64(second + 16, 0x300007)
        memory.write_u64(0x300000, 0x310007)
        memory.write_u64(0x310000, 1)
        memory.write_u64(0x320000, 2)
        with machine.snapshot() as snap:

            def reads(r8: int) -> int:
                machine.reset(snap)
                machine.regs.r8 = r8
                assert machine.run(5).stop.why is Why.EXIT_PORT
                return machine.regs.rbx

            if not lean:
                assert reads(0) == 2
                assert [reads(r8) for r8 in (1, 1, 0, 1)][::3] == [1, 1]
                return
            with machine.rounds(snap, timeout=5) as rounds:
                found = []
                for r8 in (0, 1, 1, 0, 1):
                    assert rounds.run(r8=r8).why is Why.EXIT_PORT
                    found.append(rounds.regs.rbx)
            assert (found[0], found[1], found[2], found[4]) == (2, 1, 1, 1)


def test_registers_and_memory_are_what_a_round_begins_with(machine: Machine) -> None:
    machine.load("start: lea rax, [rdi + rsi]; add rax, [0x40000]; mov [0x40008], rax; hlt")
    start = machine.regs.rdi + machine.regs.rsi
    with machine.snapshot() as snap, machine.rounds(snap) as rounds:
        for value in range(50):
            rounds.reset()
            machine.memory.write_u64(0x40000, value * 10)
            assert rounds.run(rdi=value, rsi=-1).why is Why.HALT
            assert rounds.regs.rax == value * 11 - 1 & (1 << 64) - 1
            assert machine.memory.read_u64(0x40008) == rounds.regs.rax
        assert rounds.run().why is Why.HALT
        assert rounds.regs.rax == start  # neither the registers nor the memory of the one before
        with pytest.raises(UsageError, match="no register eax"):
            rounds.run(eax=1)
        with pytest.raises(UsageError, match="register rdi"):
            rounds.run(rdi=1 << 64)
        assert rounds.run(rdi=2, rsi=0).why is Why.HALT
        assert rounds.regs.rax == 2


def test_what_is_set_by_hand_meanwhile_is_put_back_too(machine: Machine) -> None:
    """Registers that the last KVM_RUN left in kvm_run are old then."""
    machine.load("start: mov rbx, cr8; mov rax, cr2; hlt")
    with machine.snapshot() as snap, machine.rounds(snap) as rounds:
        for number in range(4):
            assert rounds.run().why is Why.HALT
            assert (rounds.regs.rbx, rounds.regs.rax) == (0, 0)
            vcpu = machine.cpus[0].vcpu
            sregs = vcpu.get_sregs()
            sregs.cr8, sregs.cr2 = number + 1, 0x1234000
            vcpu.set_sregs(sregs)


def test_a_device_that_nobody_had_touched_is_as_new(machine: Machine) -> None:
    """It is made by the first access, later than the snapshot."""
    machine.load("start: mov dx, 0x3fb; in al, dx; mov bl, al; mov al, 3; out dx, al; hlt")
    snap = machine.snapshot()
    with machine.rounds(snap) as rounds:
        for _ in range(3):
            assert rounds.run().why is Why.HALT
            assert rounds.regs.rbx == 0
        rounds.run()
    assert machine.uart.get_state()[0] != Machine().uart.get_state()[0]
    with machine.fork(snap) as twin:
        assert twin.uart.get_state() == snap.devices["16550A UART at port 0x3f8"]
        twin.run(5)
        assert twin.regs.rbx == 0


def test_a_round_ends_at_its_limit_and_the_next_is_whole(machine: Machine) -> None:
    machine.load("start: test rdi, rdi; jnz start; mov rax, 9; hlt")
    with machine.snapshot() as snap, machine.rounds(snap, timeout=0.1) as rounds:
        begin = time.monotonic()
        assert rounds.run(rdi=1).why is Why.TIME_LIMIT
        assert 0.1 <= time.monotonic() - begin < 5
        for _ in range(3):
            assert rounds.run(rdi=0).why is Why.HALT
            assert rounds.regs.rax == 9


def test_a_stop_from_elsewhere_ends_a_round(machine: Machine) -> None:
    machine.load("start: test rdi, rdi; jnz start; hlt")
    with machine.snapshot() as snap, machine.rounds(snap) as rounds:
        rounds.run()
        machine.stop("enough")
        assert rounds.run().text == "enough"
        assert rounds.run().why is Why.HALT
        later = threading.Timer(0.2, machine.stop, ["from a thread"])
        later.start()
        assert rounds.run(rdi=1).text == "from a thread"
        later.join()
        assert rounds.run().why is Why.HALT


def test_an_interrupt_comes_out_and_the_machine_goes_on(machine: Machine) -> None:
    machine.load("start: test rdi, rdi; jnz start; hlt")
    snap = machine.snapshot()
    with machine.rounds(snap) as rounds:
        threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            rounds.run(rdi=1)
        assert rounds.run().why is Why.HALT
    machine.reset(snap)
    assert machine.run(5).stop.why is Why.HALT


def test_what_a_callback_raises_comes_out(machine: Machine) -> None:
    def refuse() -> int:
        raise LookupError("not today")

    machine.on_port_read(0x77, refuse)
    machine.load("start: test rdi, rdi; jz ended; in al, 0x77; ended: hlt")
    with machine.snapshot() as snap, machine.rounds(snap) as rounds:
        for _ in range(2):
            with pytest.raises(LookupError, match="not today"):
                rounds.run(rdi=1)
            assert rounds.run().why is Why.HALT


def test_the_machine_is_the_block_s_alone(machine: Machine) -> None:
    machine.load("hlt")
    before = files_before()
    snap = machine.snapshot()
    with machine.rounds(snap) as rounds:
        for refused in (machine.run, machine.snapshot, lambda: machine.reset(snap), lambda: machine.rounds(snap)):
            with pytest.raises(UsageError, match="run"):
                refused()
        rounds.run()
    with pytest.raises(UsageError, match="outside"):
        rounds.run()
    with pytest.raises(UsageError, match="outside"):
        rounds.reset()
    rounds.close()
    machine.reset(snap)
    assert machine.run(5).stop.why is Why.HALT
    with Machine() as other, pytest.raises(UsageError, match="another machine"):
        other.rounds(snap)
    machine.memory.add(0x40000000, 4096)
    with pytest.raises(UsageError, match="memslots"), machine.rounds(snap):
        pass
    snap.close()
    with pytest.raises(UsageError, match="closed"), machine.rounds(snap):
        pass
    machine.close()
    assert open_files() <= before


def test_a_machine_that_is_watched_has_no_rounds(machine: Machine) -> None:
    machine.load("hlt")
    snap = machine.snapshot()
    machine.observe(lambda cpu, exit: None)
    with pytest.raises(UsageError, match="observes"), machine.rounds(snap):
        pass
    with Machine(cpus=2) as two:
        two.load("hlt")
        with pytest.raises(UsageError, match="2 vCPUs"), two.rounds(two.snapshot()):
            pass


def test_many_rounds_keep_nothing(machine: Machine) -> None:
    from tests.kvm.test_snapshot import COUNTS, _private_bytes

    machine.load(COUNTS.format(pages=2))
    with machine.snapshot() as snap, machine.rounds(snap) as rounds:
        for _ in range(100):
            rounds.run()
        before = files_before(), _private_bytes()
        for _ in range(2000):
            rounds.run()
        assert open_files() == before[0]
        assert _private_bytes() - before[1] < 1 << 20

# SPDX-License-Identifier: GPL-2.0-or-later
"""What could never be called, never run or never be reached is refused, with the reason; and what can is taken."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from vmm import Machine
from vmm.abi import serial_reg as uart
from vmm.abi.x86 import PAGE
from vmm.errors import UsageError
from vmm.machine.ends import Why
from vmm.machine.extra.split_irqchip import add_ioapic
from vmm.machine.memory import layout
from vmm.machine.memory.layout import FOUR_GIB, GIB
from vmm.observe.postmortem import examine

PATIENCE = 20.0
FREE = 0xD001_0000
Ask = Callable[[Machine], object]


def nothing(value: int) -> None:
    """A callback."""


NEVER: dict[str, tuple[Ask, str]] = {
    "on RAM": (lambda m: m.on_mmio_write(0xA0000, nothing), "all of it is memory"),
    "a word on RAM": (lambda m: m.mmio_word(0xA0000), "all of it is memory"),
    "a device on RAM": (lambda m: m.platform.mmio.claim(0xA0000, 8, m.uart), "all of it is memory"),
    "a port that is no number": (lambda m: m.on_port_write(0.5, nothing), "give whole numbers"),
    "an address that is no number": (lambda m: m.on_mmio_write("0xd0001000", nothing), "give whole numbers"),
    "three bytes": (lambda m: m.on_port_read(0x80, lambda: 0, 3), "size=3"),
    "no bytes": (lambda m: m.on_mmio_read(FREE, lambda: 0, 0), "size=0"),
    "half a byte": (lambda m: m.on_port_write(0x80, nothing, 0.5), "size=0.5"),
    "no callable, port": (lambda m: m.on_port_write(0x91, 5), "5 cannot be called"),
    "no callable, MMIO": (lambda m: m.on_mmio_read(FREE, None), "None cannot be called"),
    "no callable, MSR": (lambda m: m.on_msr_read(0x1234, 5), "5 cannot be called"),
    "no callable, MSR write": (lambda m: m.on_msr_write(0x1234, "f"), "'f' cannot be called"),
    "no callable, hypercall": (lambda m: m.on_hypercall(12, 5), "something that can be called"),
    "no device": (lambda m: m.platform.ports.claim(0x80, 1, object()), "is no device"),
    "an MSR beyond 32 bits": (lambda m: m.on_msr_write(1 << 32, nothing), "number of 32 bits"),
    "an MSR that is no number": (lambda m: m.msr_word("TSC"), "number of 32 bits"),
    "a port beyond the last": (lambda m: m.on_port_write(0x1_0000, nothing), "addresses go from"),
    "a claim that no table maps": (
        lambda m: m.on_mmio_read(FOUR_GIB, lambda: 0),
        "boot page tables end at 0x100000000",
    ),
    "memory that no table maps": (lambda m: m.memory.add(FOUR_GIB, PAGE), "boot page tables end at 0x100000000"),
    "memory over a device": (
        lambda m: m.memory.add(0xD000_0000, PAGE),
        "scratch MMIO has 0xd0000000..0xd0000fff, and would never be called",
    ),
}


@pytest.mark.parametrize(("ask", "reason"), NEVER.values(), ids=NEVER)
def test_what_could_never_be_called_is_refused(ask, reason):
    with Machine() as machine:
        before = len(machine.platform.mmio.readers), len(machine.platform.ports.writers), machine.memory.slots
        with pytest.raises(UsageError, match=re.escape(reason)):
            ask(machine)
        assert (len(machine.platform.mmio.readers), len(machine.platform.ports.writers), machine.memory.slots) == before


@pytest.mark.parametrize(
    ("irqchip", "ask", "whose"),
    [
        ("kernel", lambda m: m.on_port_read(0x20, lambda: 0), "PIC"),
        ("kernel", lambda m: m.on_port_write(0xA1, nothing), "PIC"),
        ("kernel", lambda m: m.on_mmio_read(0xFEC0_0010, lambda: 0, 4), "ioapic"),
        ("kernel", lambda m: m.on_mmio_write(0xFEE0_00B0, nothing, 4), "lapic"),
        ("split", lambda m: m.on_mmio_write(0xFEE0_00B0, nothing, 4), "lapic"),
    ],
)
def test_what_kvm_answers_itself_is_refused_there_and_only_there(irqchip, ask, whose):
    with Machine(irqchip=irqchip) as machine, pytest.raises(UsageError, match=f"KVM's own {whose}"):
        ask(machine)
    with Machine() as machine:
        ask(machine)


def test_the_timer_of_kvm_answers_where_there_is_one():
    with Machine(irqchip="kernel") as machine:
        machine.on_port_read(0x40, lambda: 0)
    made = Machine(irqchip="kernel", before_vcpus=lambda machine: machine.vm.create_pit2())
    with made as machine, pytest.raises(UsageError, match="KVM's own PIT"):
        machine.on_port_read(0x40, lambda: 0)


def test_what_can_be_reached_is_taken_and_called():
    """Writes to memory that is read-only are MMIO; RAM above 4 GiB is mapped; a hole is free again."""
    with Machine() as machine:
        slot = machine.memory.add(FREE, PAGE, readonly=True)
        seen: list[int] = []
        machine.on_mmio_write(FREE, seen.append)
        with pytest.raises(UsageError, match="all of it is memory"):
            machine.on_mmio_read(FREE + 8, lambda: 0)
        machine.load("mov eax, 5; mov ebx, 0xd0010000; mov dword ptr [rbx], eax; hlt")
        assert machine.run(PATIENCE).stop.why is Why.HALT
        assert seen == [5]
        machine.memory.remove(slot)
        machine.on_mmio_read(FREE + 8, lambda: 0)
        machine.on_mmio_read(2 * 1024 * 1024 - 4, lambda: 0)  # half of it lies behind the last of RAM
        with pytest.raises(UsageError, match="would never be called"):
            machine.memory.add(FREE, PAGE)
        machine.reach.anywhere = True
        machine.on_mmio_read(8 * GIB, lambda: 0)
        machine.memory.add(9 * GIB, PAGE)


def test_a_large_machine_reaches_to_the_end_of_its_ram():
    with Machine(memory="5G") as machine:
        assert machine.reach.mapped_end == 6 * GIB
        machine.on_mmio_read(0xD001_0000, lambda: 7)
        machine.load("mov ebx, 0xd0010000; mov eax, [rbx]; mov ebx, 1; shl rbx, 32; mov [rbx], eax; hlt")
        assert machine.run(PATIENCE).stop.why is Why.HALT
        assert machine.memory.read(4 * GIB, 1) == b"\7"


# -- where a program may lie


@pytest.mark.parametrize(
    "at", [0x1000, 0x5000, 0x6000, 0x9000, 0xA000, 0x1_0000, 0x8_0000, 0xA_0000, 0x10_0000, 0x20_0000]
)
def test_a_program_where_nothing_can_run_is_refused(at):
    with Machine(memory="64M") as machine:
        before = machine.memory.read(at, 16)
        with pytest.raises(UsageError, match="region"):
            machine.load("mov al, 65; out 0xe9, al; hlt", at=at)
        assert machine.memory.read(at, 16) == before
        assert machine.program is None


@pytest.mark.parametrize("at", [0x8000, 0x2_0000, 0x7_F000])
def test_a_program_where_it_can_run_runs(at):
    with Machine() as machine:
        machine.load("mov al, 65; out 0xe9, al; hlt", at=at)
        assert machine.run(PATIENCE).console == b"A"


@pytest.mark.parametrize("cpus", [1, 2, 31])
def test_ram_behind_the_last_vcpu_is_mapped_and_a_vcpus_guard_page_is_not(cpus):
    first = layout.min_memory(cpus)
    with Machine(cpus=cpus) as machine:
        machine.load(
            f"mov ebx, {first}\nmov rax, 0x5a5a5a5a\nl:\nmov [rbx], rax\ncmp [rbx], rax\njne bad\nadd ebx, 4096\n"
            "cmp ebx, 0x200000\njb l\nhlt\nbad: ud2"
        )
        assert machine.run(PATIENCE).stop.why is Why.HALT
        machine.load(f"mov eax, [{first - 8}]\nhlt")
        assert machine.run(PATIENCE).stop.why is Why.GUEST_FAULT


def test_a_postmortem_counts_the_base_of_cs():
    with Machine(cpus=2, irqchip="split") as machine:
        machine.load("x: pause; jmp x")
        vcpu = machine.cpus[1].vcpu
        machine.memory.write(0x9_0000, b"\xeb\xfe")
        sregs = vcpu.get_sregs()
        sregs.cs.selector, sregs.cs.base = 0x9000, 0x9_0000
        vcpu.set_sregs(sregs)
        regs = vcpu.get_regs()
        regs.rip = 0
        vcpu.set_regs(regs)
        state = examine(machine, machine.run(timeout=0.05)).vcpus[1]
        assert (state.mode, state.rip, state.where) == ("real mode", 0, "user+0x10000")
        assert [line.text for line in state.code if line.here] == ["jmp 0x90000"]


# -- COM1's interrupt


def test_com1_raises_pin_4_of_the_ioapic_that_was_added():
    with Machine(irqchip="split") as machine:
        machine.uart.write(uart.UART_MCR, 1, uart.UART_MCR_OUT2)
        machine.uart.write(uart.UART_IER, 1, uart.UART_IER_THRI)  # before there is one: no harm, and not lost
        ioapic = add_ioapic(machine)
        levels = [ioapic._lines[4]]
        machine.uart.read(uart.UART_IIR, 1)
        levels.append(ioapic._lines[4])
        machine.uart.write(uart.UART_IER, 1, uart.UART_IER_RDI)
        machine.uart.feed(b"Z")
        assert [*levels, ioapic._lines[4]] == [True, False, True]
        assert machine.on_exit is None  # an IOAPIC leaves the lean way open, and cannot be unhooked by a user's on_exit

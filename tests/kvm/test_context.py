# SPDX-License-Identifier: GPL-2.0-or-later
"""What a saved state holds, put back elsewhere: inside an exit, through a pickle, devices and clock too."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import pytest

from vmm import Machine
from vmm.abi import irq
from vmm.abi import serial_reg as uart
from vmm.errors import UsageError
from vmm.kvm import irqchip
from vmm.machine import context
from vmm.machine.ends import Why
from vmm.machine.extra.split_irqchip import add_ioapic

PATIENCE = 20.0
MMIO = 0xD000_1000
DATA = 0xA0000


def moved(machine: Machine) -> context.Context:
    return pickle.loads(pickle.dumps(machine.save()))


INSIDE = {
    "push": "mov ebx, 0xd0001000; mov rsp, 0xa0010; push qword ptr [rbx]; pop rax; hlt",
    "movs": "mov esi, 0xd0001000; mov edi, 0xa0000; mov ecx, 3; rep movsq; hlt",
    "movs from there to there": "mov esi, 0xd0001000; mov edi, 0xd0001008; mov ecx, 3; rep movsd; hlt",
    "stos": "mov edi, 0xd0001000; mov eax, 7; mov ecx, 3; rep stosd; hlt",
    "ins": "mov edi, 0xa0000; mov edx, 0x80; insb; hlt",
    "rep ins": "mov edi, 0xa0000; mov ecx, 3; mov edx, 0x80; rep insw; hlt",
    "rep ins to there": "mov edi, 0xd0001000; mov ecx, 5; mov edx, 0x80; rep insw; hlt",
    "rep ins backwards to there": "std; mov edi, 0xd0001010; mov ecx, 5; mov edx, 0x80; rep insw; hlt",
    "a long rep ins": "mov edi, 0xa0000; mov ecx, 5000; mov edx, 0x80; rep insb; hlt",
    "read, changed, written": "mov ebx, 0xd0001000; mov eax, 5; lock xadd dword ptr [rbx], eax; hlt",
    "rdmsr": "mov ecx, 0x1234; rdmsr; hlt",
}


@pytest.mark.parametrize("text", INSIDE.values(), ids=INSIDE)
@pytest.mark.parametrize("by", ["exit_limit", "stop"])
def test_saved_at_every_exit_the_guest_ends_where_it_ends(text, by):
    def ended(cut: int | None) -> Any:
        numbers, calls = itertools.count(0x11), []
        kept, exits, result = None, 0, None
        while result is None or result.stop.why is not Why.HALT:
            with Machine() as machine:

                def answer(machine: Machine = machine) -> int:
                    calls.append("read")
                    if by == "stop" and len(calls) == cut:
                        machine.stop()
                    return next(numbers) & 0xFF

                machine.on_port_read(0x80, answer)
                machine.on_mmio_read(MMIO, answer, 64)
                machine.platform.mmio.claim_writes(MMIO, 64, "writes", lambda *at: calls.append(at))
                machine.on_msr_read(0x1234, answer)
                machine.load(text)
                if kept is not None:
                    machine.restore(kept)
                result = machine.run(PATIENCE, exit_limit=cut if by == "exit_limit" and not exits else None)
                exits += 1
                kept = moved(machine)
                regs = machine.regs
                end = regs.rax, regs.rcx, regs.rsi, regs.rdi, regs.rip, machine.memory.read(DATA, 0x2000), calls
        return end

    whole = ended(None)
    for cut in range(1, 9):
        assert ended(cut) == whole, cut


def test_a_context_of_another_version_is_refused(monkeypatch):
    with Machine() as machine:
        machine.load("hlt")
        monkeypatch.setattr(context, "VERSION", 99)
        data = pickle.dumps(machine.save())
        monkeypatch.undo()
        with pytest.raises(UsageError, match=f"version 99; this pyvmm reads version {context.VERSION}"):
            pickle.loads(data)


def test_plain_devices_are_in_it():
    def made() -> tuple[Machine, Any, Any]:
        machine = Machine()
        return machine, machine.port_word(0x80), machine.msr_word(0x1234)

    one, port, msr = made()
    with one:
        one.uart.write(uart.UART_LCR, 1, 0x83)
        one.uart.feed(b"typed")
        one.scratch.write(8, 4, 0x12345678)
        port.write(5)
        msr.value = 7
        saved = moved(one)
    other, port, msr = made()
    with other:
        other.restore(saved)
        assert other.uart.read(uart.UART_LCR, 1) == 0x83
        assert other.uart.unread == 5
        assert other.scratch.read(8, 4) == 0x12345678
        assert (port.value, port.writes, port.reads, msr.value) == (5, 1, 0, 7)
    with Machine() as bare, pytest.raises(UsageError, match="this one has no word at MSR 0x1234, no word at port 0x80"):
        bare.restore(saved)


def test_the_interrupt_controllers_and_the_timer_of_kvm_are_in_it():
    def made() -> Machine:
        machine = Machine(irqchip="kernel", before_vcpus=lambda machine: machine.vm.create_pit2())
        machine.load("hlt")
        return machine

    def line(machine: Machine) -> int:
        """COM1's, as the PIC has it: last_irr of struct kvm_pic_state."""
        return irqchip.get_chips(machine.vm)[0][irqchip.CHIP_OFFSET] & 1 << 4

    with made() as one, made() as other:
        mask = "mov al, 0xfe; out 0x21, al"
        one.load(f"{mask}; mov al, 0x30; out 0x43, al; mov al, 0x34; out 0x40, al; out 0x40, al; x: jmp x")
        one.run(timeout=0.3)
        one.uart.write(uart.UART_MCR, 1, uart.UART_MCR_OUT2)
        one.uart.write(uart.UART_IER, 1, uart.UART_IER_THRI)  # its line goes up
        saved = moved(one)
        assert irqchip.get_pic(other.vm) != irqchip.get_pic(one.vm)
        other.restore(saved)
        assert irqchip.get_pic(other.vm) == irqchip.get_pic(one.vm)
        assert line(other) == 1 << 4
        assert irqchip.get_pit_counts(other.vm)[0] == 0x3434
        other.uart.read(uart.UART_IIR, 1)  # drops the line: KVM has to have it up for that
        assert line(other) == 0
    with Machine(irqchip="split") as wrong, pytest.raises(UsageError, match="interrupt controllers"):
        wrong.restore(saved)


def test_the_ioapic_of_pyvmm_is_in_it_with_its_routes():
    with Machine(irqchip="split") as one, Machine(irqchip="split") as other:
        for machine in (one, other):
            machine.load("hlt")
        pair = add_ioapic(one), add_ioapic(other)
        pair[0].write(irq.IOREGSEL, 4, irq.IOAPIC_REDTBL + 2 * 5)
        pair[0].write(irq.IOWIN, 4, 0x51 | irq.RTE_LEVEL)
        pair[0].set_line(5, True)
        other.restore(moved(one))
        assert pair[1].entries == pair[0].entries
        assert pair[1].entries[5] & irq.RTE_REMOTE_IRR
        assert other.vm.routes == one.vm.routes


def test_the_clock_goes_back():
    with Machine() as machine:
        machine.load("hlt")
        machine.vm.set_clock(5_000_000_000)
        saved = moved(machine)
        machine.vm.set_clock(500_000_000_000)
        machine.restore(saved)
        assert 5_000_000_000 <= machine.vm.get_clock().clock < 300_000_000_000


def test_who_was_started_by_hand_goes_on_elsewhere():
    with Machine(cpus=2) as one, Machine(cpus=2) as other:
        one.load("start: hlt\nsecond: inc ecx\nout 0x80, al\nhlt")
        one.start(1, "second")
        saved = moved(one)
        seen: list[int] = []
        other.on_port_write(0x80, seen.append)
        other.restore(saved)
        other.run(PATIENCE)
        assert seen == [0]


def test_a_virtio_console_goes_with_its_guest():
    with Machine() as one, Machine() as other:
        for machine in (one, other):
            machine.load("hlt")
        first, second = one.add_virtio_console(print), other.add_virtio_console(print)
        first.mmio.write(0x70, 4, 3)
        first.mmio.write(0x30, 4, 1)
        first.mmio.write(0x38, 4, 16)
        first.device.send(b"waiting")
        other.restore(moved(one))
        assert (second.mmio.status, second.mmio.queues[1].size, second.device.waiting) == (3, 16, 7)

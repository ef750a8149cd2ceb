# SPDX-License-Identifier: GPL-2.0-or-later
"""irqchip_kernel, irqchip_split and irqchip_none on this host, and each with its mechanism taken away."""

from __future__ import annotations

import threading

import pytest

from guest_payloads.api import irqchip_kernel
from vmm.abi import irq
from vmm.errors import UsageError
from vmm.kvm import irqchip
from vmm.kvm.events import MsiRoute, VmEvents
from vmm.kvm.vcpu import Vcpu
from vmm.kvm.vm import Vm
from vmm.machine.ends import Why
from vmm.machine.extra.injector import Injector
from vmm.machine.extra.split_irqchip import add_ioapic
from vmm.machine.machine import Machine
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict


def verdicts(name, **options):
    return {row.name: row.verdict for row in prove(find(name), Options(**options))}


@pytest.mark.parametrize("name", ["irqchip_kernel", "irqchip_split", "irqchip_none"])
def test_works(name):
    rows = prove(find(name))
    assert [row.verdict for row in rows] == [Verdict.WORKS] * len(rows), [row.finding.reason for row in rows]
    assert all(row.topic and row.finding.evidence and row.finding.line for row in rows)


@pytest.mark.parametrize("name", ["irqchip_kernel", "irqchip_split"])
def test_with_every_input_masked_it_is_broken(name):
    assert set(verdicts(name, params={"unmask": 0}).values()) == {Verdict.BROKEN}


def test_a_line_that_nobody_drives_is_broken(monkeypatch):
    monkeypatch.setattr(Vm, "irq_line", lambda vm, gsi, level: None)
    assert set(verdicts("irqchip_kernel").values()) == {Verdict.BROKEN}


def test_a_line_that_never_falls_is_broken(monkeypatch):
    drive = Vm.irq_line
    monkeypatch.setattr(Vm, "irq_line", lambda vm, gsi, level: drive(vm, gsi, True))
    assert verdicts("irqchip_kernel")["irq_line_level"] is Verdict.BROKEN


def test_without_its_routes_kvm_tells_nothing_of_an_end(monkeypatch):
    monkeypatch.setattr(VmEvents, "change_gsi_routing", lambda vm, add, remove=(): None)
    found = verdicts("irqchip_split")
    assert found == {"irqchip_split": Verdict.WORKS, "ioapic_eoi_exit": Verdict.BROKEN}


def test_messages_that_are_not_sent_are_broken(monkeypatch):
    monkeypatch.setattr(Vm, "signal_msi", lambda vm, address, data: 0)
    assert set(verdicts("irqchip_split").values()) == {Verdict.BROKEN}


def test_without_the_window_the_interrupts_wait(monkeypatch):
    monkeypatch.setattr(Vcpu, "request_interrupt_window", lambda vcpu, on: None)
    assert verdicts("irqchip_none") == {"irqchip_none": Verdict.BROKEN}


def test_without_kvm_interrupt_it_is_broken(monkeypatch):
    monkeypatch.setattr(Vcpu, "interrupt_vector", lambda vcpu, vector: None)
    assert verdicts("irqchip_none", timeout=0.5) == {"irqchip_none": Verdict.BROKEN}


def test_the_split_ioapic_needs_a_split_irqchip():
    for kind in ("none", "kernel"):
        with Machine(irqchip=kind) as machine, pytest.raises(UsageError, match="irqchip=split"):
            add_ioapic(machine)


def test_the_split_ioapic_keeps_routes_and_hooks_of_others():
    with Machine(irqchip="split") as machine:
        seen = []
        machine.on_exit = lambda runner, exit: seen.append(type(exit).__name__)
        other = MsiRoute(40, 0xFEE00000, 0x31)
        machine.vm.set_gsi_routing([other])
        ioapic = add_ioapic(machine)
        with pytest.raises(UsageError):
            add_ioapic(machine)
        for pin, entry in ((5, irq.ioapic_rte(0x51)), (6, irq.ioapic_rte(0x52, level=True))):
            ioapic.write(irq.IOREGSEL, 4, irq.IOAPIC_REDTBL + 2 * pin)
            ioapic.write(irq.IOWIN, 4, entry)
        assert [route.gsi for route in machine.vm.routes] == [40, 5, 6]
        ioapic.write(irq.IOWIN, 4, irq.RTE_MASKED)
        assert machine.vm.routes == (other, MsiRoute(5, 0xFEE00000, 0x51))
        machine.load("out 0x80, al; mov al, 0; out 0xf4, al")
        machine.run()
        assert seen == ["PortOut", "PortOut"]


def test_the_default_routes_stay_when_one_is_added():
    """KVM_SET_GSI_ROUTING replaces all: COM1's interrupt must still reach the PIC."""
    with Machine(irqchip="kernel") as machine:
        machine.vm.change_gsi_routing([MsiRoute(40, 0xFEE00000, 0x31)])
        assert len(machine.vm.routes) == 16 + 24 + 1
        machine.vm.irq_line(4, True)
        assert irqchip.get_pic(machine.vm).irr & 1 << 4
        machine.vm.set_gsi_routing([MsiRoute(40, 0xFEE00000, 0x31)])
        machine.vm.irq_line(5, True)
        assert not irqchip.get_pic(machine.vm).irr & 1 << 5


def taking_0x51(machine, body):
    """A guest whose handler of vector 0x51 writes to port 0x80."""
    machine.load(
        f"""
            mov   edi, 0x51 * 16
            lea   rax, [rip + handler]
            mov   word ptr [rdi + 0x5000], ax
            shr   rax, 0x10
            mov   word ptr [rdi + 0x5006], ax
            sti
            {body}
            cli
            hlt
        handler:
            out   0x80, al
            iretq
        """
    )


def test_two_vectors_of_one_moment_are_both_taken():
    """KVM holds one: a second KVM_INTERRUPT before the next entry would take the first one's place."""
    with Machine() as machine:
        got = []
        taking_0x51(machine, "nop\nout 0x81, al\nnop\nout 0x82, al\nout 0x82, al\nout 0x82, al")
        injector = Injector(machine)
        machine.on_port_write(0x80, got.append)
        machine.on_port_write(0x81, lambda value: [injector.interrupt(0x51) for _ in range(2)])
        assert injector.run(lambda: None).stop.why is Why.HALT
        assert (len(got), injector.pending) == (2, ())


def test_a_vector_raised_as_the_guest_halts_wakes_it_and_nobody_is_asked():
    with Machine() as machine:
        got, asked = [], []
        taking_0x51(machine, "hlt")

        def first(runner, exit):
            if type(exit).__name__ == "Halt" and not got:
                injector.interrupt(0x51)

        machine.on_exit = first
        injector = Injector(machine)
        machine.on_port_write(0x80, got.append)
        assert injector.run(lambda: asked.append(1)).stop.why is Why.HALT
        assert (len(got), asked) == (1, [])


def test_the_injector_delivers_in_order_and_sleeps_between():
    with Machine() as machine:
        got = []
        injector = Injector(machine)
        taking_0x51(machine, "hlt\nhlt")
        machine.on_port_write(0x80, got.append)
        asked = []

        def idle():
            asked.append(1)
            return 0x51

        result = injector.run(idle)
        assert (result.stop.why, len(asked), len(got)) == (Why.HALT, 2, 2)
        assert (injector.injected, injector.pending) == ([0x51, 0x51], ())
        with pytest.raises(UsageError, match="8 bits"):
            injector.interrupt(0x100)


@pytest.mark.parametrize("chained", [True, False])
def test_an_assignment_of_on_exit_unhooks_no_injector(chained):
    with Machine() as machine:
        got, seen = [], []
        taking_0x51(machine, "nop\nout 0x81, al\nnop\nout 0x82, al\nout 0x82, al\nout 0x82, al")
        injector = Injector(machine)
        assert machine.on_exit is None
        machine.on_exit = lambda runner, exit: seen.append(exit)
        if not chained:
            machine.on_exit = None
        machine.on_port_write(0x80, got.append)
        machine.on_port_write(0x81, lambda value: [injector.interrupt(0x51) for _ in range(2)])
        assert injector.run(lambda: None).stop.why is Why.HALT
        assert (len(got), injector.pending, bool(seen)) == (2, (), chained)


def test_an_injector_with_nothing_to_deliver_leaves_the_lean_way_open():
    with Machine() as machine:
        lanes = []
        taking_0x51(machine, "out 0x82, al\nout 0x81, al\nout 0x82, al\nnop\nout 0x82, al\nout 0x82, al")
        injector = Injector(machine)
        machine.on_port_write(0x80, lambda value: None)
        machine.on_port_write(0x81, lambda value: [injector.interrupt(0x51) for _ in range(2)])
        machine.on_port_write(0x82, lambda value: lanes.append(machine.all_cpus.lane is not None))
        injector.run(lambda: None)
        assert len(injector.injected) == 2
        assert (lanes[0], lanes[-1]) == (True, True)


def test_a_vector_from_another_thread_comes_though_the_guest_never_exits():
    with Machine() as machine:
        taking_0x51(machine, "out 0x81, al\nagain: jmp again")
        injector = Injector(machine)
        machine.on_port_write(0x80, lambda value: machine.stop("taken"))
        timer = threading.Timer(0.1, injector.interrupt, (0x51,))
        machine.on_port_write(0x81, lambda value: timer.start())
        assert machine.run(timeout=10).stop.text == "taken"
        timer.join()


def test_the_injector_needs_a_machine_without_a_controller():
    with Machine(irqchip="split") as machine, pytest.raises(UsageError, match="irqchip=split"):
        Injector(machine)


def test_kvm_has_the_entries_of_its_ioapic():
    with Machine(irqchip="kernel") as machine:
        entries = irqchip.get_ioapic(machine.vm)
        assert len(entries) == 24
        assert all(entry & irq.RTE_MASKED for entry in entries)
    assert irqchip_kernel.NO_REMOTE_IRR == 0x805B

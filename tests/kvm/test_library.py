# SPDX-License-Identifier: GPL-2.0-or-later
"""The library as a script uses it: run until, registers by name, callbacks of MSRs and hypercalls, saved states."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from vmm import Machine, UsageError, Why
from vmm.abi import msrs
from vmm.errors import HostError, MissingCapability
from vmm.machine.memory import layout

COUNT = """
start:
    mov   eax, 5
again:
    inc   eax
    out   0x80, al
    jmp   again
"""
PATIENCE = 60


@pytest.fixture
def counter():
    with Machine() as machine:
        machine.load(COUNT)
        machine.seen = []
        machine.on_port_write(0x80, machine.seen.append)
        yield machine


# -- run until


def test_until_stops_before_the_instruction_and_goes_on_from_there(counter):
    for turn in range(4):
        result = counter.run(PATIENCE, until="again")
        assert result.stop.why is Why.REACHED
        assert result.vcpu == 0
        assert counter.regs.rip == counter.address("again")
        assert counter.regs.eax == 5 + turn
    assert counter.seen == [6, 7, 8]


def test_until_an_address_that_never_comes_ends_by_the_other_limits(counter):
    assert counter.run(0.1, until=0x30000).stop.why is Why.TIME_LIMIT
    assert counter.run(PATIENCE, until=0x30000, exit_limit=10).stop.why is Why.EXIT_LIMIT
    assert counter.run(0.05).stop.why is Why.TIME_LIMIT  # and no breakpoint is left behind


def test_a_breakpoint_is_gone_with_its_run(counter):
    counter.run(PATIENCE, until="again")
    assert counter.run(0.1).stop.why is Why.TIME_LIMIT
    counter.regs.rip = counter.address("start")
    assert counter.run(PATIENCE, until="again").stop.why is Why.REACHED


def test_until_a_symbol_that_is_none(counter):
    with pytest.raises(UsageError, match="no symbol 'nowhere'"):
        counter.run(until="nowhere")


def test_a_guest_that_ends_first_ends(counter):
    counter.load("hlt\nlater:\nnop\nhlt")
    assert counter.run(PATIENCE, until="later").stop.why is Why.HALT
    counter.load("here:\nhlt\nlater:\nhlt")
    counter.run(PATIENCE, until="here")
    assert counter.run(PATIENCE, until="here").stop.why is Why.HALT


def test_until_on_another_vcpu():
    with Machine(cpus=2) as machine:
        machine.load("start:\njmp start\nother:\nmov ebx, 7\nthere:\njmp there")
        machine.start(1, "other")
        result = machine.run(PATIENCE, until="there")
        assert result.stop.why is Why.REACHED
        assert result.vcpu == 1
        assert machine.cpus[1].regs.rbx == 7


def test_single_steps_are_exits_and_the_run_goes_on(counter):
    seen = []
    counter.debugger.stepping = True
    counter.on_exit = lambda runner, exit: seen.append(exit)
    counter.run(PATIENCE, exit_limit=20)
    pcs = [exit.pc - layout.REGIONS["code"].base for exit in seen if hasattr(exit, "pc")]
    assert pcs[:2] == [5, 7]
    counter.debugger.stepping = False
    assert counter.run(0.1).exits["Debug"] == 0


# -- registers


def test_registers_by_name_and_by_part(counter):
    regs = counter.regs
    regs.rax = 0x1122334455667788
    assert (regs.eax, regs.ax, regs.al, regs.ah) == (0x55667788, 0x7788, 0x88, 0x77)
    regs.al = 0xFF
    regs.ah = 0
    assert regs.rax == 0x11223344556600FF
    regs.ax = 1
    assert regs.rax == 0x1122334455660001
    regs.eax = 1  # as the CPU does: the upper half is cleared
    assert regs.rax == 1
    regs.r8b, regs.r15w, regs.r9d, regs.sil = 1, 2, 3, 4
    assert (regs.r8, regs.r15, regs.r9, regs.rsi & 0xFF) == (1, 2, 3, 4)
    regs.rbx = -1
    assert regs.rbx == (1 << 64) - 1


def test_system_registers(counter):
    regs = counter.regs
    assert regs.cr0 & 1
    assert regs.efer & 0x400
    assert regs.cs == 8
    regs.fs_base = 0x12345
    regs.cr2 = 0x6000
    assert (regs.fs_base, regs.cr2, regs.fs) == (0x12345, 0x6000, regs.ds)
    assert {"rax", "al", "r8d", "cr3", "gs_base", "cs"} <= set(dir(regs))


def test_what_is_no_register(counter):
    with pytest.raises(UsageError, match=r"'rxa'; did you mean"):
        _ = counter.regs.rxa
    with pytest.raises(UsageError, match="'eaz'"):
        counter.regs.eaz = 1
    with pytest.raises(UsageError, match="it has 8 bits"):
        counter.regs.al = 256
    with pytest.raises(UsageError, match="it has 64 bits"):
        counter.regs.rax = 1 << 64
    assert not hasattr(counter.regs, "__wrapped__")


def test_a_callback_sees_the_registers_and_may_set_them(counter):
    counter.load("mov ecx, 77\nmov ebx, 1\nout 0x90, al\nmov eax, ebx\nout 0x80, al\nhlt")

    def hook(value):
        assert counter.current.regs.ecx == 77
        counter.current.regs.ebx = 42

    counter.on_port_write(0x90, hook)
    assert counter.run(PATIENCE).stop.why is Why.HALT
    assert counter.seen == [42]


def test_a_callback_whose_value_is_waited_for_may_read_and_not_set(counter):
    counter.load("mov ecx, 77\nin al, 0x90\nout 0x80, al\nhlt")
    refused = []

    def hook():
        try:
            counter.current.regs.ebx = 1
        except UsageError as error:
            refused.append(str(error))
        return counter.current.regs.ecx

    counter.on_port_read(0x90, hook)
    assert counter.run(PATIENCE).stop.why is Why.HALT
    assert counter.seen == [77]
    assert "waits for this callback's value" in refused[0]


def test_registers_of_a_running_vcpu_are_refused(counter):
    wrong = []

    def look():
        try:
            _ = counter.regs.rax
        except UsageError as error:
            wrong.append(str(error))
        counter.stop()

    timer = threading.Timer(0.1, look)
    timer.start()
    counter.run(PATIENCE)
    timer.join()
    assert "is running" in wrong[0]


# -- MSRs and hypercalls

ACCESS = "mov ecx, {read}\nrdmsr\nout 0x80, al\nmov ecx, {write}\nmov eax, 7\nxor edx, edx\nwrmsr\nhlt"


@pytest.mark.parametrize("index", [0x1234, 0x174, 0xC0000103, 0x4B564D01])
def test_an_msr_of_ones_own(counter, index):
    counter.load(ACCESS.format(read=hex(index), write=hex(index)))
    counter.on_msr_read(index, lambda: 0x42)
    counter.on_msr_write(index, counter.seen.append)
    result = counter.run(PATIENCE)
    assert (result.stop.why, counter.seen) == (Why.HALT, [0x42, 7])
    assert (result.exits["ReadMsr"], result.exits["WriteMsr"]) == (1, 1)


def test_only_what_has_a_callback_is_handed_over(counter):
    """Reads of one, writes of another: the rest is KVM's as before."""
    counter.load(ACCESS.format(read="0x174", write="0x175").replace("hlt", "rdmsr\nout 0x80, al\nhlt"))
    counter.on_msr_read(0x174, lambda: 0x42)
    result = counter.run(PATIENCE)
    assert counter.seen == [0x42, 7]
    assert result.exits["ReadMsr"] == 1
    assert isinstance(result.exits, Counter)
    assert sum([result.exits, result.exits], Counter())["ReadMsr"] == 2
    assert result.exits["WriteMsr"] == 0


@pytest.mark.parametrize("refuse", ["read", "write"])
def test_a_refused_access_is_a_general_protection_fault(counter, refuse):
    counter.load(ACCESS.format(read="0x174", write="0x174"))
    counter.on_msr_read(0x174, lambda: None if refuse == "read" else 1)
    counter.on_msr_write(0x174, lambda value: False)
    assert counter.run(PATIENCE).stop.why is Why.GUEST_FAULT


def test_msrs_far_apart_take_ranges_and_there_are_sixteen(counter):
    for number in range(16):
        counter.on_msr_write(0x4000 * number, lambda value: True)
    with pytest.raises(UsageError, match="16 ranges"):
        counter.on_msr_write(0x4000 * 16, lambda value: True)
    counter.on_msr_write(5, lambda value: True)  # fits in a range that is there


def test_x2apic_registers_are_never_handed_over(counter):
    with pytest.raises(UsageError, match="x2APIC"):
        counter.on_msr_read(0x80B, lambda: 0)


def test_a_hypercall_that_kvm_keeps(counter):
    if not counter.vm.check_extension("EXIT_HYPERCALL"):
        pytest.skip("no KVM_CAP_EXIT_HYPERCALL")
    counter.on_hypercall(12, lambda *args: 0)
    assert counter.vm.enabled["EXIT_HYPERCALL"] == (1 << 12,)
    with pytest.raises(MissingCapability, match="passes on only"):
        counter.on_hypercall(5, lambda *args: 0)


# -- states


def test_a_state_is_restored_as_often_as_one_likes(counter):
    counter.run(PATIENCE, until="again")
    counter.run(PATIENCE, until="again")
    counter.memory.write(0xA0000, b"before")
    state = counter.save()
    for _ in range(3):
        counter.memory.write(0xA0000, b"after!")
        counter.run(PATIENCE, until="again")
        counter.regs.rsp = 0
        counter.restore(state)
        assert counter.regs.eax == 6
        assert counter.regs.rsp != 0
        assert counter.memory.read(0xA0000, 6) == b"before"
    assert counter.seen == [6, 7, 7, 7]


def test_a_state_taken_inside_an_exit(counter):
    """The run ended inside an OUT: what is saved is the state after it."""
    counter.platform.ports.release(0x80)
    counter.on_port_write(0x80, lambda value: (counter.seen.append(value), counter.stop()))
    counter.run(PATIENCE)
    state = counter.save()
    counter.run(PATIENCE)
    counter.restore(state)
    counter.run(PATIENCE)
    assert counter.seen == [6, 7, 7]


def test_a_state_restored_inside_an_exit(counter):
    """The read that the guest was inside of, because its callback failed, is forgotten and done again."""
    counter.load("mov eax, 7\nout 0x90, al\nin al, 0x91\nout 0x80, al\nhlt")
    reads = []

    def read():
        reads.append(1)
        if len(reads) < 3:
            raise ValueError("not yet")
        return 0x53

    counter.on_port_write(0x90, lambda value: counter.stop())
    counter.on_port_read(0x91, read)
    counter.run(PATIENCE)
    state = counter.save()
    for _ in range(2):
        with pytest.raises(ValueError, match="not yet"):
            counter.run(PATIENCE)
        counter.restore(state)
        assert counter.regs.al == 7
    assert counter.run(PATIENCE).stop.why is Why.HALT
    assert (len(reads), counter.seen) == (3, [0x53])


@pytest.mark.parametrize("irqchip", ["none", "split", "kernel"])
def test_fpu_msrs_and_every_vcpu_are_in_it(irqchip):
    with Machine(cpus=2, irqchip=irqchip) as machine:
        machine.load("start:\nmov ecx, 0xc0000082\nmov eax, 0x1000\nxor edx, edx\nwrmsr\nthere:\nout 0x80, al\nhlt")
        machine.run(PATIENCE, until="there")
        machine.cpus[1].regs.rbx = 5
        area = bytearray(machine.cpus[0].vcpu.get_xsave())
        area[160:168] = b"\1\2\3\4\5\6\7\x08"  # XMM0
        area[512] |= 0b11  # XSTATE_BV: x87 and SSE are not in their initial state (Intel SDM vol. 1, 13.4.2)
        machine.cpus[0].vcpu.set_xsave(bytes(area))
        state = machine.save()
        lstar = next(row.number for row in msrs.MSRS if row.name == "MSR_LSTAR")
        machine.cpus[0].vcpu.set_msrs({lstar: 0})
        area[160:168] = bytes(8)
        machine.cpus[0].vcpu.set_xsave(bytes(area))
        machine.cpus[1].regs.rbx = 0
        machine.restore(state)
        assert machine.cpus[0].vcpu.get_msrs([lstar]) == {lstar: 0x1000}
        assert machine.cpus[0].vcpu.get_xsave()[160:168] == b"\1\2\3\4\5\6\7\x08"
        assert machine.cpus[1].regs.rbx == 5
        assert (state.vcpus[0].lapic is None) == (irqchip == "none")


def test_another_machine_of_the_same_shape_takes_it(counter):
    counter.run(PATIENCE, until="again")
    counter.regs.eax = 0x20
    state = counter.save()
    with Machine() as other:
        other.restore(state)
        seen = []
        other.on_port_write(0x80, lambda value: (seen.append(value), other.stop()))
        other.run(PATIENCE)
        assert seen == [0x21]


def test_a_machine_of_another_shape_does_not(counter):
    state = counter.save()
    for options in ({"cpus": 2}, {"memory": "4M"}):
        with Machine(**options) as other, pytest.raises(UsageError, match="another machine"):
            other.restore(state)


def test_no_state_of_a_running_or_closed_machine(counter):
    wrong = []

    def hook(value):
        for act in (counter.save, lambda: counter.restore(None)):
            try:
                act()
            except UsageError as error:
                wrong.append(str(error))
        counter.stop()

    counter.platform.ports.release(0x80)
    counter.on_port_write(0x80, hook)
    counter.run(PATIENCE)
    assert ["is running" in each for each in wrong] == [True, True]
    counter.close()
    with pytest.raises(HostError, match="closed"):
        counter.save()


# -- text


def test_a_single_line_may_hold_many_statements(counter):
    counter.load("mov al, 42; out 0x80, al; hlt")
    counter.run(PATIENCE)
    assert counter.seen == [42]
    program = counter.load('.asciz "a;b"; hlt')
    assert program.code == b"a;b\0\xf4"
    program = counter.load("nop ; a comment; hlt\nhlt")
    assert program.code == b"\x90\xf4"


def test_the_devices_of_a_machine_can_be_given_up():
    with Machine() as m:
        m.platform.ports.release(m.uart)
        m.platform.mmio.release(m.scratch)
        assert m.platform.ports.reader_at(0x3F8) is None
        assert m.platform.mmio.reader_at(layout.REGIONS["scratch_mmio"].base) is None


def test_a_device_that_is_made_late_has_the_name_it_is_claimed_under():
    with Machine() as m:
        names = {claim.base: claim.name for bus in (m.platform.ports, m.platform.mmio) for claim in bus.readers}
        assert names[0x3F8] == m.uart.name
        assert names[layout.REGIONS["scratch_mmio"].base] == m.scratch.name


def test_a_cpu_has_its_registers_local_apic_and_state():
    with Machine(cpus=2, irqchip="split") as m:
        m.load("mov eax, 7; hlt")
        m.run(timeout=5)
        boot, other = m.cpus
        assert boot.regs.eax == 7
        assert (boot.index, other.index) == (0, 1)
        assert boot.lapic["ID"] == 0
        assert boot.lapic == boot.lapic
        assert boot.lapic.irr == boot.lapic.isr == ()
        with pytest.raises(KeyError, match="NOT: no register of the local APIC; there are ID"):
            boot.lapic["NOT"]
        assert other.state == "KVM_MP_STATE_UNINITIALIZED"


def test_the_old_name_of_the_cpus():
    with Machine() as m, pytest.warns(DeprecationWarning, match=r"Machine\.runners is called Machine\.cpus"):
        assert m.runners is m.cpus


def test_off_the_place_of_until_everything_counts_as_in_any_run():
    """Stepping off the place where it stands already: exits are counted and limited, the limit of time is one."""
    with Machine() as m:
        m.load("start: out 0x80, al; out 0x80, al; jmp start")
        m.on_port_write(0x80, lambda value: None)
        seen = []
        m.observe(lambda cpu, exit: seen.append(exit))
        assert m.run(5, until="start", exit_limit=1).stop.why is Why.EXIT_LIMIT
        result = m.run(5, until="start", exit_limit=9)
        assert result.stop.why is Why.REACHED
        assert sum(result.counts.values()) == len(seen) - 1 == 2, "the OUT and the end of the run; one OUT was before"


def test_a_hook_that_raises_on_the_way_off_leaves_no_step_behind():
    with Machine() as m:
        m.load("start: out 0x80, al; nop; nop; hlt")
        turns = iter([0, 1])
        m.on_port_write(0x80, lambda value: 1 // next(turns))
        with pytest.raises(ZeroDivisionError):
            m.run(5, until="start")
        m.start(0, "start")
        assert m.run(5).stop.why is Why.HALT


def test_a_full_console_on_the_way_off_is_a_result():
    with Machine(console_limit=1) as m:
        m.coalesce_console()
        program = m.load("mov al, 0x41; out 0xe9, al; nop; here: out 0xe9, al; nop; hlt")
        m.cpus[0].vcpu.set_guest_debug(breakpoints=[program.symbols["here"]])
        assert m.run(5).stop.why is Why.DEBUG
        assert m.run(5).stop.why is Why.OUTPUT_LIMIT


def test_until_the_next_time_while_it_steps():
    with Machine() as m:
        m.load("start: nop; inc ebx; jmp start")
        m.debugger.stepping = True
        m.regs.ebx = 0
        for times in (1, 2):
            result = m.run(5, until="start")
            assert result.stop.why is Why.REACHED
            assert m.regs.ebx == times
            assert result.counts["Debug"] == 3, "each instruction, and at the place itself that of the breakpoint"

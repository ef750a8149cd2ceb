# SPDX-License-Identifier: GPL-2.0-or-later
"""The vCPU descriptor: each ioctl by its effect (set then get, or the errno), KVM_RUN and the completion of exits."""

from __future__ import annotations

import errno
import threading
import time
from dataclasses import replace

import pytest

from vmm.abi.cpuid import CpuidEntry
from vmm.abi.msrs import msr
from vmm.errors import HostError, KvmCallError, MissingCapability, UsageError
from vmm.kvm import kick
from vmm.kvm.exits import Debug, Halt, Interrupted, MmioRead, MmioWrite, PortIn, PortOut
from vmm.kvm.state import DebugRegs, Table

pytestmark = pytest.mark.every_host

TSC, SYSENTER_CS, SYSENTER_ESP = 0x10, 0x174, 0x175
NO_SUCH_MSR = 0xDEAD_0000


@pytest.fixture
def vcpu(vm):
    return vm.create_vcpu(0)


@pytest.fixture
def lapic_vcpu(vm):
    vm.enable_cap("SPLIT_IRQCHIP", 24)
    return vm.create_vcpu(0)


def refused(call: str, err: int, do, *args) -> None:
    with pytest.raises(KvmCallError) as caught:
        do(*args)
    assert (caught.value.call, caught.value.errno) == (call, err)
    assert "vCPU 0" in str(caught.value)


# -- state


def test_start_registers_name_the_one_that_does_not_fit(vcpu):
    with pytest.raises(UsageError, match=r"regs\.rsp: .*does not fit"):
        vcpu.start_regs({"rip": 0x20000, "rsp": 1 << 64})
    vcpu.start_regs({"rip": 0x20000, "rflags": 2})
    regs = vcpu.get_regs()
    assert (regs.rip, regs.rsp, regs.rflags) == (0x20000, 0, 2)


def test_registers_come_back(vcpu):
    before = vcpu.get_regs()
    names = [name for name in before.__slots__ if name != "rflags"]
    wanted = replace(
        before, **{name: 0x1111_0000_0000_0001 * (i % 15 + 1) & (1 << 63) - 1 for i, name in enumerate(names)}
    )
    vcpu.set_regs(wanted)
    assert vcpu.get_regs() == wanted
    with pytest.raises(UsageError, match=r"regs\.rax"):
        vcpu.set_regs(replace(before, rax=1 << 64))


def test_segments_and_controls_come_back(vcpu):
    wanted = vcpu.get_sregs()
    wanted.cs.base, wanted.ds.selector, wanted.cr2 = 0x1_0000, 0x18, 0xDEAD_B000
    wanted.gdt, wanted.idt = Table(0x1000, 0x7F), Table(0x2000, 0xFFF)
    vcpu.set_sregs(wanted)
    assert vcpu.get_sregs() == wanted


def test_controls_that_no_cpu_allows_are_refused(vcpu):
    wrong = vcpu.get_sregs()
    wrong.efer, wrong.cr0, wrong.cr4 = 1 << 8 | 1 << 10, wrong.cr0 | 1 << 31 | 1, 0  # long mode without PAE
    refused("KVM_SET_SREGS", errno.EINVAL, vcpu.set_sregs, wrong)


def test_the_fpu_comes_back(vcpu):
    data = bytearray(vcpu.get_fpu())
    data[0:10] = bytes(range(1, 11))  # ST0
    data[0x100 - 0x60 : 0x110 - 0x60] = data[0x100 - 0x60 : 0x110 - 0x60]
    vcpu.set_fpu(bytes(data))
    assert vcpu.get_fpu()[:10] == bytes(range(1, 11))
    with pytest.raises(UsageError, match="416 bytes, and 3"):
        vcpu.set_fpu(b"abc")


def test_the_xsave_area_comes_back(vcpu):
    data = bytearray(vcpu.get_xsave())
    assert len(data) == 4096
    data[160:176] = bytes(range(16))  # XMM0
    data[512] |= 3  # XSTATE_BV: x87 and SSE
    vcpu.set_xsave(bytes(data))
    assert vcpu.get_xsave()[160:176] == bytes(range(16))
    with pytest.raises(UsageError, match="4096 bytes or more, not 4095"):
        vcpu.set_xsave(bytes(4095))


def test_the_large_xsave_area_starts_with_the_small_one(vm, vcpu):
    size = vm.check_extension("XSAVE2")
    if not size:
        pytest.skip("this host's KVM lacks KVM_CAP_XSAVE2 (208)")
    large = vcpu.get_xsave2(size)
    assert len(large) == max(size, 4096)
    assert large[:512] == vcpu.get_xsave()[:512]
    vcpu.set_xsave(large)


def test_xcr0_comes_back(kvm, vcpu):
    vcpu.set_cpuid2(kvm.get_supported_cpuid())
    vcpu.set_xcrs({0: 3})
    assert vcpu.get_xcrs() == {0: 3}
    refused("KVM_SET_XCRS", errno.EINVAL, vcpu.set_xcrs, {0: 2})  # x87 can never be off
    with pytest.raises(UsageError, match="17 XCRs"):
        vcpu.set_xcrs(dict.fromkeys(range(17), 0))


def test_debug_registers_come_back(vcpu):
    wanted = DebugRegs((0x1000, 0x2000, 0x3000, 0x4000), 0xFFFF_0FF0, 0x403)
    vcpu.set_debugregs(wanted)
    assert vcpu.get_debugregs() == wanted
    with pytest.raises(UsageError, match="kvm_debugregs"):
        vcpu.set_debugregs(replace(wanted, dr7=-1))


def test_cpuid_comes_back_and_is_frozen_by_the_first_run(real_mode, kvm):
    vcpu = real_mode().vcpu
    wanted = [*kvm.get_supported_cpuid(), CpuidEntry(0x4000_7777, 0, 0, 1, 2, 3, 4)]
    vcpu.set_cpuid2(wanted)
    assert CpuidEntry(0x4000_7777, 0, 0, 1, 2, 3, 4) in vcpu.get_cpuid2()
    assert vcpu.run() == Halt()
    refused("KVM_SET_CPUID2", errno.EINVAL, vcpu.set_cpuid2, wanted[:-1])


def test_too_much_cpuid_is_refused(vcpu):
    refused("KVM_SET_CPUID2", errno.E2BIG, vcpu.set_cpuid2, [CpuidEntry(i) for i in range(300)])


def test_msrs_come_back(vcpu):
    # 32 bits of SYSENTER_ESP: Linux 6.1 on SVM keeps no more for a vCPU that is not Intel's.
    wanted = {SYSENTER_CS: 0x10, SYSENTER_ESP: 0x5678_9ABC, msr("MSR_LSTAR").number: 0x1234_5678_9ABC}
    assert vcpu.set_msrs(wanted) == 3
    assert vcpu.get_msrs(list(wanted)) == wanted


def test_the_first_refused_msr_ends_the_list(vcpu):
    assert vcpu.set_msrs({SYSENTER_CS: 0x33, NO_SUCH_MSR: 1, SYSENTER_ESP: 0x44}) == 1
    assert vcpu.get_msrs([SYSENTER_CS, SYSENTER_ESP]) == {SYSENTER_CS: 0x33, SYSENTER_ESP: 0}
    assert vcpu.get_msrs([SYSENTER_CS, NO_SUCH_MSR, SYSENTER_ESP]) == {SYSENTER_CS: 0x33}
    assert vcpu.get_msrs([NO_SUCH_MSR]) == {}
    assert vcpu.get_msrs([]) == {}


# -- interrupts and events


def test_the_lapic_comes_back(lapic_vcpu):
    data = bytearray(lapic_vcpu.get_lapic())
    assert len(data) == 1024
    data[0x80] = 0x20  # task priority
    lapic_vcpu.set_lapic(bytes(data))
    assert lapic_vcpu.get_lapic()[0x80] == 0x20
    with pytest.raises(UsageError, match="1024 bytes, and 1"):
        lapic_vcpu.set_lapic(b"x")


def test_without_a_lapic_there_is_none_to_read(vcpu):
    refused("KVM_GET_LAPIC", errno.EINVAL, vcpu.get_lapic)


def test_the_run_state_comes_back(lapic_vcpu):
    assert lapic_vcpu.get_mp_state() == 0
    lapic_vcpu.set_mp_state(3)  # KVM_MP_STATE_HALTED
    assert lapic_vcpu.get_mp_state() == 3
    refused("KVM_SET_MP_STATE", errno.EINVAL, lapic_vcpu.set_mp_state, 77)


def test_events_come_back(vcpu):
    events = vcpu.get_vcpu_events()
    events.nmi_masked, events.nmi_pending, events.flags = 1, 1, 1
    vcpu.set_vcpu_events(events)
    got = vcpu.get_vcpu_events()
    assert (got.nmi_masked, got.nmi_pending) == (1, 1)
    refused("KVM_SET_VCPU_EVENTS", errno.EINVAL, vcpu.set_vcpu_events, replace(events, flags=0xFFFF_0000))


def test_an_nmi_reaches_the_guest(real_mode):
    guest = real_mode(bytes.fromhex("f4"))
    guest.memory.bytes[2 * 4 : 2 * 4 + 4] = b"\x00\x20\x00\x00"  # vector 2 -> 0000:2000
    guest.memory.bytes[0x2000:0x2004] = bytes.fromhex("b05ae681")  # mov al, 0x5a; out 0x81, al
    guest.vcpu.nmi()
    assert guest.vcpu.run() == PortOut(0x81, 1, b"\x5a")


def test_an_interrupt_is_queued_without_a_lapic(real_mode):
    guest = real_mode(bytes.fromhex("fb90f4"))  # sti; nop; hlt
    guest.memory.bytes[0x30 * 4 : 0x30 * 4 + 4] = b"\x00\x20\x00\x00"
    guest.memory.bytes[0x2000:0x2004] = bytes.fromhex("b05ae681")  # mov al, 0x5a; out 0x81, al
    regs = guest.vcpu.get_regs()
    regs.rflags |= 1 << 9
    guest.vcpu.set_regs(regs)
    guest.vcpu.interrupt_vector(0x30)
    assert guest.vcpu.run() == PortOut(0x81, 1, b"\x5a")
    with pytest.raises(UsageError, match="kvm_interrupt"):
        guest.vcpu.interrupt_vector(-1)


def test_an_interrupt_is_not_ours_to_queue_with_a_lapic(vm):
    vm.create_irqchip()
    refused("KVM_INTERRUPT", errno.ENXIO, vm.create_vcpu(0).interrupt_vector, 0x30)


# -- capabilities, time, translation, attributes


def test_a_capability_of_the_vcpu_is_enabled_by_name(vcpu):
    vcpu.enable_cap("ENFORCE_PV_FEATURE_CPUID", 1)
    refused("KVM_ENABLE_CAP", errno.EINVAL, vcpu.enable_cap, "SPLIT_IRQCHIP", 24)
    with pytest.raises(UsageError, match="ENFORCE_PV_FEATURE_CPUID"):
        vcpu.enable_cap("ENFORCE_PV_FEATURE_CPUIDS", 1)


def test_the_tsc_has_a_frequency(vm, vcpu):
    khz = vcpu.get_tsc_khz()
    assert 100_000 < khz < 20_000_000
    vcpu.set_tsc_khz(khz)
    assert vcpu.get_tsc_khz() == khz
    try:
        vm.require("TSC_CONTROL", "scaling")
    except MissingCapability:
        return  # no scaling here: nothing but its own frequency can be set
    vcpu.set_tsc_khz(khz // 2)
    assert vcpu.get_tsc_khz() == khz // 2


def test_pausing_is_told_only_to_a_guest_with_a_clock(vcpu):
    refused("KVM_KVMCLOCK_CTRL", errno.EINVAL, vcpu.kvmclock_ctrl)


def test_translation_without_paging_is_the_identity(real_mode):
    assert real_mode().vcpu.translate(0x1234) == 0x1234


def test_translation_walks_the_guests_tables(booted):
    vcpu = booted(b"\xf4").cpus[0].vcpu
    assert vcpu.translate(0x2_0123) == 0x2_0123
    assert vcpu.translate(0) is None  # the null page is not mapped


def test_the_tsc_offset_is_an_attribute(vcpu):
    refused("KVM_GET_DEVICE_ATTR", errno.ENXIO, vcpu.get_device_attr, 0, 99)
    refused("KVM_SET_DEVICE_ATTR", errno.ENXIO, vcpu.set_device_attr, 99, 0, 1)
    with pytest.raises(UsageError, match="cannot hold"):
        vcpu.set_device_attr(0, 0, -1)
    vcpu.set_device_attr(0, 0, 0x1234_5678)  # KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET
    got = vcpu.get_device_attr(0, 0)
    vcpu.set_msrs({TSC: 5})
    if got == 0 and vcpu.get_msrs([TSC])[TSC] > 1 << 32:
        pytest.skip("guests of this host run on the host's own TSC: no offset can be set")
    assert got == 0x1234_5678


# -- KVM_RUN


def test_the_gil_is_free_while_a_guest_spins(real_mode):
    guest = real_mode(bytes.fromhex("ebfe"))  # jmp $
    counted, stop = [0], threading.Event()
    tid, before = kick.thread_id(), guest.vcpu.bound()
    guest.vcpu.bind()

    def count() -> None:
        started = time.monotonic()
        while time.monotonic() - started < 0.1:
            counted[0] += 1
        while not stop.wait(0.01):
            kick.kick(tid)

    kick.install()
    thread = threading.Thread(target=count)
    thread.start()
    try:
        assert guest.vcpu.run() == Interrupted(errno.EINTR)
        assert counted[0] > 100  # with the GIL held it could not even have started
    finally:
        stop.set()
        thread.join()
        guest.vcpu.unbind(before)


def test_an_interrupt_before_the_run_is_not_lost(real_mode):
    vcpu = real_mode(bytes.fromhex("ebfe")).vcpu  # jmp $
    vcpu.interrupt()
    assert vcpu.run() == Interrupted(errno.EINTR)


def test_an_interrupt_can_be_taken_back(real_mode):
    vcpu = real_mode().vcpu
    vcpu.interrupt()
    vcpu.clear_interrupt()
    assert vcpu.run() == Halt()


def test_a_kick_between_bind_and_run_is_not_lost(real_mode):
    vcpu = real_mode(bytes.fromhex("ebfe")).vcpu  # jmp $
    kick.install()
    before = vcpu.bound()
    vcpu.bind()
    try:
        kick.kick(kick.thread_id())  # handled here and now, before KVM_RUN
        assert vcpu.run() == Interrupted(errno.EINTR)
    finally:
        vcpu.unbind(before)


def test_a_guest_in_memory_that_is_not_there(real_mode):
    # mov bx, 0x1000; mov ds, bx; mov eax, [0x10]; mov [0x14], eax; hlt
    vcpu = real_mode(bytes.fromhex("bb0010 8edb 66a11000 66a31400 f4")).vcpu
    exit = vcpu.run()
    assert exit == MmioRead(0x1_0010, 4)
    vcpu.reply(exit, b"\x78\x56\x34\x12")
    assert vcpu.run() == MmioWrite(0x1_0014, b"\x78\x56\x34\x12")
    assert vcpu.run() == Halt()


def test_a_failed_run_that_no_exit_explains_is_an_error(real_mode):
    guest = real_mode()
    guest.vcpu._area[288:296] = b"\xff" * 8  # kvm_valid_regs: bits that no kernel knows, so EINVAL
    refused("KVM_RUN", errno.EINVAL, guest.vcpu.run)
    guest.vcpu._area[288:296] = bytes(8)
    assert guest.vcpu.run() == Halt()


# -- completing what the guest is inside of


def test_registers_are_true_after_complete(real_mode):
    vcpu = real_mode(bytes.fromhex("b041 e680 f4")).vcpu  # mov al, 0x41; out 0x80, al; hlt
    assert vcpu.run() == PortOut(0x80, 1, b"A")
    vcpu.complete()
    assert vcpu.get_regs().rip == 0x1004
    vcpu.complete()  # nothing left to do
    assert vcpu.get_regs().rip == 0x1004
    assert vcpu.run() == Halt()


def test_an_answer_is_in_the_register_after_complete(real_mode):
    vcpu = real_mode(bytes.fromhex("e580 f4")).vcpu  # in ax, 0x80; hlt
    exit = vcpu.run()
    assert exit == PortIn(0x80, 2, 1)
    vcpu.reply(exit, b"\x34\x12")
    vcpu.complete()
    assert (vcpu.get_regs().rax & 0xFFFF, vcpu.get_regs().rip) == (0x1234, 0x1002)
    assert vcpu.run() == Halt()


@pytest.mark.parametrize("complete", [False, True], ids=["just run", "complete after each exit"])
@pytest.mark.parametrize(
    ("opcode", "size"),
    [  # a byte each is 8,192 exits: where the CPU is emulated, minutes
        pytest.param("6e", 1, marks=pytest.mark.on_demand),
        pytest.param("6f", 2, marks=pytest.mark.on_demand),
        ("666f", 4),
    ],
)
def test_string_output_loses_no_exit(real_mode, opcode, size, complete):
    """REP OUTS of more than a page: how many exits it takes is the host's choice, the bytes are not."""
    count = 8192 // size
    # mov si, 0x2000; mov cx, COUNT; mov dx, 0x80; cld; rep outs; hlt
    code = bytes.fromhex("be0020 b9") + count.to_bytes(2, "little") + bytes.fromhex("ba8000 fc f3" + opcode + "f4")
    guest = real_mode(code)
    data = bytes(i * 13 & 0xFF for i in range(8192))
    guest.memory.bytes[0x2000:0x4000] = data
    got = b""
    while (exit := guest.vcpu.run()) != Halt():
        assert isinstance(exit, PortOut)
        assert (exit.port, exit.size) == (0x80, size)
        got += exit.data
        if complete:
            guest.vcpu.complete()
            assert guest.vcpu.get_regs().rcx & 0xFFFF == count - len(got) // size
    assert got == data
    assert guest.vcpu.get_regs().rcx & 0xFFFF == 0


def test_string_input_loses_no_exit(real_mode):
    # push ds; pop es; mov di, 0x2000; mov cx, 5000; mov dx, 0x80; cld; rep insb; hlt
    guest = real_mode(bytes.fromhex("1e07 bf0020 b98813 ba8000 fc f36c f4"))
    fed = 0
    while (exit := guest.vcpu.run()) != Halt():
        assert isinstance(exit, PortIn)
        guest.vcpu.reply(exit, bytes((fed + i) * 7 & 0xFF for i in range(exit.count)))
        fed += exit.count
        guest.vcpu.complete()
    assert fed == 5000
    assert guest.memory.bytes[0x2000 : 0x2000 + 5000] == bytes(i * 7 & 0xFF for i in range(5000))


def test_an_mmio_access_across_a_page_is_completed_in_parts(real_mode):
    # mov bx, 0x1000; mov ds, bx; mov eax, [0x0ffe]; hlt
    vcpu = real_mode(bytes.fromhex("bb0010 8edb 66a1fe0f f4")).vcpu
    parts = []
    while (exit := vcpu.run()) != Halt():
        assert isinstance(exit, MmioRead)
        parts.append((exit.address, exit.size))
        vcpu.reply(exit, b"\x11\x22\x33\x44"[: exit.size])
        vcpu.complete()
    assert sum(size for _, size in parts) == 4
    assert parts[0][0] == 0x1_0FFE
    expected = 0x2211_2211 if len(parts) == 2 else 0x4433_2211
    assert vcpu.get_regs().rax & 0xFFFF_FFFF == expected


# -- the end


def test_after_close_nothing_can_be_asked(real_mode):
    vcpu = real_mode().vcpu
    exit = PortIn(1, 1, 1)
    vcpu.close()
    vcpu.close()
    vcpu.interrupt()  # a late kick of a thread that has not heard is no error
    for ask in (
        vcpu.run,
        vcpu.complete,
        vcpu.bind,
        vcpu.clear_interrupt,
        vcpu.get_regs,
        vcpu.get_stats,
        vcpu.nmi,
        lambda: vcpu.reply(exit, b"x"),
    ):
        with pytest.raises(HostError, match="vCPU 0 has been closed"):
            ask()


# -- debugging


def test_single_step_exits_after_each_instruction(real_mode):
    vcpu = real_mode(bytes.fromhex("90 90 f4")).vcpu  # nop; nop; hlt
    vcpu.set_guest_debug(singlestep=True)
    first, second = vcpu.run(), vcpu.run()
    assert (first.pc, second.pc) == (0x1001, 0x1002)
    assert first.dr6 >> 14 & 1
    vcpu.set_guest_debug()
    assert vcpu.run() == Halt()


def test_a_breakpoint_exits_before_its_instruction(real_mode):
    vcpu = real_mode(bytes.fromhex("40 40 40 40 f4")).vcpu  # four times inc ax; hlt
    vcpu.set_guest_debug(breakpoints=[0x1003, 0x1001])
    exit = vcpu.run()
    assert isinstance(exit, Debug), f"none ever gives a debug exit: {exit}"
    assert exit.pc == 0x1001
    assert exit.dr6 & 0xF == 2  # the second of the two
    assert vcpu.get_regs().rax == 1
    with pytest.raises(UsageError, match="5 breakpoints"):
        vcpu.set_guest_debug(breakpoints=range(5))
    vcpu.set_guest_debug()
    assert vcpu.run() == Halt()


def test_which_exits_wait_for_a_reply(real_mode):
    vcpu = real_mode(bytes.fromhex("e680 e480 f4")).vcpu  # out 0x80, al; in al, 0x80; hlt
    vcpu.run()
    assert not vcpu.awaits_reply
    exit = vcpu.run()
    assert vcpu.awaits_reply
    vcpu.reply(exit, b"\1")
    assert vcpu.run() == Halt()
    assert not vcpu.awaits_reply

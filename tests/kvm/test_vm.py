# SPDX-License-Identifier: GPL-2.0-or-later
"""The VM descriptor: each ioctl by its effect, or by the errno that the kernel document names."""

from __future__ import annotations

import errno
import os
import time

import pytest

from vmm.abi import apic
from vmm.errors import HINTS, HostError, KvmCallError, UsageError
from vmm.kvm.events import IrqchipRoute, MsiRoute
from vmm.kvm.exits import Halt, ReadMsr, WriteMsr
from vmm.kvm.memory import Mapping
from vmm.kvm.vm import MsrRange

pytestmark = pytest.mark.every_host

PAGE = 4096
SPLIT = "SPLIT_IRQCHIP"


def refused(call: str, err: int, do, *args, **options) -> KvmCallError:
    with pytest.raises(KvmCallError) as caught:
        do(*args, **options)
    assert (caught.value.call, caught.value.errno) == (call, err)
    assert errno.errorcode[err] in str(caught.value)
    hint = HINTS.get((call, err))
    assert (f"try: {hint}" if hint else "") in str(caught.value)
    return caught.value


# -- memory


@pytest.mark.parametrize("name", ["set_user_memory_region", "set_user_memory_region2"])
def test_memory_regions_are_set_deleted_and_checked_by_the_kernel(vm, name):
    if name.endswith("2") and not vm.check_extension("USER_MEMORY2"):
        pytest.skip("this host's KVM lacks KVM_CAP_USER_MEMORY2")
    region, call = getattr(vm, name), f"KVM_{name.upper()}"
    mapping = Mapping(4 * PAGE)
    region(0, 0, mapping, size=2 * PAGE)
    refused(call, errno.EEXIST, region, 1, PAGE, mapping)
    error = refused(call, errno.EINVAL, region, 1, 0x10_0010, mapping)
    assert "memslot 1" in str(error)
    assert "0x100010" in str(error)
    region(0, 0, None)
    region(1, PAGE, mapping, offset=PAGE)


def test_guest_memory_by_the_second_call(real_mode):
    # mov bx, 0x1000; mov ds, bx; mov al, [0x10]; hlt
    guest = real_mode(bytes.fromhex("bb0010 8edb a01000 f4"))
    if not guest.vm.check_extension("USER_MEMORY2"):
        pytest.skip("this host's KVM lacks KVM_CAP_USER_MEMORY2")
    extra = Mapping(2 * PAGE)
    extra.bytes[PAGE + 0x10] = 0x55
    guest.vm.set_user_memory_region2(1, 0x1_0000, extra, offset=PAGE)
    assert guest.vcpu.run() == Halt()
    assert guest.vcpu.get_regs().rax & 0xFF == 0x55


def test_a_guest_memfd_needs_a_vm_that_has_private_memory(vm):
    if not vm.check_extension("USER_MEMORY2"):
        pytest.skip("this host's KVM lacks KVM_CAP_USER_MEMORY2")
    refused("KVM_SET_USER_MEMORY_REGION2", errno.EINVAL, vm.set_user_memory_region2, 0, 0, Mapping(PAGE), guest_memfd=0)


@pytest.mark.parametrize(
    ("offset", "size"), [(-PAGE, PAGE), (0, 5 * PAGE), (PAGE, 4 * PAGE), (4 * PAGE, 0), (0, -PAGE)]
)
def test_a_region_outside_its_mapping_never_reaches_the_kernel(vm, offset, size):
    with pytest.raises(UsageError, match="of a mapping of 0x4000"):
        vm.set_user_memory_region(0, 0, Mapping(4 * PAGE), offset=offset, size=size)


@pytest.mark.parametrize(("slot", "gpa"), [(-1, 0), (1 << 32, 0), (0, -PAGE), (0, 1 << 64)])
def test_numbers_that_do_not_fit_are_usage_errors(vm, slot, gpa):
    with pytest.raises(UsageError, match="kvm_userspace_memory_region cannot hold"):
        vm.set_user_memory_region(slot, gpa, Mapping(PAGE))


def test_a_refused_region_leaves_the_mapping_to_its_owner(vm):
    mapping = Mapping(PAGE)
    refused("KVM_SET_USER_MEMORY_REGION", errno.EINVAL, vm.set_user_memory_region, 0, 1, mapping)
    mapping.close()
    assert mapping.bytes.closed


def test_real_modes_pages_are_placed_before_the_first_vcpu(vm):
    vm.set_tss_addr(0xFFFB_D000)
    vm.set_identity_map_addr(0xFFFB_C000)
    vm.create_vcpu(0)
    refused("KVM_SET_IDENTITY_MAP_ADDR", errno.EINVAL, vm.set_identity_map_addr, 0xFFFB_C000)


# -- interrupt controllers


def test_an_irqchip_is_made_once_and_first(kvm, vm):
    vm.create_irqchip()
    refused("KVM_CREATE_IRQCHIP", errno.EEXIST, vm.create_irqchip)
    with kvm.create_vm() as late:
        late.create_vcpu(0)
        refused("KVM_CREATE_IRQCHIP", errno.EINVAL, late.create_irqchip)


def test_the_pit_needs_an_irqchip_and_is_made_once(vm):
    refused("KVM_CREATE_PIT2", errno.ENOENT, vm.create_pit2)
    vm.create_irqchip()
    vm.create_pit2()
    refused("KVM_CREATE_PIT2", errno.EEXIST, vm.create_pit2)


def test_a_gsi_needs_an_irqchip(vm):
    refused("KVM_IRQ_LINE", errno.ENXIO, vm.irq_line, 4, True)


def test_a_gsi_reaches_the_processor(real_mode):
    # The PIC after reset: vector base set to 0x20 by ICW1-4, all lines but 4 masked; sti; hlt; the handler halts.
    # mov al,0x11; out 0x20,al; mov al,0x20; out 0x21,al; mov al,4; out 0x21,al; mov al,1; out 0x21,al
    # mov al,0xef; out 0x21,al; out 0x80,al; sti; L: hlt; jmp L
    code = bytes.fromhex("b011e620 b020e621 b004e621 b001e621 b0efe621 e680 fb f4 ebfd")
    guest = real_mode(code, before=lambda vm: vm.create_irqchip())
    guest.memory.bytes[0x24 * 4 : 0x24 * 4 + 4] = b"\x00\x20\x00\x00"  # vector 0x24 -> 0000:2000
    guest.memory.bytes[0x2000:0x2004] = bytes.fromhex("b05ae681")  # mov al, 0x5a; out 0x81, al
    assert guest.vcpu.run().port == 0x80
    guest.vm.irq_line(4, True)
    exit = guest.vcpu.run()
    assert (exit.port, exit.data) == (0x81, b"\x5a")
    guest.vm.irq_line(4, False)


def test_an_msi_needs_a_lapic(vm):
    refused("KVM_SIGNAL_MSI", errno.EINVAL, vm.signal_msi, apic.msi_address(0), 0x41)


def test_an_msi_is_requested_at_its_destination(vm):
    vm.enable_cap(SPLIT, 24)
    one, other = vm.create_vcpu(0), vm.create_vcpu(1)
    for vcpu in (one, other):
        vcpu.set_mp_state(0)
        state = bytearray(vcpu.get_lapic())
        state[0xF0:0xF4] = (0x1FF).to_bytes(4, "little")  # SPIV: enabled
        vcpu.set_lapic(bytes(state))
    assert vm.signal_msi(apic.msi_address(1), apic.msi_data(0x41)) > 0
    register = 0x200 + 0x41 // 32 * 16
    requested = [int.from_bytes(vcpu.get_lapic()[register : register + 4], "little") for vcpu in (one, other)]
    assert requested == [0, 1 << 0x41 % 32]


def test_the_boot_cpu_is_chosen_before_any_exists(vm):
    vm.create_irqchip()
    vm.set_boot_cpu_id(3)
    states = {apic_id: vm.create_vcpu(apic_id).get_mp_state() for apic_id in (0, 3)}
    assert states == {0: 1, 3: 0}  # KVM_MP_STATE_UNINITIALIZED, _RUNNABLE
    refused("KVM_SET_BOOT_CPU_ID", errno.EBUSY, vm.set_boot_cpu_id, 0)


# -- capabilities


def test_a_capability_is_enabled_by_name_with_an_effect(vm):
    vm.enable_cap("KVM_CAP_SPLIT_IRQCHIP", 24)
    assert len(vm.create_vcpu(0).get_lapic()) == 1024  # there is a LAPIC now
    refused("KVM_ENABLE_CAP", errno.EEXIST, vm.enable_cap, SPLIT, 24)


def test_enabling_nonsense_is_refused(vm):
    with pytest.raises(UsageError, match=SPLIT):
        vm.enable_cap("SPLIT_IRQCHP", 24)
    refused("KVM_ENABLE_CAP", errno.EINVAL, vm.enable_cap, "HLT")
    for wrong in ((-1,), (1 << 64,), (1, 2, 3, 4, 5)):
        with pytest.raises(UsageError, match="kvm_enable_cap cannot hold"):
            vm.enable_cap(SPLIT, *wrong)


# -- clock


def test_the_clock_goes_on_and_can_be_set(vm):
    first = vm.get_clock()
    time.sleep(0.002)
    assert vm.get_clock().clock - first.clock >= 1_000_000
    vm.set_clock(5_000_000_000_000)
    moved = vm.get_clock().clock - 5_000_000_000_000
    assert 0 <= moved < 60_000_000_000
    assert isinstance(first.tsc_stable, bool)
    with pytest.raises(UsageError, match="kvm_clock_data"):
        vm.set_clock(-1)


def test_the_clock_is_set_by_real_time(vm):
    now = vm.get_clock()
    if not now.has_realtime:
        pytest.skip("this host's clock gives no realtime with kvmclock (no TSC clocksource)")
    assert abs(now.realtime - time.time_ns()) < 60_000_000_000
    assert now.host_tsc
    vm.set_clock(1_000_000_000_000, realtime=time.time_ns() - 3600 * 10**9)  # an hour ago, so an hour on
    assert 3600 * 10**9 <= vm.get_clock().clock - 1_000_000_000_000 < 3700 * 10**9


# -- MSRs


def test_a_denied_msr_exits_and_the_answer_reaches_the_guest(real_mode):
    def filtered(vm):
        vm.enable_cap("X86_USER_SPACE_MSR", 1 << 2)  # KVM_MSR_EXIT_REASON_FILTER
        vm.set_msr_filter([MsrRange(0x174, (False, True, False))])

    # mov ecx, 0x174; rdmsr; mov ebx, eax; mov ecx, 0x176; mov eax, 0x1234; wrmsr; mov ecx, 0x175; rdmsr; hlt
    code = bytes.fromhex("66b974010000 0f32 6689c3 66b976010000 66b834120000 0f30 66b975010000 0f32 f4")
    vcpu = real_mode(code, before=filtered).vcpu
    exit = vcpu.run()
    assert exit == ReadMsr(0x174, 4)
    vcpu.reply(exit, 0x5555_6666_7777_8888)
    exit = vcpu.run()
    assert exit == WriteMsr(0x176, 0x5555_6666 << 32 | 0x1234, 4)
    vcpu.reply(exit, 0)
    assert vcpu.run() == Halt()  # 0x175 is allowed: no exit
    assert vcpu.get_regs().rbx == 0x7777_8888


@pytest.mark.parametrize(("read", "write", "first"), [(True, False, ReadMsr), (False, True, WriteMsr)])
def test_only_reads_or_only_writes_can_be_denied(real_mode, read, write, first):
    def filtered(vm):
        vm.enable_cap("X86_USER_SPACE_MSR", 1 << 2)
        vm.set_msr_filter([MsrRange(0x174, (False,), read=read, write=write)])

    # mov ecx, 0x174; xor eax, eax; xor edx, edx; wrmsr; rdmsr; hlt
    vcpu = real_mode(bytes.fromhex("66b974010000 6631c0 6631d2 0f30 0f32 f4"), before=filtered).vcpu
    exit = vcpu.run()
    assert isinstance(exit, first)
    vcpu.reply(exit, 0)
    assert vcpu.run() == Halt()


def test_a_filter_has_a_greatest_number_of_ranges(vm):
    ranges = [MsrRange(0x1000 * i, (True,) * 9) for i in range(17)]
    vm.set_msr_filter(ranges[:16])
    vm.set_msr_filter(ranges[:1], default_deny=True)
    vm.set_msr_filter([])
    with pytest.raises(UsageError, match="16 ranges, and 17"):
        vm.set_msr_filter(ranges)
    refused("KVM_X86_SET_MSR_FILTER", errno.EINVAL, vm.set_msr_filter, [MsrRange(0, (True,) * 0x4000)])
    refused("KVM_X86_SET_MSR_FILTER", errno.EINVAL, vm.set_msr_filter, [], default_deny=True)


# -- statistics and vCPUs


def test_statistics_have_names_kinds_and_move(real_mode):
    guest = real_mode(bytes.fromhex("e680 ebfc"))  # L: out 0x80, al; jmp L
    with guest.vm.get_stats() as stats, guest.vcpu.get_stats() as own:
        assert stats.id.startswith("kvm-")
        assert "vcpu" in own.id
        assert stats.id != own.id
        before = own["exits"]
        for _ in range(10):
            guest.vcpu.run()
        assert own["exits"] - before >= 10
        assert own.snapshot()["exits"] == own["exits"]
        kinds = {row.kind for row in own.descriptors.values()}
        assert {"cumulative", "log histogram"} <= kinds <= {*kinds} - {"unknown"}
        assert {row.unit for row in own.descriptors.values()} <= {"", "bytes", "seconds", "cycles", "boolean"}
        histogram = next(row for row in own.descriptors.values() if row.kind == "log histogram")
        assert histogram.size > 1
        assert len(own.values_of(histogram.name)) == histogram.size
        assert histogram.name not in own.snapshot()
        assert own.descriptors["halt_wait_ns"].unit == "seconds"
        assert (own.descriptors["halt_wait_ns"].base, own.descriptors["halt_wait_ns"].exponent) == (10, -9)
        assert len(own) == len(list(own)) == len(own.descriptors)
        assert "remote_tlb_flush" in stats
        with pytest.raises(KeyError):
            stats["no_such_statistic"]
    with pytest.raises(HostError, match=r"the statistics has been closed"):
        own["exits"]


def test_vcpu_ids_need_not_be_contiguous_but_differ(vm):
    vcpus = [vm.create_vcpu(apic_id) for apic_id in (0, 7, 300)]
    assert [vcpu.id for vcpu in vcpus] == [0, 7, 300]
    refused("KVM_CREATE_VCPU", errno.EEXIST, vm.create_vcpu, 7)
    refused("KVM_CREATE_VCPU", errno.EINVAL, vm.create_vcpu, vm.check_extension("MAX_VCPU_ID"))


def test_after_close_nothing_can_be_asked(vm):
    vcpu = vm.create_vcpu(0)
    vm.close()
    vm.close()
    assert vm.closed
    assert vcpu.closed
    for ask in (vm.create_irqchip, vm.get_clock, vm.get_stats, lambda: vm.create_vcpu(1), lambda: vm.signal_msi(0, 0)):
        with pytest.raises(HostError, match="the VM has been closed"):
            ask()


# -- served in the kernel

OUT_LOOP = bytes.fromhex("b05a e680 e681 f4")  # mov al, 0x5a; out 0x80, al; out 0x81, al; hlt


@pytest.fixture
def event():
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(("datamatch", "taken"), [(None, True), (0x5A, True), (0x5B, False)])
def test_an_ioeventfd_takes_a_write_and_leaves_no_exit(real_mode, event, datamatch, taken):
    guest = real_mode(OUT_LOOP, before=lambda vm: vm.ioeventfd(event, 0x80, 1, datamatch=datamatch, pio=True))
    exit = guest.vcpu.run()
    assert exit.port == (0x81 if taken else 0x80)
    if taken:
        assert os.eventfd_read(event) == 1
    refused("KVM_IOEVENTFD", errno.EEXIST, guest.vm.ioeventfd, event, 0x80, 1, datamatch=datamatch, pio=True)
    guest.vm.ioeventfd(event, 0x80, 1, datamatch=datamatch, pio=True, deassign=True)
    refused(
        "KVM_IOEVENTFD", errno.ENOENT, guest.vm.ioeventfd, event, 0x80, 1, datamatch=datamatch, pio=True, deassign=True
    )


def test_an_ioeventfd_has_a_size_that_the_cpu_knows(vm, event):
    assert "0x1000" in str(refused("KVM_IOEVENTFD", errno.EINVAL, vm.ioeventfd, event, 0x1000, 3))
    with pytest.raises(UsageError, match="kvm_ioeventfd cannot hold"):
        vm.ioeventfd(event, 1 << 64, 4)


def requested(vcpu, vector: int) -> bool:
    """Is the vector in the LAPIC's request register?"""
    register = 0x200 + vector // 32 * 16
    return bool(int.from_bytes(vcpu.get_lapic()[register : register + 4], "little") >> vector % 32 & 1)


def enabled_lapic(vm):
    vcpu = vm.create_vcpu(0)
    vcpu.set_mp_state(0)
    state = bytearray(vcpu.get_lapic())
    state[0xF0:0xF4] = (0x1FF).to_bytes(4, "little")
    vcpu.set_lapic(bytes(state))
    return vcpu


def until(condition) -> None:
    """An irqfd may be served by a worker of the kernel."""
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    assert condition()


def test_an_irqfd_raises_its_gsi_by_its_route(vm, event):
    vm.enable_cap(SPLIT, 24)
    vcpu = enabled_lapic(vm)
    vm.set_gsi_routing([MsiRoute(5, apic.msi_address(0), apic.msi_data(0x41))])
    vm.irqfd(event, 5)
    refused("KVM_IRQFD", errno.EBUSY, vm.irqfd, event, 5)
    assert not requested(vcpu, 0x41)
    os.eventfd_write(event, 1)
    until(lambda: requested(vcpu, 0x41))
    vm.irqfd(event, 5, deassign=True)
    vm.set_gsi_routing([MsiRoute(5, apic.msi_address(0), apic.msi_data(0x42))])
    os.eventfd_write(event, 1)
    time.sleep(0.02)
    assert not requested(vcpu, 0x42)


def test_routes_need_a_controller_and_fit(vm):
    refused("KVM_SET_GSI_ROUTING", errno.EINVAL, vm.set_gsi_routing, [IrqchipRoute(4, 9, 4)])
    vm.create_irqchip()
    vm.set_gsi_routing([IrqchipRoute(4, 2, 4), MsiRoute(30, apic.msi_address(0), 0x41)])
    with pytest.raises(UsageError, match="GSI of a route"):
        vm.set_gsi_routing([IrqchipRoute(-1, 2, 4)])


def test_coalesced_writes_wait_in_the_ring(real_mode):
    guest = real_mode(OUT_LOOP)
    if not guest.vm.check_extension("COALESCED_PIO"):
        pytest.skip("this host's KVM lacks KVM_CAP_COALESCED_PIO")
    guest.vm.register_coalesced_mmio(0x80, 1, pio=True)
    assert guest.vcpu.run().port == 0x81
    ring = guest.vcpu.coalesced_ring(guest.vm.check_extension("COALESCED_MMIO"))
    assert (ring.first, ring.last) == (0, 1)
    guest.vm.unregister_coalesced_mmio(0x80, 1, pio=True)
    guest.vcpu.complete()
    guest.start(OUT_LOOP)
    assert guest.vcpu.run().port == 0x80

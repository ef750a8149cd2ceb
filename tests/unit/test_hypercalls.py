# SPDX-License-Identifier: GPL-2.0-or-later
"""Hypercalls as pyvmm serves them, and the kernel's own path, by exits as values; no device."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from vmm.abi import apic, ports, pv
from vmm.abi.cpuid import CpuidEntry
from vmm.errors import GuestMemoryError, KvmCallError
from vmm.kvm import exits
from vmm.kvm.vm import Clock
from vmm.machine.bus.platform import Platform
from vmm.machine.ends import Resume
from vmm.machine.extra import hypercalls
from vmm.machine.extra.hypercalls import HypercallService
from vmm.machine.run.handle import handle
from vmm.machine.x86.cpuid import CpuidModel

PAGE = 0x1000
RAM_END = 0x20_0000
HIGH = 1 << 32  # a second slot above 4 GiB, as large machines have
POLL, KICK, PAIRING, SEND, YIELD, MAP = 1, 5, 9, 10, 11, 12
ENCRYPTED = 0x10


class Memory:
    """RAM from 0 to RAM_END in two slots that touch, and one page at HIGH."""

    slots = ((0, PAGE), (PAGE, RAM_END), (HIGH, HIGH + PAGE))

    def __init__(self):
        self.written = {}

    def slot_at(self, gpa):
        return next((SimpleNamespace(gpa=low, end=end) for low, end in self.slots if low <= gpa < end), None)

    def write(self, gpa, data):
        if self.slot_at(gpa) is None:
            raise GuestMemoryError("nothing there")
        self.written[gpa] = data

    def read_u64(self, gpa):
        return self.frame[gpa]


class Vm:
    def __init__(self):
        self.enabled = {}
        self.sent = []
        self.deaf = set()
        self.clock = Clock(1, 14, 1_700_000_000_123_456_789, 5000)

    def signal_msi(self, address, data):
        self.sent.append((address, data))
        if apic.msi_destination(address) in self.deaf:
            raise KvmCallError("KVM_SIGNAL_MSI", 1, "sending")
        return 1

    def get_clock(self):
        return self.clock


class Vcpu:
    def __init__(self, apic_id, features=0x01007EFB):
        self.id = apic_id
        self.features = features
        self.asked = 0

    def get_cpuid2(self):
        self.asked += 1
        model = CpuidModel([CpuidEntry(0x40000001)])
        model.set_kvm_signature()
        model.set_register(0x40000001, 0, "eax", self.features)
        return model.entries()

    def get_device_attr(self, group, attr):
        return -1000


class Machine:
    def __init__(self, ids=(0, 1, 70), irqchip="split"):
        self.platform = Platform()
        self.memory, self.vm, self.irqchip = Memory(), Vm(), irqchip
        self.cpus = [SimpleNamespace(vcpu=Vcpu(apic_id), index=n) for n, apic_id in enumerate(ids)]

    def on_port_write(self, port, hook, size=1):
        self.platform.ports.on_write(port, hook, size)


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def service(machine):
    return HypercallService(machine)


def call(service, nr, *args, cpl=0):
    return service.serve(service._machine.cpus[0], nr, (*args, 0, 0, 0, 0)[:4], cpl=cpl)


def sent_to(machine):
    """(destination, delivery mode and vector) of every MSI."""
    return [(apic.msi_destination(address), data) for address, data in machine.vm.sent]


# Order of the checks ----------------------------------------------------------------------------------------------


def test_the_privilege_level_comes_before_the_number(service, machine):
    for nr in (POLL, KICK, SEND, 99):
        assert call(service, nr, 0, 1, 0, 0x61, cpl=3) == -pv.KVM_EPERM
        assert call(service, nr, 0, 1, 0, 0x61, cpl=1) == -pv.KVM_EPERM
    assert not machine.vm.sent
    assert service.served[99] == 2


@pytest.mark.parametrize("nr", [0, 2, 3, 4, 6, 7, 8, 13, 99, 0x1_0000_0001, (1 << 64) - 1])
def test_a_number_without_a_meaning(service, nr):
    assert call(service, nr) == -pv.KVM_ENOSYS


@pytest.mark.parametrize(("nr", "feature"), [(KICK, "PV_UNHALT"), (SEND, "PV_SEND_IPI"), (YIELD, "PV_SCHED_YIELD")])
def test_a_hidden_feature_is_refused_only_under_enforcement(machine, nr, feature):
    row = pv.find(feature)
    caller = machine.cpus[0].vcpu
    caller.features &= ~row.mask
    enforcing = HypercallService(machine)
    assert call(enforcing, nr, 0, 1) == 0
    enforcing.enforce = True
    assert [call(enforcing, each, 0, 1) for each in (nr, nr, POLL)] == [-pv.KVM_ENOSYS, -pv.KVM_ENOSYS, 0]
    assert caller.asked == 1, "what KVM shows the vCPU is asked once"
    # KVM looks at the CPUID of the vCPU that calls.
    assert enforcing.serve(machine.cpus[1], nr, (0, 1, 0, 0)) == 0


def test_without_leaves_every_gated_call_is_refused_under_enforcement(machine, monkeypatch):
    monkeypatch.setattr(Vcpu, "get_cpuid2", lambda self: [])
    enforcing = HypercallService(machine, enforce=True)
    assert [call(enforcing, nr) for nr in (POLL, KICK, SEND, YIELD)] == [0, *[-pv.KVM_ENOSYS] * 3]


# The calls ----------------------------------------------------------------------------------------------------------


def test_a_kick_is_one_msi_of_mode_3(service, machine):
    assert call(service, KICK, 0, 70) == 0
    assert sent_to(machine) == [(70, apic.DM_REMRD)]


def test_a_kick_for_nobody_is_no_error_and_no_msi(service, machine):
    assert call(service, KICK, 0, 0xFF) == 0  # as an MSI it would be a broadcast
    assert call(service, KICK, 0, 5) == 0
    assert not machine.vm.sent


def test_a_kick_uses_32_bits_of_the_id(service, machine):
    assert call(service, KICK, 0, (7 << 32) | 1) == 0
    assert sent_to(machine) == [(1, apic.DM_REMRD)]


@pytest.mark.parametrize(
    ("bitmap", "ids"),
    [
        ((0b11, 0, 0), (0, 1)),
        ((0, 1 << 6, 0), (70,)),
        ((1, 0, 70), (70,)),
        ((1, 1 << 5, 1), (1, 70)),
        ((0b10, 0, 64), ()),
        ((1, 0, (1 << 32) | 70), (70,)),  # the lowest id is 32 bits wide
        (((1 << 64) - 1, (1 << 64) - 1, 0), (0, 1, 70)),
        ((0, 0, 0), ()),
    ],
)
def test_an_ipi_reaches_the_ids_of_the_bitmap(service, machine, bitmap, ids):
    assert call(service, SEND, *bitmap, 0x61) == len(ids)
    assert sent_to(machine) == [(each, 0x61) for each in ids]


def test_an_ipi_carries_its_delivery_mode(service, machine):
    assert call(service, SEND, 0b10, 0, 0, apic.DM_NMI) == 1
    assert sent_to(machine) == [(1, apic.DM_NMI)]


def test_a_vcpu_that_takes_no_interrupt_does_not_count(service, machine):
    machine.vm.deaf = {1}
    assert call(service, SEND, 0b11, 0, 0, 0x61) == 1


@pytest.mark.parametrize("bits", [apic.DEST_LOGICAL, apic.DEST_SELF, apic.DEST_ALLINC, apic.DEST_ALLBUT])
def test_logical_destinations_and_shorthands_are_refused(service, machine, bits):
    assert call(service, SEND, 0b11, 0, 0, 0x61 | bits) == -pv.KVM_EINVAL
    assert not machine.vm.sent


def test_without_local_apics_there_is_no_map_of_ids():
    assert call(HypercallService(Machine(irqchip="none")), SEND, 1, 0, 0, 0x61) == -pv.KVM_EOPNOTSUPP


def test_an_id_above_255_needs_32_bit_ids():
    machine = Machine(ids=(0, 44, 300))
    service = HypercallService(machine)
    assert call(service, SEND, 1, 0, 300, 0x61) == 0  # as an MSI it would arrive at 44
    assert not machine.vm.sent
    machine.vm.enabled["X2APIC_API"] = (3,)
    assert call(service, SEND, 1, 0, 300, 0x61) == 1
    assert sent_to(machine) == [(300, 0x61)]


def test_a_yield_gives_0(service):
    assert call(service, YIELD, 1) == 0


def test_clock_pairing(service, machine):
    assert call(service, PAIRING, 0x9000, 1) == -pv.KVM_EOPNOTSUPP
    assert call(service, PAIRING, HIGH - PAGE, 0) == -pv.KVM_EFAULT
    assert call(service, PAIRING, 0x9000, 0) == 0
    fields = hypercalls.KVM_CLOCK_PAIRING.unpack(machine.memory.written[0x9000])
    assert (fields["sec"], fields["nsec"], fields["tsc"]) == (1_700_000_000, 123_456_789, 4000)
    machine.vm.clock = Clock(1, 2, 0, 0)  # not driven by the TSC
    assert call(service, PAIRING, 0x9000, 0) == -pv.KVM_EOPNOTSUPP


# MAP_GPA_RANGE, handed over -----------------------------------------------------------------------------------------


def test_map_gpa_range_needs_the_capability(service, machine):
    assert call(service, MAP, PAGE, 1, ENCRYPTED) == -pv.KVM_ENOSYS
    machine.vm.enabled["EXIT_HYPERCALL"] = (1 << KICK,)
    assert call(service, MAP, PAGE, 1, ENCRYPTED) == -pv.KVM_ENOSYS
    machine.vm.enabled["EXIT_HYPERCALL"] = (1 << MAP,)
    assert call(service, MAP, PAGE, 1, ENCRYPTED) == 0
    assert service.ranges == [(PAGE, 1, ENCRYPTED)]
    assert service.private == {1}


@pytest.mark.parametrize(
    ("gpa", "pages"),
    [(PAGE | 1, 1), (PAGE, 0), (PAGE, (1 << 64) - 1), (0xFFFF_FFFF_FFFF_F000, (1 << 64) - (1 << 52) + 1)],
)
def test_a_bad_range_never_comes_to_the_vmm(service, machine, gpa, pages):
    machine.vm.enabled["EXIT_HYPERCALL"] = (1 << MAP,)
    assert call(service, MAP, gpa, pages, ENCRYPTED) == -pv.KVM_EINVAL
    assert not service.ranges


def test_the_most_pages_that_do_not_wrap_come_to_the_vmm(service, machine):
    """As KVM has it: frame + pages is what must not wrap, not the address."""
    machine.vm.enabled["EXIT_HYPERCALL"] = (1 << MAP,)
    assert call(service, MAP, PAGE, 1 << 52, ENCRYPTED) == -pv.KVM_EINVAL
    assert service.ranges == [(PAGE, 1 << 52, ENCRYPTED)]


# The kernel's path: KVM_EXIT_HYPERCALL ------------------------------------------------------------------------------


def exit_hypercall(machine, gpa, pages, attributes):
    exit = exits.Hypercall(MAP, (gpa, pages, attributes, 0, 0, 0), True)
    step = handle(exit, machine.platform)
    assert isinstance(step, Resume)
    assert step.answers
    return step.reply


def test_an_exit_is_served_with_its_arguments(service, machine):
    assert exit_hypercall(machine, 0x18_0000, 4, ENCRYPTED) == 0
    assert exit_hypercall(machine, 0x18_1000, 2, 0) == 0
    assert service.ranges == [(0x18_0000, 4, ENCRYPTED), (0x18_1000, 2, 0)]
    assert service.private == {0x180, 0x183}
    assert not service.served, "what KVM passes on was not handed over"


@pytest.mark.parametrize("attributes", [0x20, 0x3, 0xF, 0x13, 1 << 63])
def test_reserved_attributes_are_the_vmms_to_refuse(service, machine, attributes):
    assert exit_hypercall(machine, PAGE, 1, attributes) == -pv.KVM_EINVAL
    assert not service.private


@pytest.mark.parametrize("attributes", [0x10, 0x11, 0x12])
def test_every_page_size_is_taken(service, machine, attributes):
    assert exit_hypercall(machine, PAGE, 1, attributes) == 0
    assert service.private == {1}


@pytest.mark.parametrize(
    ("gpa", "pages", "answer"),
    [
        (0, RAM_END // PAGE, 0),  # across the two slots
        (0, RAM_END // PAGE + 1, -pv.KVM_EINVAL),
        (RAM_END, 1, -pv.KVM_EINVAL),
        (HIGH, 1, 0),
        (HIGH, 2, -pv.KVM_EINVAL),
        (0, 1 << 60, -pv.KVM_EINVAL),
    ],
)
def test_only_ram_can_be_marked(service, machine, gpa, pages, answer):
    assert exit_hypercall(machine, gpa, pages, ENCRYPTED) == answer
    assert len(service.private) == (pages if answer == 0 else 0)


@pytest.mark.parametrize("answer", [0, -pv.KVM_EINVAL, 77])
def test_an_answer_can_be_dictated(service, machine, answer):
    service.map_gpa_result = answer
    assert exit_hypercall(machine, PAGE, 1, 0x20) == answer
    assert (service.ranges, service.private) == ([(PAGE, 1, 0x20)], set())


def test_another_hypercall_that_exits_is_unknown(service, machine):
    step = handle(exits.Hypercall(KICK, (0,) * 6, True), machine.platform)
    assert step == Resume(-pv.KVM_ENOSYS, answers=True)


# The way from the guest's #UD handler -------------------------------------------------------------------------------


@pytest.mark.parametrize(("cs", "answer"), [(0x08, 0), (0x23, (1 << 64) - 1)])
def test_a_call_handed_over_takes_the_ring_from_the_frame(machine, service, monkeypatch, cs, answer):
    regs = SimpleNamespace(rax=POLL, rbx=0, rcx=0, rdx=0, rsi=0, rsp=0x5000)
    done = []
    caller = machine.cpus[0].vcpu
    caller.complete = lambda: done.append("complete")
    caller.get_regs = lambda: regs
    caller.set_regs = lambda new: done.append(new.rax)
    machine.memory.frame = {0x5008: cs}
    monkeypatch.setattr(hypercalls, "current", lambda: machine.cpus[0])
    handle(exits.PortOut(ports.HYPERCALL, 1, b"\x01"), machine.platform)
    assert done == ["complete", answer]

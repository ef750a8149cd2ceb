# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest memory: memslots with holes, accesses checked to the byte, and the same bytes seen from both sides."""

from __future__ import annotations

import pytest

from vmm.errors import GuestMemoryError, HostError, UsageError
from vmm.kvm.exits import Halt, MmioRead, MmioWrite
from vmm.kvm.memory import Mapping
from vmm.machine.memory.slots import GuestMemory

pytestmark = pytest.mark.every_host

PAGE = 4096


@pytest.fixture
def memory(vm):
    return GuestMemory(vm)


def test_slots_are_kept_in_order_and_numbered_anew(memory):
    high = memory.add(0x10_0000, 2 * PAGE)
    low = memory.add(0, PAGE)
    assert memory.slots == (low, high)
    assert (high.slot, low.slot, memory.size) == (0, 1, 3 * PAGE)
    memory.remove(high)
    again = memory.add(0x20_0000, PAGE)
    assert (again.slot, memory.slots) == (0, (low, again))


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_numbers_of_each_width_are_little_endian_and_touch_nothing_else(memory, bits):
    memory.add(0x4000, PAGE)
    memory.write(0x4000, b"\xee" * 16)
    value = int.from_bytes(bytes(range(1, 1 + bits // 8)), "little")
    getattr(memory, f"write_u{bits}")(0x4003, value)
    assert memory.read(0x4000, 16) == (b"\xee" * 3 + bytes(range(1, 1 + bits // 8))).ljust(16, b"\xee")
    assert getattr(memory, f"read_u{bits}")(0x4003) == value


def test_every_byte_of_a_slot_and_none_beside_it(memory):
    slot = memory.add(0x4000, 2 * PAGE)
    for gpa in (0x4000, 0x5FFF):
        assert memory.slot_at(gpa) is slot
        memory.write_u8(gpa, 0x5A)
        assert memory.read_u8(gpa) == 0x5A
    for gpa in (0, 0x3FFF, 0x6000, 1 << 52, -1):
        assert memory.slot_at(gpa) is None
        with pytest.raises(GuestMemoryError, match="no memslot holds"):
            memory.read(gpa, 1)
        with pytest.raises(GuestMemoryError, match="no memslot holds"):
            memory.write(gpa, b"x")


@pytest.mark.parametrize(
    ("gpa", "size"), [(0x4000, PAGE), (0x3000, 2 * PAGE), (0x5000, PAGE), (0, 0x10_0000), (0x5000, 8 * PAGE)]
)
def test_overlap_is_refused_and_changes_nothing(memory, gpa, size):
    slot = memory.add(0x4000, 2 * PAGE)
    with pytest.raises(UsageError, match="overlaps slot 0"):
        memory.add(gpa, size)
    assert memory.slots == (slot,)


def test_neighbours_may_touch(memory):
    for gpa in (0x4000, 0x3000, 0x5000):
        memory.add(gpa, PAGE)
    assert len(memory.slots) == 3


@pytest.mark.parametrize(("gpa", "size"), [(-PAGE, PAGE), (1, PAGE), (0, 0), (0, -PAGE), (0, 100), (0x800, 0x800)])
def test_a_slot_is_made_of_whole_pages(memory, gpa, size):
    with pytest.raises(UsageError, match=r"4096|positive"):
        memory.add(gpa, size)
    assert memory.slots == ()


def test_accesses_span_adjacent_slots_but_no_hole(memory):
    for gpa in (0x1000, 0x2000, 0x4000):
        memory.add(gpa, PAGE)
    data = bytes(range(200))
    memory.write(0x1FC0, data)
    assert memory.read(0x1FC0, 200) == data
    assert memory.read(0x1FC0, 64) + memory.read(0x2000, 136) == data
    with pytest.raises(GuestMemoryError, match="0x3000"):
        memory.read(0x2FFF, 2)


def test_a_write_into_a_hole_writes_nothing(memory):
    memory.add(0x1000, PAGE)
    memory.add(0x3000, PAGE)
    with pytest.raises(GuestMemoryError, match="0x2000"):
        memory.write(0x1FF0, b"x" * 0x1020)
    assert memory.read(0x1000, PAGE) == bytes(PAGE)
    assert memory.read(0x3000, PAGE) == bytes(PAGE)


def test_sizes_zero_and_below(memory):
    assert memory.read(0xDEAD_0000, 0) == b""
    memory.write(0xDEAD_0000, b"")
    with pytest.raises(UsageError, match="negative"):
        memory.read(0, -1)


def test_typed_access_is_little_endian_unaligned_and_checked(memory):
    memory.add(0, PAGE)
    for bits in (8, 16, 32, 64):
        read, write = getattr(memory, f"read_u{bits}"), getattr(memory, f"write_u{bits}")
        value = 0x8877_6655_4433_2211 & (1 << bits) - 1
        write(0x101, value)
        assert read(0x101) == value
        assert memory.read(0x101, bits // 8) == value.to_bytes(bits // 8, "little")
        for wrong in (-1, 1 << bits):
            with pytest.raises(UsageError, match="0x101"):
                write(0x101, wrong)
    memory.pack("QIB", 0x203, 1, 2, 3)
    assert memory.unpack("QIB", 0x203) == (1, 2, 3)
    memory.fill(0x300, 4, 0xAB)
    assert memory.read(0x2FF, 6) == b"\0\xab\xab\xab\xab\0"


def test_two_slots_over_one_mapping_are_the_same_bytes(memory):
    mapping = Mapping(2 * PAGE)
    memory.add(0, PAGE, mapping=mapping, offset=PAGE)
    memory.add(0x8000, 2 * PAGE, mapping=mapping)
    memory.write(0x10, b"shared")
    assert memory.read(0x9010, 6) == b"shared"
    assert memory.slot_at(0x10).hva == memory.slot_at(0x8000).hva + PAGE


def test_a_slot_beyond_its_mapping_is_refused(memory):
    with pytest.raises(UsageError, match="of a mapping of 0x1000"):
        memory.add(0, PAGE, mapping=Mapping(PAGE), offset=PAGE)
    with pytest.raises(UsageError, match="of a mapping of 0x1000"):
        memory.add(0, 2 * PAGE, mapping=Mapping(PAGE))


def test_memory_in_use_cannot_be_pulled_away(kvm):
    mapping = Mapping(PAGE)
    with kvm.create_vm() as one, kvm.create_vm() as other:
        GuestMemory(one).add(0, PAGE, mapping=mapping)
        GuestMemory(other).add(0, PAGE, mapping=mapping)
        with pytest.raises(UsageError, match="close the VM"):
            mapping.close()
        one.close()
        assert mapping.bytes[0] == 0  # the other VM still has it
    assert mapping.bytes.closed
    mapping.close()
    with pytest.raises(HostError, match="unmapped"):
        _ = mapping.hva


def test_memory_of_a_closed_vm_is_an_error_not_a_crash(kvm):
    with kvm.create_vm() as vm:
        memory = GuestMemory(vm)
        memory.add(0, PAGE)
    for access in (lambda: memory.read(0, 1), lambda: memory.write(0, b"x"), lambda: memory.add(PAGE, PAGE)):
        with pytest.raises(HostError, match="closed"):
            access()


# -- from inside ------------------------------------------------------------------------------------------------------


def test_the_guest_sees_what_the_host_wrote_and_back(real_mode):
    # mov ax, [0x2000]; add ax, 1; mov [0x3000], ax; hlt
    guest = real_mode(bytes.fromhex("a10020 83c001 a30030 f4"))
    guest.memory.bytes[0x2000:0x2002] = b"\x34\x12"
    assert guest.vcpu.run() == Halt()
    assert guest.memory.bytes[0x3000:0x3002] == b"\x35\x12"


def test_a_readonly_slot_reads_as_memory_and_writes_as_mmio(real_mode):
    # mov bx, 0x1000; mov ds, bx; mov al, [0x10]; mov [0x20], al; hlt          ds base 0x10000
    guest = real_mode(bytes.fromhex("bb0010 8edb a01000 a22000 f4"))
    rom = Mapping(PAGE)
    rom.bytes[0x10] = 0x77
    guest.vm.set_user_memory_region(5, 0x1_0000, rom, readonly=True)
    assert guest.vcpu.run() == MmioWrite(0x1_0020, b"\x77")
    assert guest.vcpu.run() == Halt()
    assert rom.bytes[0x20] == 0


def test_a_removed_slot_is_mmio_again(real_mode):
    # mov bx, 0x1000; mov ds, bx; mov al, [0x10]; hlt
    code = bytes.fromhex("bb0010 8edb a01000 f4")
    guest = real_mode(code)
    extra = Mapping(PAGE)
    extra.bytes[0x10] = 0x55
    guest.vm.set_user_memory_region(1, 0x1_0000, extra)
    assert guest.vcpu.run() == Halt()
    assert guest.vcpu.get_regs().rax & 0xFF == 0x55
    guest.vm.set_user_memory_region(1, 0x1_0000, None)
    guest.start(code)
    exit = guest.vcpu.run()
    assert exit == MmioRead(0x1_0010, 1)
    guest.vcpu.reply(exit, b"\x66")
    assert guest.vcpu.run() == Halt()
    assert guest.vcpu.get_regs().rax & 0xFF == 0x66

# SPDX-License-Identifier: GPL-2.0-or-later
"""Exits decoded from the bytes of a kvm_run, and answers put back into them; no device.

The bytes are laid out here by hand (api.rst, section 5: exit_reason at 8, the exit union at 32), so that a wrong
declaration in the cdef cannot agree with itself.
"""

from __future__ import annotations

import errno
import struct
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.abi.exits import EXITS
from vmm.kvm import exits
from vmm.kvm._kvm import ffi
from vmm.kvm.decode import PENDING, answer, decode

UNION = 32
PAGE = 4096
NUMBER = {row.name: row.number for row in EXITS}
EFAULT, EHWPOISON = 14, 133


class Recorded:
    """The bytes of a kvm_run mapping and the two views of them that decoding takes."""

    def __init__(self, reason: int, union: bytes = b"") -> None:
        self.area = bytearray(3 * PAGE)
        struct.pack_into("<I", self.area, 8, reason)
        self.area[UNION : UNION + len(union)] = union
        self.run = ffi.cast("struct kvm_run *", ffi.from_buffer(self.area, require_writable=True))
        self._pin = ffi.from_buffer(self.area)

    def decode(self, error: int = 0) -> exits.Exit | None:
        return decode(self.run, self.area, error)

    def union(self, layout: str, at: int = 0) -> tuple:
        return struct.unpack_from("<" + layout, self.area, UNION + at)


def io(direction: int, size: int, port: int, count: int, data: bytes = b"", offset: int = PAGE) -> Recorded:
    recorded = Recorded(NUMBER["IO"], struct.pack("<BBHIQ", direction, size, port, count, offset))
    recorded.area[offset : offset + len(data)] = data
    return recorded


def mmio(address: int, data: bytes, length: int, write: int) -> Recorded:
    return Recorded(NUMBER["MMIO"], struct.pack("<Q8sIB", address, data, length, write))


def internal(suberror: int, ndata: int, data: list[int]) -> Recorded:
    return Recorded(NUMBER["INTERNAL_ERROR"], struct.pack(f"<II{len(data)}Q", suberror, ndata, *data))


def failure(ndata: int, flags: int, size: int, instruction: bytes) -> Recorded:
    """emulation_failure: suberror, ndata, flags, insn_size, insn_bytes[15]."""
    raw = struct.pack("<IIQB15s", 1, ndata, flags, size, instruction)
    return Recorded(NUMBER["INTERNAL_ERROR"], raw)


# What each reason of the x86 header decodes to, from a union of these bytes.
BIG = 0x1122_3344_5566_7788
SAMPLES: dict[str, tuple[bytes, exits.Exit]] = {
    "UNKNOWN": (struct.pack("<Q", BIG), exits.HardwareUnknown(BIG)),
    "EXCEPTION": (struct.pack("<II", 13, 0x18), exits.ExceptionExit(13, 0x18)),
    "IO": (struct.pack("<BBHIQ", 0, 4, 0x3F8, 2, PAGE), exits.PortIn(0x3F8, 4, 2)),
    "HYPERCALL": (
        struct.pack("<Q6QQII", 12, 1, 2, 3, 4, 5, BIG, 0, 1, 0),
        exits.Hypercall(12, (1, 2, 3, 4, 5, BIG), True),
    ),
    "DEBUG": (struct.pack("<IIQQQ", 1, 0, BIG, 0x4000, 0x401), exits.Debug(1, BIG, 0x4000, 0x401)),
    "HLT": (b"", exits.Halt()),
    "MMIO": (struct.pack("<Q8sIB", 0xD000_0000, bytes(8), 4, 0), exits.MmioRead(0xD000_0000, 4)),
    "IRQ_WINDOW_OPEN": (b"", exits.IrqWindowOpen()),
    "SHUTDOWN": (b"", exits.Shutdown()),
    "FAIL_ENTRY": (struct.pack("<QI", 0x8000_0021, 3), exits.FailEntry(0x8000_0021, 3)),
    "INTR": (b"", exits.Simple(10)),
    "SET_TPR": (b"", exits.Simple(11)),
    "TPR_ACCESS": (struct.pack("<QI", BIG, 1), exits.TprAccess(BIG, True)),
    "NMI": (b"", exits.Simple(16)),
    "INTERNAL_ERROR": (struct.pack("<II2Q", 3, 2, 7, BIG), exits.InternalError(3, (7, BIG), b"")),
    "SYSTEM_EVENT": (struct.pack("<II2Q", 2, 2, 5, BIG), exits.SystemEvent(2, (5, BIG))),
    "IOAPIC_EOI": (b"\x51", exits.IoapicEoi(0x51)),
    "HYPERV": (struct.pack("<I", 2), exits.Hyperv(2)),
    "X86_RDMSR": (struct.pack("<B7xIIQ", 0, 2, 0x4B56_4D00, 0), exits.ReadMsr(0x4B56_4D00, 2)),
    "X86_WRMSR": (struct.pack("<B7xIIQ", 0, 4, 0x174, BIG), exits.WriteMsr(0x174, BIG, 4)),
    "DIRTY_RING_FULL": (b"", exits.Simple(31)),
    "AP_RESET_HOLD": (b"", exits.Simple(32)),
    "X86_BUS_LOCK": (b"", exits.Simple(33)),
    "XEN": (struct.pack("<I", 1), exits.Xen(1)),
    "NOTIFY": (struct.pack("<I", 1), exits.Notify(1)),
    "MEMORY_FAULT": (struct.pack("<QQQ", 8, 0x1000, 0x2000), exits.MemoryFault(8, 0x1000, 0x2000, 0)),
}
# No x86 guest of ours can raise these: TDX and SEV-SNP need a VM type that pyvmm does not create.
CONFIDENTIAL = {"TDX", "SNP_REQ_CERTS"}
OURS = [row for row in EXITS if row.arch == "" and row.name not in CONFIDENTIAL]
OTHERS = [row for row in EXITS if row not in OURS]


@pytest.mark.parametrize("row", OURS, ids=lambda row: row.name)
def test_each_x86_reason_is_a_typed_value(row):
    union, expected = SAMPLES[row.name]
    got = Recorded(row.number, union).decode()
    assert got == expected
    assert type(got) is type(expected)
    assert not isinstance(got, exits.UnknownExit)


def test_the_samples_are_the_rows():
    assert set(SAMPLES) == {row.name for row in OURS}
    assert {type(exit) for _, exit in SAMPLES.values()} | {
        exits.PortOut,
        exits.MmioWrite,
        exits.Interrupted,
        exits.UnknownExit,
    } == set(typing.get_args(exits.Exit))


@pytest.mark.parametrize("reason", [*(row.number for row in OTHERS), 99, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_an_unknown_reason_keeps_its_number_and_bytes(reason):
    union = bytes(range(1, 101))
    assert Recorded(reason, union).decode() == exits.UnknownExit(reason, union[:64])


# -- port I/O ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 2, 3, 1024])
def test_port_output_carries_every_element(size, count):
    data = bytes(i * 7 & 0xFF for i in range(size * count))
    recorded = io(1, size, 0xFFFF, count, data + b"beyond")
    assert recorded.decode() == exits.PortOut(0xFFFF, size, data)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 1024])
def test_port_input_says_how_much_is_wanted(size, count):
    assert io(0, size, 0x1F0, count).decode() == exits.PortIn(0x1F0, size, count)


def test_port_data_is_found_by_its_offset():
    assert io(1, 1, 0xE9, 3, b"xyz", offset=2 * PAGE + 5).decode() == exits.PortOut(0xE9, 1, b"xyz")


@pytest.mark.parametrize(("size", "count"), [(1, 1), (2, 1), (4, 1), (1, 5), (2, 3), (4, 256)])
def test_a_port_answer_lands_where_the_kernel_looks(size, count):
    recorded = io(0, size, 0x60, count, bytes(size * count), offset=PAGE + 8)
    before = bytes(recorded.area)
    reply = bytes(i & 0xFF | 1 for i in range(size * count))
    answer(recorded.run, recorded.area, recorded.decode(), reply)
    after = bytes(recorded.area)
    start = PAGE + 8
    assert after[start : start + len(reply)] == reply
    assert after[:start] + after[start + len(reply) :] == before[:start] + before[start + len(reply) :]


@pytest.mark.parametrize("reply", [b"", b"\1", b"\1\2\3", b"12345", 5, None])
def test_a_port_answer_of_another_size_is_refused(reply):
    recorded = io(0, 2, 0x60, 1)
    before = bytes(recorded.area)
    with pytest.raises(ValueError, match=r"answer a port read|takes no reply"):
        answer(recorded.run, recorded.area, recorded.decode(), reply)
    assert bytes(recorded.area) == before


# -- MMIO -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 9))
def test_mmio_of_one_to_eight_bytes(size):
    data = bytes(range(0xF0, 0xF8))
    assert mmio(0xD000_0001, data, size, 1).decode() == exits.MmioWrite(0xD000_0001, data[:size])
    recorded = mmio((1 << 52) - 8, bytes(8), size, 0)
    assert recorded.decode() == exits.MmioRead((1 << 52) - 8, size)
    answer(recorded.run, recorded.area, recorded.decode(), data[:size])
    assert recorded.union("8s", 8)[0] == data[:size] + bytes(8 - size)


@pytest.mark.parametrize("length", [9, 255, 0xFFFF_FFFF])
def test_a_length_beyond_the_field_is_cut(length):
    assert mmio(0, b"12345678", length, 1).decode() == exits.MmioWrite(0, b"12345678")
    assert mmio(0, b"12345678", length, 0).decode() == exits.MmioRead(0, 8)


@pytest.mark.parametrize("reply", [b"", b"123", b"12345", 1, None])
def test_an_mmio_answer_of_another_size_is_refused(reply):
    recorded = mmio(0, bytes(8), 4, 0)
    with pytest.raises(ValueError, match=r"answer an MMIO read|takes no reply"):
        answer(recorded.run, recorded.area, recorded.decode(), reply)
    assert recorded.union("8s", 8)[0] == bytes(8)


# -- MSRs and hypercalls ----------------------------------------------------------------------------------------------


def msr(reason: str, error: int = 0xEE) -> Recorded:
    return Recorded(NUMBER[reason], struct.pack("<B7xIIQ", error, 1, 0x174, 0x55))


@pytest.mark.parametrize(("reply", "data"), [(0, 0), (BIG, BIG), ((1 << 64) + 5, 5), (-1, (1 << 64) - 1)])
def test_a_read_msr_is_answered_with_64_bits(reply, data):
    recorded = msr("X86_RDMSR")
    answer(recorded.run, recorded.area, recorded.decode(), reply)
    assert recorded.union("B7xIIQ") == (0, 1, 0x174, data)


def test_a_written_msr_is_accepted_without_touching_its_data():
    recorded = msr("X86_WRMSR")
    answer(recorded.run, recorded.area, recorded.decode(), 0)
    assert recorded.union("B7xIIQ") == (0, 1, 0x174, 0x55)


@pytest.mark.parametrize("reason", ["X86_RDMSR", "X86_WRMSR"])
def test_none_refuses_an_msr_access(reason):
    recorded = msr(reason, error=0)
    answer(recorded.run, recorded.area, recorded.decode(), None)
    assert recorded.union("B")[0] == 1


def test_a_hypercall_is_answered_in_ret_and_longmode_is_its_low_bit():
    recorded = Recorded(NUMBER["HYPERCALL"], struct.pack("<Q6QQII", 12, 1, 2, 3, 4, 5, 6, 0, 2, 0))
    assert recorded.decode() == exits.Hypercall(12, (1, 2, 3, 4, 5, 6), False)
    answer(recorded.run, recorded.area, recorded.decode(), -1000)
    assert recorded.union("Q", 56)[0] == (1 << 64) - 1000


@pytest.mark.parametrize(
    "exit",
    [
        exits.Halt(),
        exits.PortOut(1, 1, b"x"),
        exits.MmioWrite(0, b"x"),
        exits.Interrupted(4),
        exits.UnknownExit(9, b""),
    ],
    ids=lambda exit: type(exit).__name__,
)
@pytest.mark.parametrize("reply", [b"x", 0, None])
def test_what_asks_nothing_takes_no_answer(exit, reply):
    recorded = Recorded(NUMBER["HLT"])
    before = bytes(recorded.area)
    with pytest.raises(ValueError, match="takes no reply"):
        answer(recorded.run, recorded.area, exit, reply)
    assert bytes(recorded.area) == before


@pytest.mark.parametrize("reply", [b"12345678"])
@pytest.mark.parametrize("reason", ["X86_RDMSR", "X86_WRMSR", "HYPERCALL"])
def test_bytes_answer_no_number(reason, reply):
    recorded = Recorded(NUMBER[reason])
    with pytest.raises(ValueError, match="takes no reply"):
        answer(recorded.run, recorded.area, recorded.decode(), reply)


def test_only_what_completes_in_the_next_run_is_pending():
    assert {NUMBER[name] for name in ("IO", "MMIO", "HYPERCALL", "X86_RDMSR", "X86_WRMSR", "HYPERV", "XEN")} == PENDING


# -- internal errors --------------------------------------------------------------------------------------------------


def test_an_internal_error_has_its_data():
    assert internal(2, 3, [5, 6, 7, 8]).decode() == exits.InternalError(2, (5, 6, 7), b"")
    assert internal(4, 0, [5]).decode() == exits.InternalError(4, (), b"")


@pytest.mark.parametrize("ndata", [17, 1000, 0xFFFF_FFFF])
def test_a_count_of_data_beyond_the_field_is_cut(ndata):
    data = list(range(1, 17))
    assert internal(3, ndata, [*data, 0xBAD]).decode() == exits.InternalError(3, tuple(data), b"")
    event = Recorded(NUMBER["SYSTEM_EVENT"], struct.pack("<II17Q", 1, ndata, *data, 0xBAD))
    assert event.decode() == exits.SystemEvent(1, tuple(data))


@pytest.mark.parametrize("size", [1, 3, 15])
def test_an_emulation_failure_has_the_instruction(size):
    code = bytes(range(0x0F, 0x1E))
    got = failure(3, 1, size, code).decode()
    assert isinstance(got, exits.InternalError)
    assert (got.suberror, got.instruction, len(got.data)) == (1, code[:size], 3)


@pytest.mark.parametrize("size", [16, 100, 255])
def test_an_instruction_longer_than_fifteen_bytes_is_cut(size):
    code = bytes(range(0x0F, 0x1E))
    recorded = failure(3, 1, size, code)
    recorded.area[UNION + 32 : UNION + 64] = b"\xbb" * 32
    assert recorded.decode().instruction == code


@pytest.mark.parametrize(
    ("suberror", "ndata", "flags"),
    [(1, 3, 0), (1, 3, 2), (1, 0, 1), (3, 3, 1)],
    ids=["flag not set", "another flag", "no data at all", "another error"],
)
def test_instruction_bytes_count_only_where_kvm_says_so(suberror, ndata, flags):
    recorded = Recorded(NUMBER["INTERNAL_ERROR"], struct.pack("<IIQB15s", suberror, ndata, flags, 3, b"\x0f\x01\xc1"))
    assert recorded.decode().instruction == b""


# -- a failed KVM_RUN -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.EINTR, errno.EAGAIN])
@pytest.mark.parametrize("stale", ["IO", "MMIO", "MEMORY_FAULT", "HLT"])
def test_an_interrupted_run_is_an_exit_whatever_reason_is_left_over(error, stale):
    assert Recorded(NUMBER[stale]).decode(error) == exits.Interrupted(error)


@pytest.mark.parametrize("error", [EFAULT, EHWPOISON])
def test_a_memory_fault_comes_with_a_failed_run(error):
    recorded = Recorded(NUMBER["MEMORY_FAULT"], struct.pack("<QQQ", 8, BIG, 0x1000))
    assert recorded.decode(error) == exits.MemoryFault(8, BIG, 0x1000, error)


@pytest.mark.parametrize("error", [EFAULT, EHWPOISON, errno.EBADF, errno.EINVAL, errno.ENOEXEC, errno.EIO])
@pytest.mark.parametrize("stale", ["IO", "HLT", "UNKNOWN"])
def test_a_failure_that_no_exit_explains_is_none(error, stale):
    assert Recorded(NUMBER[stale]).decode(error) is None


@pytest.mark.parametrize("error", [errno.EBADF, errno.EINVAL])
def test_a_memory_fault_left_over_explains_no_other_errno(error):
    assert Recorded(NUMBER["MEMORY_FAULT"]).decode(error) is None


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_an_exit_outlives_the_buffer(name):
    union, expected = SAMPLES[name]
    recorded = Recorded(NUMBER[name], union)
    got = recorded.decode()
    recorded.area[:] = b"\xa5" * len(recorded.area)
    assert got == expected
    hash(got)


def test_data_is_copied_out():
    kept = [
        (out := io(1, 2, 1, 2, b"abcd")).decode(),
        (write := mmio(0, b"abcdefgh", 4, 1)).decode(),
        (failed := failure(3, 1, 4, b"abcd")).decode(),
        (strange := Recorded(99, b"abcd")).decode(),
    ]
    for recorded in (out, write, failed, strange):
        recorded.area[:] = bytes(len(recorded.area))
    assert kept[0].data == b"abcd"
    assert kept[1].data == b"abcd"
    assert kept[2].instruction == b"abcd"
    assert kept[3].payload[:4] == b"abcd"


@given(reason=st.integers(0, 0xFFFF_FFFF) | st.sampled_from(sorted(NUMBER.values())), union=st.binary(max_size=256))
def test_no_bytes_of_the_union_make_decoding_fail(reason, union):
    recorded = Recorded(reason, union)
    assert isinstance(recorded.decode(), typing.get_args(exits.Exit))

# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of an exit: `handle` on exits as values, with a Platform and no device."""

from __future__ import annotations

import typing

import pytest

from vmm.abi import exits as abi
from vmm.abi.pv import RETURNS
from vmm.abi.rows import value_meaning
from vmm.kvm import exits
from vmm.machine.bus.platform import Platform
from vmm.machine.devices.console import DebugConsole
from vmm.machine.devices.sink import Sink
from vmm.machine.ends import CRASHES, LIMITS, Resume, Stop, Why
from vmm.machine.run.handle import handle

# One exit of every kind, and why the run stops at it; None: it goes on.
KINDS: dict[type, tuple[exits.Exit, Why | None]] = {
    type(exit): (exit, why)
    for exit, why in (
        (exits.PortIn(0x80, 1, 1), None),
        (exits.PortOut(0x80, 1, b"x"), None),
        (exits.MmioRead(0xD000_0000, 8), None),
        (exits.MmioWrite(0xD000_0000, b"12345678"), None),
        (exits.Halt(), Why.HALT),
        (exits.Hypercall(12, (0, 0, 0, 0, 0, 0), True), None),
        (exits.ReadMsr(0x174, 2), None),
        (exits.WriteMsr(0x174, 1, 2), None),
        (exits.Debug(1, 0x2_0000, 0x4000, 0), Why.DEBUG),
        (exits.IrqWindowOpen(), None),
        (exits.Shutdown(), Why.SHUTDOWN),
        (exits.FailEntry(0x8000_0021, 3), Why.FAIL_ENTRY),
        (exits.Interrupted(4), None),
        (exits.InternalError(1, (1, 2), b"\x0f\x01\xc1"), Why.INTERNAL_ERROR),
        (exits.SystemEvent(2, ()), Why.SYSTEM_EVENT),
        (exits.MemoryFault(8, 0x1000, 0x2000, 14), Why.MEMORY_FAULT),
        (exits.IoapicEoi(0x51), None),
        (exits.TprAccess(0x2_0000, True), None),
        (exits.Notify(1), Why.UNHANDLED),
        (exits.ExceptionExit(13, 0x18), Why.UNHANDLED),
        (exits.HardwareUnknown(77), Why.UNHANDLED),
        (exits.Hyperv(2), Why.UNHANDLED),
        (exits.Xen(1), Why.UNHANDLED),
        (exits.Simple(10), None),
        (exits.UnknownExit(99, b"rest"), Why.UNHANDLED),
    )
}


@pytest.mark.parametrize("kind", typing.get_args(exits.Exit), ids=lambda kind: kind.__name__)
def test_every_kind_of_exit_is_handled(kind):
    exit, why = KINDS[kind]
    step = handle(exit, Platform())
    if why is None:
        assert isinstance(step, Resume)
    else:
        assert isinstance(step, Stop)
        assert (step.why, step.exit, step.code) == (why, exit, None)
        assert step.text
        assert "\n" not in step.text


@pytest.mark.parametrize(
    ("exit", "words"),
    [
        (exits.Shutdown(), ["triple fault"]),
        (
            exits.FailEntry(0x8000_0021, 3),
            ["VMX: the entry found guest state", "0x80000021", "CPU 3"],
        ),
        (exits.FailEntry(7, 3), ["VM-instruction error 7: entry with a control that is not allowed"]),
        (exits.InternalError(1, (), b"\x0f\x01\xc1"), ["suberror 1", "0f 01 c1"]),
        (exits.InternalError(1, (), b""), [value_meaning(abi.INTERNAL_ERRORS, 1)]),
        (exits.InternalError(99, (), b""), ["99"]),
        (exits.SystemEvent(2, ()), ["KVM_SYSTEM_EVENT_RESET"]),
        (exits.SystemEvent(55, ()), ["55"]),
        (exits.MemoryFault(8, 0x1000, 0x2000, 14), ["0x1000", "0x2000", "EFAULT"]),
        (exits.MemoryFault(0, 0x1000, 0x2000, 133), ["133"]),
        (exits.Debug(1, 0x2_0000, 0, 0), ["0x20000"]),
        (exits.UnknownExit(40, b""), ["TDX"]),
        (exits.UnknownExit(99, b""), ["99"]),
        (exits.Hyperv(2), ["Hyperv"]),
        (exits.Xen(1), ["Xen"]),
        (exits.ExceptionExit(13, 0x18), ["13", "0x18"]),
        (exits.HardwareUnknown(77), ["0x4d"]),
    ],
)
def test_the_reason_says_what_the_exit_knew(exit, words):
    step = handle(exit, Platform())
    assert isinstance(step, Stop)
    assert all(word in step.text for word in words), step.text


def test_crashes_and_limits_are_apart():
    assert not CRASHES & LIMITS
    for exit, why in KINDS.values():
        step = handle(exit, Platform())
        if isinstance(step, Stop):
            assert step.crashed == (why not in (Why.HALT, Why.DEBUG, Why.SYSTEM_EVENT))
            assert not step.limited
    for why in (Why.TIME_LIMIT, Why.OUTPUT_LIMIT, Why.EXIT_LIMIT):
        assert Stop(why, "").limited
        assert not Stop(why, "").crashed


# -- ports and MMIO ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "values"), [(1, [0x61, 0x62, 0x63]), (2, [0x6261, 0x6463]), (4, [0x6463_6261])])
def test_rep_outs_is_the_same_port_and_the_next_element(size, values):
    platform, got = Platform(strict=True), []
    platform.ports.on_write(0x80, got.append)
    data = b"".join(value.to_bytes(size, "little") for value in values)
    assert handle(exits.PortOut(0x80, size, data), platform) == Resume()
    assert got == values


def test_rep_ins_asks_the_same_port_for_each_element():
    platform, answers = Platform(strict=True), iter([0x0102, 0x0304, 0x0506])
    platform.ports.on_read(0x80, lambda: next(answers))
    assert handle(exits.PortIn(0x80, 2, 3), platform) == Resume(b"\x02\x01\x04\x03\x06\x05", answers=True)


@pytest.mark.parametrize("size", range(1, 9))
def test_mmio_reads_are_answered_and_writes_delivered(size):
    platform, got = Platform(strict=True), []
    platform.mmio.on_read(0xD000_0000, lambda: (1 << 8 * size) - 2, 8)
    platform.mmio.on_write(0xD000_0000, got.append, 8)
    step = handle(exits.MmioRead(0xD000_0000, size), platform)
    assert step == Resume(b"\xfe" + b"\xff" * (size - 1), answers=True)
    assert handle(exits.MmioWrite(0xD000_0000, bytes(range(1, size + 1))), platform) == Resume()
    assert got == [int.from_bytes(bytes(range(1, size + 1)), "little")]


def test_a_write_asks_for_no_answer():
    for exit in (exits.PortOut(0x80, 1, b"x"), exits.MmioWrite(0, b"x")):
        assert handle(exit, Platform()) == Resume(None, answers=False)


UNCLAIMED = [
    (exits.PortIn(0x80, 4, 2), b"\xff" * 8, 2),
    (exits.PortOut(0x80, 1, b"ab"), None, 2),
    (exits.MmioRead(0x1_0000_0000, 8), b"\xff" * 8, 1),
    (exits.MmioWrite(0x1_0000_0000, b"ab"), None, 1),
]


@pytest.mark.parametrize(("exit", "reply", "count"), UNCLAIMED)
def test_unclaimed_reads_are_ones_and_all_is_counted(exit, reply, count):
    platform = Platform()
    step = handle(exit, platform)
    assert step == Resume(reply, answers=reply is not None)
    assert platform.ports.unclaimed.total + platform.mmio.unclaimed.total == count


@pytest.mark.parametrize(("exit", "reply", "count"), UNCLAIMED)
def test_strict_stops_at_what_nobody_claims(exit, reply, count):
    step = handle(exit, Platform(strict=True))
    assert isinstance(step, Stop)
    assert (step.why, step.exit, step.crashed) == (Why.UNCLAIMED, exit, True)
    assert "no device claims" in step.text


def test_the_output_limit_stops_and_keeps_what_fitted():
    platform, sink = Platform(), Sink(4)
    platform.ports.claim(0xE9, 1, DebugConsole(sink))
    assert handle(exits.PortOut(0xE9, 1, b"abc"), platform) == Resume()
    step = handle(exits.PortOut(0xE9, 1, b"def"), platform)
    assert isinstance(step, Stop)
    assert (step.why, step.limited, sink.data) == (Why.OUTPUT_LIMIT, True, b"abcd")


# -- MSRs and hypercalls ----------------------------------------------------------------------------------------------


def test_msr_hooks_answer_refuse_and_see_the_value():
    platform, seen = Platform(), []
    platform.msr_reads = {0x10: lambda: 0x1234, 0x11: lambda: None, 0x12: lambda: 0}
    platform.msr_writes = {0x10: seen.append, 0x11: lambda value: False, 0x12: lambda value: True}
    reads = [handle(exits.ReadMsr(index, 2), platform) for index in (0x10, 0x11, 0x12, 0x13)]
    assert reads == [Resume(0x1234, True), Resume(None, True), Resume(0, True), Resume(None, True)]
    writes = [handle(exits.WriteMsr(index, 7, 2), platform) for index in (0x10, 0x11, 0x12, 0x13)]
    assert writes == [Resume(0, True), Resume(None, True), Resume(0, True), Resume(None, True)]
    assert seen == [7]


def test_a_hypercall_hook_gets_its_arguments_and_an_unknown_call_is_enosys():
    platform, seen = Platform(), []

    def call(*args: int) -> int:
        seen.append(args)
        return 42

    platform.hypercalls[12] = call
    assert handle(exits.Hypercall(12, (1, 2, 3, 4, 5, 6), True), platform) == Resume(42, answers=True)
    assert seen == [(1, 2, 3, 4, 5, 6)]
    enosys = next(row.value for row in RETURNS if row.name == "KVM_ENOSYS")
    assert handle(exits.Hypercall(13, (0,) * 6, True), platform) == Resume(-enosys, answers=True)


class Mine(Exception):
    pass


def raises(*_: int) -> int:
    raise Mine


@pytest.mark.parametrize(
    "exit",
    [
        exits.PortIn(1, 1, 1),
        exits.PortOut(1, 1, b"x"),
        exits.MmioRead(1, 1),
        exits.MmioWrite(1, b"x"),
        exits.ReadMsr(1, 2),
        exits.WriteMsr(1, 1, 2),
        exits.Hypercall(1, (1,), True),
    ],
    ids=lambda exit: type(exit).__name__,
)
def test_what_a_hook_raises_goes_through(exit):
    platform = Platform()
    for bus in (platform.ports, platform.mmio):
        bus.on_read(1, raises)
        bus.on_write(1, raises)
    platform.msr_reads[1] = platform.msr_writes[1] = platform.hypercalls[1] = raises
    with pytest.raises(Mine):
        handle(exit, platform)

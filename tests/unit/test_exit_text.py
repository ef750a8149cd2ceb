# SPDX-License-Identifier: GPL-2.0-or-later
"""Each kind of exit as one line for a person."""

from __future__ import annotations

from typing import get_args

import pytest

from vmm.abi import exits as abi
from vmm.kvm import exits
from vmm.kvm.exits import Exit
from vmm.observe.exit_text import describe

LINES = {
    exits.PortOut(0xE9, 1, b"A"): "OUT port 0xe9, 1 byte: 0x41 'A'",
    exits.PortOut(0xE9, 1, b"\x1b"): "OUT port 0xe9, 1 byte: 0x1b",
    exits.PortOut(0xE9, 1, b"abc"): "OUT port 0xe9, 1 byte: 3 elements: 61 62 63",
    exits.PortOut(0x80, 2, b"\x34\x12"): "OUT port 0x80, 2 bytes: 0x1234",
    exits.PortOut(0x80, 4, bytes(64)): f"OUT port 0x80, 4 bytes: 16 elements: {'00 ' * 16}...",
    exits.PortIn(0x3F8, 1, 1): "IN port 0x3f8, 1 byte",
    exits.PortIn(0x3F8, 4, 3): "IN port 0x3f8, 4 bytes, 3 elements",
    exits.MmioWrite(0xD0000000, b"\x01\x02\x03\x04"): "MMIO write 0xd0000000, 4 bytes: 0x4030201",
    exits.MmioRead(0xD0000000, 8): "MMIO read 0xd0000000, 8 bytes",
    exits.ReadMsr(0x4B564D00, 2): "RDMSR 0x4b564d00 (KVM_MSR_EXIT_REASON_UNKNOWN)",
    exits.WriteMsr(0x10, 0xFF, 4): "WRMSR 0x10: 0xff (KVM_MSR_EXIT_REASON_FILTER)",
    exits.InternalError(1, (), b"\xf3\x0f\xb8\xc0"): "internal error 1, instruction bytes f3 0f b8 c0",
    exits.InternalError(3, (1, 2), b""): "internal error 3",
    exits.Halt(): "Halt",
    exits.Shutdown(): "Shutdown",
    exits.Hypercall(12, (1, 2), True): "Hypercall (nr=0xc, args=[0x1 0x2], long_mode=True)",
    exits.FailEntry(0x80000021, 3): "FailEntry (reason=0x80000021, cpu=0x3)",
    exits.UnknownExit(200, b"\x01\x02"): "UnknownExit (reason=0xc8, payload=01 02)",
}


@pytest.mark.parametrize("exit", LINES, ids=lambda exit: type(exit).__name__)
def test_line(exit: Exit) -> None:
    assert describe(exit) == LINES[exit]


def test_a_simple_exit_is_its_kernel_name() -> None:
    row = next(row for row in abi.EXITS if row.name == "INTR")
    assert describe(exits.Simple(row.number)) == abi.exit_name(row.number)
    assert "INTR" in describe(exits.Simple(row.number))


VALUES = {
    "int": 0x123,
    "bytes": b"\x0f\x01\xc1",
    "bool": True,
    "tuple[int, ...]": (1, 2),
}


@pytest.mark.parametrize("kind", get_args(Exit), ids=lambda kind: kind.__name__)
def test_every_kind_has_a_line_that_shows_its_fields(kind: type) -> None:
    made = kind(*(VALUES[field.type] for field in kind.__dataclass_fields__.values()))
    text = describe(made)
    assert "\n" not in text
    assert "object at" not in text
    if "0x123" not in text and any(field.type == "int" for field in kind.__dataclass_fields__.values()):
        assert any(str(value) in text for value in (0x123, "0x123")), text

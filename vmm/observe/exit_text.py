# SPDX-License-Identifier: GPL-2.0-or-later
"""An exit as one line for a person. It knows the values of vmm/kvm/exits.py; it reads no guest."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from vmm.abi import exits as abi
from vmm.abi import ports
from vmm.abi.rows import flag_names
from vmm.kvm.exits import Exit, InternalError, MmioRead, MmioWrite, PortIn, PortOut, ReadMsr, Simple, WriteMsr
from vmm.machine.bus.answers import in_bytes

SHOWN_BYTES = 16
PORTS = {
    ports.DEBUG_CONSOLE: "console",
    ports.EXIT: "exit port",
    ports.FAULT: "fault port",
    ports.HYPERCALL: "hypercall port",
    ports.SYSCALL: "system call port",
} | {ports.COM1 + offset: "COM1" for offset in range(ports.COM1_SIZE)}


def _data(data: bytes, size: int) -> str:
    """One element as a number, more as bytes with the printable text beside them."""
    if len(data) == size:
        value = int.from_bytes(data, "little")
        char = f" {chr(value)!r}" if size == 1 and 0x20 <= value < 0x7F else ""
        return f"{value:#x}{char}"
    shown = data[:SHOWN_BYTES].hex(" ") + (" ..." if len(data) > SHOWN_BYTES else "")
    return f"{len(data) // size} elements: {shown}"


def describe(exit: Exit) -> str:
    """`OUT port 0xe9, 1 byte: 0x41 'A'`; every field is shown for the kinds without a sentence of their own."""
    match exit:
        case PortOut(port, size, data):
            return f"OUT port {port:#x}, {in_bytes(size)}: {_data(data, size)}"
        case PortIn(port, size, count):
            return f"IN port {port:#x}, {in_bytes(size)}" + (f", {count} elements" if count > 1 else "")
        case MmioWrite(address, data):
            return f"MMIO write {address:#x}, {in_bytes(len(data))}: {_data(data, len(data))}"
        case MmioRead(address, size):
            return f"MMIO read {address:#x}, {in_bytes(size)}"
        case ReadMsr(index, reason):
            return f"RDMSR {index:#x} ({flag_names(abi.MSR_EXIT_REASONS, reason)})"
        case WriteMsr(index, value, reason):
            return f"WRMSR {index:#x}: {value:#x} ({flag_names(abi.MSR_EXIT_REASONS, reason)})"
        case InternalError(suberror, _, instruction):
            return f"internal error {suberror}" + (f", instruction bytes {instruction.hex(' ')}" if instruction else "")
        case Simple(reason):
            return abi.exit_name(reason)
        case _:
            parts = ", ".join(f"{each.name}={_field(getattr(exit, each.name))}" for each in fields(exit))
            return f"{type(exit).__name__}" + (f" ({parts})" if parts else "")


def named(exit: Exit, text: str) -> str:
    """The text of `describe`, with the name of a port of pyvmm's own: `OUT port 0xf5 (fault port), 1 byte`."""
    if not isinstance(exit, (PortIn, PortOut)) or exit.port not in PORTS or exit.port == ports.DEBUG_CONSOLE:
        return text
    return text.replace(f"port {exit.port:#x}", f"port {exit.port:#x} ({PORTS[exit.port]})", 1)


def _field(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return f"{value:#x}"
    if isinstance(value, tuple):
        return "[" + " ".join(_field(each) for each in value) + "]"
    return value.hex(" ") if isinstance(value, bytes) else str(value)

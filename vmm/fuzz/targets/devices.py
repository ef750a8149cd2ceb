# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices on a bus: what a guest can do to them, and what their host does meanwhile. UART, IOAPIC, and a user's.

An input is rows of 11 bytes, an operation each: which, an offset, a value. What any device must hold to:
a read gives an unsigned number of its size; the state that it tells can be put back, and is then told again.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vmm.abi import irq
from vmm.abi.apic import msi_address
from vmm.errors import UsageError
from vmm.fuzz.taker import Taker, rows
from vmm.fuzz.target import HostTarget, Wrong, constants, files_of
from vmm.machine.devices.ioapic import Ioapic, Message
from vmm.machine.devices.sink import Sink
from vmm.machine.devices.uart16550 import Uart16550A

READ, WRITE, STATE, HOST = range(4)
SIZES = (1, 2, 4, 8)
OPERATIONS = 32


class DeviceTarget(HostTarget):
    """A device with `read(offset, size)` and `write(offset, size, value)`, made anew for each input by `make`.
    `wide`: bytes of its registers; `host(device, taker)`: one thing that its host does.
    """

    name = "device"
    row = 11
    most = 32 * row
    wide = 1 << 12

    def make(self) -> Any:
        """The device in its first state."""
        raise NotImplementedError

    def host(self, device: Any, taker: Taker) -> None:
        """What comes from the other side."""

    def check(self, device: Any) -> None:
        """What must hold after each operation; Wrong where it does not."""

    def play(self, data: bytes) -> None:
        device = self.make()
        for taker in rows(data, self.row, OPERATIONS):
            what = taker.number()
            size = SIZES[what >> 4 & 3]
            match what & 3:
                case 0:
                    read(device, taker.number(2) % self.wide, size)
                case 1:
                    device.write(taker.number(2) % self.wide, size, taker.number(size))
                case 2:
                    put_back(device)
                case _:
                    self.host(device, taker)
            self.check(device)


def operation(what: int, at: int = 0, value: int = 0, size: int = 1) -> bytes:
    """A row of an input."""
    return bytes((what | SIZES.index(size) << 4,)) + at.to_bytes(2, "little") + value.to_bytes(8, "little")


def read(device: Any, offset: int, size: int) -> int:
    """A register. Wrong: what it gives is no unsigned number of that size."""
    value = device.read(offset, size)
    if not isinstance(value, int) or not 0 <= value < 1 << 8 * size:
        raise Wrong(f"a read of {size} bytes at {offset:#x} gave {value!r}")
    return value


def put_back(device: Any) -> None:
    """Its state, told, put back and told again, where it has one. Wrong: it is another."""
    if not hasattr(device, "get_state"):
        return
    state = device.get_state()
    device.set_state(state)
    if device.get_state() != state:
        raise Wrong(f"the state {state} was put back, and is {device.get_state()}")


class Uart(DeviceTarget):
    """The 16550A with a peer that sends and drives its modem lines."""

    name = "uart"
    wide = 10
    files = files_of("vmm.machine.devices.uart16550", "vmm.machine.devices.uart_receiver")

    def seeds(self) -> Sequence[bytes]:
        loop = ((4, 0x1B), (1, 0x0F), (2, 0xC7), (0, 0x41))
        fed = ((4, 0x08), (1, 0x05), (2, 0x07))
        look = b"".join(operation(READ, at) for at in (2, 0, 5, 6))
        return (b"".join(operation(WRITE, at, value) for at, value in loop) + look,
                b"".join(operation(WRITE, at, value) for at, value in fed) + operation(HOST, 0x6102) + look,
                operation(STATE))  # fmt: skip

    def make(self) -> Uart16550A:
        self.level = False
        return Uart16550A(Sink(1 << 16), self._driven)

    def _driven(self, level: bool) -> None:
        self.level = level

    def host(self, device: Uart16550A, taker: Taker) -> None:
        what = taker.number()
        if what & 0x80:
            device.set_modem_lines(what << 4 & 0xF0)
        else:
            device.feed(taker.rest(what & 0x1F), wait=bool(what & 0x20))

    def check(self, device: Uart16550A) -> None:
        if device.interrupting != self.level:
            raise Wrong(f"its line is {device.interrupting}, and who was told of it has {self.level}")
        if device.unread < 0:
            raise Wrong(f"{device.unread} characters unread")


class IoapicTarget(DeviceTarget):
    """The IOAPIC with lines that are driven and interrupts that end; each message must be one that an MSI can be."""

    name = "ioapic"
    wide = 0x50
    files = files_of("vmm.machine.devices.ioapic")

    def seeds(self) -> Sequence[bytes]:
        row = irq.IOAPIC_REDTBL + 8
        level = operation(WRITE, irq.IOREGSEL, row, 4) + operation(WRITE, irq.IOWIN, 0x8041, 4)
        ends = b"".join(operation(HOST, what) for what in (0x84, 0x04, 0x4160))
        return level + ends + operation(READ, irq.IOWIN, size=4), operation(STATE)

    def make(self) -> Ioapic:
        return Ioapic(self._sent)

    def _sent(self, message: Message) -> None:
        if message.address & ~0xFFFFF != msi_address(0) & ~0xFFFFF or not 0 <= message.data < 1 << 16:
            raise Wrong(f"it sent {message}")

    def host(self, device: Ioapic, taker: Taker) -> None:
        what = taker.number()
        if what & 0x60 == 0x60:
            device.end_of_interrupt(taker.number())
        else:
            device.set_line(what & 0x1F if what & 0x1F < irq.IOAPIC_PINS else 0, bool(what & 0x80))

    def check(self, device: Ioapic) -> None:
        for pin, entry in enumerate(device.entries):
            if entry & irq.RTE_REMOTE_IRR and not entry & irq.RTE_LEVEL:
                raise Wrong(f"pin {pin} is edge triggered and waits for its end: {entry:#x}")


class Own(DeviceTarget):
    """A user's device: a Python file with a function `device()` that makes it. Its lines are the coverage, with those
    of the classes that it is made of.
    """

    def __init__(self, path: str) -> None:
        self.name = path
        self._make: Callable[[], Any] = load(path)
        device = self._make()
        for need in ("read", "write"):
            if not callable(getattr(device, need, None)):
                raise UsageError(
                    f"{path}: what device() makes has no {need}()", hint="read(offset, size) and write(offset, size, v)"
                )
        found = {path_of(each) for each in type(device).__mro__ if each.__module__ != "builtins"} | {path}
        self.files = tuple(sorted(each for each in found if each))
        self.closely = (path,)
        super().__init__()

    def seeds(self) -> Sequence[bytes]:
        """Every register that its code may name is written and read."""
        numbers = {int.from_bytes(each, "little") for each in constants(self.files) if len(each) <= 2} | {0, 1}
        each = [operation(WRITE, at, 0, 4) + operation(READ, at, 0, 4) for at in sorted(numbers) if at < self.wide]
        return b"".join(each)[: self.most], *each[:64]

    def make(self) -> Any:
        return self._make()


def path_of(kind: type) -> str:
    """The Python file of a class; empty where there is none."""
    try:
        return inspect.getsourcefile(kind) or ""
    except (TypeError, OSError):
        return ""


def load(path: str) -> Callable[[], Any]:
    """The function `device` of a Python file.

    Raises:
        UsageError: it cannot be read or imported, or has no such function.
    """
    if not Path(path).is_file():
        raise UsageError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(f"fuzzed_{Path(path).stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"importing {path}: {type(error).__name__}: {error}") from error
    found = getattr(module, "device", None)
    if not callable(found):
        raise UsageError(f"{path} has no function device()", hint="`pyvmm docs fuzz#a-device-of-your-own`")
    made: Callable[[], Any] = found
    return made

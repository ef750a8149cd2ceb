# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions of a guest for property tests: each call in a machine as new, and the last one again, looked at, where a
test has failed. It knows no test runner.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from vmm.errors import VmmError
from vmm.machine.machine import Machine
from vmm.machine.run.function import Argument, Function, addresses
from vmm.report.failure import WatchedMachine

if TYPE_CHECKING:
    from vmm.asm.program import Program
    from vmm.kvm import Kvm

TIMEOUT = 1.0  # seconds of one call: a function that hangs is shrunk, too


class GuestFunctions:
    """Functions of one program, by name. One of them at a time has the thread (`rest` gives it back)."""

    def __init__(self, kvm: Kvm, program: str | bytes | Program) -> None:
        self._kvm, self._program = kvm, program
        self._made: dict[str, GuestFunction] = {}
        self._machines: list[Machine] = []
        self.active: GuestFunction | None = None
        self.called: GuestFunction | None = None
        """The one that was called last, since a test began."""

    def __call__(self, name: str, *, timeout: float = TIMEOUT) -> GuestFunction:
        """The function of that name. Errors as Machine.load and Machine.function."""
        if name not in self._made:
            machine = Machine(kvm=self._kvm)
            self._machines.append(machine)
            machine.load(self._program)
            self._made[name] = GuestFunction(self, machine.function(name, timeout), name)
        return self._made[name]

    def rest(self) -> None:
        """No function has the thread."""
        if self.active is not None:
            self.active.function.close()
            self.active = None

    def again(self) -> WatchedMachine | None:
        """The last call once more, in a machine that can be looked at; None: nothing was called. It is to be closed."""
        if self.called is None:
            return None
        machine = WatchedMachine(kvm=self._kvm)
        machine.load(self._program)
        args = self.called.function.last
        given = addresses(args)
        for value, address in zip(args, given, strict=True):
            if not isinstance(value, int) and value:
                machine.memory.write(address, bytes(value))
        with suppress(VmmError):  # how it ended is what is looked at
            machine.call(self.called.name, *given, timeout=TIMEOUT)
        return machine

    def close(self) -> None:
        """Of all of them."""
        self.rest()
        for machine in self._machines:
            machine.close()


class GuestFunction:
    """`f(1, 2)`: see vmm.machine.run.function.Function, whose errors it raises."""

    def __init__(self, all_of_them: GuestFunctions, function: Function, name: str) -> None:
        self._all, self.function, self.name = all_of_them, function, name

    def __call__(self, *args: Argument) -> int:
        """RAX as it returned, unsigned."""
        __tracebackhide__ = True
        self._all.called = self
        if self._all.active is not self:
            self._all.rest()
            self.function.__enter__()
            self._all.active = self
        return self.function(*args)

    def buffer(self, number: int, size: int) -> bytes:
        """`size` bytes of what the last call left in its argument `number` (from 0), which was bytes."""
        return self.function.buffer(number, size)

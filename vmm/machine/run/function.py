# SPDX-License-Identifier: GPL-2.0-or-later
"""A function of a guest, called ten thousand times a second: each call begins with the same machine.

It knows the System V ABI as call.py does; how a round is done is rounds.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vmm.base.bits import MASK64
from vmm.errors import GuestError, UsageError
from vmm.kvm.handle import Closes
from vmm.machine.ends import Why
from vmm.machine.memory.layout import REGIONS
from vmm.machine.run.call import ARGUMENTS, LANDING_AT, prepare
from vmm.machine.whole import Whole

if TYPE_CHECKING:
    from typing import Self

    from vmm.machine.run.rounds import Rounds
    from vmm.machine.snapshot import Snapshot

HLT_AT = LANDING_AT + 2  # behind the OUT: where there is no LAPIC of KVM's, HLT leaves KVM_RUN, and no device is asked
BUFFERS = REGIONS["user"]
Argument = int | bytes | bytearray


class Repeatable(Whole, Protocol):
    """A machine as it is needed by what begins again (vmm/machine/repeats.py)."""

    @property
    def started(self) -> tuple[int, ...]: ...

    @property
    def unwatched(self) -> bool: ...

    def limit(self, timeout: float | None) -> float | None: ...

    def snapshot(self) -> Snapshot: ...

    def reset(self, to: Snapshot) -> int: ...

    def rounds(self, snapshot: Snapshot, timeout: float | None = None) -> Rounds: ...


class Function(Closes):
    """Made by `Machine.function`, to be used in a `with`. `calls` counts, `last` has the arguments of the last call."""

    def __init__(self, machine: Repeatable, name: str | int, timeout: float | None) -> None:
        self.name, self.calls = name, 0
        self.last: tuple[Argument, ...] = ()
        self._machine, self._timeout = machine, timeout
        self._snapshot: Snapshot | None = None
        self._rounds: Rounds | None = None

    def __enter__(self) -> Self:
        machine = self._machine
        prepare(machine, self.name, ())
        self._lands = LANDING_AT + 2
        if machine.irqchip == "none":
            machine.memory.write_u64(machine.cpus[0].vcpu.look("regs").rsp, HLT_AT)
            self._lands = HLT_AT + 1
        try:
            self._snapshot = machine.snapshot()
            self._rounds = machine.rounds(self._snapshot, self._timeout).__enter__()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """The machine is anybody's again, and as it was before the first call. Idempotent."""
        if self._rounds is not None:
            self._rounds.close()
            self._rounds = None
            if self._snapshot is not None:
                self._machine.reset(self._snapshot)
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None

    def __call__(self, *args: Argument) -> int:
        """Put the machine back and call with up to six `args`: numbers of 64 bits (negative: two's complement), or
        bytes, which are put into guest memory, and of which the function gets the address (`buffer`). RAX, unsigned.

        Raises:
            UsageError: more than six arguments, one that does not fit, or outside of `with`.
            GuestError: it did not return: it crashed, halted elsewhere, or ran into the time limit.
            whatever a hook raises.
        """
        rounds = self._rounds
        if rounds is None:
            raise UsageError(
                f"calling {self.name} outside of its block", hint="with machine.function(name) as f: f(1, 2)"
            )
        if len(args) > len(ARGUMENTS):
            raise UsageError(f"calling {self.name}: {len(args)} arguments, and registers take {len(ARGUMENTS)}")
        self.calls += 1
        self.last = args
        rounds.reset()
        given = {"rdi": 0, "rsi": 0}
        for register, value, number in zip(ARGUMENTS, args, addresses(args), strict=False):
            if not isinstance(value, int):
                self._put(number, bytes(value))
            elif not -(1 << 63) <= value <= MASK64:
                raise UsageError(f"calling {self.name}: an argument does not fit in 64 bits")
            given[register] = number
        stop = rounds.run(**given)
        regs = rounds.regs
        if regs.rip != self._lands or stop.why not in (Why.HALT, Why.EXIT_PORT):
            raise GuestError(f"{shown(self.name, args)} did not return: {stop.text}")
        return int(regs.rax)

    def _put(self, at: int, data: bytes) -> None:
        if at + len(data) > BUFFERS.end:
            raise UsageError(f"calling {self.name}: buffers of more than {BUFFERS.size} bytes together")
        if data:
            self._machine.memory.write(at, data)

    def buffer(self, number: int, size: int) -> bytes:
        """`size` bytes of what the last call left where its argument `number` (from 0) was put, which was bytes."""
        return self._machine.memory.read(addresses(self.last)[number], size)


def addresses(args: tuple[Argument, ...]) -> tuple[int, ...]:
    """What the function gets: each number, and of bytes where they are put."""
    given, at = [], BUFFERS.base
    for value in args:
        if isinstance(value, int):
            given.append(value)
        else:
            given.append(at)
            at += (len(value) + 31) & ~15  # sixteen bytes of nothing, at least, between two
    return tuple(given)


def shown(name: str | int, args: tuple[Argument, ...]) -> str:
    """The call as one would write it: `add(1, -2)`."""
    return f"{name}({', '.join(map(repr, args))})"

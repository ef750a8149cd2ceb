# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine looks like at one moment, as the panes see it. Values, and three ways to look at its memory.

It is made of a stopped machine, on the thread that runs it (look.py), or by a test, of numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vmm.asm.program import Program
from vmm.kvm.state import Regs, Sregs
from vmm.machine.x86.page_walk import Fault, Translation


@dataclass(frozen=True)
class CpuLook:
    """One vCPU. `before` are its registers at the stop before; `address` the linear address of what is next."""

    index: int
    apic_id: int
    regs: Regs
    sregs: Sregs
    before: Regs | None = None
    sregs_before: Sregs | None = None
    state: str = ""
    mode: str = "64-bit ring 0"
    bits: int = 64
    address: int = 0
    where: str = ""
    source: str = ""


@dataclass(frozen=True)
class BreakLook:
    """A breakpoint, watchpoint or catch. `address` is where an instruction stands, None for the other kinds."""

    number: int
    text: str
    address: int | None = None
    hits: int = 0
    kind: str = "breakpoint"


@dataclass(frozen=True)
class StopLook:
    """A stop of this run; `now` is the one that the machine is at."""

    number: int
    why: str
    text: str
    where: str
    now: bool = False


@dataclass(frozen=True)
class ExitLook:
    """An exit as it came."""

    number: int
    cpu: int
    text: str
    where: str = ""
    source: str = ""


GENERAL_ONES = "general"
REGISTER_KINDS = (GENERAL_ONES, "vector", "x87", "debug", "msrs")
"""Of which one is in the pane of registers."""


@dataclass(frozen=True)
class OtherLook:
    """A register that is no general one: its value as text, and what that says."""

    name: str
    value: str
    words: str = ""
    changed: bool = False


@dataclass(frozen=True)
class DeviceLook:
    """A device: where it answers, and its registers as (name, value as text)."""

    name: str
    place: str
    registers: tuple[tuple[str, str], ...] = ()


def nothing(_address: int, _size: int) -> bytes:
    """Memory that is not there."""
    return b""


def no_walk(va: int) -> Translation:
    """A walk where there is nothing to walk."""
    return Translation(va, "off", fault=Fault.NOT_PRESENT)


@dataclass(frozen=True)
class Scene:
    """`read(va, size)` gives fewer bytes where mapped memory ends, `read_physical` likewise by guest-physical address;
    `place(gpa)` names what lies there. `cursor` is the address that the source pane is at, `memory_at` where the memory
    pane begins, `walk_at` the address whose page walk is shown.
    """

    cpus: tuple[CpuLook, ...]
    vcpu: int = 0
    program: Program | None = None
    read: Callable[[int, int], bytes] = nothing
    read_physical: Callable[[int, int], bytes] = nothing
    walk: Callable[[int], Translation] = no_walk
    place: Callable[[int], str] = str
    breaks: tuple[BreakLook, ...] = ()
    stops: tuple[StopLook, ...] = ()
    exits: tuple[ExitLook, ...] = ()
    devices: tuple[DeviceLook, ...] = ()
    console: str = ""
    ended: tuple[str, ...] = ()
    """Of a guest that has ended: how, and its post-mortem, as lines."""
    cursor: int | None = None
    line: tuple[str, int] | None = None
    """File and line of the cursor, where it is in a source file."""
    top: tuple[str, int] | None = None
    """The first line that was shown last: it stays while what is to be seen is in sight."""
    memory_at: int = 0
    memory_of: str = ""
    """The expression that `memory_at` follows."""
    physical: bool = False
    stack_at: int | None = None
    walk_at: int | None = None
    walk_of: str = ""
    disassembly: bool = False
    registers: str = GENERAL_ONES
    others: tuple[OtherLook, ...] = ()
    """The registers of that kind, where it is not the general one."""
    files: Callable[[str], tuple[str, ...]] = field(default=lambda _name: ())
    """The lines of a source file; none where it cannot be read."""

    @property
    def cpu(self) -> CpuLook:
        """The vCPU that is looked at."""
        return self.cpus[self.vcpu]

    def with_(self, **changes: object) -> Scene:
        """The same with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def name(self, address: int) -> str:
        """`symbol+0x4`, or nothing."""
        return (self.program.symbolize(address) if self.program else None) or ""

    def broken_at(self, address: int) -> bool:
        """Is there a breakpoint?"""
        return any(each.address == address for each in self.breaks)

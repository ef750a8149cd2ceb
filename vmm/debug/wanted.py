# SPDX-License-Identifier: GPL-2.0-or-later
"""Which exits a catch is for. It knows kinds of exits and what has to be told so that they come; it stops nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.base.names import unknown
from vmm.errors import UsageError
from vmm.kvm import exits
from vmm.kvm.exits import MmioRead, MmioWrite, PortIn, PortOut, ReadMsr, WriteMsr
from vmm.machine.run.cpu import current

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.kvm.exits import Exit
    from vmm.machine.machine import Machine

KINDS = {
    kind.__name__: kind for kind in vars(exits).values() if isinstance(kind, type) and kind.__module__ == exits.__name__
}


def catcher(
    machine: Machine,
    *,
    exit: str | type[Exit] | None,
    port: int | tuple[int, int] | None,
    mmio: int | tuple[int, int] | None,
    msr: int | None,
) -> tuple[str, Callable[[Exit], bool]]:
    """(what is caught, in words; whether an exit is it).

    Raises:
        UsageError: not exactly one, no such kind, no such address, or KVM serves it itself.
    """
    given = [name for name, each in (("exit", exit), ("port", port), ("mmio", mmio), ("msr", msr)) if each is not None]
    if len(given) != 1:
        raise UsageError(f"a catch of {' and '.join(given) or 'nothing'}: give one of exit, port, mmio, msr")
    if exit is not None:
        return _of_kind(exit)
    if msr is not None:
        return _of_msr(machine, msr)
    if port is not None:
        first, last = _range(port, 16, "port")
        return (
            f"port {_shown(first, last)}",
            lambda each: isinstance(each, (PortIn, PortOut)) and _meets(each.port, each.size, first, last),
        )
    assert mmio is not None
    first, last = _range(mmio, 64, "MMIO address")
    return (
        f"MMIO {_shown(first, last)}",
        lambda each: (
            (isinstance(each, MmioRead) and _meets(each.address, each.size, first, last))
            or (isinstance(each, MmioWrite) and _meets(each.address, len(each.data), first, last))
        ),
    )


def _of_kind(exit: str | type[Exit]) -> tuple[str, Callable[[Exit], bool]]:
    kind = (
        exit
        if isinstance(exit, type)
        else KINDS.get(exit) or {k.lower(): v for k, v in KINDS.items()}.get(exit.lower())
    )
    if kind is None or KINDS.get(kind.__name__) is not kind:
        raise UsageError(unknown("kind of exit", str(exit), KINDS))
    return f"exit {kind.__name__}", lambda each: isinstance(each, kind)


def _of_msr(machine: Machine, index: int) -> tuple[str, Callable[[Exit], bool]]:
    """KVM serves most MSRs itself: it is told to hand this one over, and what a guest then asks is KVM's own MSR."""

    def read() -> int | None:
        cpu = current()
        return cpu.vcpu.get_msrs([index]).get(index) if cpu else None

    def write(value: int) -> bool:
        cpu = current()
        return cpu is not None and cpu.vcpu.set_msrs({index: value}) == 1

    if index not in machine.platform.msr_reads:
        machine.on_msr_read(index, read)
    if index not in machine.platform.msr_writes:
        machine.on_msr_write(index, write)
    return f"MSR {index:#x}", lambda each: isinstance(each, (ReadMsr, WriteMsr)) and each.index == index


def _range(given: int | tuple[int, int], bits: int, what: str) -> tuple[int, int]:
    first, last = (given, given) if isinstance(given, int) else given
    if not 0 <= first <= last < 1 << bits:
        raise UsageError(f"{what} {_shown(first, last)}: give one of {bits} bits, or the first and the last of a range")
    return first, last


def _shown(first: int, last: int) -> str:
    return f"{first:#x}" if first == last else f"{first:#x} to {last:#x}"


def _meets(address: int, size: int, first: int, last: int) -> bool:
    return address <= last and first < address + size

# SPDX-License-Identifier: GPL-2.0-or-later
"""A stopped machine as a Scene: registers, memory through the page tables, devices. Reading alone, on the thread that
runs the machine.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from vmm.abi.exits import MP_STATES
from vmm.abi.rows import value_name
from vmm.debug.device_registers import devices
from vmm.errors import GuestMemoryError, VmmError
from vmm.kvm.state import Regs, Sregs
from vmm.machine.run.cpu import Cpu
from vmm.machine.x86.virtual import translate
from vmm.observe.postmortem import code_bits, linear, mode_name, place, readable, source, where
from vmm.screen.scene import CpuLook, DeviceLook

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.machine.machine import Machine
    from vmm.machine.x86.page_walk import Translation

MAX_SOURCE = 4 << 20  # bytes of a source file that is shown
WORDS = {"UNINITIALIZED": "waits for INIT", "INIT_RECEIVED": "waits for SIPI", "SIPI_RECEIVED": "has a SIPI"}

Before = dict[int, tuple[Regs, Sregs]]
"""Registers at the stop before, by vCPU."""


def cpu_look(machine: Machine, cpu: Cpu, before: Before) -> CpuLook:
    """One vCPU as it stands."""
    regs, sregs = cpu.vcpu.get_regs(), cpu.vcpu.get_sregs()
    here = linear(sregs, regs.rip)
    old = before.get(cpu.index)
    return CpuLook(
        cpu.index,
        cpu.vcpu.id,
        regs,
        sregs,
        before=old[0] if old is not None else None,
        sregs_before=old[1] if old is not None else None,
        state=_state(machine, cpu),
        mode=mode_name(sregs),
        bits=code_bits(sregs),
        address=here,
        where=where(machine, here),
        source=source(machine, here),
    )


def _state(machine: Machine, cpu: Cpu) -> str:
    if machine.irqchip == "none":
        return "halted" if cpu.index in machine.all_cpus.halted else "runnable"
    try:
        name = value_name(MP_STATES, cpu.vcpu.get_mp_state()).removeprefix("KVM_MP_STATE_")
    except VmmError:
        return ""
    return WORDS.get(name, name.lower())


def reader(machine: Machine, cpu: Cpu) -> Callable[[int, int], bytes]:
    """read(va, size) by the page tables that this vCPU has now."""
    sregs = cpu.vcpu.get_sregs()
    return lambda address, size: readable(machine, sregs, address, size) if 0 <= address < 1 << 64 else b""


def physical_reader(machine: Machine) -> Callable[[int, int], bytes]:
    """read(gpa, size); what no memslot holds is not there."""

    def read(gpa: int, size: int) -> bytes:
        slot = machine.memory.slot_at(gpa)
        if slot is None:
            return b""
        try:
            return machine.memory.read(gpa, min(size, slot.gpa + slot.size - gpa))
        except GuestMemoryError:
            return b""

    return read


def walker(machine: Machine, cpu: Cpu) -> Callable[[int], Translation]:
    """The page walk of an address, as this vCPU would do it."""
    sregs = cpu.vcpu.get_sregs()
    return lambda va: translate(machine.memory, sregs, va)


def placer(machine: Machine) -> Callable[[int], str]:
    """What lies at a guest-physical address, in words."""
    return lambda gpa: place(machine, gpa)


def device_looks(machine: Machine) -> tuple[DeviceLook, ...]:
    """Every device with its registers."""
    return tuple(DeviceLook(name, at, tuple(rows)) for name, at, rows in devices(machine))


@lru_cache(maxsize=64)
def file_lines(name: str) -> tuple[str, ...]:
    """The lines of a source file; none, where it cannot be read or is no text."""
    path = Path(name)
    try:
        if not path.is_file() or path.stat().st_size > MAX_SOURCE:
            return ()
        return tuple(path.read_text(encoding="utf-8", errors="replace").splitlines())
    except (OSError, ValueError):
        return ()

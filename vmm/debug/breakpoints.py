# SPDX-License-Identifier: GPL-2.0-or-later
"""What makes a vCPU stop at an address: debug registers while there is room, else INT3 in guest memory, which
lies there only while the guest runs. It knows KVM_SET_GUEST_DEBUG; it knows no client.

Source: api.rst, KVM_SET_GUEST_DEBUG; Intel SDM vol. 3B, 17.2. Whoever else has told KVM something (Machine.run(until),
a payload) keeps it: KVM_SET_GUEST_DEBUG replaces all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmm.base.record import replace
from vmm.debug.abilities import measure
from vmm.debug.ring3_breaks import traps
from vmm.debug.slow_watch import BY_STEPS
from vmm.debug.values import BREAKPOINT, INT3, WATCHPOINT, Break
from vmm.errors import GuestMemoryError, UsageError
from vmm.kvm.vcpu import HW_BREAKPOINTS, GuestDebug, Watchpoint
from vmm.machine.x86.virtual import translate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmm.machine.machine import Machine
    from vmm.machine.run.cpu import Cpu

ENABLED_IN_DR7 = 0xFF


@dataclass
class Armed:
    """What this leg of a run has set: by address, what each INT3 (guest-physical) hides."""

    hardware: tuple[int, ...] = ()
    watched: tuple[Watchpoint, ...] = ()
    planted: dict[int, int] = field(default_factory=dict)  # linear address -> GPA
    hidden: dict[int, bytes] = field(default_factory=dict)  # GPA -> the guest's own byte
    traps: dict[int, int] = field(default_factory=dict)  # handler -> vector, of INT3 in ring 3 (ring3_breaks.py)
    told: dict[int, GuestDebug] = field(default_factory=dict)  # of each vCPU, what it had been told before


class Arms:
    """Sets breakpoints before a leg, and takes them out after it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.now = Armed()

    def arm(self, breaks: Iterable[Break], *, stepping: Cpu | None = None, without: int | None = None) -> None:
        """For the leg that begins. `stepping` is the vCPU that KVM steps; at `without` nothing strikes.

        Raises:
            UsageError: more hardware breakpoints and watchpoints than there are debug registers.
            GuestMemoryError: nothing is mapped at an address where an INT3 should be.
        """
        machine, now = self._machine, Armed()
        self.now = now
        try:
            for cpu in machine.cpus:
                now.told[cpu.index] = cpu.vcpu.debug
            theirs = max(len(each.breakpoints) + len(each.watchpoints) for each in now.told.values())
            live = [each for each in breaks if (each.enabled and each.address != without) or each.kind == WATCHPOINT]
            live = [each for each in live if each.how != BY_STEPS]
            self._divide([each for each in live if each.enabled], HW_BREAKPOINTS - theirs)
            for cpu in machine.cpus:
                told = now.told[cpu.index]
                wanted = replace(
                    told,
                    singlestep=told.singlestep or cpu is stepping,
                    breakpoints=(*told.breakpoints, *(each for each in now.hardware if each not in told.breakpoints)),
                    watchpoints=(*told.watchpoints, *now.watched),
                    software=told.software or bool(now.planted),
                )
                if wanted != told:
                    cpu.vcpu.put_debug(wanted)
            for gpa in now.hidden:
                machine.memory.write(gpa, INT3)
        except BaseException:
            self.disarm()
            raise

    def _divide(self, live: list[Break], room: int) -> None:
        """Debug registers for those that need one, then for the others; INT3 for what is left."""
        now = self.now
        now.watched = tuple(dict.fromkeys(
            Watchpoint(each.address, each.size, each.access != "write") for each in live if each.kind == WATCHPOINT
        ))  # fmt: skip
        points = [each for each in live if each.kind == BREAKPOINT]
        users = self._in_ring3(points)
        first = list(dict.fromkeys(each.address for each in points if each.hardware and each.address not in users))
        if len(now.watched) + len(first) > room:
            raise UsageError(f"{len(now.watched) + len(first)} hardware breakpoints and watchpoints, and there is room "
                             f"for {room} in the debug registers")  # fmt: skip
        rest = [*now.traps, *(each.address for each in points if each.address not in users)]
        rest = [each for each in dict.fromkeys(rest) if each not in first]
        can = measure(self._machine) if rest else None
        free = room - len(first) - len(now.watched) if can is None or can.hardware else 0
        if can is not None and can.int3_ring0 and not (first or now.watched) and self._guest_uses_them:
            free = 0
        now.hardware = (*first, *rest[:free])
        for address in (*rest[free:], *users):
            self._plant(address)
        for each in points:
            each.how = "hardware" if each.address in now.hardware else "INT3"
        for each in live:
            if each.kind == WATCHPOINT:
                each.how = "hardware"

    def _in_ring3(self, points: list[Break]) -> set[int]:
        """Places that ring 3 can use, where nothing of KVM's strikes there and INT3 leads to a handler of the guest."""
        machine = self._machine
        can = measure(machine) if points else None
        if can is None or can.breakpoints_ring3 or not can.int3_ring0:
            return set()
        regs = machine.cpus[0].vcpu.get_sregs()
        wanted = [each.address for each in points if each.number or not each.hardware]  # those of a step are ring 0's
        users = {address for address in wanted if translate(machine.memory, regs, address).user}
        if users and not can.int3_ring3:
            for cpu in machine.cpus:
                self.now.traps.update(traps(machine, cpu))
        return users if can.int3_ring3 or self.now.traps else set()

    @property
    def _guest_uses_them(self) -> bool:
        """Has a guest breakpoints of its own? KVM would have ours in their place."""
        return any(cpu.vcpu.get_debugregs().dr7 & ENABLED_IN_DR7 for cpu in self._machine.cpus)

    def _plant(self, address: int) -> None:
        memory = self._machine.memory
        for cpu in self._machine.cpus:
            gpa = translate(memory, cpu.vcpu.get_sregs(), address).gpa
            if gpa is not None and memory.slot_at(gpa) is not None:
                self.now.planted[address] = gpa
                self.now.hidden.setdefault(gpa, memory.read(gpa, 1))
                return
        raise GuestMemoryError(f"a breakpoint at {address:#x}: nothing is mapped there, and debug registers are taken")

    def disarm(self) -> None:
        """The guest's memory is its own again, and KVM is told what others had told it. Idempotent."""
        now, memory = self.now, self._machine.memory
        if self._machine.vm.closed:
            return
        for gpa, byte in now.hidden.items():
            if memory.read(gpa, 1) == INT3:  # unless the guest has written there meanwhile
                memory.write(gpa, byte)
        now.hidden.clear()
        for cpu in self._machine.cpus:
            told = now.told.pop(cpu.index, None)
            if told is not None and cpu.vcpu.debug != told:
                cpu.vcpu.put_debug(told)

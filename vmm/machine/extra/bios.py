# SPDX-License-Identifier: GPL-2.0-or-later
"""A BIOS for 16-bit code: the interrupt services that boot sectors and loaders call, answered by the host.

It prints, tells memory, switches A20, counts the timer's ticks, has no disk and no key. The guest's vector table leads
to a stub for each vector, which does an OUT to a port of ours; the caller's registers are changed while it waits there.
A vector that nobody serves ends the run with its number and its caller. Source: Ralf Brown's Interrupt List; ACPI 6.5,
15.1 (E820h).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from vmm.abi import bios, ports
from vmm.abi.bootparam import BIOS_END, EBDA
from vmm.abi.x86 import vector_name
from vmm.errors import GuestMemoryError
from vmm.machine.ends import Stop, Why
from vmm.machine.memory.slots import GuestMemory
from vmm.machine.run.cpu import current

if TYPE_CHECKING:
    from vmm.kvm.state import Regs, Sregs
    from vmm.machine.devices.sink import Sink
    from vmm.machine.whole import Whole

CARRY, ZERO, PROTECTED = 1 << 0, 1 << 6, 1
UNSUPPORTED, BAD_COMMAND, TIMED_OUT = 0x86, 0x01, 0x80
TICKS_PER_SECOND = 1193182 / 65536
MAX_STRING = 4096

Row = tuple[int, int, int]


class Call:
    """One call, with its registers to be changed. `flags` are those that IRET will load."""

    def __init__(self, vector: int, regs: Regs, sregs: Sregs, memory: GuestMemory) -> None:
        self.vector, self.regs, self.memory = vector, regs, memory
        self.es = sregs.es.base
        self._frame = sregs.ss.base + (regs.rsp & 0xFFFF)
        self.ip, self.cs, self.flags = memory.unpack("HHH", self._frame)

    @property
    def ax(self) -> int:
        return self.regs.rax & 0xFFFF

    @property
    def ah(self) -> int:
        return self.regs.rax >> 8 & 0xFF

    @property
    def al(self) -> int:
        return self.regs.rax & 0xFF

    def set(self, **values: int) -> None:
        """16-bit halves by name (`ax=1`), or 32-bit ones (`eax=1`); `ah` and `al` too."""
        for name, value in values.items():
            if name in ("ah", "al"):
                shift = 8 * (name == "ah")
                self.regs.rax = self.regs.rax & ~(0xFF << shift) | (value & 0xFF) << shift
                continue
            mask = 0xFFFF_FFFF if name[0] == "e" else 0xFFFF
            own = f"r{name.removeprefix('e')}"
            setattr(self.regs, own, getattr(self.regs, own) & ~mask | value & mask)

    def flag(self, bit: int, on: bool) -> None:
        self.flags = self.flags & ~bit | bit * on
        self.memory.write_u16(self._frame + 4, self.flags)

    def refuse(self, why: int = UNSUPPORTED) -> None:
        """Carry set, and the reason in AH."""
        self.set(ah=why)
        self.flag(CARRY, True)

    def __str__(self) -> str:
        return f"INT {self.vector:#04x}, AX {self.ax:#06x}, before {self.cs:#06x}:{self.ip:#06x}"


class Bios:
    """The services of one machine. `memory_map` has the rows that E820h gives; `end` ends the run. `area`: the guest's
    memory has a BIOS data area.
    """

    def __init__(
        self, memory_map: tuple[Row, ...], sink: Sink, end: Callable[[Stop], object], *, area: bool = True
    ) -> None:
        self._map, self._sink, self._end, self._area = memory_map, sink, end, area
        self._begin = time.monotonic()
        self.served: dict[int, int] = {}
        self._services: dict[int, Callable[[Call], object]] = {
            bios.VIDEO: self._video,
            bios.EQUIPMENT: lambda call: call.set(ax=bios.ONE_SERIAL_PORT | bios.COPROCESSOR),
            bios.MEMORY_SIZE: lambda call: call.set(ax=EBDA >> 10),
            bios.DISK: self._disk,
            bios.SERIAL: lambda call: call.set(ah=TIMED_OUT),
            bios.SYSTEM: self._system,
            bios.KEYBOARD: self._keyboard,
            bios.PRINTER: lambda call: call.set(ah=BAD_COMMAND),
            bios.TIME: self._time,
            bios.TIMER: self._tick,
            bios.USER_TIMER: lambda call: None,  # nobody waits for ticks
        }

    def serve(self, call: Call) -> None:
        """Answer a call, or end the run where nobody can."""
        self.served[call.vector] = self.served.get(call.vector, 0) + 1
        service = self._services.get(call.vector)
        if service is not None:
            service(call)
        elif call.vector in (bios.BASIC, bios.BOOTSTRAP):
            self._end(Stop(Why.GUEST_FAULT, f"the guest asks the BIOS to boot something else ({call})"))
        elif call.vector not in bios.IRQS:
            exception = f", which is {vector_name(call.vector)} if an instruction faulted" if call.vector < 0x20 else ""
            self._end(Stop(Why.GUEST_FAULT, f"nobody serves {call}{exception}"))

    def _video(self, call: Call) -> None:
        match call.ah:
            case 0x0E:  # teletype
                self._sink.write(bytes((call.al,)))
            case 0x09 | 0x0A:  # a character, so many times, at the cursor
                self._sink.write(bytes((call.al,)) * min(call.regs.rcx & 0xFFFF, 80))
            case 0x13:  # a string at ES:BP; AL bit 1: each character is followed by its colour
                size, step = call.regs.rcx & 0xFFFF, 2 if call.al & 2 else 1
                data = call.memory.read(call.es + (call.regs.rbp & 0xFFFF), min(size * step, MAX_STRING))
                self._sink.write(data[::step])
            case 0x03:
                call.set(cx=0x0607, dx=0)
            case 0x0F:
                call.set(ax=80 << 8 | 3, bx=call.regs.rbx & 0xFF)
            case _:
                pass  # modes, cursors, pages: there is no screen

    def _disk(self, call: Call) -> None:
        if call.ah == 0x15:  # what kind of drive: none
            call.set(ah=0)
            call.flag(CARRY, False)
        else:
            call.refuse(BAD_COMMAND)

    def _system(self, call: Call) -> None:
        if call.ax == 0xE820:
            self._e820(call)
            return
        above = sum(size for base, size, kind in self._map if kind == 1 and base == BIOS_END) >> 10
        match call.ax:
            case 0xE801:
                low, high = min(above, 0x3C00), max(above - 0x3C00, 0) >> 6
                call.set(ax=low, bx=min(high, 0xFFFF), cx=low, dx=min(high, 0xFFFF))
            case 0x2400 | 0x2401:  # A20 off, on: it is on
                call.set(ah=0)
            case 0x2402:
                call.set(ax=1)
            case 0x2403:
                call.set(ah=0, bx=3)
            case _ if call.ah == 0x87:
                self._move(call)
                return
            case _ if call.ah == 0x88:
                call.set(ax=min(above, 0xFC00))
            case _:
                call.refuse()
                return
        call.flag(CARRY, False)

    def _e820(self, call: Call) -> None:
        """A row of the memory map into ES:DI; EBX counts, and is 0 behind the last."""
        index = call.regs.rbx & 0xFFFF_FFFF
        if call.regs.rdx & 0xFFFF_FFFF != bios.SMAP or call.regs.rcx & 0xFFFF_FFFF < 20 or index >= len(self._map):
            call.refuse()
            return
        call.memory.write(call.es + (call.regs.rdi & 0xFFFF), struct.pack("<QQI", *self._map[index]))
        call.set(eax=bios.SMAP, ebx=index + 1 if index + 1 < len(self._map) else 0, ecx=20)
        call.flag(CARRY, False)

    def _move(self, call: Call) -> None:
        """CX words from where the third descriptor at ES:SI says to where the fourth does."""
        table = call.memory.read(call.es + (call.regs.rsi & 0xFFFF), 32)
        count = 2 * (call.regs.rcx & 0xFFFF)
        source, target = (int.from_bytes(table[at + 2 : at + 5] + table[at + 7 : at + 8], "little") for at in (16, 24))
        call.memory.write(target, call.memory.read(source, count))
        call.set(ah=0)
        call.flag(CARRY, False)
        call.flag(ZERO, True)

    def _keyboard(self, call: Call) -> None:
        """Nobody types. Who sets the rate of a keyboard, as Linux does, or asks what it can, goes on."""
        if call.ah in (0x01, 0x11, 0x21):
            call.flag(ZERO, True)
        elif call.ah in (0x02, 0x12, 0x22):
            call.set(al=0)
        elif call.ah in (0x00, 0x10, 0x20):
            self._end(Stop(Why.GUEST_FAULT, f"the guest waits for a key, and its BIOS has no keyboard ({call})"))

    def _time(self, call: Call) -> None:
        if call.ah:
            call.refuse()
            return
        ticks = self._ticks
        call.set(al=0, cx=ticks >> 16, dx=ticks)

    @property
    def _ticks(self) -> int:
        return int((time.monotonic() - self._begin) * TICKS_PER_SECOND)

    def _tick(self, call: Call) -> None:
        """The timer's interrupt: guests that wait for time look at this count. It is the clock's, for a loaded host
        may have lost interrupts, and grows at each.
        """
        if self._area:
            place = bios.BDA_ADDRESS + bios.BDA.field("ticks").offset
            call.memory.write_u32(place, max(self._ticks, call.memory.read_u32(place) + 1) & 0xFFFF_FFFF)


def attach(machine: Whole, sink: Sink, memory_map: tuple[Row, ...], *, area: bool = True) -> Bios:
    """Serve the BIOS calls of this machine's guest; whoever did before is relieved. Arguments as of Bios."""
    bus = machine.platform.ports
    for claim in [each for each in bus.writers if each.base == ports.BIOS]:
        bus.release(claim.base)
    served = Bios(memory_map, sink, lambda stop: machine.all_cpus.end(current(), stop), area=area)

    def handed_over(_value: int) -> None:
        cpu = current()
        assert cpu is not None  # a port write comes from a vCPU
        cpu.vcpu.complete()
        regs, sregs = cpu.vcpu.get_regs(), cpu.vcpu.get_sregs()
        at = sregs.cs.base + regs.rip - bios.STUBS
        if sregs.cr0 & PROTECTED or not 0 <= at < bios.VECTORS * bios.STUB_SIZE:
            stop = Stop(Why.GUEST_FAULT, f"OUT to the BIOS' own port {ports.BIOS:#x}, not by one of its stubs")
            machine.all_cpus.end(cpu, stop)
            return
        try:
            served.serve(Call(at // bios.STUB_SIZE, regs, sregs, machine.memory))
        except GuestMemoryError as error:
            machine.all_cpus.end(cpu, Stop(Why.GUEST_FAULT, f"a BIOS call with a bad address: {error.text}"))
            return
        cpu.vcpu.set_regs(regs)

    bus.on_write(ports.BIOS, handed_over)
    return served

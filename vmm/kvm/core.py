# SPDX-License-Identifier: GPL-2.0-or-later
"""The fast way through KVM_RUN: the C core (_core.c) and the tight loop around it.

What the core finishes never comes to Python: console bytes, ports and MMIO addresses that are plain words. A single
port or MMIO access that Python serves comes as three numbers and goes straight to its handler. Everything else is
decoded like any exit. Nothing here knows what an exit means: handlers are given.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Protocol

from vmm.kvm._kvm import ffi, lib
from vmm.kvm.exits import Exit, Interrupted, MmioRead, MmioWrite, PortIn, PortOut
from vmm.kvm.vcpu import Vcpu

STAGING = 64 << 10  # bytes of console output that wait for Python at most
LIMITS = (0, 1 << 8, 1 << 16, 1 << 24, 1 << 32, 1 << 40, 1 << 48, 1 << 56, 1 << 64)  # by size in bytes

PortRead = Callable[[int], int]  # (size) -> value
PortWrite = Callable[[int, int], object]  # (size, value)


class Handlers(Protocol):
    """Who serves single accesses; None or False where the slow way must (nobody claims it, or several do)."""

    def port_writer(self, port: int) -> PortWrite | None: ...
    def port_reader(self, port: int) -> PortRead | None: ...
    def mmio_write(self, address: int, size: int, value: int) -> bool: ...
    def mmio_read(self, address: int, size: int) -> int | None: ...
    def output(self) -> None:
        """The core has collected console output: take it, before anything else is served."""


class Word:
    """A port or MMIO address that is a plain word, served in C: reads give `value`, writes set it, both are counted."""

    def __init__(self, slot: Any, owner: Any, number: int) -> None:
        self._slot, self._owner = slot, owner  # the owner keeps the C memory alive
        self.number = number

    @property
    def value(self) -> int:
        return int(self._slot.value)

    @value.setter
    def value(self, value: int) -> None:
        self._slot.value = value

    def read(self) -> int:
        """A counted read, as the core does it."""
        self._slot.reads += 1
        return self.value

    def write(self, value: int) -> None:
        """A counted write, as the core does it."""
        self._slot.writes += 1
        self._slot.value = value

    @property
    def reads(self) -> int:
        return int(self._slot.reads)

    @property
    def writes(self) -> int:
        return int(self._slot.writes)


class Finish:
    """What the C core may finish for one machine; shared by its vCPUs."""

    def __init__(self) -> None:
        self.c = ffi.new("struct vmm_finish *")
        self._staging = ffi.new("__u8[]", STAGING)
        self._taken = ffi.new("__u8[]", STAGING)
        self.c.sink = self._staging
        self._slots = 0

    def sink_port(self, port: int, on: bool = True) -> None:
        """Bytes written to this port are console output; or no longer."""
        self.c.action[port] = lib.VMM_ACTION_SINK if on else lib.VMM_ACTION_PYTHON

    def set_room(self, room: int) -> None:
        """How many bytes of output may still be taken."""
        self.c.sink_room = min(room, STAGING)

    def drain(self) -> bytes:
        """The output that has come since the last call; other vCPUs may go on writing meanwhile."""
        if not self.c.sink_length:
            return b""
        count = lib.vmm_drain(self.c, self._taken)
        return bytes(ffi.buffer(self._taken, count))

    def new_port_word(self) -> Word | None:
        """A word for a port, not yet served; None when all are used."""
        if self._slots == lib.VMM_SLOTS:
            return None
        number, self._slots = self._slots, self._slots + 1
        return Word(self.c.slots[number], self.c, number)

    def serve_port(self, port: int, word: Word) -> None:
        self.c.action[port] = lib.VMM_ACTION_SLOT + word.number

    def new_mmio_word(self) -> Word | None:
        """A word for an MMIO address, not yet served; None when all are used."""
        number = self.c.mmio_count
        return None if number == lib.VMM_MMIO_SLOTS else Word(self.c.mmio[number], self.c, number)

    def serve_mmio(self, address: int, word: Word) -> None:
        self.c.mmio[word.number].address = address
        self.c.mmio_count = word.number + 1


class Core:
    """The core of one vCPU. `stopped` ends `next` after the handler that set it."""

    def __init__(self, vcpu: Vcpu, finish: Finish) -> None:
        self._vcpu = vcpu
        self.c = vcpu.new_core()
        self._finish = finish
        self.c.finish = finish.c
        self.stopped = False
        self._others: deque[tuple[int, Exit]] = deque(maxlen=lib.VMM_RECENT)
        self._kinds: Counter[str] = Counter()

    # -- what a report shows

    def reset(self) -> None:
        """Before a run: nothing taken yet."""
        c = self.c
        c.sequence = c.kept = c.interrupted = c.port_in = c.port_out = c.mmio_read = c.mmio_write = 0
        self._others.clear()
        self._kinds.clear()
        self.stopped = False

    def note(self, exit: Exit) -> None:
        """An exit that came another way (Vcpu.run): count it and keep it with the rest."""
        self.c.sequence += 1
        self._kinds[type(exit).__name__] += 1
        if type(exit) is not Interrupted:
            self._others.append((self.c.sequence, exit))

    def counts(self) -> Counter[str]:
        """How many exits of each kind there were."""
        c = self.c
        taken = {
            "Interrupted": c.interrupted,
            "PortIn": c.port_in,
            "PortOut": c.port_out,
            "MmioRead": c.mmio_read,
            "MmioWrite": c.mmio_write,
        }
        return self._kinds + Counter({name: count for name, count in taken.items() if count})

    def recent(self) -> tuple[Exit, ...]:
        """The last ten exits, oldest first; interruptions are not among them."""
        kept = [self.c.recent[i] for i in range(min(self.c.kept, lib.VMM_RECENT))]
        both = [*self._others, *((seen.sequence, _seen(seen)) for seen in kept)]
        return tuple(exit for _, exit in sorted(both, key=lambda item: item[0])[-lib.VMM_RECENT :])

    # -- running

    def next(self, handlers: Handlers) -> Exit | None:
        """Run until an exit that is not served on the way; None when `stopped` was set.

        The dispatch of a single access costs a few attribute reads: no exit value is made for it.

        Raises:
            KvmCallError: KVM_RUN failed and no exit explains it.
        """
        vcpu, c, run, finish = self._vcpu, self.c, lib.vmm_core_run, self._finish.c
        port_writer, port_reader = handlers.port_writer, handlers.port_reader
        while not self.stopped:
            if vcpu.stored is not None:
                exit = vcpu.run()
                self.note(exit)
                return exit
            code = run(c)
            if finish.sink_length:
                handlers.output()
            if code == 1:  # VMM_PORT_OUT; literals, because this is the path that is measured
                write = port_writer(c.address)
                vcpu.pending = True
                if write is None:
                    return PortOut(c.address, c.size, c.value.to_bytes(c.size, "little"))
                write(c.size, c.value)
            elif code == 2:
                size = c.size
                read = port_reader(c.address)
                vcpu.pending = True
                if read is None:
                    return PortIn(c.address, size, 1)
                value = read(size)
                if type(value) is not int or not 0 <= value < LIMITS[size]:
                    return PortIn(c.address, size, 1)
                c.answer[0] = value
            elif code == 3:
                vcpu.pending = True
                if not handlers.mmio_write(c.address, c.size, c.value):
                    return MmioWrite(c.address, c.value.to_bytes(c.size, "little"))
            elif code == 4:
                vcpu.pending = True
                answer = handlers.mmio_read(c.address, c.size)
                if answer is None:
                    return MmioRead(c.address, c.size)
                c.answer[0] = answer
            elif code == 5:
                vcpu.pending = False
                return Interrupted(c.error)
            else:
                exit = vcpu.decode_now(c.error)
                if type(exit) not in (PortIn, PortOut):  # string I/O, which the core has counted and kept
                    self._kinds[type(exit).__name__] += 1
                    self._others.append((c.sequence, exit))
                return exit
        return None


def _seen(seen: Any) -> Exit:
    """A kept exit as the value that decode would have given."""
    data = bytes(ffi.buffer(seen.data, seen.size * seen.count))
    if seen.kind == lib.VMM_PORT_OUT:
        return PortOut(seen.address, seen.size, data)
    if seen.kind == lib.VMM_PORT_IN:
        return PortIn(seen.address, seen.size, seen.count)
    return MmioWrite(seen.address, data) if seen.kind == lib.VMM_MMIO_WRITE else MmioRead(seen.address, seen.size)

# SPDX-License-Identifier: GPL-2.0-or-later
"""pyvmm's side of each comparison: a machine with a guest of guests.py, timed in rounds as the C floor's is.

A side has `measure(rounds) -> ns of each` and `close()`. What lies between two looks at the clock is a guest's batch
and pyvmm's own work for it, nothing of the measuring.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from vmm.abi import pv
from vmm.abi.ports import COM1, COM1_IRQ, DEBUG_CONSOLE, DELAY
from vmm.abi.x86 import PAGE
from vmm.bench import guests
from vmm.bench.floor import Rounds
from vmm.bench.guests import STAMP, Guest
from vmm.bench.image import SetUp, image
from vmm.errors import HostError
from vmm.machine.ends import Why
from vmm.machine.machine import Irqchip, Machine
from vmm.machine.memory import layout
from vmm.machine.x86 import boot, descriptors

now = time.monotonic_ns
PATIENCE = 60.0  # seconds: no measurement takes a tenth of it
PAGES = 10  # that a guest writes before its machine is put back
CODE = layout.REGIONS["code"].base
GSI = 1
SETTLES = 0.0002  # seconds: a guest reaches HLT in them


class Side(Protocol):
    """Something that can be timed in rounds."""

    def measure(self, rounds: int) -> list[float]: ...
    def close(self) -> None: ...


class Batch:
    """A machine that runs `guest`; a round is one batch, from stamp to stamp."""

    between = 0.0
    """Seconds of each round that are off the clock."""

    def __init__(self, guest: Guest, **options: Any) -> None:
        self.guest = guest
        self.set_up: dict[str, int] = {"stamp_port": STAMP}
        cpus = options.pop("cpus", 1 if guest.second is None else 2)
        irqchip: Irqchip = options.pop("irqchip", "none" if guest.handler is None else "split")
        self.machine = Machine(cpus=cpus, irqchip=irqchip, console_limit=1 << 40, cpuid=_with_deadline, **options)
        memory = self.machine.memory
        boot.write_tables(memory, cpus)
        memory.write(CODE, guest.code)
        if guest.handler is not None:
            gate = layout.REGIONS["idt"].base + 16 * guests.VECTOR
            memory.write(gate, descriptors.gate(CODE + guest.handler))
        self.machine.start(0, CODE)
        if guest.second is not None:
            self.machine.start(1, CODE + guest.second)
        self._watch()
        self.times: list[float] = []
        self.begin = 0
        self.left = 0

    def image(self) -> bytes:
        """The guest for the C floor; before the first round."""
        return image(self.machine, SetUp(**self.set_up))

    def settle(self) -> None:
        """Before the first round, once the floor is there as well."""

    def prepare(self) -> None:
        """Between two batches, off the clock."""

    def _watch(self) -> None:
        self.machine.on_port_write(STAMP, self._stamp)

    def _stamp(self, _value: int) -> None:
        self.times.append(now() - self.begin)
        if not self.left:
            self.machine.stop()
        self.left -= 1
        self.prepare()
        self.begin = now()

    def measure(self, rounds: int) -> list[float]:
        self.times, self.left = [], rounds
        result = self.machine.run(PATIENCE)
        if result.stop.why is not Why.STOPPED:
            raise HostError(f"a guest of the bench ended by itself: {result.stop.text}")
        return self.times[1:]  # the first began in another run

    def close(self) -> None:
        self.machine.close()


def _with_deadline(model: Any) -> None:
    model.enable("tsc_deadline_timer")  # in-kernel LAPICs have it, and KVM leaves it to the VMM to say so


class PythonPort(Batch):
    """OUT or IN at a Python handler."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.machine.on_port_write(DELAY, lambda value: None)
        self.machine.on_port_read(DELAY, lambda: 0)


class IdleOthers(Batch):
    """OUT to a Python handler by vCPU 0 of several; the others wait in the kernel for an INIT."""

    def __init__(self, guest: Guest, cpus: int) -> None:
        super().__init__(guest, cpus=cpus, irqchip="split")
        self.machine.on_port_write(DELAY, lambda value: None)


class WordPort(Batch):
    """The same at a word of the C core."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.machine.port_word(DELAY)


class PlainDevice:
    """The least device that can be claimed."""

    name = "bench"

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        pass


class PythonMmio(Batch):
    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.machine.platform.mmio.claim(guests.DEVICE, 0x1000, PlainDevice())


class WordMmio(Batch):
    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.machine.mmio_word(guests.DEVICE)


class Console(Batch):
    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.set_up["console_port"] = DEBUG_CONSOLE


class Serial(Batch):
    """COM1 of a pc board, whose interrupt line KVM has."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest, board="pc", irqchip="kernel")

    def image(self) -> bytes:
        """The same guest on a plainer board, with KVM's interrupt controllers: the floor is its port."""
        plain = Batch(self.guest, irqchip="kernel")
        plain.set_up |= {"serial_port": COM1, "serial_gsi": COM1_IRQ}
        try:
            return plain.image()
        finally:
            plain.close()

    def _watch(self) -> None:
        self.machine.platform.ports.release(DELAY)  # a PC has nobody there, and the stamp is one of those ports
        super()._watch()


class CoalescedConsole(Console):
    """The console's bytes collected by KVM. Its floor takes an exit for each."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.machine.coalesce_console()


class CoalescedPort(Batch):
    """The console's port, whose writes KVM collects on both sides."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.machine.coalesce_console()
        self.set_up |= {"coalesced_port": DEBUG_CONSOLE, "console_port": DEBUG_CONSOLE}


class CoalescedPython(Batch):
    """A port whose writes KVM collects for a Python handler."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.machine.on_port_write(DELAY, lambda value: None)
        self.machine.coalesce_writes(DELAY, 1, pio=True)
        self.set_up["coalesced_port"] = DELAY


class Ioeventfd(Batch):
    """OUT, or an MMIO write, to an eventfd that nobody reads."""

    def __init__(self, guest: Guest, *, mmio: bool = False) -> None:
        super().__init__(guest)
        self._event = os.eventfd(0, os.EFD_CLOEXEC)
        address, size = (guests.DEVICE, 4) if mmio else (DELAY, 1)
        self.machine.vm.ioeventfd(self._event, address, size, pio=not mmio)
        self.set_up["ioeventfd_address" if mmio else "ioeventfd_port"] = address

    def close(self) -> None:
        super().close()
        os.close(self._event)


class PythonHypercall(Batch):
    """KVM_HC_MAP_GPA_RANGE, which KVM passes on to a Python hook."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        call = pv.hypercall("MAP_GPA_RANGE")
        self.machine.on_hypercall(call.nr, lambda *_: 0)
        self.set_up["exit_hypercalls"] = 1 << call.nr


class PythonMsr(Batch):
    """A filtered MSR: each access comes to a Python hook."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.set_up["denied_msr"] = guests.POLL_CONTROL
        self.machine.on_msr_read(guests.POLL_CONTROL, lambda: 1)
        self.machine.on_msr_write(guests.POLL_CONTROL, lambda value: None)


class WordMsr(Batch):
    """The same at a word of the C core."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.set_up["denied_msr"] = guests.POLL_CONTROL
        self.machine.msr_word(guests.POLL_CONTROL).value = 1


class Touch(Batch):
    """Pages that are not there."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.set_up |= {"touch_base": guests.TOUCH_BASE, "touch_size": guests.TOUCHED * PAGE}
        self.mapping = self.machine.memory.slots[0].mapping

    def prepare(self) -> None:
        self.mapping.bytes.madvise(mmap.MADV_DONTNEED, guests.TOUCH_BASE, guests.TOUCHED * PAGE)


class Lifecycle(Rounds):
    """A round: a machine made, run to its first HLT, closed, in a process that does nothing else (life.py)."""

    def __init__(self) -> None:
        with Machine() as machine:
            machine.load(guests.HLT)
            self._image = image(machine, SetUp())
        here = str(Path(__file__).parents[2])  # this pyvmm, from any folder
        super().__init__(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {here!r}); from vmm.bench.life import main; main()",
             guests.HLT.hex()], "the program of machines' lives",
        )  # fmt: skip

    def image(self) -> bytes:
        return self._image


class Reset:
    """A round: a machine that a guest has written PAGES pages of put back to a snapshot; `run`: and the guest's run."""

    def __init__(self, *, run: bool) -> None:
        self._run = run
        self.machine = Machine()
        self.machine.load(guests.writes(PAGES))
        self._image = image(self.machine, SetUp())
        self._snapshot = self.machine.snapshot()
        self.machine.reset(self._snapshot)  # what KVM does not take back is left out from here on

    def image(self) -> bytes:
        return self._image

    @property
    def msrs(self) -> str:
        """The numbers of those that are put back, for the C floor."""
        return ",".join(map(str, self._snapshot.msrs(0)))

    def measure(self, rounds: int) -> list[float]:
        times: list[float] = []
        machine, snapshot, with_run = self.machine, self._snapshot, self._run
        with machine.rounds(snapshot) as turns:
            for _ in range(rounds):
                begin = now()
                turns.run()  # the first begins with what the last has left
                if not with_run:
                    begin = now()
                turns.reset()
                times.append(now() - begin)
        return times

    def close(self) -> None:
        self.machine.close()


class Closing:
    """Both sides of a comparison, closed together."""

    def __init__(self, *sides: Side) -> None:
        self._sides = sides

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for side in self._sides:
            side.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""pyvmm's side of the comparisons in which two threads wake each other: an irqfd or an MSI to a halted vCPU, a
doorbell, a page that another thread supplies.

Each thread has a CPU of its own, on both sides, where there are two (the C program's `apart`). Where the kernel puts
them decides more than what they do: a wake-up on one CPU takes 16 us on a machine on which one across two takes 45,
and left alone the two sides come to stand differently.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from vmm.abi import apic
from vmm.abi.x86 import PAGE
from vmm.bench import guests
from vmm.bench.guests import STAMP, Guest
from vmm.bench.sides import Batch, Ioeventfd, Touch, now
from vmm.kvm import signals
from vmm.kvm.events import MsiRoute
from vmm.kvm.userfaultfd import FaultHandler, Userfaultfd

GSI = 1
SETTLES = 0.0002  # seconds: a guest reaches HLT in them


class Apart:
    """The CPUs that the thread which makes this may use then; what it starts later may use no other."""

    def __init__(self) -> None:
        self._cpus = sorted(os.sched_getaffinity(0))

    def place(self, other: int | None) -> None:
        """The calling thread, which measures, onto the first of them; `other`, by the kernel's id, onto the last."""
        assert other is not None, "a thread that was not started"
        os.sched_setaffinity(other, {self._cpus[-1]})
        self.place_this()

    def place_this(self) -> None:
        """The calling thread onto the first of them."""
        os.sched_setaffinity(0, {self._cpus[0]})

    @contextmanager
    def others(self) -> Iterator[None]:
        """The threads that the calling thread starts in the block onto the last of them."""
        os.sched_setaffinity(0, {self._cpus[-1]})  # they inherit it
        try:
            yield
        finally:
            os.sched_setaffinity(0, self._cpus)


class Doorbell(Ioeventfd):
    """An eventfd of OUT with a Python thread that waits for it, and counts in the guest's memory."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.set_up["answer_address"] = guests.COUNTER
        self._ended = False
        self._apart = Apart()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def settle(self) -> None:
        self._apart.place(self._thread.native_id)

    def _live(self) -> None:
        write, count = self.machine.memory.write_u32, 0
        while True:
            os.eventfd_read(self._event)
            if self._ended:
                return
            count += 1
            write(guests.COUNTER, count & 0xFFFF_FFFF)

    def close(self) -> None:
        self._ended = True
        os.eventfd_write(self._event, 1)
        self._thread.join()
        super().close()


class Supplied(Touch):
    """Pages that are not there, each supplied by a Python thread that reads a userfaultfd."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self._image = super().image()  # read before pages are held back: reading them would wait for good
        self._stack = ExitStack()
        held = self._stack.enter_context(Userfaultfd.open())
        held.register(self.mapping.hva + guests.TOUCH_BASE, guests.TOUCHED * PAGE)
        self._apart = Apart()
        self._handler = self._stack.enter_context(FaultHandler(held, lambda fault: held.zeropage(fault.address)))

    def image(self) -> bytes:
        return self._image

    def settle(self) -> None:
        self._apart.place(self._handler.thread_id)

    def close(self) -> None:
        self._stack.close()  # first: whoever waits for a page goes on
        super().close()


class Woken(Batch):
    """A round: from the wake-up of a halted vCPU (an eventfd, or KVM_SIGNAL_MSI) to its handler's OUT. In C, as in the
    floor, or `python`: from the line before the call that wakes to the first of the OUT's Python handler.
    """

    between = SETTLES

    def __init__(self, *, irqfd: bool, python: bool) -> None:
        self._python = python
        super().__init__(guests.woken())
        address, data = apic.msi_address(0), apic.msi_data(guests.VECTOR)
        self._done = os.eventfd(0, os.EFD_CLOEXEC)
        self.set_up |= {"msi_address": address, "msi_data": data, "ioeventfd_port": guests.DONE}
        self.machine.vm.ioeventfd(self._done, guests.DONE, 1, pio=True)
        self._event: int | None = None
        if irqfd:
            event = self._event = os.eventfd(0, os.EFD_CLOEXEC)
            self.machine.vm.set_gsi_routing([MsiRoute(GSI, address, data)])
            self.machine.vm.irqfd(event, GSI)
            self._wake = signals.event(event, timed=not python)
        else:
            self._wake = signals.msi(self.machine.vm, address, data, timed=not python)
        self._apart = Apart()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._error: BaseException | None = None

    def _watch(self) -> None:
        if self._python:
            self.machine.on_port_write(STAMP, self._stamp)
        else:
            self._word = self.machine.port_word(STAMP, timed=True)

    def _stamp(self, _value: int, clock: Callable[[], int] = now) -> None:
        self._handled = clock()  # at hand, as what is called below: to find it would be measured too

    def _live(self) -> None:
        try:
            self.machine.run(3600.0)
        except BaseException as error:
            self._error = error

    def settle(self) -> None:
        self._thread.start()
        os.eventfd_read(self._done)  # the guest has set itself up
        self._apart.place(self._thread.native_id)

    def measure(self, rounds: int) -> list[float]:
        return [float(self._in_python() if self._python else self._in_c()) for _ in range(rounds)]

    def _in_python(self) -> int:
        wake, clock, wait, done = self._wake, now, os.eventfd_read, self._done
        time.sleep(SETTLES)
        begin = clock()
        wake()
        wait(done)  # where both are on one CPU, the vCPU runs only now
        return self._handled - begin

    def _in_c(self) -> int:
        time.sleep(SETTLES)
        begin = self._wake()
        os.eventfd_read(self._done)
        return self._word.written_at - begin

    def close(self) -> None:
        self.machine.stop()
        if self._thread.ident is not None:  # it was started
            self._thread.join()
        super().close()
        for fd in (self._done, self._event):
            if fd is not None:
                os.close(fd)

# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest write that signals the host without an exit: KVM_IOEVENTFD and its eventfd, as one object.

It knows the eventfd; who waits for it, in a thread or between two runs, is the caller's business.
"""

from __future__ import annotations

import os
import select

from vmm.errors import exhausted
from vmm.kvm.handle import Closes
from vmm.kvm.vm import Vm


class WriteEvent(Closes):
    """Writes of `size` bytes (1, 2, 4, 8; 0 any) at `address`, of `datamatch` only where it is given, are counted by an
    eventfd and cause no exit; the value is lost.

        with WriteEvent(m.vm, 0xd0000000, 4) as event:
            m.run()
            print(event.count())

    Raises:
        KvmCallError: KVM refuses it; EEXIST where another one would take the same write.
    """

    def __init__(self, vm: Vm, address: int, size: int, *, datamatch: int | None = None, pio: bool = False) -> None:
        self._open = False
        self._vm, self.address, self.size, self.datamatch, self.pio = vm, address, size, datamatch, pio
        try:
            self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError as error:
            raise exhausted(f"a write event at {address:#x}", "eventfd", error.errno or 0) from error
        self._open = True
        try:
            self._bind(deassign=False)
        except BaseException:
            self._open = False
            os.close(self.fd)
            raise
        self.bound = True

    def _bind(self, *, deassign: bool) -> None:
        self._vm.ioeventfd(self.fd, self.address, self.size, datamatch=self.datamatch, pio=self.pio, deassign=deassign)

    def count(self) -> int:
        """The number of writes since the last call; never waits."""
        try:
            return os.eventfd_read(self.fd)
        except BlockingIOError:
            return 0

    def wait(self, timeout: float) -> bool:
        """Has there been a write, or does one come within `timeout` seconds? `count` takes it."""
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        return bool(poller.poll(timeout * 1000))

    def deassign(self) -> None:
        """Take it back: from now on such a write exits. Idempotent; the count stays readable."""
        if self.bound:
            self._bind(deassign=True)
            self.bound = False

    @property
    def _unclosed(self) -> str:
        return f"write event at {self.address:#x}" if self._open else ""

    def close(self) -> None:
        """Take it back, while the VM is open, and close the eventfd. Idempotent."""
        if self._open:
            self._open = False
            try:
                if not self._vm.closed and not self._vm.inherited:
                    self.deassign()
            finally:
                os.close(self.fd)


Kick = WriteEvent  # its name of 0.1

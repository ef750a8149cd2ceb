# SPDX-License-Identifier: GPL-2.0-or-later
"""A serial port that the C core serves while little can happen to it: bytes that are sent, the registers that a driver
reads for that, and, under THRE's interrupt, the line. What that is, the device says (`Uart16550A.watch`).

It decides whether the core may have a port: its registers whole and without hooks, its bytes the console's, and a line
that is KVM's own or none.
"""

from __future__ import annotations

from vmm.base.light import partial
from vmm.kvm.words import UART_IIR, UART_LSR, UART_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmm.kvm.vm import Vm
    from vmm.kvm.words import Finish
    from vmm.machine.bus.bus import Bus
    from vmm.machine.bus.claims import Claim
    from vmm.machine.devices.sink import Sink
    from vmm.machine.devices.uart16550 import Uart16550A

    KvmLines = tuple[Callable[[int, bool], object], Vm]
    """What a board drives a line with, by GSI and level, where that is no more than KVM_IRQ_LINE of this VM."""

NO_LINE = (-1, 0)


class LentUart:
    """One device, as its `Server`. `close` it before its claims are others."""

    def __init__(self, finish: Finish, device: Uart16550A, base: int, gsi: int | None, vm: Vm | None) -> None:
        """`gsi` of `vm` is its line. Without a VM it has none that the core could drive, without a GSI none at all."""
        self._finish, self._device, self._base, self._gsi, self._vm = finish, device, base, gsi, vm
        self._whole = not base % UART_SIZE
        device.watch(self)

    def close(self) -> None:
        """The device serves itself from now on."""
        self._device.watch(None)

    def when_quiet(self, quiet: bool) -> None:
        self._finish.uart_port(self._base if quiet else None)

    def lend(self, pending: int, idle: int, event: bool) -> bool:
        line: tuple[int, int] | None = None
        if self._gsi is None:
            line = NO_LINE
        elif self._vm is not None and self._vm.raised is None:  # else somebody keeps a record of the line
            line = (self._vm.fd, self._gsi)
        if line is None or not self._whole:
            return False
        self._finish.lend_transmitter(self._base, line, pending, idle, event)
        return True

    def take_back(self) -> tuple[bool, bool]:
        return self._finish.take_transmitter()


def lent_uart(finish: Finish, ports: Bus, sink: Sink, claim: Claim[Any], lines: KvmLines | None) -> LentUart | None:
    """The device behind `claim` with the core as its server, or None: somebody else would miss what it does."""
    base = claim.base
    owner: Any = claim.owner
    used = [ports.route(base, 1, write=True)]
    used += [ports.route(base + register, 1, write=False) for register in (UART_IIR, UART_LSR)]
    device = getattr(owner, "device", owner)
    if any(each is None or each.hook or each.owner is not owner for each in used) or device.sink is not sink:
        return None
    line: Any = device.line
    if line is None:
        return LentUart(finish, device, base, None, None)
    if lines is None or not isinstance(line, partial) or line.func != lines[0]:
        return LentUart(finish, device, base, 0, None)
    return LentUart(finish, device, base, line.args[0], lines[1])

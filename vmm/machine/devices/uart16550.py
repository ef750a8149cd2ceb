# SPDX-License-Identifier: GPL-2.0-or-later
"""A 16550A serial port, accurate to the register. It knows neither its address nor its interrupt's number.

Source: National Semiconductor PC16550D data sheet, section 8.0 "Registers" and 8.11 "FIFO interrupt mode operation";
the gate behind OUT2 is the IBM PC's wiring. Where time matters on the chip, there is none here:

* Sending takes no time. THRE and TEMT always read 1, and the transmitter FIFO is never seen to hold anything. The THRE
  interrupt is still an event: it is raised when a character has left and when IER enables it, and dropped by a write to
  THR or by the IIR read that reports it.
* A character time is zero. The chip reports a receiver timeout when four of them pass with characters below the trigger
  level and none read or arriving. Here they have passed after every access, so while 1 to trigger-1 characters lie in
  the FIFO a timeout is pending; a read of RBR drops the interrupt line and the next timeout raises it again.
* Data bits, parity and stop bits (LCR), the divisor and the DMA mode are kept or accepted but change nothing: the sink
  gets 8-bit characters. The line has no noise: no parity error, framing error or break is ever received.
"""

from __future__ import annotations

from vmm.abi import serial_reg as r
from vmm.base.light import RLock
from vmm.errors import UsageError
from vmm.machine.devices.sink import Sink
from vmm.machine.devices.uart_receiver import Receiver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Server(Protocol):
        """Who serves a port in place of this device while little can happen to it, and is told when that changes."""

        def when_quiet(self, quiet: bool) -> None:
            """It only sends, with its interrupt off (`Uart16550A.quiet`), or does no longer."""

        def lend(self, pending: int, idle: int, event: bool) -> bool:
            """It only sends, under THRE's interrupt: THR, IIR and LSR are yours, and the line, if you take it. IIR is
            `pending` with the interrupt and `idle` without; which of them now, and where the line is, `event` says.
            """

        def take_back(self) -> tuple[bool, bool]:
            """What was lent is the device's again: (the interrupt is pending, the line is up)."""


_STATE = (
    "_ier", "_lcr", "_mcr", "_scr", "_divisor", "_thre_event", "_level", "_pins", "_lines", "_deltas"
)  # fmt: skip
PEER_READY = r.UART_MSR_CTS | r.UART_MSR_DSR | r.UART_MSR_DCD


class Uart16550A:
    """Claims eight ports; wider accesses are cut into bytes for consecutive registers, as the PC's 8-bit bus does.

    Characters sent go to `sink`, whose OutputLimit passes through. `irq(level)` is called when the interrupt line
    changes, on the thread that changed it; it starts low. The modem lines start as those of a peer that is ready.
    """

    name = "16550A UART"

    def __init__(self, sink: Sink, irq: Callable[[bool], object] | None = None) -> None:
        self._sink, self._irq = sink, irq
        # Re-entrant: an interrupt callback may look at the device.
        self._lock = RLock()
        self._ier = self._lcr = self._mcr = self._scr = self._divisor = 0
        self._rx = Receiver()
        self._thre_event = self._level = False
        self._pins = self._lines = PEER_READY
        self._deltas = 0
        self._told_quiet = False
        self._only_sends = self._lent = False
        self._server: Server | None = None

    @property
    def line(self) -> Callable[[bool], object] | None:
        """What is called when the interrupt line changes."""
        return self._irq

    @property
    def sink(self) -> Sink:
        """Where characters go."""
        return self._sink

    @property
    def quiet(self) -> bool:
        """Nothing is seen of it but its output: it has nothing for the guest, THR is THR and goes to the sink, and its
        interrupt is off, so that only IER says when there was one. LSR reads THRE and TEMT, and a read changes nothing.
        """
        return not (
            self._lcr & r.UART_LCR_DLAB
            or self._mcr & r.UART_MCR_LOOP
            or self._ier & r.UART_IER_THRI
            or len(self._rx)
            or self._rx.waiting
            or self._rx.overrun
        )

    def watch(self, server: Server | None) -> None:
        """Tell this one from here on, and at once; None: nobody."""
        with self._lock:
            if self._server is not None:
                self._take_back()
                self._server.when_quiet(False)
            self._server, self._told_quiet = server, False
            self._tell()

    def _tell(self) -> None:
        if self._server is not None and self.quiet != self._told_quiet:
            self._told_quiet = not self._told_quiet
            self._server.when_quiet(self._told_quiet)

    def _take_back(self) -> bool:
        """Before anything is looked at or done: what was lent is here again. Whether it was lent."""
        if not self._lent:
            return False
        assert self._server is not None
        self._lent = False
        self._thre_event, self._level = self._server.take_back()
        return True

    def _lend(self) -> None:
        if self._server is not None and self._thre_event == self._level:  # else the line is still to be driven
            fifo = r.IIR_FIFOS_ENABLED if self._rx.fifo else 0
            self._lent = self._server.lend(r.UART_IIR_THRI | fifo, r.UART_IIR_NO_INT | fifo, self._level)

    def get_state(self) -> tuple[Any, ...]:
        """Its registers, its line and what it holds, for `set_state`."""
        with self._lock:
            self._take_back()
            return tuple(getattr(self, name) for name in _STATE), self._rx.get_state()

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Be as `get_state` found it; the interrupt line is driven to where it was."""
        with self._lock:
            self._take_back()
            level, (values, receiver) = self._level, state
            for name, value in zip(_STATE, values, strict=True):
                setattr(self, name, value)
            self._rx.set_state(receiver)
            self._only_sends = False  # until something settles
            self._tell()
            if self._level != level and self._irq is not None:
                self._irq(self._level)

    def feed(self, data: bytes, *, wait: bool = True) -> None:
        """Send characters to the guest.

        By default the sender is patient: a character leaves it when there is room and the guest is looking, that is
        when it reads RBR or LSR or has the receive interrupt enabled. So none is lost to a driver that is still
        setting up. With `wait=False` all arrive now: what finds no room is an overrun, and in loopback all are lost.
        """
        with self._lock:
            self._take_back()
            if wait:
                self._rx.queue(data)
            elif not self._mcr & r.UART_MCR_LOOP:
                for character in data:
                    self._rx.arrive(character)
            # First whoever answers for a quiet one: a guest that the interrupt wakes would be told by it that nothing
            # is here, and, behind an edge-triggered controller, wait for ever.
            self._tell()
            self._settle()

    @property
    def unread(self) -> int:
        """Characters that were fed and that the guest has not read: in the receiver or with the patient sender."""
        with self._lock:
            return len(self._rx) + self._rx.waiting

    @property
    def interrupting(self) -> bool:
        """The level of the interrupt line."""
        with self._lock:
            self._take_back()
            return self._level

    def set_modem_lines(self, lines: int) -> None:
        """The peer drives its lines: any of UART_MSR_CTS, DSR, RI and DCD; UsageError on other bits."""
        if lines & ~r.MSR_LINES:
            raise UsageError(
                f"setting modem lines to {lines:#x}: only bits of UART_MSR_CTS|DSR|RI|DCD (0xf0) are lines"
            )
        with self._lock:
            self._take_back()
            self._pins = lines
            self._settle()

    def read(self, offset: int, size: int) -> int:
        """Registers from `offset` up, one per byte; past the eighth, all ones."""
        with self._lock:
            self._take_back()
            return int.from_bytes(bytes(self._read(offset + i) for i in range(size)), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Registers from `offset` up, one per byte; past the eighth, dropped."""
        with self._lock:
            lent = self._take_back()
            if self._only_sends and not lent and offset == r.UART_TX and size == 1:
                self._send_next(value & 0xFF)
                return
            for i in range(size):
                self._write(offset + i, value >> 8 * i & 0xFF)

    def _read(self, offset: int) -> int:
        if offset == r.UART_LSR or (offset == r.UART_RX and not self._dlab):
            self._pull()
        value = self._value(offset)
        self._settle()
        return value

    def _value(self, offset: int) -> int:
        """What a read gives, with what it clears."""
        match offset:
            case r.UART_DLL | r.UART_DLM if self._dlab:
                return self._divisor >> 8 * offset & 0xFF
            case r.UART_RX:
                return self._rx.pop()
            case r.UART_IER:
                return self._ier
            case r.UART_IIR:
                pending = self._pending()
                if pending == r.UART_IIR_THRI:
                    self._thre_event = False
                return pending | (r.IIR_FIFOS_ENABLED if self._rx.fifo else 0)
            case r.UART_LCR:
                return self._lcr
            case r.UART_MCR:
                return self._mcr
            case r.UART_LSR:
                overrun, self._rx.overrun = self._rx.overrun, False
                ready = r.UART_LSR_DR if self._rx else 0
                return r.UART_LSR_THRE | r.UART_LSR_TEMT | ready | (r.UART_LSR_OE if overrun else 0)
            case r.UART_MSR:
                deltas, self._deltas = self._deltas, 0
                return self._lines | deltas
            case r.UART_SCR:
                return self._scr
            case _:
                return 0xFF

    def _write(self, offset: int, value: int) -> None:
        match offset:
            case r.UART_DLL | r.UART_DLM if self._dlab:
                shift = 8 * offset
                self._divisor = self._divisor & ~(0xFF << shift) | value << shift
            case r.UART_TX:
                self._transmit(value)
            case r.UART_IER:
                # THR is empty, so enabling its interrupt raises it; enabling it once more does not.
                if value & ~self._ier & r.UART_IER_THRI:
                    self._thre_event = True
                self._ier = value & 0x0F
            case r.UART_FCR:
                self._rx.control(value)
            case r.UART_LCR:
                self._lcr = value
            case r.UART_MCR:
                self._mcr = value & 0x1F
            case r.UART_SCR:
                self._scr = value
            case _:  # LSR and MSR are for reading
                pass
        self._settle()

    @property
    def _dlab(self) -> bool:
        return bool(self._lcr & r.UART_LCR_DLAB)

    def _transmit(self, character: int) -> None:
        self._thre_event = False
        self._drive()
        if self._mcr & r.UART_MCR_LOOP:
            self._rx.arrive(character)
        else:
            self._sink.write(bytes((character,)))
        self._thre_event = True

    def _can_only_send(self) -> bool:
        """THRE's interrupt is on, and is the only one that there can be before the guest or the peer does something
        else than to send: as a driver's transmitter has it, sixteen characters an interrupt.
        """
        return bool(
            self._ier & r.UART_IER_THRI
            and self._mcr & (r.UART_MCR_OUT2 | r.UART_MCR_LOOP) == r.UART_MCR_OUT2
            and not self._lcr & r.UART_LCR_DLAB
            and not (len(self._rx) or self._rx.waiting or self._rx.overrun)
            and not self._deltas
        )

    def _send_next(self, character: int) -> None:
        """What `_write` does with THR where `_can_only_send`, in a few steps: the same edges, nothing else can move."""
        self._thre_event = False
        if self._level:
            self._level = False
            if self._irq is not None:
                self._irq(False)
        self._sink.write(bytes((character,)))
        self._thre_event = self._level = True
        if self._irq is not None:
            self._irq(True)

    def _pull(self) -> None:
        if not self._mcr & r.UART_MCR_LOOP:  # the receiver is off the line
            self._rx.pull()

    def _pending(self) -> int:
        """The IIR's identification: the highest of the enabled sources (data sheet, 8.6)."""
        if self._ier & r.UART_IER_RLSI and self._rx.overrun:
            return r.UART_IIR_RLSI
        if self._ier & r.UART_IER_RDI and self._rx.triggered:
            return r.UART_IIR_RDI
        if self._ier & r.UART_IER_RDI and self._rx and self._rx.timed_out:
            return r.UART_IIR_RX_TIMEOUT
        if self._ier & r.UART_IER_THRI and self._thre_event:
            return r.UART_IIR_THRI
        if self._ier & r.UART_IER_MSI and self._deltas:
            return r.UART_IIR_MSI
        return r.UART_IIR_NO_INT

    def _settle(self) -> None:
        """Time passes. The line is driven before and after: what an access took away and what comes next are two edges
        even where no time lies between, or a driver behind an edge-triggered controller would wait for ever.
        """
        self._drive()
        if self._ier & r.UART_IER_RDI:
            self._pull()
        self._rx.timed_out = True
        self._sense_modem()
        self._drive()
        self._only_sends = self._can_only_send() if self._ier & r.UART_IER_THRI else False
        if self._server is not None:
            self._tell()
            if self._only_sends:
                self._lend()

    def _drive(self) -> None:
        # Loopback forces the output pins inactive, OUT2 among them, and a PC lets the interrupt out only through OUT2.
        gate = self._mcr & (r.UART_MCR_OUT2 | r.UART_MCR_LOOP) == r.UART_MCR_OUT2
        level = gate and self._pending() != r.UART_IIR_NO_INT
        if level != self._level:
            self._level = level
            if self._irq is not None:
                self._irq(level)

    def _sense_modem(self) -> None:
        lines = _looped(self._mcr) if self._mcr & r.UART_MCR_LOOP else self._pins
        changed = lines ^ self._lines
        changed &= ~(lines & r.UART_MSR_RI)  # RI counts only when it goes away
        self._deltas |= changed >> 4
        self._lines = lines


def _looped(mcr: int) -> int:
    """In loopback the four outputs of MCR are the inputs of MSR."""
    pairs = (
        (r.UART_MCR_DTR, r.UART_MSR_DSR),
        (r.UART_MCR_RTS, r.UART_MSR_CTS),
        (r.UART_MCR_OUT1, r.UART_MSR_RI),
        (r.UART_MCR_OUT2, r.UART_MSR_DCD),
    )
    return sum(line for out, line in pairs if mcr & out)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Two 8259A interrupt controllers, the second on input 2 of the first, as in a PC. No port, no vCPU.

Source: Intel 8259A data sheet (initialization and operation command words, priorities, poll command, cascading); the
edge/level registers are the Intel 82371AB's (4.2.5). Whoever has a CPU asks `acknowledge` for a vector when it can take
one: that is the chip's INTA cycle. Where a choice is left:

* An edge is latched until it is acknowledged, also if the line falls before: as in KVM's own 8259s. (The chip would
  answer such with its spurious vector.)
* The 8080 mode (ICW4 without PIC_ICW4), buffered mode and the address interval of ICW1 change nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmm.abi import irq
from vmm.base.light import RLock

if TYPE_CHECKING:
    from collections.abc import Callable

_STATE = (
    "irr", "imr", "isr", "base", "elcr", "lines", "lowest", "read_isr", "poll", "special_mask", "aeoi", "rotate_aeoi",
    "sfnm", "step", "needs_icw4", "single", "level_all",
)  # fmt: skip


class Pic:
    """One chip: its registers, and which input it would serve next. `writable` are the bits of its ELCR."""

    def __init__(self, writable: int) -> None:
        self.writable = writable
        self.irr = self.imr = self.isr = self.base = self.elcr = self.lines = 0
        self.lowest = irq.PIC_INPUTS - 1  # the input of lowest priority
        self.read_isr = self.poll = self.special_mask = self.aeoi = self.rotate_aeoi = self.sfnm = False
        self.step = 0  # of the initialization: which word comes next; 0 when it is through
        self.needs_icw4 = self.single = self.level_all = False

    def get_state(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in _STATE)

    def set_state(self, state: tuple[Any, ...]) -> None:
        for name, value in zip(_STATE, state, strict=True):
            setattr(self, name, value)

    def set_line(self, number: int, level: bool) -> None:
        """An input goes high or low."""
        bit = 1 << number
        if self._is_level(bit):
            self.irr = self.irr | bit if level else self.irr & ~bit
        elif level and not self.lines & bit:
            self.irr |= bit
        self.lines = self.lines | bit if level else self.lines & ~bit

    def _is_level(self, bit: int) -> bool:
        return self.level_all or bool(self.elcr & bit)

    def _first(self, bits: int) -> int | None:
        """Of these inputs the one of highest priority."""
        for away in range(1, irq.PIC_INPUTS + 1):
            number = (self.lowest + away) % irq.PIC_INPUTS
            if bits >> number & 1:
                return number
        return None

    def _rank(self, number: int | None) -> int:
        """0 for the highest priority; larger than all for none."""
        return irq.PIC_INPUTS if number is None else (number - self.lowest - 1) % irq.PIC_INPUTS

    @property
    def request(self) -> int | None:
        """The input that the chip asks the CPU to serve: unmasked, and above all that is in service."""
        wanted = self._first(self.irr & ~self.imr)
        serving = self.isr & ~self.imr if self.special_mask else self.isr
        if self.sfnm:  # of the cascade's input the slave knows better
            serving &= ~(1 << irq.PIC_CASCADE_IR)
        return wanted if self._rank(wanted) < self._rank(self._first(serving)) else None

    def accept(self, number: int) -> None:
        """The CPU has taken it."""
        bit = 1 << number
        if not self._is_level(bit):
            self.irr &= ~bit
        if not self.aeoi:
            self.isr |= bit
        elif self.rotate_aeoi:
            self.lowest = number

    def end(self, word: int) -> None:
        """OCW2."""
        number = word & 7 if word & irq.PIC_OCW2_SL else self._first(self._ended_first())
        rotate, ends = bool(word & irq.PIC_OCW2_R), bool(word & irq.PIC_OCW2_EOI)
        if not ends and not word & irq.PIC_OCW2_SL:
            self.rotate_aeoi = rotate
            return
        if not ends:
            if rotate:  # set priority; without R it is no operation
                self.lowest = word & 7
            return
        if number is None:
            return
        self.isr &= ~(1 << number)
        if rotate:
            self.lowest = number

    def _ended_first(self) -> int:
        """What a non-specific EOI may end: in special mask mode nothing that is masked (data sheet, "Special Mask")."""
        return self.isr & ~self.imr if self.special_mask else self.isr

    def command(self, value: int) -> None:
        """A write to the first port."""
        if value & irq.PIC_IS_ICW1:
            self.imr = self.isr = self.irr = 0
            self.lowest = irq.PIC_INPUTS - 1
            self.read_isr = self.poll = self.special_mask = self.aeoi = self.rotate_aeoi = self.sfnm = False
            self.needs_icw4, self.single = bool(value & irq.PIC_ICW1_IC4), bool(value & irq.PIC_ICW1_SNGL)
            self.level_all = bool(value & irq.PIC_ICW1_LTIM)
            for number in range(irq.PIC_INPUTS):  # a level that is active is there again, an edge is not
                if self._is_level(1 << number) and self.lines >> number & 1:
                    self.irr |= 1 << number
            self.step = 2
        elif value & irq.PIC_IS_OCW3:
            self.poll = bool(value & irq.PIC_OCW3_P)
            if value & irq.PIC_OCW3_RR:
                self.read_isr = bool(value & irq.PIC_OCW3_RIS)
            if value & irq.PIC_OCW3_ESMM:
                self.special_mask = bool(value & irq.PIC_OCW3_SMM)
        else:
            self.end(value)

    def data(self, value: int) -> None:
        """A write to the second port: ICW2 to ICW4 in their turn, else the mask."""
        match self.step:
            case 2:
                self.base = value & 0xF8
                self.step = 3 if not self.single else 4 if self.needs_icw4 else 0
            case 3:  # ICW3: which input has a slave; a PC's are wired as they are
                self.step = 4 if self.needs_icw4 else 0
            case 4:
                self.aeoi, self.sfnm = bool(value & irq.PIC_ICW4_AEOI), bool(value & irq.PIC_ICW4_SFNM)
                self.step = 0
            case _:
                self.imr = value


class Pics:
    """Both. `output(level)` is the INT pin of the first, called when it changes, last in whatever changed it."""

    name = "8259A pair"

    def __init__(self, output: Callable[[bool], object]) -> None:
        self._output = output
        self._lock = RLock()
        self.master, self.slave = Pic(irq.ELCR_MASTER_WRITABLE), Pic(irq.ELCR_SLAVE_WRITABLE)
        self._level = False
        self.master_ports = PicPorts("8259A master", self, self.master)
        self.slave_ports = PicPorts("8259A slave", self, self.slave)
        self.elcr = Elcr(self)

    def get_state(self) -> tuple[Any, ...]:
        """Both chips."""
        with self._lock:
            return self.master.get_state(), self.slave.get_state(), self._level

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Be as `get_state` found it."""
        with self._lock:
            before = self._level
            master, slave, self._level = state
            self.master.set_state(master)
            self.slave.set_state(slave)
            if self._level != before:
                self._output(self._level)

    def set_line(self, number: int, level: bool) -> None:
        """Drive IRQ 0 to 15; others have no input here. IRQ 2 is the cascade's, and reaches nothing."""
        if not 0 <= number < 2 * irq.PIC_INPUTS or number == irq.PIC_CASCADE_IR:
            return
        with self._lock:
            chip = self.master if number < irq.PIC_INPUTS else self.slave
            chip.set_line(number % irq.PIC_INPUTS, level)
            self.settle()

    @property
    def pending(self) -> bool:
        """Whether the CPU is asked to take an interrupt."""
        return self._level

    def acknowledge(self) -> int:
        """The CPU takes one: its vector; a spurious one where the request is gone."""
        with self._lock:
            number = self.master.request
            if number is None:
                self.settle()
                return self.master.base + irq.PIC_INPUTS - 1
            self.master.accept(number)
            vector = self.master.base + number
            if number == irq.PIC_CASCADE_IR:
                vector = self.slave.base + self._take(self.slave)
            self.settle()
            return vector

    @staticmethod
    def _take(chip: Pic) -> int:
        number = chip.request
        if number is None:
            return irq.PIC_INPUTS - 1
        chip.accept(number)
        return number

    def polled(self, chip: Pic) -> int:
        """The read after a poll command: it takes the request, as an INTA cycle would."""
        number = chip.request
        if number is None:
            return 0
        chip.accept(number)
        return irq.PIC_POLL_PENDING | number

    def settle(self) -> None:
        """The slave's request is the master's input, and that of the master the output."""
        bit = 1 << irq.PIC_CASCADE_IR
        asks = self.slave.request is not None
        # The chip's own output is no edge to wait for: each request of the slave's is seen, as long as it lasts.
        self.master.irr = self.master.irr | bit if asks else self.master.irr & ~bit
        level = self.master.request is not None
        if level != self._level:
            self._level = level
            self._output(level)

    def under_lock(self) -> RLock:
        """For the ports."""
        return self._lock


class PicPorts:
    """The two ports of one chip."""

    def __init__(self, name: str, pics: Pics, chip: Pic) -> None:
        self.name, self._pics, self._chip = name, pics, chip
        if chip is pics.master:  # the state of both is found here
            self.get_state, self.set_state = pics.get_state, pics.set_state

    def read(self, offset: int, size: int) -> int:
        """The mask, IRR or ISR; after a poll command what is pending."""
        with self._pics.under_lock():
            chip = self._chip
            if chip.poll:
                chip.poll = False
                value = self._pics.polled(chip)
                self._pics.settle()
                return value
            return chip.imr if offset else chip.isr if chip.read_isr else chip.irr

    def write(self, offset: int, size: int, value: int) -> None:
        """A command word; a wide write is one for each port."""
        with self._pics.under_lock():
            for at, byte in enumerate(value.to_bytes(size, "little")[: 2 - offset]):
                (self._chip.data if offset + at else self._chip.command)(byte)
            self._pics.settle()


class Elcr:
    """Two ports: which inputs are levels."""

    name = "edge/level control"

    def __init__(self, pics: Pics) -> None:
        self._pics = pics

    def read(self, offset: int, size: int) -> int:
        """Of the master, then of the slave."""
        both = self._pics.master.elcr | self._pics.slave.elcr << 8
        return both >> 8 * offset & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Bits that are edges on every PC stay so."""
        with self._pics.under_lock():
            chips = (self._pics.master, self._pics.slave)[offset:]
            for chip, byte in zip(chips, value.to_bytes(size, "little"), strict=False):
                chip.elcr = byte & chip.writable
            self._pics.settle()

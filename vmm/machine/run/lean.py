# SPDX-License-Identifier: GPL-2.0-or-later
"""Who serves what on the lean way (vmm/kvm/lean.py): the buses' claims, each looked up once, and the console's bytes.

It decides nothing: whose an access is, it asks where `handle` asks (`Bus.route`, the tables of MSRs), and what it
does not hand out, `handle` serves. So both ways end at the same devices.
"""

from __future__ import annotations

from vmm.abi.ports import DEBUG_CONSOLE
from vmm.base.bits import MASK64
from vmm.base.light import RLock, partial
from vmm.errors import UsageError
from vmm.kvm.lean import (
    VMM_FINISHED,
    VMM_HYPERCALL,
    VMM_MSR_READ,
    VMM_MSR_WRITE,
    VMM_OUTPUT,
    VMM_PORT_IN,
    VMM_PORT_OUT,
    VMM_RAISED,
    AnyRead,
    Row,
    Write,
    access,
    hand_over,
    taken_apart,
)
from vmm.kvm.words import Finish, Word
from vmm.machine.bus import answers
from vmm.machine.bus.bus import Bus
from vmm.machine.bus.platform import Platform
from vmm.machine.devices.console import DebugConsole
from vmm.machine.devices.sink import Sink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmm.kvm.coalesced import CoalescedRing
    from vmm.machine.devices.word import WordDevice
    from vmm.machine.run.lent_uart import KvmLines, LentUart

KEPT = 4096  # accesses whose handler is remembered: a guest that walks through a large device must not fill memory


class LeanLane:
    """Handlers for one machine. It follows every change of the claims."""

    _words: tuple[tuple[Bus, int, WordDevice], ...] = ()  # what is claimed for words, and from where on
    _uart: LentUart | None = None  # whose registers the core may serve

    def __init__(
        self, platform: Platform, sink: Sink, finish: Finish | None = None, lines: KvmLines | None = None
    ) -> None:
        """`lines`: what drives KVM's interrupt lines, where it has the controllers."""
        self.finish = finish or Finish()
        self._lines = lines
        self._lock = RLock()  # a live display may run another machine
        self._tables = RLock()  # of the three tables, and of what counts their changes
        self._words_lock = RLock()  # from the choice of a word's slot until it is served
        self._platform, self._sink = platform, sink
        self._ports, self._mmio = platform.ports, platform.mmio
        self.writers: dict[int, Row] = {}
        self.refusing: dict[int, Row] = {}
        self.readers: dict[int, Row] = {}
        self._changes = 0
        self._collected: CoalescedRing | None = None
        self._told: list[Any] = []  # what a handler of something collected has raised
        platform.ports.listeners.append(self._claims_changed)
        platform.mmio.listeners.append(self._claims_changed)
        platform.msr_reads.listeners.append(self._msrs_changed)
        platform.msr_writes.listeners.append(self._msrs_changed)
        platform.hypercalls.listeners.append(self._forget)
        self._look_at_room()
        sink.told = self._look_at_room
        self._claims_changed()

    @property
    def generation(self) -> int:
        """Counts the changes of who serves what."""
        return self._changes

    def _forget(self) -> None:
        """Who serves what has changed."""
        with self._tables:
            self._changes += 1
            self.writers.clear()
            self.refusing.clear()
            self.readers.clear()
            # Last: what another vCPU's core finds in a table before it is empty is void as soon as this is there.
            self.finish.c.changes = self._changes

    def _claims_changed(self) -> None:
        self._forget()
        if self._words:
            self._drop_words()
        claim = self._ports.writer_at(DEBUG_CONSOLE)
        self.uart_is_pythons()  # until somebody asks for it again: claims may be others now
        console = claim is not None and isinstance(claim.owner, DebugConsole)
        self.finish.sink_port(DEBUG_CONSOLE if console else None)

    def _msrs_changed(self) -> None:
        self._forget()
        reads, writes = self._platform.msr_reads, self._platform.msr_writes
        for index, word in self.finish.msr_words.items():
            if reads.get(index) != word.read or writes.get(index) != word.write:
                self.finish.forget_msr(index)  # somebody else's now, in one direction at least

    def _drop_words(self) -> None:
        """Of words whose port or address was given up."""
        with self._words_lock:
            for each in self._words:
                bus, address, device = each
                owner = bus.writer_at(address)
                if owner is None or owner.owner is not device:
                    device.word.drop()
                    self._words = tuple(other for other in self._words if other is not each)

    def uart_is_pythons(self) -> None:
        """The core serves no serial port, until one is written to again."""
        if self._uart is not None:
            self._uart.close()
            self._uart = None

    def _look_for_uart(self, address: int, size: int) -> None:
        """A UART that is written to, whole and without hooks: while it only sends, the core serves it."""
        claim = self._ports.route(address, size, write=True)
        if claim is not None and self._uart is None and claim.name.startswith("16550A"):
            from vmm.machine.run.lent_uart import lent_uart  # few guests have one

            self._uart = lent_uart(self.finish, self._ports, self._sink, claim, self._lines)

    # -- vmm.kvm.lean.Handlers

    def find_writer(self, key: int) -> Write | None:
        changes, (code, address, size) = self._changes, access(key)
        table = self.writers
        fixed: tuple[int, ...] = ()
        call: Callable[..., object] | None
        if code == VMM_MSR_WRITE:
            table, call = self.refusing, self._platform.msr_writes.get(address)
        else:
            call, fixed = self._claimed(self._ports if code == VMM_PORT_OUT else self._mmio, address, size, write=True)
            if code == VMM_PORT_OUT:
                self._look_for_uart(address, size)
        return self._keep(table, key, call, fixed, changes)

    def find_reader(self, key: int) -> AnyRead | None:
        changes, (code, address, size) = self._changes, access(key)
        fixed: tuple[int, ...] = ()
        call: Callable[..., Any] | None
        if code == VMM_MSR_READ:
            call = self._platform.msr_reads.get(address)
        elif code == VMM_HYPERCALL:
            call = self._platform.hypercalls.get(address)
        else:
            call, fixed = self._claimed(self._ports if code == VMM_PORT_IN else self._mmio, address, size, write=False)
        return self._keep(self.readers, key, call, fixed, changes)

    @staticmethod
    def _claimed(
        bus: Bus, address: int, size: int, *, write: bool
    ) -> tuple[Callable[..., Any] | None, tuple[int, ...]]:
        """Who serves such an access, and what it is called with before the value."""
        claim = bus.route(address, size, write=write)
        if claim is None:
            return None, ()
        return (claim.hook, ()) if claim.hook else (claim.call, (address - claim.base, size))

    def checked(self, key: int, read: AnyRead, value: object) -> int | None:
        """An answer that is not plainly an int in range, by the rule of whom the plain way asks: `Bus.checked` for a
        port or an address, `answers.msr` for an MSR, `answers.hypercall` for a hypercall.
        """
        code, address, size = access(key)
        if code == VMM_MSR_READ:
            return answers.msr(value, address, answers.name_of(read))
        if code == VMM_HYPERCALL:
            return answers.hypercall(value, address, answers.name_of(read)) & MASK64
        bus = self._ports if code == VMM_PORT_IN else self._mmio
        claim = bus.route(address, size, write=False)
        who = answers.name_of(read) if claim is None or claim.hook else claim.name
        return bus.checked(address, size, who, value)

    def _keep(
        self, table: dict[int, Row], key: int, call: Callable[..., Any] | None, fixed: tuple[int, ...], changes: int
    ) -> Callable[..., Any] | None:
        """Remember who serves a key, unless claims have changed while we looked; what to call for it, or None."""
        if call is None:
            return None
        with self._tables:
            if changes == self._changes:
                if len(table) >= KEPT:
                    table.clear()
                table[key] = taken_apart(call, *fixed)
        return partial(call, *fixed) if fixed else call

    def coalesce(self, ring: Any) -> None:
        """KVM collects writes there: every way through KVM_RUN has to look (Platform.collect)."""
        self.finish.set_ring(ring)
        self._platform.collect = self.output

    def share(self, ring: Any) -> None:
        """Not only the console's bytes come there: what is not the console's goes to its bus."""
        self.coalesce(ring)
        from vmm.kvm.coalesced import CoalescedRing

        self._collected = CoalescedRing(ring)
        self.finish.c.ring_shared = 1

    def output(self) -> None:
        """Give the console's bytes to the sink, and other collected writes to their devices, in the guest's order.

        Raises OutputLimit, which only bytes that KVM has collected can cause, and what a device raises.
        """
        with self._lock:  # two vCPUs: what was collected first is written first
            self._drain()
            ring = self._collected
            if ring is not None:
                self._hand_over(ring)
                self._drain()  # a device may have written to the sink as well: there is less room

    def _hand_over(self, ring: CoalescedRing) -> None:
        """What is collected, to its devices: by the core, as long as it knows them. Where it comes to an entry that is
        not the console's it stops taking, so that one is ours alone.
        """
        while (key := hand_over(self.finish, self.writers, self._told)) != VMM_FINISHED:
            if key == VMM_OUTPUT:
                self._drain()  # up to the next that is not
            elif key == VMM_RAISED:
                raise self._told.pop() if self._told else MemoryError
            elif self.find_writer(key) is None and (write := ring.first()) is not None:
                ring.take()
                (self._ports if write.pio else self._mmio).write(write.address, write.data)

    def _drain(self) -> None:
        self._sink.write(self.finish.drain())

    def _look_at_room(self) -> None:
        """Whoever writes to the sink leaves less for the console: the core has to stop where the plain way would."""
        self.finish.set_room(self._sink.room)

    def close(self) -> None:
        """The ring goes with its vCPU: nobody may look into it any more."""
        if self.finish.c.ring:
            self.finish.set_ring(None)
            self._collected = None

    # -- words

    def port_word(self, port: int, *, timed: bool = False) -> Word:
        """Make a port a word that the core serves; `timed`: it says when it was written last.

        Raises:
            UsageError: the port is taken, or there are too many words.
        """
        with self._words_lock:
            word = self._checked(self.finish.new_port_word(), "port")
            if timed:
                word.time_writes()
            self._claim(self._ports, port, 1, word)
            self.finish.serve_port(port, word)
        return word

    def mmio_word(self, address: int) -> Word:
        """Make the 8 bytes at an MMIO address a word; only accesses that start there reach it."""
        with self._words_lock:
            word = self._checked(self.finish.new_mmio_word(), "MMIO")
            self._claim(self._mmio, address, 8, word)
            self.finish.serve_mmio(address, word)
        return word

    def msr_word(self, index: int, hand_over: Callable[[], object]) -> Word:
        """Make an MSR a word, in place of any callback or word that it has. `hand_over` tells KVM, once there is one.

        Raises:
            UsageError: there are too many; KVM has been told nothing.
            MissingCapability, UsageError: whatever `hand_over` raises.
        """
        with self._words_lock:
            self.finish.forget_msr(index)
            word = self._checked(self.finish.new_msr_word(), "MSR")
            hand_over()
            self._platform.msr_reads[index], self._platform.msr_writes[index] = word.read, word.write
            self.finish.serve_msr(index, word)
        return word

    def _claim(self, bus: Bus, address: int, size: int, word: Word) -> None:
        from vmm.machine.devices.word import WordDevice  # few machines have words

        device = WordDevice(word)
        bus.claim(address, size, device)
        self._words = (*self._words, (bus, address, device))

    @staticmethod
    def _checked(word: Word | None, what: str) -> Word:
        if word is None:
            raise UsageError(f"no {what} word is left; use a callback instead")
        return word

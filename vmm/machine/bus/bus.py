# SPDX-License-Identifier: GPL-2.0-or-later
"""Who answers an access to a port or to an MMIO address. It knows claims, widths and byte order; it knows no device,
no exit and no vCPU.

One `Bus` class serves both spaces. Its rules:

* A device is told an offset into its claim, a size in bytes and an integer. The bus converts from and to little-endian
  bytes, once, here.
* Reading and writing are claimed apart, so a port may have a read callback and a write callback from two calls. A
  `Device` claims both. Overlap is refused when claiming, never resolved.
* **Ports** (`port_bus`): an access belongs, whole, to the claim that holds its first port. A port number names a
  register, and its width is the instruction's: `out 0xf4, eax` is one write of 4 bytes to the device at 0xf4 even where
  another device owns 0xf5.
* **MMIO** (`mmio_bus`): addresses name bytes. An access inside one claim is one call. An access that crosses the edge
  of any claim is done byte by byte, lowest address first, each byte an access of its own with size 1.
* **Unclaimed**: reads give all ones, writes are dropped, and both are counted in `Bus.unclaimed`. A strict bus raises
  UnclaimedAccess instead, which ends the run.
* What a device or a callback raises goes through unchanged: the run ends with it.

Several vCPU threads use a bus at once. Claiming and looking up are safe against each other; a device guards its own
state, because only it knows what must not interleave.
"""

from __future__ import annotations

from vmm.base.integer import integer
from vmm.base.light import Protocol, RLock
from vmm.errors import UsageError
from vmm.machine.bus.answers import in_bytes, name_of, unsigned
from vmm.machine.bus.claims import Claim, Claims
from vmm.machine.bus.unclaimed import Unclaimed, UnclaimedAccess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeAlias

ReadCall: TypeAlias = "Callable[[int, int], int]"
WriteCall: TypeAlias = "Callable[[int, int, int], None]"
First: TypeAlias = "tuple[Iterable[Claim[ReadCall]], Iterable[Claim[WriteCall]]]"


class ClaimCheck(Protocol):
    """Raises UsageError where a claim of base..stop-1 could never be called."""

    def __call__(self, base: int, stop: int, name: str, *, reads: bool, writes: bool) -> None: ...


PORTS = 1 << 16
GUEST_PHYSICAL = 1 << 52  # MAXPHYADDR is at most 52 (AMD APM vol. 2, 5.1; Intel SDM vol. 3A, 4.1.4)


class Device(Protocol):
    """What can be claimed. `offset` counts from the start of the claim; sizes are bytes: 1, 2 or 4 from a port, 1 to 8
    from MMIO. Values are unsigned and fit in `size` bytes. May be called from several threads at once.
    """

    @property
    def name(self) -> str:
        """For messages."""

    def read(self, offset: int, size: int) -> int:
        """The value the guest sees."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Take `value` from the guest."""


class Bus:
    """One address space: `what` names its addresses in messages, `limit` is how many there are. `whole` chooses the
    port rule of the module's text over the MMIO rule. `strict` may be changed at any time. `first` are the claims of
    reads and of writes that it starts with (`Claims`).
    """

    def __init__(self, what: str, limit: int, *, whole: bool, strict: bool = False, first: First = ((), ())) -> None:
        self.what, self.limit, self.strict = what, limit, strict
        self.unclaimed = Unclaimed()
        self.check: ClaimCheck | None = None
        """Asked about each claim, by a machine that knows who else answers in this space."""
        self.listeners: list[Callable[[], object]] = []
        """Called after every change of the claims, by those who keep look-ups of their own."""
        self._whole = whole
        self._readers: Claims[ReadCall] = Claims(first[0])
        self._writers: Claims[WriteCall] = Claims(first[1])
        self._lock = RLock()  # a signal handler may claim while its thread does

    def claim(self, base: int, size: int, device: Device) -> None:
        """Give base..base+size-1 to `device`, both directions. UsageError if any of it is taken or out of range, if it
        is no device, or if an access could never come there.
        """
        if not callable(getattr(device, "read", None)) or not callable(getattr(device, "write", None)):
            raise UsageError(
                f"claiming {self.what} {base!r}: {device!r} is no device with read(offset, size) and write"
            )
        self._claim(*both(*self._span(base, size, device.name), device))

    def on_read(self, base: int, f: Callable[[], int], size: int = 1) -> None:
        """Reads of base..base+size-1 are answered by `f()`. For offsets or widths, claim a Device. Errors: `claim`."""
        base, stop = self._span(base, size, name_of(f), f)
        self._claim(Claim(base, stop, name_of(f), f, lambda _offset, _size: f(), f), None)

    def on_write(self, base: int, f: Callable[[int], object], size: int = 1) -> None:
        """Writes to base..base+size-1 call `f(value)`, whose result is ignored. Otherwise as `on_read`."""

        def call(_offset: int, _size: int, value: int) -> None:
            f(value)

        base, stop = self._span(base, size, name_of(f), f)
        self._claim(None, Claim(base, stop, name_of(f), f, call, f))

    def claim_reads(self, base: int, size: int, name: str, call: ReadCall) -> None:
        """Reads of base..base+size-1 are `call(offset, size)`; `name` is for messages. Errors: `claim`."""
        base, stop = self._span(base, size, name, call)
        self._claim(Claim(base, stop, name, call, call), None)

    def claim_writes(self, base: int, size: int, name: str, call: WriteCall) -> None:
        """Writes likewise: `call(offset, size, value)`."""
        base, stop = self._span(base, size, name, call)
        self._claim(None, Claim(base, stop, name, call, call))

    def _span(self, base: int, size: int, name: str, call: object = callable) -> tuple[int, int]:
        """(first, end) as plain ints. UsageError where they are none, or what shall be called cannot be."""
        first, count = integer(base), integer(size)
        if first is None or count is None:
            raise UsageError(f"claiming {self.what} {base!r} (size {size!r}) for {name}: give whole numbers")
        if not callable(call):
            raise UsageError(f"claiming {self.what} {first:#x}: {call!r} cannot be called")
        return first, first + count

    def route(self, address: int, size: int, *, write: bool) -> Claim[Any] | None:
        """The claim that an access belongs to as a whole; None: nobody's, or that of several, byte by byte.

        The one place that knows the rules above: whoever serves an access asks it, whichever way the access came.
        """
        claim = (self._writers if write else self._readers).at(address)
        return claim if claim is not None and (self._whole or address + size <= claim.stop) else None

    def reader_at(self, address: int) -> Claim[ReadCall] | None:
        """The claim that answers reads of this address."""
        return self.route(address, 1, write=False)

    def writer_at(self, address: int) -> Claim[WriteCall] | None:
        """The claim that takes writes to this address."""
        return self.route(address, 1, write=True)

    @property
    def readers(self) -> tuple[Claim[ReadCall], ...]:
        """Every claim that answers reads, by address."""
        return self._readers.rows

    @property
    def writers(self) -> tuple[Claim[WriteCall], ...]:
        """Every claim that takes writes, by address."""
        return self._writers.rows

    def release(self, what: int | Device) -> None:
        """Undo claims, in both directions: those that start at an address, or all of one device. UsageError if none."""

        def gone(claim: Claim[Any]) -> bool:
            if isinstance(what, int):
                return claim.base == what
            # Of a device that is made late the owner stands for it (devices/on_demand.py).
            return claim.owner is what or getattr(claim.owner, "made", None) is what

        with self._lock:
            count = self._readers.remove(gone) + self._writers.remove(gone)
        self._changed()
        if not count:
            which = f"no claim starts at {self.what} {what:#x}" if isinstance(what, int) else f"{what.name} claims none"
            raise UsageError(f"releasing a claim of the {self.what} bus: {which}")

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes (1 to 8) as the guest sees them.

        Raises UnclaimedAccess on a strict bus, UsageError when a device answers with no integer of that size.
        """
        claim = self.route(address, size, write=False)
        if claim is not None:
            value = claim.call(address - claim.base, size)
            return self.checked(address, size, claim.name, value).to_bytes(size, "little")
        if self._whole or self._readers.last_in(address, address + size) is None:
            self._miss(address, size, None)
            return b"\xff" * size
        # Lists, here and below: in a generator a StopIteration of a callback would come out as another error.
        return b"".join([self.read(address + i, 1) for i in range(size)])

    def checked(self, address: int, size: int, who: str, value: object) -> int:
        """What `who` answered to a read, as a plain int. UsageError when it is no integer of that size."""
        return unsigned(value, size, f"reading {self.what} {address:#x}", who)

    def write(self, address: int, data: bytes) -> None:
        """One write of `len(data)` bytes (1 to 8), lowest first. Raises UnclaimedAccess on a strict bus."""
        size = len(data)
        claim = self.route(address, size, write=True)
        if claim is not None:
            claim.call(address - claim.base, size, int.from_bytes(data, "little"))
        elif self._whole or self._writers.last_in(address, address + size) is None:
            self._miss(address, size, int.from_bytes(data, "little"))
        else:
            for i in range(size):
                self.write(address + i, data[i : i + 1])

    def read_string(self, address: int, size: int, count: int) -> bytes:
        """REP INS: `count` elements of `size` bytes, all from the same address, in order."""
        return b"".join([self.read(address, size) for _ in range(count)])

    def write_string(self, address: int, size: int, data: bytes) -> None:
        """REP OUTS: every `size` bytes of `data` are one write to the same address, in order.

        What raises stops there: earlier elements were delivered, later ones are not. UsageError on a broken element.
        """
        if len(data) % size:
            raise UsageError(
                f"string output to {self.what} {address:#x}: {in_bytes(len(data))} are not whole elements of {size}"
            )
        for i in range(0, len(data), size):
            self.write(address, data[i : i + size])

    def _claim(self, reader: Claim[ReadCall] | None, writer: Claim[WriteCall] | None) -> None:
        with self._lock:
            if reader is not None:
                self._readers.refuse(reader, self.what, self.limit)
            if writer is not None:
                self._writers.refuse(writer, self.what, self.limit)
            one = reader or writer
            if self.check is not None and one is not None:
                self.check(one.base, one.stop, one.name, reads=reader is not None, writes=writer is not None)
            # Both were checked before either is taken: a refused claim changes nothing.
            if reader is not None:
                self._readers.add(reader)
            if writer is not None:
                self._writers.add(writer)
        self._changed()

    def _changed(self) -> None:
        for listener in self.listeners:
            listener()

    def _miss(self, address: int, size: int, value: int | None) -> None:
        if self.strict:
            raise UnclaimedAccess(self.what, address, size, value)
        self.unclaimed.add(address, "read" if value is None else "write", size, value)


def both(base: int, stop: int, device: Device) -> tuple[Claim[ReadCall], Claim[WriteCall]]:
    """What a device claims of base..stop-1: reads and writes."""
    return (
        Claim(base, stop, device.name, device, device.read),
        Claim(base, stop, device.name, device, device.write),
    )


def port_bus(*, strict: bool = False, first: First = ((), ())) -> Bus:
    """The 65,536 I/O ports."""
    return Bus("port", PORTS, whole=True, strict=strict, first=first)


def mmio_bus(*, strict: bool = False, first: First = ((), ())) -> Bus:
    """Guest-physical addresses that no memslot holds."""
    return Bus("MMIO address", GUEST_PHYSICAL, whole=False, strict=strict, first=first)

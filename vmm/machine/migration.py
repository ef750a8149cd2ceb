# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that moves to another process while its guest runs (pre-copy): all pages are sent, then those that were
written meanwhile, round after round; at last the guest stands still for the rest, and goes on over there.

    here:   report = migration.send(machine, connection)      runs the guest as it sends
    there:  machine = migration.receive(Machine, connection)  and then machine.run()

`connection` is a stream socket (a socketpair, a Unix socket). It knows frames and rounds; states are frozen.py's. A
frame is a letter, a u32 of bytes, and these. Both ends sum what goes over (SHA-256), and the sums are compared.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

from vmm.abi.x86 import PAGE
from vmm.base.record import Record
from vmm.errors import HostError, UsageError, os_reason
from vmm.kvm.dirty import get_dirty_log
from vmm.kvm.memory import Mapping
from vmm.kvm.saved import Saved
from vmm.machine import device_state, frozen
from vmm.machine.ends import Why
from vmm.machine.snapshot import CLASHING, live, memory_file
from vmm.machine.snapshot_file import ZEROS, machine_of, stand

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from vmm.machine.machine import Machine
    from vmm.machine.memory.slots import Memslot

FRAME = struct.Struct("<cI")
PLACE = struct.Struct("<II")  # number of the memslot, of the page in it
BATCH = 64  # pages of one frame
LARGEST = 64 << 20
MOVED = "the machine moves to another process"


class Report(Record):
    """How a machine moved: `pages` (of 4096 bytes) sent in each round, the last one with the guest standing still;
    `downtime` in seconds that it stood, until the other end was ready to run it; `sent` bytes that went over.
    """

    pages: tuple[int, ...]
    downtime: float
    sent: int


class _Stream:
    """Frames over a socket, summed."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket, self.bytes = connection, 0
        self.given, self.got = hashlib.sha256(), hashlib.sha256()

    def send(self, kind: bytes, data: bytes) -> None:
        head = FRAME.pack(kind, len(data))
        self.given.update(head)
        self.given.update(data)
        self.bytes += len(head) + len(data)
        try:
            self._socket.sendall(head + data)
        except OSError as error:
            raise HostError(f"moving a machine: sending: {os_reason(error)}") from error

    def receive(self, *kinds: bytes) -> tuple[bytes, bytes]:
        head = self._exactly(FRAME.size)
        kind, size = FRAME.unpack(head)
        if kind == b"E" and size < LARGEST:
            raise UsageError(f"moving a machine: the other end says: {self._exactly(size).decode(errors='replace')}")
        if kind not in kinds or size > LARGEST:
            wanted = " or ".join(each.decode() for each in kinds)
            raise UsageError(f"moving a machine: a frame {kind!r} came, and not {wanted}")
        data = self._exactly(size)
        if kind == b"C" and data != self.got.digest():
            raise UsageError("moving a machine: what came is not what was sent: the sums differ")
        self.got.update(head)
        self.got.update(data)
        return kind, data

    def _exactly(self, size: int) -> bytes:
        got = bytearray()
        while len(got) < size:
            try:
                piece = self._socket.recv(min(size - len(got), 1 << 20))
            except OSError as error:
                raise HostError(f"moving a machine: receiving: {os_reason(error)}") from error
            if not piece:
                raise HostError("moving a machine: the other end has gone")
            got += piece
        return bytes(got)


def send(
    machine: Machine, connection: socket.socket, *, rounds: int = 8, enough: int = 64, timeout: float | None = None
) -> Report:
    """Run the machine while its memory is sent, at most `rounds` times over, until no more than `enough` pages are
    left; then stop it and send the rest. It stands then where the other end goes on, and may be closed.

    Raises:
        UsageError: the machine runs, has snapshots or another reader of its dirty log; its guest ended before it was
            moved, which a further run() shows; the other end does not take it, with its words.
        HostError: the connection ended; KVM refuses something.
    """
    machine.between_runs("moving a machine")
    if live(machine) or any(name in machine.vm.enabled for name in CLASHING):
        raise UsageError("moving a machine: somebody else reads its dirty log", hint="close its snapshots first")
    for slot in machine.memory.slots:
        if not slot.readonly:
            machine.memory.watch(slot)
    slots = [slot for slot in machine.memory.slots if not slot.readonly]
    stream = _Stream(connection)
    places = [(slot.gpa, slot.size) for slot in slots]
    now = frozen.frozen(machine, machine.shape, {}, {}, places, ())
    stream.send(b"H", frozen.text_of(now))
    stream.receive(b"K")
    pages: list[int] = []
    wrong: list[BaseException] = []

    def copy() -> None:
        try:
            due = [(number, page) for number, slot in enumerate(slots) for page in range(slot.size // PAGE)]
            pages.append(_send_pages(stream, machine, slots, due, zeros=False))
            while len(pages) < rounds:
                due = _written(machine, slots)
                if len(due) <= enough:
                    left.extend(due)
                    break
                pages.append(_send_pages(stream, machine, slots, due))
        except BaseException as error:
            wrong.append(error)
        finally:
            machine.stop(MOVED)

    left: list[tuple[int, int]] = []
    _written(machine, slots)  # from here on
    copier = threading.Thread(target=copy, name="pyvmm migration")
    copier.start()
    try:
        stop = machine.run(timeout).stop
    finally:
        copier.join()
    stood = time.monotonic()
    if wrong:
        raise wrong[0]
    if stop.why is not Why.STOPPED or stop.text != MOVED:
        stream.send(b"E", b"the guest ended before it was moved")
        raise UsageError(f"moving a machine: its guest ended before: {stop.text}")
    machine.all_cpus.settle()
    devices = device_state.get(device_state.find(machine.platform, machine.lane))
    saved = Saved(machine.kvm, machine.vm, [cpu.vcpu for cpu in machine.cpus], [], machine.irqchip)
    saved.take()
    due = sorted({*left, *_written(machine, slots)})
    pages.append(_send_pages(stream, machine, slots, due))
    state = frozen.frozen(machine, machine.shape, saved.parts(), devices, places, machine.started)
    stream.send(b"S", frozen.text_of(state))
    stream.send(b"C", stream.given.digest())
    stream.receive(b"K")
    return Report(tuple(pages), time.monotonic() - stood, stream.bytes)


def _written(machine: Machine, slots: Iterable[Memslot]) -> list[tuple[int, int]]:
    """(memslot, page) of what was written since it was asked last: by the guest, by KVM, by us."""
    found: list[tuple[int, int]] = []
    for number, slot in enumerate(slots):
        count = slot.size // PAGE
        pages: set[int] = set().union(*(get_dirty_log(machine.vm, each, count) for each in slot.numbers))
        touched = slot.mapping.watch()
        if touched.marked[0]:
            first = slot.offset // PAGE
            for page in range(count):
                if touched.pages[first + page]:
                    touched.pages[first + page] = 0  # first: who writes it again marks it again
                    pages.add(page)
        found += ((number, page) for page in sorted(pages))
    return found


def _send_pages(
    stream: _Stream, machine: Machine, slots: list[Memslot], due: list[tuple[int, int]], *, zeros: bool = True
) -> int:
    """Those pages as they are now; how many. Pages of zeros are left out where the other end has zeros."""
    batch, sent = bytearray(), 0
    for number, page in due:
        data = machine.memory.read(slots[number].gpa + page * PAGE, PAGE)
        if zeros or data != ZEROS:
            batch += PLACE.pack(number, page) + data
            sent += 1
        if len(batch) >= BATCH * (PLACE.size + PAGE):
            stream.send(b"P", bytes(batch))
            batch.clear()
    if batch:
        stream.send(b"P", bytes(batch))
    return sent


def _take_pages(stream: _Stream, fd: int, sizes: list[int]) -> frozen.Frozen:
    """Put what comes into the memory behind `fd`; the state that comes last, its sum compared."""
    memory, starts = Mapping(sum(sizes), shared=True, fd=fd), [sum(sizes[:number]) for number in range(len(sizes))]
    try:
        while True:
            kind, data = stream.receive(b"P", b"S")
            if kind == b"S":
                break
            for at in range(0, len(data), PLACE.size + PAGE):
                number, page = PLACE.unpack_from(data, at)
                if (page + 1) * PAGE > sizes[number]:
                    raise ValueError("a page outside of its memslot")
                place = starts[number] + page * PAGE
                memory.bytes[place : place + PAGE] = data[at + PLACE.size : at + PLACE.size + PAGE]
    except IndexError as error:
        raise ValueError("a page of no memslot") from error
    finally:
        memory.close()
    stream.receive(b"C")
    state = frozen.value_of(data, "what came")
    if [int(size) for _, size in state["slots"]] != sizes:
        raise ValueError("other memslots than at first")
    return dict(state)


def receive(
    kind: type[Machine],
    connection: socket.socket,
    prepare: Callable[[Machine], object] | None = None,
    **options: Any,
) -> Machine:
    """The machine that `send` sends, of that kind (Machine): it stands where its guest stopped. `prepare` and `options`
    as Machine.load_snapshot.

    Raises:
        UsageError: it is of another host or shape, or what came is nothing that pyvmm sent; the other end is told.
        HostError: the connection ended; KVM or the host refuses something.
    """
    stream, machine = _Stream(connection), None
    try:
        hello = frozen.value_of(stream.receive(b"H")[1], "what came")
        sizes = [int(size) for _, size in hello["slots"]]
        if any(size <= 0 or size % PAGE for size in sizes):
            raise ValueError("a memslot of no pages")
        machine = machine_of(kind, hello, prepare, options)  # now: the guest still runs
        stream.send(b"K", b"")
        fd = memory_file(sum(sizes))
        try:
            state = _take_pages(stream, fd, sizes)
            stand(machine, state, fd, sum(sizes))
        finally:
            os.close(fd)
        stream.send(b"K", b"")
        return machine
    except BaseException as error:
        if machine is not None:
            machine.close()
        if isinstance(error, UsageError):
            stream.send(b"E", str(error.text).encode())
        elif isinstance(error, KeyError | TypeError | ValueError | AttributeError | struct.error):
            stream.send(b"E", b"that is nothing that pyvmm sends")
            kind_of = type(error).__name__
            raise UsageError(f"moving a machine: what came is nothing that pyvmm sends: {kind_of}") from error
        raise

# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that is put back in microseconds: `snapshot`, `reset`, `fork`.

    snap = machine.snapshot()
    while True:
        machine.run(); machine.reset(snap)      the cost is that of the pages that were written

Everything that a guest can change is put back: memory, each vCPU, KVM's interrupt controllers, PIT and clock, and each
device that has a state. What the host alone has is not (the rule of vmm/machine/context.py, whose value pickle takes).
KVM's dirty log of each memslot says what the guest and KVM wrote, marks say what we did (kvm.memory.Touched).

The copy of memory is a file that is in memory alone (memfd), so that a fork maps it privately: a page is copied when
the fork writes it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from vmm.abi.x86 import PAGE
from vmm.errors import UsageError, exhausted
from vmm.kvm.memory import Mapping
from vmm.kvm.saved import Saved, SlotCopy, copy_touched
from vmm.machine import device_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Mapping as Map
    from typing import Self

    from vmm.machine.memory.slots import Memslot
    from vmm.machine.whole import Whole

CLASHING = ("MANUAL_DIRTY_LOG_PROTECT2", "DIRTY_LOG_RING", "DIRTY_LOG_RING_ACQ_REL")
PAGEMAP = "/proc/self/pagemap"


_LIVE: WeakKeyDictionary[Whole, WeakSet[Snapshot]] = WeakKeyDictionary()
"""Of each machine those that may be put back: what is written is told by KVM once, and due for all of them."""


class Snapshot:
    """A state of one machine. It may be put back any number of times, and keeps the machine's memory once more: as many
    bytes as were touched when it was taken (`size` in all). It ends with `close`, or with the machine.
    """

    # What `close` gives back, also of one that was never finished.
    _fd = -1
    _copy: Mapping | None = None
    _saved: Saved | None = None

    def __init__(self, machine: Whole, started: Iterable[int]) -> None:
        """The state as it is now; no vCPU may be running.

        Raises:
            UsageError: a vCPU is inside of an instruction that would end the run.
            HostError: KVM refuses a call, or the host has no memory for the copy.
        """
        machine.all_cpus.settle()
        self.machine: Whole = machine
        self._vm, self._memory, self._lane, self._cpus = machine.vm, machine.memory, machine.lane, tuple(machine.cpus)
        self.started = tuple(sorted(started))
        self._claims = machine.lane.generation
        self.kept = device_state.Kept(self._find(machine))  # first: what they serve they write to memory
        """The states of this machine's own devices."""
        memory = machine.memory
        for slot in memory.slots:
            if not slot.readonly:
                memory.watch(slot)
        self.slots = _writable(machine)
        self._generation = memory.generation
        self.size = sum(slot.size for slot in self.slots)
        """Bytes of memory that it can put back."""
        self._fd = memory_file(self.size)
        try:
            self._copy = Mapping(self.size, shared=True, fd=self._fd)
            self._saved = Saved(machine.kvm, machine.vm, _vcpus(machine), self._rows(self._copy), machine.irqchip)
            self.touched = _fill(self._copy, self.slots)
            self._saved.take()
            self._saved.begin(self._sibling())
        except BaseException:
            self.close()
            raise
        _LIVE.setdefault(machine, WeakSet()).add(self)
        self.kept.resume()

    @staticmethod
    def _find(machine: Whole) -> device_state.Found:
        return device_state.find(machine.platform, machine.lane)

    @property
    def devices(self) -> dict[str, Any]:
        """The state of each device that has one, by its place: a value, also for another machine."""
        return self.kept.states

    def _sibling(self) -> Saved | None:
        """Of another snapshot of the machine that still can be put back."""
        for other in _LIVE.get(self.machine, ()):
            if other._saved is not None and other._generation == self._generation:
                return other._saved
        return None

    def _rows(self, copy: Mapping) -> list[SlotCopy]:
        rows, at = [], copy.hva
        for slot in self.slots:
            touched = slot.mapping.watch()
            marks = touched.pages + slot.offset // PAGE
            rows.append(SlotCopy((slot.slot, slot.spaces, slot.size, slot.hva, at, marks, touched.marked)))
            at += slot.size
        return rows

    def _open(self) -> Saved:
        if self._saved is None:
            raise UsageError("this snapshot has been closed", hint="take another one")
        return self._saved

    @property
    def parts(self) -> dict[str, bytes]:
        """What KVM gave, each structure by its name."""
        return self._open().parts()

    def msrs(self, vcpu: int) -> dict[int, int]:
        """The MSRs of a vCPU that are put back, by number. Before the first reset also those that KVM gives, and does
        not take.
        """
        return self._open().msrs(vcpu)

    def put_back(self) -> int:
        """See `Machine.reset`, whose errors are raised here. Pages that were copied. (In few lines, for all are cold
        behind a run: row reset of the bench.)
        """
        if self._vm.closed or any(cpu.thread_id is not None for cpu in self._cpus):
            self.machine.between_runs("going back to a snapshot")
        saved = self._saved if self.as_it_was else self.check()
        assert saved is not None
        for cpu in self._cpus:
            vcpu = cpu.vcpu
            if vcpu.pending or vcpu.stored is not None:
                vcpu.abandon()
        kept = self.kept
        for put, state in kept.puts:
            put(state)
        pages = saved.put()
        for resume in kept.resumes:
            resume()
        return pages

    @property
    def as_it_was(self) -> bool:
        """Nothing that `check` would look at has changed."""
        return (
            self._memory.generation == self._generation
            and self._lane.generation == self._claims
            and self._saved is not None
        )

    def check(self) -> Saved:
        """It may be put back: what it stands on is what it was taken of.

        Raises:
            UsageError: it is closed, or memslots or devices are others now.
        """
        machine = self.machine
        saved = self._open()
        if machine.memory.generation != self._generation:
            raise UsageError("the machine's memslots are not those of this snapshot", hint="take a new snapshot")
        if machine.lane.generation != self._claims:
            self.kept.find_again(self._find(machine))
            self._claims = machine.lane.generation
        return saved

    def put_into(self, twin: Whole) -> None:
        """Make another machine of the same shape what this one was, by a private mapping of the copy: see
        `Machine.fork`.

        Raises:
            UsageError: its shape is another one; words say what differs.
            HostError: KVM or the host refuses a call.
        """
        self._open()
        slots = [(slot.gpa, slot.size) for slot in self.slots]
        become(twin, self.parts, self.devices, slots, self._fd, self.size)

    def copied(self) -> memoryview:
        """The bytes of all `slots`, one behind the other, as they were."""
        self._open()
        assert self._copy is not None
        return memoryview(self._copy.bytes).toreadonly()

    def close(self) -> None:
        """Give the copy of the memory back. Idempotent; machines that were forked from it keep theirs."""
        if self._saved is not None:
            self._saved.close()
            self._saved = None
        if self._copy is not None:
            self._copy.close()
            self._copy = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def take(machine: Whole, started: Iterable[int]) -> Snapshot:
    """See `Machine.snapshot`. Raises, beside what Snapshot does, UsageError: somebody else reads this machine's log."""
    for capability in CLASHING:
        if capability in machine.vm.enabled:
            raise UsageError(
                f"taking a snapshot: KVM_CAP_{capability} is on, and the dirty log is not read as a snapshot needs it"
            )
    return Snapshot(machine, started)


def _vcpus(machine: Whole) -> list[Any]:
    return [cpu.vcpu for cpu in machine.cpus]


def _writable(machine: Whole) -> tuple[Memslot, ...]:
    return tuple(slot for slot in machine.memory.slots if not slot.readonly)


def live(machine: Whole) -> bool:
    """Whether the machine has a snapshot that may be put back: KVM tells it of each write, once."""
    return any(each._saved is not None for each in _LIVE.get(machine, ()))


def become(
    twin: Whole,
    parts: Map[str, bytes],
    states: Map[str, Any],
    slots: Sequence[tuple[int, int]],
    fd: int,
    size: int,
) -> None:
    """Make a machine of the same shape what another was: `parts` of KVM, `states` of devices, and in place of its
    memslots those `slots` (guest-physical address, bytes) of the file `fd`, mapped privately, one behind the other.

    Raises:
        UsageError: its shape is another one; words say what differs.
        HostError: KVM or the host refuses a call.
    """
    devices = device_state.find(twin.platform, twin.lane)
    device_state.check(states, devices)
    own = Saved(twin.kvm, twin.vm, _vcpus(twin), [], twin.irqchip)
    wrong = own.fill(parts)
    places = {gpa for gpa, _ in slots}
    wrong += [f"memory at {slot.gpa:#x} is here alone" for slot in _writable(twin) if slot.gpa not in places]
    if wrong:
        raise UsageError(f"a machine of another shape cannot become what this state has: {'; '.join(wrong)}")
    device_state.put(states, devices)
    mapping, at = Mapping(size, fd=fd), 0
    for slot in _writable(twin):
        twin.memory.remove(slot)
    for gpa, length in slots:
        twin.memory.add(gpa, length, mapping=mapping, offset=at)
        at += length
    own.put()
    device_state.resume(devices)


def memory_file(size: int) -> int:
    """A file of so many bytes that is in memory alone; its descriptor. HostError: the host has none."""
    try:
        fd = os.memfd_create("pyvmm snapshot", os.MFD_CLOEXEC)
    except OSError as error:
        raise exhausted("keeping a machine's memory", "memfd_create", error.errno or 0) from error
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        os.close(fd)
        raise exhausted(f"keeping {size} bytes of a machine's memory", "ftruncate", error.errno or 0) from error
    return fd


def _fill(copy: Mapping, slots: Iterable[Memslot]) -> int:
    """Copy what the host has of the slots. Bytes that were."""
    try:
        pagemap = os.open(PAGEMAP, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        pagemap = -1  # a /proc that is not there: each page is looked at instead
    try:
        copied, at = 0, copy.hva
        for slot in slots:
            copied += copy_touched(at, slot.hva, slot.size, pagemap)
            at += slot.size
        return copied
    finally:
        if pagemap >= 0:
            os.close(pagemap)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest memory by guest-physical address: memslots over anonymous mappings, with every access checked.

It knows memslots and bytes; it knows no page tables (x86/) and no meaning of an address (layout.py).

A vCPU in system management mode sees an address space of its own, with memslots of its own: 1 << 16 | slot (api.rst,
KVM_SET_USER_MEMORY_REGION). This machine has no memory that only SMM sees, so each slot is in all spaces that KVM has.
"""

from __future__ import annotations

import mmap

from vmm.abi.x86 import LARGE_PAGE, PAGE
from vmm.base.integer import integer
from vmm.base.light import Protocol, bisect_right
from vmm.base.record import Record, replace
from vmm.errors import GuestMemoryError, HostError, UsageError
from vmm.kvm.memory import NULL, Mapping
from vmm.kvm.vm import Vm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmm.kvm.memory import Touched

ADDRESS_SPACE_SHIFT = 16


class SlotCheck(Protocol):
    """Raises UsageError where memory cannot be wanted."""

    def __call__(self, gpa: int, size: int, *, readonly: bool, but: Memslot | None = None) -> None: ...


class Memslot(Record):
    """`size` bytes of guest-physical memory from `gpa`, backed by mapping[offset:]."""

    slot: int
    gpa: int
    size: int
    mapping: Mapping
    offset: int = 0
    readonly: bool = False
    log_dirty: bool = False
    spaces: int = 1

    @property
    def numbers(self) -> tuple[int, ...]:
        """What KVM calls this slot in each of its address spaces."""
        return tuple(space << ADDRESS_SPACE_SHIFT | self.slot for space in range(self.spaces))

    @property
    def end(self) -> int:
        """The guest-physical address behind its last byte."""
        return self.gpa + self.size

    @property
    def hva(self) -> int:
        """The host virtual address of the slot's first byte."""
        return self.mapping.hva + self.offset

    @property
    def stretch(self) -> tuple[Any, ...]:
        """struct vmm_stretch: the slot as C reaches it, with where it marks the pages that it writes."""
        touched = self.mapping.touched
        marks = (touched.pages + self.offset // PAGE, touched.marked) if touched else (NULL, NULL)
        return (self.gpa, self.size, self.hva, self.readonly, *marks)


class GuestMemory:
    """The memslots of one VM, by guest-physical address. Accesses may span adjacent slots.

    Every access raises GuestMemoryError where no slot holds some byte, UsageError where an address, a size or a value
    is none, and HostError where the machine has been closed. Numbers of 8, 16, 32 and 64 bits are unsigned,
    little-endian, at any address.
    """

    def __init__(self, vm: Vm, spaces: int | None = None) -> None:
        self.vm = vm
        self.spaces = max(1, vm.address_spaces() if spaces is None else spaces)
        self._slots: list[Memslot] = []  # by gpa
        self._starts: list[int] = []
        self.check: SlotCheck | None = None
        """Asked about each place for a slot, by a machine that knows what else is there."""
        self.changed: list[Callable[[], object]] = []
        """Called after slots were added, removed, moved or resized."""
        self.generation = 0
        """Counts those changes."""

    @property
    def slots(self) -> tuple[Memslot, ...]:
        """Every memslot, by guest-physical address."""
        return tuple(self._slots)

    @property
    def size(self) -> int:
        """The size of all slots together, in bytes."""
        return sum(slot.size for slot in self._slots)

    def add(self, gpa: int, size: int, *, mapping: Mapping | None = None, offset: int = 0,
            readonly: bool = False, log_dirty: bool = False) -> Memslot:  # fmt: skip
        """Put `size` bytes at `gpa`, zero-filled, or `mapping[offset:]` where one is given (aliasing is fine).

        Raises:
            UsageError: it overlaps a slot, or is not made of whole 4 KiB pages.
            KvmCallError: KVM refuses it.
        """
        self._check_room(gpa, size, readonly=readonly)
        number = self._free_number()
        owned = mapping is None
        mapping = mapping or Mapping(size)
        try:
            return self._changed(
                self._change(None, Memslot(number, gpa, size, mapping, offset, readonly, log_dirty, self.spaces))
            )
        except BaseException:
            if owned and not mapping.users:
                mapping.close()
            raise

    def adopt(self, gpa: int, mapping: Mapping) -> None:
        """All of `mapping` is a memslot at `gpa` already: slot 0, the first."""
        self._insert(Memslot(0, gpa, mapping.size, mapping, spaces=self.spaces))

    def _free_number(self) -> int:
        taken = {each.slot for each in self._slots}
        return next(n for n in range(len(taken) + 1) if n not in taken) if taken else 0

    def add_huge(self, gpa: int, size: int) -> Memslot:
        """As `add`, with host memory that may have 2 MiB pages (madvise MADV_HUGEPAGE) and lies to them as `gpa` does,
        so that KVM can map it by such pages too.
        """
        mapping = Mapping(size + LARGE_PAGE)
        mapping.bytes.madvise(mmap.MADV_HUGEPAGE)
        return self.add(gpa, size, mapping=mapping, offset=(gpa - mapping.hva) % LARGE_PAGE)

    def remove(self, slot: Memslot) -> None:
        """Delete a memslot; its bytes stay in its mapping. To a guest that runs, the addresses are a hole from then."""
        self._delete(slot)
        self._changed(slot)

    def move(self, slot: Memslot, gpa: int) -> Memslot:
        """Put a memslot elsewhere, in one step of KVM's; the guest may be running. The slot as it is now.

        Raises:
            UsageError: it would overlap another one.
            KvmCallError: KVM refuses it.
        """
        self._check_room(gpa, slot.size, but=slot, readonly=slot.readonly)
        return self._changed(self._change(slot, replace(slot, gpa=gpa)))

    def log_dirty(self, slot: Memslot, on: bool) -> Memslot:
        """Begin or end the dirty log of a memslot, which may be in use. The slot as it is now."""
        return self._change(slot, replace(slot, log_dirty=on))

    def watch(self, slot: Memslot) -> Touched:
        """Mark which of the slot's pages we write, and let KVM log which the guest writes. Where the marks are."""
        touched = slot.mapping.watch()
        for told in self.changed:  # C that writes by itself
            told()
        if not slot.log_dirty:
            self.log_dirty(slot, True)
        return touched

    def resize(self, slot: Memslot, size: int) -> Memslot:
        """Give a memslot another size, at most what its mapping has from its offset. The slot as it is now.

        KVM has no such step: the slot is deleted and made anew, and a guest that runs finds a hole for that moment.

        Raises:
            UsageError: it would overlap another one, or the mapping is too small.
        """
        self._check_room(slot.gpa, size, but=slot, readonly=slot.readonly)
        if slot.offset + size > slot.mapping.size:
            raise UsageError(f"resizing memslot {slot.slot} to {size:#x} bytes: its mapping has {slot.mapping.size:#x}")
        self._delete(slot)
        return self._changed(self._change(None, replace(slot, size=size)))

    def _changed(self, slot: Memslot) -> Memslot:
        self.generation += 1
        for told in self.changed:
            told()
        return slot

    def _change(self, old: Memslot | None, new: Memslot) -> Memslot:
        done: list[int] = []
        try:
            for number in new.numbers:
                self._set(number, new)
                done.append(number)
        except BaseException:
            for number in done:  # in all of KVM's address spaces, or in none
                self._set(number, old) if old else self._unset(number, new)
            raise
        if old is not None:
            self._take(old)
        return self._insert(new)

    def _delete(self, slot: Memslot) -> None:
        for number in slot.numbers:
            self._unset(number, slot)
        self._take(slot)

    def _set(self, number: int, slot: Memslot) -> None:
        self.vm.set_user_memory_region(
            number, slot.gpa, slot.mapping, offset=slot.offset, size=slot.size, readonly=slot.readonly,
            log_dirty=slot.log_dirty,
        )  # fmt: skip

    def _unset(self, number: int, slot: Memslot) -> None:
        self.vm.set_user_memory_region(number, slot.gpa, None)

    def _insert(self, slot: Memslot) -> Memslot:
        index = bisect_right(self._starts, slot.gpa)
        self._slots.insert(index, slot)
        self._starts.insert(index, slot.gpa)
        return slot

    def _take(self, slot: Memslot) -> None:
        index = self._slots.index(slot)
        del self._slots[index], self._starts[index]

    def _check_room(self, gpa: int, size: int, *, but: Memslot | None = None, readonly: bool = False) -> None:
        if gpa < 0 or gpa % PAGE or size <= 0 or size % PAGE:
            raise UsageError(f"a memslot of {size} bytes at {gpa:#x}: address and size are whole pages of {PAGE} bytes")
        for other in self._slots:
            if other is not but and gpa < other.end and other.gpa < gpa + size:
                raise UsageError(
                    f"a memslot at {gpa:#x}..{gpa + size - 1:#x} overlaps slot {other.slot} at "
                    f"{other.gpa:#x}..{other.end - 1:#x}"
                )
        if self.check is not None:
            self.check(gpa, size, readonly=readonly, but=but)

    def slot_at(self, gpa: int) -> Memslot | None:
        """The slot that holds this byte."""
        index = bisect_right(self._starts, gpa) - 1
        if index >= 0:
            slot = self._slots[index]
            if gpa - slot.gpa < slot.size:
                return slot
        return None

    def _piece(self, gpa: int, size: int, doing: str) -> tuple[Memslot, int, int]:
        """(slot, start in its mapping, bytes of the access that it holds)."""
        slot = self.slot_at(gpa)
        if slot is None:
            raise GuestMemoryError(f"{doing}: no memslot holds guest-physical address {gpa:#x}")
        if slot.mapping.bytes.closed:
            raise HostError(f"{doing}: the machine has been closed, and its memory with it")
        start, size = slot.offset + gpa - slot.gpa, min(size, slot.end - gpa)
        if slot.mapping.held_back is not None:
            missing = set(range(start // PAGE, (start + size - 1) // PAGE + 1)) - slot.mapping.held_back
            if missing:
                at = slot.gpa - slot.offset + min(missing) * PAGE
                raise GuestMemoryError(
                    f"{doing}: the page at {at:#x} is supplied on demand, and the guest has not asked for it yet",
                    hint="`PagedSlot.supply`, or let the guest touch it",
                )
        return slot, start, size

    def read(self, gpa: int, size: int) -> bytes:
        """`size` bytes. A read that fits one slot is one copy.

        Raises:
            GuestMemoryError: some byte lies in no memslot, or in a page that is supplied on demand and not there yet.
        """
        if type(gpa) is int and type(size) is int and size > 0:
            slot = self.slot_at(gpa)
            if slot is not None and gpa + size <= slot.gpa + slot.size:
                mapping = slot.mapping
                if mapping.held_back is None and not mapping.bytes.closed:  # nearly always
                    start = slot.offset + gpa - slot.gpa
                    return mapping.bytes[start : start + size]
        gpa, size = whole("gpa", gpa), whole("size", size)
        doing = f"reading {size} bytes at {gpa:#x}"
        if size < 0:
            raise UsageError(f"{doing}: a negative size")
        parts = []
        while size:
            slot, start, count = self._piece(gpa, size, doing)
            parts.append(slot.mapping.bytes[start : start + count])
            gpa, size = gpa + count, size - count
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, gpa: int, data: bytes) -> None:
        """All of `data`, or nothing.

        Raises:
            GuestMemoryError: some byte lies in no memslot, or in a page that is supplied on demand and not there yet;
                then none is written.
        """
        if type(gpa) is not int or type(data) is not bytes:
            gpa, data = whole("gpa", gpa), as_bytes(data)
        slot, size = self.slot_at(gpa), len(data)
        if (
            slot is not None and gpa + size <= slot.end and slot.mapping.held_back is None
            and not slot.mapping.bytes.closed
        ):  # nearly always  # fmt: skip
            start = slot.offset + gpa - slot.gpa
            slot.mapping.bytes[start : start + size] = data
            if slot.mapping.touched is not None:
                slot.mapping.touched.mark(start, size)
            return
        doing = f"writing {size} bytes at {gpa:#x}"
        pieces, done = [], 0
        while done < len(data):
            slot, start, count = self._piece(gpa + done, len(data) - done, doing)
            pieces.append((slot, start, done, count))
            done += count
        for slot, start, done, count in pieces:
            slot.mapping.bytes[start : start + count] = data[done : done + count]
            if slot.mapping.touched is not None:
                slot.mapping.touched.mark(start, count)

    def fill(self, gpa: int, size: int, byte: int = 0) -> None:
        """Set `size` bytes to one value."""
        self.write(gpa, bytes([byte]) * size)

    def clear(self, gpa: int, size: int) -> None:
        """Zeros, where nothing need be there: whole pages that nobody has touched stay so, and cost the host nothing.

        Raises:
            GuestMemoryError: some byte lies in no memslot.
        """
        doing = f"clearing {size} bytes at {gpa:#x}"
        while size > 0:
            slot, start, count = self._piece(gpa, size, doing)
            first, last = -(-start // PAGE) * PAGE, (start + count) // PAGE * PAGE
            if slot.mapping.droppable and first < last:
                slot.mapping.bytes[start:first] = bytes(first - start)
                slot.mapping.bytes.madvise(mmap.MADV_DONTNEED, first, last - first)
                slot.mapping.bytes[last : start + count] = bytes(start + count - last)
            else:
                slot.mapping.bytes[start : start + count] = bytes(count)
            if slot.mapping.touched is not None:
                slot.mapping.touched.mark(start, count)
            gpa, size = gpa + count, size - count

    def unpack(self, layout: str, gpa: int) -> tuple[int, ...]:
        """Little-endian numbers by a `struct` format without a byte-order mark: `unpack("QIB", gpa)`, unaligned."""
        import struct  # no guest of pyvmm's needs it to start

        form = struct.Struct("<" + layout)
        return form.unpack(self.read(gpa, form.size))

    def pack(self, layout: str, gpa: int, *values: int) -> None:
        """The reverse of `unpack`: `values` are numbers, one for each sign of `layout`.

        Raises:
            UsageError: a value does not fit.
        """
        import struct

        try:
            data = struct.pack("<" + layout, *values)
        except struct.error as error:
            raise UsageError(f"writing {values} at {gpa:#x}: {error}") from error
        self.write(gpa, data)

    def _store(self, layout: str, size: int, gpa: int, value: int) -> None:
        """One number: a device's answer that a guest waits for, so it goes the short way (row ioeventfd_python)."""
        index = bisect_right(self._starts, gpa) - 1 if type(gpa) is int else -1
        if index >= 0 and type(value) is int:
            slot = self._slots[index]
            start = gpa - slot.gpa
            if start + size <= slot.size and slot.mapping.held_back is None:
                start += slot.offset
                try:
                    slot.mapping.bytes[start : start + size] = value.to_bytes(size, "little")
                    if slot.mapping.touched is not None:
                        slot.mapping.touched.mark(start, size)
                    return
                except (OverflowError, ValueError):  # too large, or closed: the long way says so
                    pass
        self.pack(layout, gpa, value)

    def read_u8(self, gpa: int) -> int:
        """The byte at `gpa`, unsigned."""
        return self.unpack("B", gpa)[0]

    def read_u16(self, gpa: int) -> int:
        """The 2 bytes at `gpa`, unsigned, little-endian."""
        return self.unpack("H", gpa)[0]

    def read_u32(self, gpa: int) -> int:
        """The 4 bytes at `gpa`, unsigned, little-endian."""
        return self.unpack("I", gpa)[0]

    def read_u64(self, gpa: int) -> int:
        """The 8 bytes at `gpa`, unsigned, little-endian."""
        return int.from_bytes(self.read(gpa, 8), "little")  # page walks live on it

    def write_u8(self, gpa: int, value: int) -> None:
        """Set the byte at `gpa` to an unsigned `value`."""
        self._store("B", 1, gpa, value)

    def write_u16(self, gpa: int, value: int) -> None:
        """Set the 2 bytes at `gpa` to an unsigned `value`, little-endian."""
        self._store("H", 2, gpa, value)

    def write_u32(self, gpa: int, value: int) -> None:
        """Set the 4 bytes at `gpa` to an unsigned `value`, little-endian."""
        self._store("I", 4, gpa, value)

    def write_u64(self, gpa: int, value: int) -> None:
        """Set the 8 bytes at `gpa` to an unsigned `value`, little-endian."""
        self._store("Q", 8, gpa, value)


def whole(what: str, value: int) -> int:
    """`value` as a plain int. UsageError where it is none."""
    number = integer(value)
    if number is None:
        raise UsageError(f"{what}={value!r} is no whole number")
    return number


def as_bytes(data: Any) -> bytes:
    """What is made of bytes, as such. UsageError for text, a number, a list of too large ones, and a path, which would
    give the bytes of its name.
    """
    try:
        if not isinstance(data, int) and not hasattr(data, "__fspath__"):
            return bytes(data)
    except (TypeError, ValueError):
        pass
    raise UsageError(f"{str(data)[:40]!r} is not made of bytes")

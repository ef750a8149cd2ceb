# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest memory whose pages the host supplies when somebody first touches them: a memslot behind a userfaultfd.

    with paged(m.memory, 0x40000000, 1 << 20, lambda page: fetch(page)) as slot:
        m.run()
        print(slot.asked)

It knows pages and who asked for them; what a page holds is the source's business. KVM itself waits for a page like the
guest does, so a source must always answer, and the slot must be closed before its machine. Whoever reads or writes a
page from here that is not there yet gets a GuestMemoryError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vmm.abi.x86 import PAGE
from vmm.kvm.memory import Mapping
from vmm.kvm.userfaultfd import FaultHandler, PageFault, Userfaultfd
from vmm.machine.memory.slots import GuestMemory, Memslot

Source = Callable[[int], bytes | None]


class PagedSlot:
    """A memslot whose missing pages `supply` puts there. `asked` are the pages that somebody waited for, in order, and
    `supplied` those put there. Its methods may be called from any thread.
    """

    def __init__(self, uffd: Userfaultfd, slot: Memslot, there: set[int]) -> None:
        self._uffd, self.slot, self._there = uffd, slot, there
        self.asked: list[int] = []
        self.supplied: set[int] = set()

    def page_of(self, fault: PageFault) -> int:
        """Which page of the slot is missing; noted in `asked`."""
        page = (fault.address - self.slot.hva) // PAGE
        self.asked.append(page)
        return page

    def supply(self, page: int, data: bytes | None) -> None:
        """Put a page there and wake who waits for it; None means zeros. A page that is there already stays.

        Raises:
            UsageError: not whole pages.
        """
        address = self.slot.hva + page * PAGE
        self.supplied.add(page)  # first: who waits for the page may be gone before we come back
        if data is None:
            self._uffd.zeropage(address)
        else:
            self._uffd.copy(address, data)
        self._there.update(range(page, page + len(data or bytes(PAGE)) // PAGE))  # last: who reads it must not wait

    def release(self) -> None:
        """Hold nothing back any more: whoever waits goes on, with zeros."""
        self._uffd.release()
        self.slot.mapping.held_back = None


@contextmanager
def held_back(
    memory: GuestMemory, gpa: int, size: int, serve: Callable[[PagedSlot, PageFault], object]
) -> Iterator[PagedSlot]:
    """A memslot of `size` bytes at `gpa` that nobody has touched. `serve` is called for each fault, on a thread of its
    own; it need not supply the page at once. What it raises is raised at the end, and releases the slot.

    Raises:
        NoUserfaultfd: this process may not hold back pages that the kernel touches.
    """
    # Opened after the machine and closed before it: KVM waits for its workers when it closes, and they wait for us.
    with Userfaultfd.open() as uffd:
        mapping = Mapping(size)
        there = mapping.held_back = set[int]()
        slot = PagedSlot(uffd, memory.add(gpa, size, mapping=mapping), there)
        uffd.register(mapping.hva, mapping.size)
        try:
            with FaultHandler(uffd, lambda fault: serve(slot, fault)) as handler:
                yield slot
        finally:
            slot.release()
        if handler.error:
            raise handler.error


@contextmanager
def paged(memory: GuestMemory, gpa: int, size: int, source: Source) -> Iterator[PagedSlot]:
    """As `held_back`, with each page supplied as soon as it is asked for: source(number) gives its 4096 bytes, or None
    for zeros.
    """

    def serve(slot: PagedSlot, fault: PageFault) -> None:
        page = slot.page_of(fault)
        slot.supply(page, source(page))

    with held_back(memory, gpa, size, serve) as slot:
        yield slot

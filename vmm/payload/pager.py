# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of a guest that the host has yet to fetch: a memslot held back with userfaultfd, and who fetches when.

It knows pages and when they come; what the guest is told meanwhile is KVM's business and the payload's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from vmm.abi.x86 import PTE
from vmm.kvm.memory import PAGE, Mapping
from vmm.kvm.userfaultfd import FaultHandler, PageFault, Userfaultfd
from vmm.machine.page_tables import PageTables
from vmm.payload.guest import Guest

PATIENCE = 0.5  # seconds until pages are fetched untold: a vCPU that sleeps in its load can tell nobody
ASKED_WITHIN = 0.2  # seconds for KVM's worker to ask for a page that we were told of


@dataclass
class Pager:
    """Page n of `address` holds `contents[n]` once it is fetched. `tell` fetches one; `prompt` fetches each as soon as
    it is asked for; without `reply` none is ever fetched.

    `asked` are the pages that the userfaultfd reported, `told` those of `tell`, `fetched` those copied in.
    """

    uffd: Userfaultfd
    address: int
    contents: Sequence[bytes]
    reply: bool = True
    prompt: bool = False
    asked: set[int] = field(default_factory=set)
    told: set[int] = field(default_factory=set)
    fetched: set[int] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def serve(self, fault: PageFault) -> None:
        """A page is asked for; on the handler's thread. If this raises, nothing is held back any more."""
        page = (fault.address - self.address) // PAGE
        with self.changed:
            self.asked.add(page)
            self.changed.notify_all()
            if self.prompt:
                try:
                    self._fetch(page)
                except BaseException:
                    self.reply = False
                    raise

    def tell(self, page: int) -> None:
        """The guest wants a page fetched. It is there when this returns; called from a hook, before the guest goes on.

        KVM asks by a worker, in its own time: that is waited for, so that the page was missing for it too.
        """
        with self.changed:
            self.told.add(page)
            self.changed.wait_for(lambda: page in self.asked, ASKED_WITHIN)
            self._fetch(page)

    def lose_patience(self) -> None:
        """Fetch what was asked for, now and from now on; without `reply`, let the guest have zeros."""
        with self.changed:
            self.prompt = True
            if not self.reply:
                self.uffd.unregister(self.address, len(self.contents) * PAGE)
            for page in self.asked:
                self._fetch(page)

    def _fetch(self, page: int) -> None:
        if self.reply and page not in self.fetched:
            self.uffd.copy(self.address + page * PAGE, self.contents[page])
            self.fetched.add(page)


@contextmanager
def held_back(
    guest: Guest, gpa: int, contents: Sequence[bytes], *, reply: bool = True, prompt: bool = False
) -> Iterator[Pager]:
    """A memslot at `gpa`, one page for each of `contents`, that nobody has touched; ring 3 may use it too.

    `gpa` lies in a 2 MiB page of the boot tables that holds no other memory. After PATIENCE seconds every page is
    fetched, told or not, so that no run hangs here.

    Raises:
        NoUserfaultfd: this process may not hold back pages that the kernel touches.
    """
    memory = guest.machine.memory
    # Opened after the machine and closed before it: KVM waits for its workers when it closes, and they wait for us.
    with Userfaultfd.open() as uffd:
        mapping = Mapping(len(contents) * PAGE)
        memory.add(gpa, mapping.size, mapping=mapping)
        PageTables(memory.read_u64, memory.write_u64).change(gpa, set_bits=PTE.USER)
        uffd.register(mapping.hva, mapping.size)
        pager = Pager(uffd, mapping.hva, contents, reply, prompt)
        timer = threading.Timer(PATIENCE, pager.lose_patience)
        timer.daemon = True
        with FaultHandler(uffd, pager.serve) as handler:
            timer.start()
            try:
                yield pager
            finally:
                timer.cancel()
                timer.join()
        if handler.error:
            raise handler.error

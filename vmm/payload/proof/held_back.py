# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of a guest that the host has yet to fetch: a memslot held back with userfaultfd, and who fetches when.

It knows pages and when they come; what the guest is told meanwhile is KVM's business and the payload's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from vmm.abi.x86 import PAGE
from vmm.host import schedstat
from vmm.kvm import kick
from vmm.kvm.userfaultfd import PageFault
from vmm.machine.memory.on_demand import PagedSlot
from vmm.machine.memory.on_demand import held_back as hold_back
from vmm.payload.guest import Guest

# A vCPU that sleeps in its load can tell nobody. One that is found asleep in so many looks, while no page was asked for
# or told of, does so; on a host that is merely slow or busy it is found at work, or waiting for a CPU.
LOOKS = 20
BETWEEN_LOOKS = 0.05  # seconds
ASKED_WITHIN = 5.0  # seconds for KVM's worker to ask for a page that we were told of; it comes in its own time


@dataclass
class Pager:
    """Page n of `slot` holds `contents[n]` once it is fetched. `tell` fetches one; `prompt` fetches each as soon as
    it is asked for; without `reply` none is ever fetched.

    `asked` are the pages that the userfaultfd reported, `told` those of `tell`, `fetched` those copied in; `telling`
    while a vCPU waits in `tell`.
    """

    slot: PagedSlot
    contents: Sequence[bytes]
    reply: bool = True
    prompt: bool = False
    note: Callable[[str], object] = lambda text: None  # whoever traces the guest
    asked: set[int] = field(default_factory=set)
    told: set[int] = field(default_factory=set)
    fetched: set[int] = field(default_factory=set)
    telling: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def serve(self, fault: PageFault) -> None:
        """A page is asked for; on the handler's thread. If this raises, nothing is held back any more."""
        page = self.slot.page_of(fault)
        self.note(f"KVM asks for page {page} of those held back")
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
            self.telling = True
            self.changed.wait_for(lambda: page in self.asked, ASKED_WITHIN)
            self.telling = False
            self._fetch(page)

    def wait_patiently(self, tid: int, ended: threading.Event) -> None:
        """Until the vCPU of thread `tid` sleeps, with a page asked for that nobody told of: then lose patience."""
        slept, known = 0, -1
        while slept < LOOKS and not ended.wait(BETWEEN_LOOKS):
            before, known = known, len(self.asked) + len(self.told)
            if known != before:
                slept = 0
            if self.asked - self.told and not self.telling:
                slept += schedstat.asleep(tid)
        if not ended.is_set():
            self.lose_patience()

    def lose_patience(self) -> None:
        """Fetch what was asked for, now and from now on; without `reply`, let the guest have zeros."""
        with self.changed:
            self.prompt = True
            if not self.reply:
                self.slot.release()
            for page in self.asked:
                self._fetch(page)

    def _fetch(self, page: int) -> None:
        if self.reply and page not in self.fetched:
            self.slot.supply(page, self.contents[page])
            self.fetched.add(page)
            self.note(f"the host fetched page {page}")


@contextmanager
def held_back(
    guest: Guest, gpa: int, contents: Sequence[bytes], *, reply: bool = True, prompt: bool = False
) -> Iterator[Pager]:
    """A memslot at `gpa`, one page for each of `contents`, that nobody has touched; ring 3 may use it too.

    `gpa` lies in a 2 MiB page of the boot tables that holds no other memory. The caller's thread is that of the vCPU
    which meets the pages. Once it sleeps for a page that it did not tell of, every page is fetched, told or not: no run
    hangs here.

    Raises:
        NoUserfaultfd: this process may not hold back pages that the kernel touches.
    """
    memory, size = guest.machine.memory, len(contents) * PAGE
    with hold_back(memory, gpa, size, lambda _slot, fault: pager.serve(fault)) as slot:
        pager = Pager(slot, contents, reply, prompt, guest.machine.note)
        guest.open_to_ring3(gpa, size)
        ended = threading.Event()
        watch = threading.Thread(target=pager.wait_patiently, args=(kick.thread_id(), ended), daemon=True)
        watch.start()
        try:
            yield pager
        finally:
            ended.set()
            watch.join()

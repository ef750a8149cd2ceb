# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM in its plainest shape (one vCPU, one memslot, no interrupt controller), made, run and closed by a few calls of C
(_plain.c), with a core of its own (_lean.c). Where anything fails it says no more than that: who asked takes the way of
one ioctl at a time (system.py, vm.py, vcpu.py), which says which call it was and why.
"""

from __future__ import annotations

from vmm.base.light import Lock, RLock
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.buffers import packed_u64, uncleared
from vmm.kvm.memory import Mapping, leave, left_or_new
from vmm.kvm.seen import CODES, counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from vmm.base.light import Counter
    from vmm.kvm.exits import Exit

# Plain numbers: an attribute of `lib` is looked up each time.
OUTPUT, ATTENTION, INTERRUPTED, FINISHED, DECODE, PORT_OUT, UNBEGUN = (
    lib.VMM_OUTPUT, lib.VMM_ATTENTION, lib.VMM_INTERRUPTED, lib.VMM_FINISHED, lib.VMM_DECODE, lib.VMM_PORT_OUT,
    lib.VMM_UNBEGUN,
)  # fmt: skip
SERVED = (OUTPUT, ATTENTION, FINISHED, UNBEGUN)  # what the core gives that is no exit
HALTED, STAGING, KEPT, DATA = lib.KVM_EXIT_HLT, lib.VMM_STAGING, lib.VMM_RECENT, lib.VMM_SEEN_DATA
CPUID_ENTRIES = lib.VMM_OFFERED
NULL = ffi.NULL

make, load, close = lib.vmm_plain_make, lib.vmm_plain_load, lib.vmm_plain_close  # _plain.c says what they take
begin = lib.vmm_plain_run
"""begin(c, core, room, first, interval): begin a run on this thread, whose console takes `room` bytes and which a timer
kicks after `first` seconds and then each `interval`, and serve it; or UNBEGUN. Either way `end(c)` undoes it."""
end = lib.vmm_plain_end
serve = lib.vmm_core_serve
"""serve(core): run the guest until there is something to do: OUTPUT, ATTENTION, or an exit's key (_lean.h)."""


class NotPlain(Exception):
    """This is for the other way to do, or to refuse in words."""


class PlainVm:
    """`size` bytes of memory from 0. The guest's writes to `console` are collected for `take`.

    Raises:
        NotPlain: KVM refuses something; nothing is left of it.
        HostError: there is no such memory.
    """

    whole = closed = False
    """Others have it all now; it was given back."""

    mapping: Mapping | None
    """The guest's memory; None: it was given back, and another may have it."""

    def __init__(self, size: int, console: int, cpuid: Callable[[int | None], Any | None]) -> None:
        """`cpuid` gives a struct kvm_cpuid2 for the vCPU: for None what is known already, else what KVM answers on this
        descriptor of /dev/kvm; None: there is none.
        """
        self.size = size
        self.c = c = ffi.new("struct vmm_plain *")
        self.core, self.finish = core, finish = uncleared("struct vmm_core *"), uncleared("struct vmm_finish *")
        self.lock = RLock()  # of who makes it whole, or closes it
        self.running = Lock()  # held for a run; whoever goes on with that holds it on
        self.mapping = mapping = left_or_new(size)
        known = cpuid(None)
        try:
            if make(c, core, finish, console, mapping.start, size, known or NULL) < 0:
                raise NotPlain
            if known is None:
                first = cpuid(c.kvm)
                if first is None or lib.vmm_ioctl(c.vcpu, lib.KVM_SET_CPUID2, first) < 0:
                    raise NotPlain
        except BaseException:
            self._give_back(keep=False)
            raise

    def load(self, image: bytes, base: int, code: bytes, sregs: bytes, regs: bytes) -> None:
        """Put into memory what lies in `image` (of `pieces`), and `code` at `base`; the vCPU gets these registers,
        structures of the kernel's. NotPlain: not all of it is memory, or KVM refuses them.
        """
        memory = self.memory().start
        if load(self.c, memory, self.size, image, len(image), base, code, len(code), sregs, regs) < 0:
            raise NotPlain

    def memory(self) -> Mapping:
        """The guest's; of one that was closed, one that is unmapped."""
        return self.mapping or Mapping.unmapped(self.size)

    # -- running

    def take(self) -> bytes:
        """What the guest has printed since the last time."""
        finish = self.finish
        data = bytes(ffi.buffer(finish.sink, finish.sink_length))
        finish.sink_length = 0
        return data

    @property
    def halted(self) -> bool:
        """Whether the exit that came as DECODE is HLT."""
        return bool(not self.core.error and self.c.run.exit_reason == HALTED)

    # -- what a report shows

    def counts(self, others: dict[str, int]) -> Callable[[], Counter[str]]:
        """How many exits of each kind there were by now, and these that the core does not count; to be made by who
        looks.
        """
        counts = ffi.unpack(self.core.counts, CODES)
        return lambda: counted(counts, others)

    def recent(self, halted: int) -> Callable[[], dict[int, tuple[Exit, ...]]]:
        """The last exits as they are now, to be made values of by who looks; `halted` is the place of a HLT among them,
        0 for none.
        """
        core = self.core
        if not core.kept:
            return lambda: {0: (_halt(),) if halted else ()}
        rows, count, long_data = ffi.new("struct vmm_seen[]", KEPT), min(core.kept, KEPT), None
        ffi.memmove(rows, core.recent, ffi.sizeof(rows))
        if any(rows[i].size * rows[i].count > DATA for i in range(count)):  # string I/O
            long_data = [bytes(ffi.buffer(core.long_data[i])) for i in range(count)]

        def look() -> dict[int, tuple[Exit, ...]]:
            from vmm.kvm.lean import seen_exit

            found: list[tuple[int, Exit]] = [(halted, _halt())] if halted else []
            found += [(rows[i].sequence, seen_exit(rows[i], long_data and long_data[i])) for i in range(count)]
            return {0: tuple(exit for _, exit in sorted(found, key=lambda item: item[0])[-KEPT:])}

        return look

    # -- the end

    def close(self) -> bool:
        """Give it all back; idempotent. False: it runs, or others have it."""
        if self.closed:
            return True
        if not self.lock.acquire(False):
            return False
        try:
            if self.whole or not self.running.acquire(False):
                return False
            try:
                self._give_back()
            finally:
                self.running.release()
        finally:
            self.lock.release()
        return True

    def _give_back(self, *, keep: bool = True) -> None:
        """Close it all; the next VM of this process may have the mapping, if this is to `keep` it."""
        close(self.c)
        mapping, self.mapping = self.mapping, None  # ^C may come between any two lines: nobody else's from here on
        if mapping is not None:
            if keep:
                leave(mapping)
            else:
                mapping.close()
        self.closed = True

    def __del__(self) -> None:
        # ^C may come between any two lines of who made it; of one that is whole others are the owners.
        if not self.closed and not self.whole and "c" in self.__dict__:
            close(self.c)


def _halt() -> Exit:
    from vmm.kvm.exits import Halt

    return Halt()


def pieces(found: Iterable[tuple[int, bytes]]) -> bytes:
    """(guest-physical address, bytes) of each, in one, as C reads it (struct vmm_piece)."""
    return b"".join(packed_u64((gpa, len(data))) + data for gpa, data in found)


def offered_cpuid(kvm: int) -> Any | None:
    """KVM_GET_SUPPORTED_CPUID on this descriptor as KVM filled it, a struct kvm_cpuid2; None: it did not."""
    offer = ffi.new("struct kvm_cpuid2 *", {"nent": CPUID_ENTRIES, "entries": CPUID_ENTRIES})
    return None if lib.vmm_ioctl(kvm, lib.KVM_GET_SUPPORTED_CPUID, offer) < 0 else offer

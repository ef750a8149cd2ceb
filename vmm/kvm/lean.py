# SPDX-License-Identifier: GPL-2.0-or-later
"""The lean way through KVM_RUN: the C core (_lean.c, _serve.c) and who looks up for it.

What the core finishes never comes to Python: console bytes, ports, MMIO addresses and MSRs that are plain words. A
single access that Python serves is one number, by which the core finds its handler in a dict and calls it. Whom it does
not know yet, and everything else, comes here. Who serves what is given (`Handlers`); of what an exit means it knows no
more than the fields of kvm_run say: msr.error refuses, what nobody has answered reads as all ones, and a hypercall that
nobody has answered is unknown.
"""

from __future__ import annotations

from vmm.base.bits import MASK64
from vmm.base.light import Counter, Protocol, deque
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.exits import Exit, Hypercall, Interrupted, MmioRead, MmioWrite, PortIn, PortOut, ReadMsr, WriteMsr
from vmm.kvm.seen import CODES, counted
from vmm.kvm.vcpu import Vcpu
from vmm.kvm.words import Finish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

Read: TypeAlias = "Callable[[], int]"
Write: TypeAlias = "Callable[[int], object]"
MsrRead: TypeAlias = "Callable[[], int | None]"
MsrWrite: TypeAlias = "Callable[[int], bool | None]"
HypercallHook: TypeAlias = "Callable[..., int]"
AnyRead: TypeAlias = "Read | MsrRead | HypercallHook"
Row: TypeAlias = "tuple[Any, ...]"

# Plain numbers: an attribute of `lib` is looked up each time.
VMM_PORT_OUT, VMM_PORT_IN, VMM_OUTPUT = lib.VMM_PORT_OUT, lib.VMM_PORT_IN, lib.VMM_OUTPUT
VMM_MMIO_WRITE, VMM_MMIO_READ, VMM_INTERRUPTED = lib.VMM_MMIO_WRITE, lib.VMM_MMIO_READ, lib.VMM_INTERRUPTED
VMM_MSR_READ, VMM_MSR_WRITE, VMM_HYPERCALL = lib.VMM_MSR_READ, lib.VMM_MSR_WRITE, lib.VMM_HYPERCALL
VMM_FINISHED, VMM_RAISED, VMM_ANSWERED, VMM_ATTENTION, VMM_DECODE, VMM_HALTED = (
    lib.VMM_FINISHED, lib.VMM_RAISED, lib.VMM_ANSWERED, lib.VMM_ATTENTION, lib.VMM_DECODE, lib.VMM_HALTED,
)  # fmt: skip
core_round = lib.vmm_core_round
READS = (VMM_PORT_IN, VMM_MMIO_READ, VMM_MSR_READ, VMM_HYPERCALL)
WRITES = (VMM_PORT_OUT, VMM_MMIO_WRITE, VMM_MSR_WRITE)
ACCESSES = (
    PortIn,
    PortOut,
    MmioRead,
    MmioWrite,
    ReadMsr,
    WriteMsr,
    Hypercall,
)  # what may be served without a value being made of it


class Handlers(Protocol):
    """Who serves single accesses, by key (see _lean.h), as rows of `taken_apart`. Filled as asked for, emptied when who
    serves what changes; a table stays the same dict, for the core has its address.
    """

    writers: dict[int, Row]  # of ports and MMIO: what they return is nobody's
    refusing: dict[int, Row]  # of MSRs: False refuses
    readers: dict[int, Row]  # None refuses an MSR; of hypercalls too

    def find_writer(self, key: int) -> Write | None:
        """Who takes this write, also put into its table; None where the plain way must (nobody, or several)."""

    def find_reader(self, key: int) -> AnyRead | None:
        """As `find_writer`, for a read."""

    def checked(self, key: int, read: AnyRead, value: object) -> int | None:
        """What `read` answered, where that is not plainly an int in range: the int it stands for (of 64 bits, without
        sign), None to refuse an MSR, or an error.
        """

    def output(self) -> None:
        """The core has collected console output: take it, before anything else is served."""


def taken_apart(call: Callable[..., object], *fixed: int) -> Row:
    """A row for the tables: `call`, and what the core calls in its place, which comes to the same: the function of a
    bound method, with `self` before the arguments that are fixed.
    """
    if type(call) is Method:
        bound: Any = call
        return call, bound.__func__, bound.__self__, *fixed
    return call, call, *fixed


Method: Any = type((lambda it: it).__get__(0))
"""What types.MethodType is; a run does without that module."""


def access(key: int) -> tuple[int, int, int]:
    """A key taken apart: its code (VMM_*), its address, the size in bytes."""
    return key & 0xF, key >> 8, key >> 4 & 0xF


class Core:
    """The core of one vCPU. `stopped` ends `next` after the handler that set it; it stays until taken back."""

    def __init__(self, vcpu: Vcpu, finish: Finish, c: Any = None) -> None:
        """`c`: a struct vmm_core that is in use already."""
        self._vcpu = vcpu
        if c is None:
            c = vcpu.new_core(finish.c)
        else:
            vcpu.adopt_core(c)
        self.c = c
        self._finish = finish  # keeps its memory
        self._handlers: Handlers | None = None  # whose tables the core looks into
        self._told: list[Any] = []
        self.c.told = as_object(self._told)
        self._stopped = False
        self._others: deque[tuple[int, Exit]] = deque(maxlen=lib.VMM_RECENT)
        self._kinds: Counter[str] = Counter()

    # -- what a report shows

    def reset(self) -> None:
        """Before a run: nothing taken yet."""
        lib.vmm_core_reset(self.c)
        self._others.clear()
        self._kinds.clear()
        self.stopped = False

    def has_had(self, others: dict[str, int]) -> None:
        """These exits came another way, before this was made."""
        self._kinds.update(others)

    def note(self, exit: Exit) -> None:
        """An exit that came another way (Vcpu.run): count it and keep it with the rest."""
        self.c.sequence += 1
        self._kinds[type(exit).__name__] += 1
        if type(exit) is not Interrupted:
            self._others.append((self.c.sequence, exit))

    def counts(self) -> Counter[str]:
        """How many exits of each kind there were."""
        return counted(ffi.unpack(self.c.counts, CODES), self._kinds)

    def recent(self) -> tuple[Exit, ...]:
        """The last ten exits, oldest first; interruptions are not among them."""
        recent, long_data = self.c.recent, self.c.long_data
        kept = [(recent[i], long_data[i]) for i in range(min(self.c.kept, lib.VMM_RECENT))]
        both = [*self._others, *((seen.sequence, seen_exit(seen, long)) for seen, long in kept)]
        return tuple(exit for _, exit in sorted(both, key=lambda item: item[0])[-lib.VMM_RECENT :])

    # -- running

    @property
    def stopped(self) -> bool:
        return self._stopped

    @stopped.setter
    def stopped(self, stopped: bool) -> None:
        self._stopped = stopped
        self._vcpu.want_attention()

    def use(self, handlers: Handlers) -> None:
        """Look into these tables from now on."""
        if self._handlers is not handlers:
            self._handlers, c = handlers, self.c
            c.writers, c.refusing, c.readers = map(as_object, (handlers.writers, handlers.refusing, handlers.readers))

    def forget_others(self) -> None:
        """Of these: before a run."""
        self._others.clear()
        self._kinds.clear()

    def next(self, handlers: Handlers, key: int | None = None) -> Exit | None:
        """Run until an exit that is not served on the way; None when `stopped` was set. `key`: what the core came back
        with already.

        Raises:
            KvmCallError: KVM_RUN failed and no exit explains it.
            whatever a handler raises.
        """
        vcpu, c = self._vcpu, self.c
        self.use(handlers)
        if key is not None and (found := self._serve(handlers, key)) is not None:
            return found
        while True:
            c.attention = 0  # before the question: who sets `stopped` from now on is heard
            if self._stopped:
                return None
            if vcpu.stored is not None:
                exit = vcpu.run()
                self.note(exit)
                return exit
            found = self._serve(handlers)
            if found is not None:
                return found

    def _serve(self, handlers: Handlers, first: int | None = None) -> Exit | None:
        """Run and serve single accesses until there is another exit; None when somebody wants attention. `first`: what
        the core came back with already.
        """
        c, serve = self.c, lib.vmm_core_serve
        self._vcpu.pending = True  # holds for every exit that is served here; each way out says what holds there
        if first is None:
            self._told.clear()  # ^C may have come between a call's end and what was told in it
        try:
            while (key := serve(c) if first is None else first) != VMM_ATTENTION:
                first = None
                if key == VMM_OUTPUT:
                    handlers.output()
                elif key == VMM_RAISED:
                    raise self._told.pop() if self._told else MemoryError
                elif key == VMM_ANSWERED:
                    read, value = self._both_told()
                    self._judge(handlers, c.key, read, value)
                elif not self._found(handlers, key):
                    return self._as_exit(key)
        except BaseException:
            self._unanswered()
            raise
        finally:
            if c.answer:  # whoever goes on from here may not go through the core: the answer belongs into kvm_run
                c.answer[0] = c.reply[0]
                c.answer = ffi.NULL
        return None

    def keep_held(self) -> None:
        """An exit that the core holds back and nobody has looked at is the next run's."""
        if self.c.held != VMM_FINISHED:
            self._vcpu.pending = True  # what it is says whether that is so
            self._unanswered()

    def _found(self, handlers: Handlers, key: int) -> bool:
        """Serve an access whose handler the core does not know yet. False: nobody serves it here."""
        code = key & 0xF
        if code in WRITES and (write := handlers.find_writer(key)) is not None:
            if write(self.c.value) is False and code == VMM_MSR_WRITE:
                self.c.run.msr.error = 1
            return True
        if code in READS and (read := handlers.find_reader(key)) is not None:
            given = self.c.run.hypercall.args if code == VMM_HYPERCALL else ()
            self._judge(handlers, key, read, read(*given))
            return True
        return False

    def _both_told(self) -> tuple[AnyRead, object]:
        """Who answered, and what. MemoryError: the core could not keep them."""
        told = tuple(self._told)
        self._told.clear()
        if len(told) != 2:
            raise MemoryError
        return told

    def _judge(self, handlers: Handlers, key: int, read: AnyRead, value: object) -> None:
        """Take what `read` answered as the reply, or as the refusal of an MSR."""
        reply = handlers.checked(key, read, value)
        if reply is None:
            self.c.run.msr.error = 1
        else:
            self.c.reply[0] = reply

    def _unanswered(self) -> None:
        """Something was raised. An access that was not answered is as one that nobody claims; one that has not been
        looked at, because output came before it, is kept for the next run.
        """
        self._told.clear()
        c, held = self.c, self.c.held
        if held != VMM_FINISHED:
            c.held, c.answer = VMM_FINISHED, ffi.NULL
            exit = self._as_exit(held)
            self._vcpu.stored = None if type(exit) is Interrupted else exit
            return
        if c.answer:
            c.reply[0] = _no_such_call() if c.run.exit_reason == lib.KVM_EXIT_HYPERCALL else MASK64

    def _as_exit(self, key: int) -> Exit:
        """What the core came back for, as the value that decode gives."""
        c, vcpu = self.c, self._vcpu
        code, size, address = key & 0xF, key >> 4 & 0xF, key >> 8
        if code == VMM_PORT_OUT:
            return PortOut(address, size, c.value.to_bytes(size, "little"))
        if code == VMM_PORT_IN:
            return PortIn(address, size, 1)
        if code == VMM_MMIO_WRITE:
            return MmioWrite(address, c.value.to_bytes(size, "little"))
        if code == VMM_MMIO_READ:
            return MmioRead(address, size)
        if code in (VMM_MSR_READ, VMM_MSR_WRITE, VMM_HYPERCALL):
            return vcpu.decode_now(0)
        if code == VMM_INTERRUPTED:
            vcpu.pending = False
            return Interrupted(c.error)
        exit = vcpu.decode_now(c.error)
        if type(exit) not in (PortIn, PortOut):  # string I/O, which the core has counted and kept
            self._kinds[type(exit).__name__] += 1
            self._others.append((c.sequence, exit))
        return exit


def hand_over(finish: Finish, writers: dict[int, Row], told: list[Any]) -> int:
    """Have the core call the handlers of what KVM has collected. VMM_FINISHED: all is served; VMM_OUTPUT: console bytes
    are next; VMM_RAISED: what a handler raised is in `told`; else the key of the next write, which stays where it is.
    """
    return int(lib.vmm_collected(finish.c, as_object(writers), as_object(told)))


def _no_such_call() -> int:
    """What a hypercall gets that nobody has answered: it is unknown."""
    from vmm.abi.pv import KVM_ENOSYS

    return -KVM_ENOSYS & MASK64


def as_object(table: object) -> Any:
    """Where CPython has this object: what the core calls a PyObject *."""
    return ffi.cast("void *", id(table))


def seen_exit(seen: Any, long_data: Any) -> Exit:
    """A kept exit as the value that decode would have given; `long_data` is the core's, or a copy as bytes."""
    length = seen.size * seen.count
    if length > lib.VMM_SEEN_DATA:
        long_data = ffi.from_buffer(long_data) if isinstance(long_data, bytes) else long_data
    data = bytes(ffi.buffer(seen.data if length <= lib.VMM_SEEN_DATA else long_data, length))
    if seen.kind == lib.VMM_PORT_OUT:
        return PortOut(seen.address, seen.size, data)
    if seen.kind == lib.VMM_PORT_IN:
        return PortIn(seen.address, seen.size, seen.count)
    if seen.kind == lib.VMM_HYPERCALL:
        return Hypercall(
            seen.address, tuple(ffi.unpack(ffi.cast("__u64 *", long_data), seen.count)), bool(seen.reason & 1)
        )
    if seen.kind == lib.VMM_MSR_READ:
        return ReadMsr(seen.address, seen.reason)
    if seen.kind == lib.VMM_MSR_WRITE:
        return WriteMsr(seen.address, int.from_bytes(data, "little"), seen.reason)
    return MmioWrite(seen.address, data) if seen.kind == lib.VMM_MMIO_WRITE else MmioRead(seen.address, seen.size)

# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine in its plainest shape: one vCPU, one memslot, pyvmm's own board of which the guest has met nothing yet but
the console and the exit port. C makes it in one call (vmm/kvm/plain.py), and nothing stands around it.

Most machines live and die so: a guest prints, and ends by the exit port or HLT. Whatever else happens, and whoever
looks at a part, gets the whole machine, made around what is here (build.py); the run goes on in it at the very exit.
What is decided here, handle.py and the board's devices decide too: tests/kvm/test_plain.py compares. It is what makes a
machine's life cheap (row lifecycle), and `pyvmm run NAME` does without a third of pyvmm's modules by it (row hello).
"""

from __future__ import annotations

from time import monotonic

from vmm.abi.ports import DEBUG_CONSOLE, EXIT
from vmm.asm.program import Program
from vmm.base.light import cache, lru_cache
from vmm.errors import UsageError
from vmm.kvm import plain
from vmm.kvm.plain import (
    ATTENTION,
    DECODE,
    FINISHED,
    INTERRUPTED,
    OUTPUT,
    PORT_OUT,
    SERVED,
    STAGING,
    begin,
    end,
    serve,
)
from vmm.machine.devices.exit_port import written
from vmm.machine.ends import Result, Stop, Why
from vmm.machine.images.own import check_place
from vmm.machine.run.limits import HEARTBEAT
from vmm.machine.x86 import boot
from vmm.machine.x86.owed_cpuid import of_first_vcpu

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmm.machine.devices.sink import Sink
    from vmm.machine.x86.page_entries import UserRanges

EXIT_KEY = EXIT << 8 | 1 << 4 | PORT_OUT
HALTED = {"Halt": 1}


@cache
def _halt() -> Stop:
    from vmm.kvm.exits import Halt

    return Stop(Why.HALT, "the guest halted", Halt())


@lru_cache(maxsize=64)
def _beginning(
    size: int, base: int, length: int, start: int, ring: int, user: UserRanges, ports: tuple[int, ...]
) -> tuple[bytes, bytes, bytes]:
    """What `load` takes beside a code of `length` bytes: the same machines are begun again and again.

    Raises:
        UsageError: it cannot lie or start there, of a program without a name.
    """
    check_place(Program("", base, bytes(length), {}, ()), start, 1)
    return boot.image(size, user, ports), *boot.registers(start, ring)


class Plain(plain.PlainVm):
    """Its console goes to `sink`."""

    leave: Callable[[], object] | None = None
    """This thread is not the vCPU's any more; set by who makes it whole in the midst of a run."""

    def __init__(self, size: int, sink: Sink) -> None:
        """A VM with `size` bytes of memory. Errors as PlainVm."""
        self.sink = sink
        self.begun = 0.0  # when the last run has, by time.monotonic(); 0: none has
        self._halted = 0  # the place of a HLT among the exits of this run
        super().__init__(size, DEBUG_CONSOLE, of_first_vcpu)

    def load_program(self, program: Program, start: int, ring: int, user: UserRanges, ports: tuple[int, ...]) -> None:
        """Put it into memory, with the tables that let it start there, as Machine.load has them.

        Raises:
            NotPlain: as `load`.
            UsageError: it cannot lie or start there, or in that ring.
        """
        code = program.code if type(program.code) is bytes else bytes(program.code)
        try:
            image, sregs, regs = _beginning(self.size, program.base, len(code), start, ring, user, ports)
        except UsageError:
            check_place(program, start, 1)  # with its name
            raise
        self.load(image, program.base, code, sregs, regs)

    def run(self, limit: float | None) -> Stop | None:
        """Run until the guest ends it; None: something else has come, which waits in the core for the whole machine.

        Raises:
            whatever the sink does, and KeyboardInterrupt.
        """
        self.begun = begun = monotonic()
        self._halted = 0
        try:
            return self._served(limit, None if limit is None else begun + limit)
        finally:
            end(self.c)
            if self.leave is not None:
                self.leave()

    def _served(self, limit: float | None, deadline: float | None) -> Stop | None:
        core, key = self.core, FINISHED
        first = HEARTBEAT if limit is None or limit > HEARTBEAT else limit
        try:
            key = begin(self.c, core, self.sink.room, first, HEARTBEAT)
            while True:
                if self.whole:
                    break
                if key == OUTPUT:
                    self.sink.write(self.take())
                    self.finish.sink_room = min(self.sink.room, STAGING)
                elif key == EXIT_KEY:
                    return written(core.value)
                elif key == DECODE and self.halted:
                    self._halted = core.sequence
                    return _halt()
                elif key == INTERRUPTED:
                    if deadline is not None and monotonic() >= deadline:
                        return None
                elif key != ATTENTION:
                    break
                key = FINISHED
                key = serve(core)
        except BaseException:
            if key not in SERVED and key != INTERRUPTED:
                core.held = key  # nobody has looked at it
            raise
        if key not in SERVED:
            core.held = key
        return None

    def others(self) -> dict[str, int]:
        """Exits of this run that the core has not counted."""
        return HALTED if self._halted else {}

    def result(self, stop: Stop) -> Result:
        """How the last run ended."""
        wall = monotonic() - self.begun
        counts: Any = self.counts(self.others())
        recent: Any = self.recent(self._halted)
        return Result(stop, 0, self.sink.data, wall, counts, recent, 0, ())

# SPDX-License-Identifier: GPL-2.0-or-later
"""Short runs of one vCPU, each from the same snapshot: what is around a run is there once, for all of them.

A round is two calls of C (machine put back: vmm/kvm/_snapshot.c; guest run: _serve.c) and a few lines of Python. What a
round does is what `reset`, and then `run`, would do; a test compares. Row reset_rate of the bench shows it.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from vmm.base.bits import MASK64
from vmm.errors import UsageError
from vmm.kvm import kick
from vmm.kvm.exits import Halt
from vmm.kvm.handle import Closes
from vmm.kvm.lean import VMM_DECODE, VMM_HALTED, core_round
from vmm.kvm.saved import BY_RUN, NOW, put_c
from vmm.machine.ends import Stop, Why
from vmm.machine.run import limits
from vmm.machine.run.cpu import current, enter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from vmm.machine.snapshot import Snapshot
    from vmm.machine.whole import Whole

HALTED = Stop(Why.HALT, "the guest halted", Halt())
REGISTERS = frozenset(
    ("rip", "rflags", *(f"r{n}" for n in ("ax", "bx", "cx", "dx", "si", "di", "sp", "bp", *range(8, 16))))
)
"""Of struct kvm_regs."""


class Rounds(Closes):
    """Made by `Machine.rounds`, to be used in a `with`: until its end the machine is this one's, on this thread."""

    def __init__(self, machine: Whole, snapshot: Snapshot, limit: float | None) -> None:
        self._machine, self._snapshot, self._limit = machine, snapshot, limit
        self._timer: kick.Timer | None = None
        self._holds = self._open = self._fresh = False
        self._before: Any = None
        self._outer: Any = None

    # -- around all of them

    def __enter__(self) -> Self:
        """Bind the thread, begin the time.

        Raises:
            UsageError: the machine runs, has several vCPUs, or somebody watches or holds its runs; the snapshot is
                closed, or of other memslots or devices.
        """
        machine, control = self._machine, self._machine.all_cpus
        if len(machine.cpus) != 1:
            raise UsageError(
                f"rounds of a machine with {len(machine.cpus)} vCPUs", hint="reset() and run() do it for those"
            )
        if control.lane is None:
            raise UsageError("rounds of a machine whose exits somebody observes", hint="reset() and run() do it there")
        self._saved = self._snapshot.check()
        self._cpu, self._lane, self._control = machine.cpus[0], control.lane, control
        self._vcpu, self._core = self._cpu.vcpu, self._cpu.core
        self._halts = machine.platform.on_halt  # who may have the guest wait, and go on
        self._c, self._c_saved, self._kvm_run = self._core.c, self._saved.c, self._vcpu.kvm_run
        self._regs: Any = self._kvm_run.s.regs.regs if self._saved.synced else None
        self._how = BY_RUN if self._saved.synced else NOW
        control.claim()
        self._holds = True
        try:
            kick.install()
            self._outer, self._before = current(), self._vcpu.bound()
            self._vcpu.bind()
            self._cpu.thread_id = kick.thread_id()
            enter(self._cpu)
            self._core.use(self._lane)
            self._saved.sync(True)
            self._core.forget_others()
            self._core.stopped = False
            self._c.attention = control.stopping  # from before: the first round's
            self._timer = kick.Timer(limits.HEARTBEAT, limits.HEARTBEAT)
            self._open = True
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """The machine is anybody's again; it stands where the last round ended. Idempotent."""
        if not self._holds:
            return
        self._open = self._fresh = False
        if self._timer is not None:
            self._timer.close()
        if self._kvm_run.kvm_dirty_regs:  # put back, and not run since: registers wait for a KVM_RUN
            self._saved.sync(False)
            self._saved.put()
        self._saved.sync(False)
        enter(self._outer)
        self._cpu.thread_id = None
        self._vcpu.unbind(self._before)
        self._vcpu.clear_interrupt()
        self._holds = False
        self._control.give_up()

    # -- one of them

    def reset(self) -> int:
        """Put the machine back; the next `run` need not. Memory may be written then: `run` begins with that. The number
        of pages (4 KiB) that were put back. Errors as `run`.
        """
        if not self._open:
            raise UsageError(
                "a round outside of its block", hint="with machine.rounds(snapshot) as rounds: rounds.run()"
            )
        vcpu, snapshot = self._vcpu, self._snapshot
        if vcpu.pending or vcpu.stored is not None:
            vcpu.abandon()
        if not snapshot.as_it_was:
            snapshot.check()
        for put, state in snapshot.kept.puts:
            put(state)
        pages: int = put_c(self._c_saved, self._how)
        if pages < 0:
            self._saved.failed(pages)
        for resume in snapshot.kept.resumes:
            resume()
        self._fresh = True
        return pages

    def run(self, **registers: int) -> Stop:
        """Put the machine back, where that was not done by `reset`; set general registers (rax to r15, rip, rflags;
        negative numbers in two's complement), and run to the end: why it ended.

        Raises:
            UsageError: no such register, or outside of `with`; memslots or devices are others now.
            HostError: KVM refuses something.
            whatever a hook raises, and KeyboardInterrupt.
        """
        if not self._fresh:
            self.reset()
        if registers:
            self._set(registers)
        self._fresh = False
        vcpu, began = self._vcpu, monotonic()
        vcpu.pending = True
        key = core_round(self._c)  # at once VMM_ATTENTION, where somebody asks for the end
        if key == VMM_HALTED and not self._halts:
            vcpu.pending = False
            return HALTED
        return self._go_on(VMM_DECODE if key == VMM_HALTED else key, began)

    def _go_on(self, key: int, began: float) -> Stop:
        """The rest of a round, from the first thing on that the core does not do."""
        core, control = self._core, self._control
        core.forget_others()
        control.begin_round(began, self._limit)
        try:
            self._cpu.drive(control, key)
        finally:
            stop = control.end_round()
            core.stopped = False
            self._c.attention = 0
            if control.stopping:  # since then
                core.stopped = True
        return stop

    def _set(self, registers: Mapping[str, int]) -> None:
        if not registers.keys() <= REGISTERS:
            unknown = ", no ".join(sorted(registers.keys() - REGISTERS))
            raise UsageError(f"there is no register {unknown}", hint=f"one of {', '.join(sorted(REGISTERS))}")
        regs = self._regs
        if regs is None:
            regs = self._vcpu.look("regs")
        for name, value in registers.items():
            try:
                setattr(regs, name, value if value >= 0 else value & MASK64)
            except (OverflowError, TypeError) as error:
                raise UsageError(f"register {name}: {value!r} is no number of 64 bits") from error
        if self._regs is None:
            self._vcpu.call("KVM_SET_REGS", regs, "setting the registers of a round")

    @property
    def regs(self) -> Any:
        """The general registers as the last round left them, by name (struct kvm_regs): numbers of 64 bits, unsigned.
        Nothing written there goes anywhere.
        """
        if self._vcpu.pending:
            self._vcpu.complete()
        return self._vcpu.look("regs") if self._regs is None else self._regs

# SPDX-License-Identifier: GPL-2.0-or-later
"""One vCPU's way through KVM_RUN: run, remember, handle, answer, until somebody asks for the end.

It knows nothing of what an exit means (handle.py), who put the devices on their buses (board.py), nor whose
thread it is on (all_cpus.py, thread.py).
"""

from __future__ import annotations

from vmm.base.light import Counter, Protocol, cache, local
from vmm.base.record import replace
from vmm.errors import UsageError
from vmm.kvm import kick
from vmm.kvm.exits import Debug, Exit, Interrupted
from vmm.kvm.lean import Core
from vmm.kvm.vcpu import Vcpu
from vmm.machine.bus.platform import Platform
from vmm.machine.devices.sink import OutputLimit
from vmm.machine.ends import Resume, Step, Stop, Why
from vmm.machine.run.lean import LeanLane

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from vmm.machine.x86.lapic import Lapic
    from vmm.machine.x86.registers import Registers

WATCHED = 0xF
"""DR6: which breakpoint or watchpoint struck (Intel SDM vol. 3B, 17.2.3)."""
Watch: TypeAlias = "Callable[[Cpu, Exit, Platform], Step]"


class Control(Protocol):
    """What a vCPU asks of its machine."""

    platform: Platform

    @property
    def lane(self) -> LeanLane | None:
        """The lean way, or None to take the plain way for every exit."""

    @property
    def stopping(self) -> bool:
        """The run is over, or nearly."""

    def finish(self, cpu: Cpu, stop: Stop) -> None:
        """This vCPU stops; the run ends with it unless others still have work."""

    def tick(self, cpu: Cpu) -> None:
        """KVM_RUN was interrupted: time to look at the limits."""

    @property
    def watch(self) -> Watch | None:
        """Who handles every exit in place of `handle`, and sees what comes of it."""

    def admit(self, cpu: Cpu, exit: Exit) -> bool:
        """An exit was taken: may it be served in this run? False ends the run, and the exit is the next one's."""

    def observe(self, cpu: Cpu, exit: Exit) -> None:
        """An exit is going to be handled."""

    def served(self, cpu: Cpu, exit: Exit) -> None:
        """An exit was handled, and the guest may go on."""


class Cpu:
    """Drives one vCPU."""

    def __init__(self, vcpu: Vcpu, index: int, core: Core) -> None:
        self.vcpu, self.index, self.core = vcpu, index, core
        self.thread_id: int | None = None

    @property
    def regs(self) -> Registers:
        """The vCPU's registers by name."""
        from vmm.machine.x86.registers import Registers

        return Registers(self)  # made anew: kept, it would be a cycle, and a cpu nobody holds must go at once

    @property
    def lapic(self) -> Lapic:
        """The local APIC as it is now (KVM_GET_LAPIC). KvmCallError: it is not KVM's (irqchip=none)."""
        from vmm.machine.x86.lapic import Lapic

        return Lapic(self.vcpu.get_lapic())

    @property
    def state(self) -> str:
        """What this vCPU does when KVM_RUN is called, by KVM_GET_MP_STATE: `KVM_MP_STATE_RUNNABLE`, ...

        KvmCallError: there is none without a local APIC of KVM's.
        """
        from vmm.abi.exits import MP_STATES
        from vmm.abi.rows import value_name

        return value_name(MP_STATES, self.vcpu.get_mp_state())

    @property
    def counts(self) -> Counter[str]:
        """How many exits of each kind this run has had."""
        return self.core.counts()

    @property
    def recent(self) -> tuple[Exit, ...]:
        """The last ten exits of this run, oldest first."""
        return self.core.recent()

    def on_this_thread(self, work: Callable[[], object]) -> None:
        """Do `work` while the calling thread is the vCPU's: a kick reaches it."""
        kick.install()
        outer, before = current(), self.vcpu.bound()
        try:  # ^C may come between any two lines: nothing may stay bound
            self.vcpu.bind()
            self.thread_id = kick.thread_id()  # last: a kick needs a thread that has bound something
            _current.cpu = self
            work()
        finally:
            _current.cpu = outer
            self.thread_id = None
            self.vcpu.unbind(before)

    @property
    def at(self) -> int:
        """The linear address of the instruction that is next; the vCPU must not be running."""
        sregs, rip = self.vcpu.look("sregs"), self.vcpu.look("regs").rip
        return int(rip if sregs.cs.l else sregs.cs.base + rip)

    def drive(self, control: Control, key: int | None = None) -> None:
        """Run until the control says stop or this vCPU ends the run. What a hook raises goes through. `key`: what the
        core has come back with already.
        """
        core = self.core
        if self.vcpu.trapped_at is not None and not self._step_off(control):
            return
        while key is not None or not control.stopping:
            lane = control.lane
            taken, key = self._take(control, lane, key), None
            if taken is None:
                core.stopped = False  # the end of the run, or somebody wants to see every exit from here on
            elif not self._goes_on(taken, control, lane is None):
                return

    def _goes_on(self, taken: Exit | Stop, control: Control, plain: bool) -> bool:
        """Serve an exit, as `_take` gave it. False: this vCPU has ended its run."""
        if isinstance(taken, Stop):
            control.finish(self, taken)
            return False
        if type(taken) is Interrupted:
            control.tick(self)
        elif not control.admit(self, taken):
            self.vcpu.stored = taken  # the next run's
        else:
            if plain:
                self.core.note(taken)
            step = self._serve(taken, control)
            if isinstance(step, Stop):
                control.finish(self, step)
                return False
            control.served(self, taken)
        return True

    def _step_off(self, control: Control) -> bool:
        """Off the breakpoint that this vCPU stands at, by one step: it strikes before its instruction, and would each
        time. What the instruction asks for is served. False: this vCPU has ended its run.
        """
        vcpu, at, debug = self.vcpu, self.vcpu.trapped_at, self.vcpu.debug
        vcpu.trapped_at = None
        if at is None or at not in debug.breakpoints or at != self.at:
            return True
        others = tuple(each for each in debug.breakpoints if each != at)
        vcpu.put_debug(replace(debug, singlestep=True, breakpoints=others))
        try:
            while not control.stopping:
                taken = self._take(control, None)
                if isinstance(taken, Debug) and not taken.dr6 & WATCHED:
                    vcpu.trapped_at = None  # that was the step; a breakpoint there has not struck yet
                    vcpu.stored = taken if debug.singlestep else None  # who steps wants to see it
                    break
                if taken is not None and not self._goes_on(taken, control, True):
                    return False
        finally:
            vcpu.put_debug(replace(debug, singlestep=debug.singlestep and vcpu.debug.singlestep))
        return True

    def _take(self, control: Control, lane: LeanLane | None, key: int | None = None) -> Exit | Stop | None:
        """The next exit, by the lean way where there is a lane; None: that has been left. Stop: the console is full."""
        try:
            return self._take_plainly(control) if lane is None else self.core.next(lane, key)
        except OutputLimit as limit:
            recent = self.core.recent()  # the last one was served just now; the plain way knows it without asking
            return Stop(Why.OUTPUT_LIMIT, limit.text, recent[-1] if recent else None)

    def _take_plainly(self, control: Control) -> Exit:
        """The plain way to the next exit, and to what KVM has collected before it."""
        exit, collect = self.vcpu.run(), control.platform.collect
        if collect is not None:
            try:
                collect()
            except BaseException:
                if type(exit) is not Interrupted:
                    self.vcpu.stored = exit  # nobody has looked at it
                raise
        if type(exit) is Interrupted:
            self.core.note(exit)
        return exit

    def _serve(self, exit: Exit, control: Control) -> Step:
        """Have the exit handled. Its answer is in kvm_run before anything can end the loop; where none came, that is
        as if nobody was there to give one.
        """
        handle, unanswered = rules()
        vcpu, watch = self.vcpu, control.watch
        step: Step = unanswered(exit)
        try:
            control.observe(self, exit)
            step = handle(exit, control.platform) if watch is None else watch(self, exit, control.platform)
        finally:
            given = unanswered(exit) if isinstance(step, Stop) else step
            if given.answers:
                vcpu.reply(exit, given.reply)
        return step

    def settle(self, control: Control) -> None:
        """Bring the vCPU to where its registers and memory are all of its state: the exit that it is inside of is
        finished, and where its instruction wants more of a device, that is served now.

        Raises:
            UsageError: that would end the run.
            whatever a hook raises.
        """
        vcpu = self.vcpu
        vcpu.complete()
        while vcpu.stored is not None and not vcpu.stored_is_first:
            exit = vcpu.run()
            self.core.note(exit)
            step = self._serve(exit, control)
            if isinstance(step, Stop):
                raise UsageError(f"{vcpu.what} is inside an instruction that ends otherwise: {step.text}; run on first")
            vcpu.complete()

    def interrupt(self) -> None:
        """Get the vCPU out of KVM_RUN; from any thread. Losing the race is impossible (kick.py)."""
        self.vcpu.interrupt()
        thread_id = self.thread_id
        if thread_id is not None:
            kick.kick(thread_id)


@cache
def rules() -> tuple[Callable[[Exit, Platform], Step], Callable[[Exit], Resume]]:
    """What an exit means, loaded with the first that asks: a guest that the lean way serves needs it not.

    Where there are threads, before they start (all_cpus.py): nothing is imported on one.
    """
    from vmm.machine.run.handle import handle, unanswered

    return handle, unanswered


class _Current(local):
    cpu: Cpu | None = None


_current = _Current()


def current() -> Cpu | None:
    """The cpu whose exit this thread is handling; for hooks that need their vCPU."""
    return _current.cpu


def enter(cpu: Cpu | None) -> None:
    """The calling thread handles exits of this cpu from now on, outside of `Cpu.on_this_thread`."""
    _current.cpu = cpu

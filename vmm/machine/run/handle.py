# SPDX-License-Identifier: GPL-2.0-or-later
"""Exit -> Step: the one place that decides what becomes of an exit. No ioctl, no thread, no time.

`handle` is complete by type: a new member of `Exit` that no arm takes is an error of mypy (assert_never). Two kernel
rules stand behind it: an I/O, MMIO, MSR or hypercall exit completes only inside the next KVM_RUN, and a hypercall
instruction does not exit by itself (KVM answers it, except what KVM_CAP_EXIT_HYPERCALL passes on).
"""

from __future__ import annotations

from vmm.base.bits import MASK64
from vmm.base.light import assert_never
from vmm.errors import errno_name
from vmm.kvm.decode import DIRTY_RING_FULL
from vmm.kvm.exits import (
    Debug,
    ExceptionExit,
    Exit,
    FailEntry,
    Halt,
    HardwareUnknown,
    Hypercall,
    Hyperv,
    InternalError,
    Interrupted,
    IoapicEoi,
    IrqWindowOpen,
    MemoryFault,
    MmioRead,
    MmioWrite,
    Notify,
    PortIn,
    PortOut,
    ReadMsr,
    Shutdown,
    Simple,
    SystemEvent,
    TprAccess,
    UnknownExit,
    WriteMsr,
    Xen,
)
from vmm.machine.bus import answers
from vmm.machine.bus.platform import Platform
from vmm.machine.bus.unclaimed import UnclaimedAccess
from vmm.machine.devices.sink import OutputLimit
from vmm.machine.ends import GO_ON, Resume, Step, Stop, Why


def handle(exit: Exit, platform: Platform) -> Step:
    """Serve the exit and say how to go on.

    What a hook or device of the user raises goes through unchanged. Of an error that ends the run its text is told: the
    post-mortem has advice of its own.
    """
    try:
        return _serve(exit, platform)
    except OutputLimit as limit:
        return Stop(Why.OUTPUT_LIMIT, limit.text, exit)
    except UnclaimedAccess as unclaimed:
        return Stop(Why.UNCLAIMED, unclaimed.text, exit)


def _refused(reason: int, cpu: int) -> str:
    from vmm.abi.entry import entry_failure  # hardly a run needs it

    return f"the CPU refused to enter the guest: {entry_failure(reason).words} (reason {reason:#x} on CPU {cpu})"


def unanswered(exit: Exit) -> Resume:
    """What the guest gets where the answer to this exit never came, because a callback raised or the run ended for it:
    it may go on, as where nobody is. Reads give all ones, writes are dropped, a hypercall is unknown.
    """
    match exit:
        case PortIn(_, size, count):
            return Resume(b"\xff" * size * count, answers=True)
        case MmioRead(_, size):
            return Resume(b"\xff" * size, answers=True)
        case ReadMsr():
            return Resume(MASK64, answers=True)
        case WriteMsr():
            return Resume(0, answers=True)
        case Hypercall():
            return Resume(_no_such_call(), answers=True)
        case _:
            return GO_ON


def _serve(exit: Exit, platform: Platform) -> Step:
    match exit:
        case PortOut(port, size, data):
            platform.ports.write_string(port, size, data)
            return GO_ON
        case PortIn(port, size, count):
            return Resume(platform.ports.read_string(port, size, count), answers=True)
        case MmioWrite(address, data):
            platform.mmio.write(address, data)
            return GO_ON
        case MmioRead(address, size):
            return Resume(platform.mmio.read(address, size), answers=True)
        case ReadMsr(index):
            read = platform.msr_reads.get(index)
            return Resume(answers.msr(read(), index, answers.name_of(read)) if read else None, answers=True)
        case WriteMsr(index, value):
            write = platform.msr_writes.get(index)
            accepted = write is not None and write(value) is not False
            return Resume(0 if accepted else None, answers=True)
        case Hypercall(nr, args):
            call = platform.hypercalls.get(nr)
            value = answers.hypercall(call(*args), nr, answers.name_of(call)) if call else _no_such_call()
            return Resume(value, answers=True)
        case IoapicEoi(vector):
            for ended in platform.on_eoi:
                ended(vector)
            return GO_ON
        case IrqWindowOpen():
            for opened in platform.on_irq_window:
                opened()
            return GO_ON
        case Simple(reason) if reason == DIRTY_RING_FULL:
            for full in platform.on_ring_full:
                full()
            return GO_ON
        case Interrupted() | Simple() | TprAccess():
            return GO_ON
        case Halt():
            for wait in platform.on_halt:
                if wait():
                    return GO_ON
            return Stop(Why.HALT, "the guest halted", exit)
        case Debug():
            steps = (ask(exit) for ask in platform.on_debug)
            end = Stop(Why.DEBUG, f"debug event: vector {exit.exception} at {exit.pc:#x}", exit)
            return next((step for step in steps if step is not None), end)
        case SystemEvent(kind):
            return Stop(Why.SYSTEM_EVENT, f"the guest raised {_event_name(kind)}", exit)
        case Shutdown():
            return Stop(Why.SHUTDOWN, "the guest shut down: a triple fault, that is a fault that no handler took", exit)
        case FailEntry(reason, cpu):
            return Stop(Why.FAIL_ENTRY, _refused(reason, cpu), exit)
        case InternalError():
            return Stop(Why.INTERNAL_ERROR, internal_error(exit), exit)
        case MemoryFault(flags, gpa, size, errno):
            text = f"KVM could not resolve {size:#x} bytes at GPA {gpa:#x} (flags {flags:#x}, {errno_name(errno)})"
            return Stop(Why.MEMORY_FAULT, text, exit)
        case ExceptionExit(vector, error_code):
            return Stop(Why.UNHANDLED, f"KVM handed on exception {vector}, error code {error_code:#x}", exit)
        case HardwareUnknown(reason):
            return Stop(Why.UNHANDLED, f"the CPU left the guest for a reason KVM does not know: {reason:#x}", exit)
        case Hyperv(kind) | Xen(kind):
            return Stop(Why.UNHANDLED, f"the guest used {type(exit).__name__} service {kind}, which is not here", exit)
        case Notify(flags):
            return Stop(Why.UNHANDLED, f"the guest opened no event window for too long (flags {flags:#x})", exit)
        case UnknownExit(reason):
            return Stop(Why.UNHANDLED, f"exit reason {_exit_name(reason)} is unknown to this pyvmm", exit)
        case _:
            assert_never(exit)


# The tables of names are imported by the rare exit that needs one: they cost a run as much as all of this module.


def _event_name(kind: int) -> str:
    from vmm.abi.exits import SYSTEM_EVENTS
    from vmm.abi.rows import value_name

    return value_name(SYSTEM_EVENTS, kind)


def _exit_name(reason: int) -> str:
    from vmm.abi.exits import exit_name

    return exit_name(reason)


def _no_such_call() -> int:
    from vmm.abi.pv import KVM_ENOSYS

    return -KVM_ENOSYS


def internal_error(exit: InternalError) -> str:
    """One line on a KVM_EXIT_INTERNAL_ERROR."""
    from vmm.abi.exits import INTERNAL_ERRORS
    from vmm.abi.rows import value_meaning

    text = f"KVM gave up (suberror {exit.suberror}): {value_meaning(INTERNAL_ERRORS, exit.suberror)}"
    if exit.instruction:
        text += f", bytes {exit.instruction.hex(' ')}"
    return text

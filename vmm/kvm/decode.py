# SPDX-License-Identifier: GPL-2.0-or-later
"""kvm_run -> Exit, and the answer back into kvm_run. The only place that reads the exit union.

`run` is a `struct kvm_run *` and `area` the bytes of the whole mapping behind it (port data lies beyond the struct).
Both may come from a recording, so decoding is tested without a device.
"""

from __future__ import annotations

import errno

from vmm.base.bits import MASK64
from vmm.base.light import Protocol
from vmm.kvm._kvm import ffi, lib
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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

UNION_BYTES = 256  # the size that <linux/kvm.h> fixes for the exit union
PAYLOAD_KEPT = 64
DIRTY_RING_FULL: int = lib.KVM_EXIT_DIRTY_RING_FULL
EHWPOISON = 133  # <asm-generic/errno.h>; Python's errno module does not name it


class Area(Protocol):
    """Bytes that can be sliced: a bytearray, or the mmap of kvm_run."""

    def __getitem__(self, key: slice, /) -> Any: ...
    def __setitem__(self, key: slice, value: Any, /) -> None: ...


def _io(run: Any, area: Area) -> Exit:
    io = run.io
    if io.direction == lib.KVM_EXIT_IO_IN:
        return PortIn(io.port, io.size, io.count)
    # The kernel placed data_offset inside the mapping, whose size KVM_GET_VCPU_MMAP_SIZE gave.
    start = io.data_offset
    return PortOut(io.port, io.size, bytes(area[start : start + io.size * io.count]))


def _mmio(run: Any, area: Area) -> Exit:
    mmio = run.mmio
    length = min(mmio.len, 8)
    if mmio.is_write:
        return MmioWrite(mmio.phys_addr, bytes(ffi.buffer(mmio.data, length)))
    return MmioRead(mmio.phys_addr, length)


def _hypercall(run: Any, area: Area) -> Exit:
    call = run.hypercall
    return Hypercall(call.nr, tuple(call.args), bool(call.longmode & 1))


def _internal(run: Any, area: Area) -> Exit:
    internal, failure = run.internal, run.emulation_failure
    count = min(internal.ndata, 16)
    instruction = b""
    if (
        internal.suberror == lib.KVM_INTERNAL_ERROR_EMULATION
        and count
        and failure.flags & lib.KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES
    ):
        instruction = bytes(ffi.buffer(failure.insn_bytes, min(failure.insn_size, 15)))
    return InternalError(internal.suberror, tuple(internal.data[0:count]), instruction)


def _system_event(run: Any, area: Area) -> Exit:
    event = run.system_event
    return SystemEvent(event.type, tuple(event.data[0 : min(event.ndata, 16)]))


def _debug(run: Any, area: Area) -> Exit:
    arch = run.debug.arch
    return Debug(arch.exception, arch.pc, arch.dr6, arch.dr7)


def _memory_fault(run: Any, error: int) -> Exit:
    fault = ffi.cast("vmm_run_memory_fault *", ffi.addressof(run.hw))
    return MemoryFault(fault.flags, fault.gpa, fault.size, error)


_DECODERS: dict[int, Callable[[Any, Area], Exit]] = {
    lib.KVM_EXIT_UNKNOWN: lambda run, area: HardwareUnknown(run.hw.hardware_exit_reason),
    lib.KVM_EXIT_EXCEPTION: lambda run, area: ExceptionExit(run.ex.exception, run.ex.error_code),
    lib.KVM_EXIT_IO: _io,
    lib.KVM_EXIT_HYPERCALL: _hypercall,
    lib.KVM_EXIT_DEBUG: _debug,
    lib.KVM_EXIT_HLT: lambda run, area: Halt(),
    lib.KVM_EXIT_MMIO: _mmio,
    lib.KVM_EXIT_IRQ_WINDOW_OPEN: lambda run, area: IrqWindowOpen(),
    lib.KVM_EXIT_SHUTDOWN: lambda run, area: Shutdown(),
    lib.KVM_EXIT_FAIL_ENTRY: lambda run, area: FailEntry(
        run.fail_entry.hardware_entry_failure_reason, run.fail_entry.cpu
    ),
    lib.KVM_EXIT_INTR: lambda run, area: Simple(lib.KVM_EXIT_INTR),
    lib.KVM_EXIT_SET_TPR: lambda run, area: Simple(lib.KVM_EXIT_SET_TPR),
    lib.KVM_EXIT_TPR_ACCESS: lambda run, area: TprAccess(run.tpr_access.rip, bool(run.tpr_access.is_write)),
    lib.KVM_EXIT_NMI: lambda run, area: Simple(lib.KVM_EXIT_NMI),
    lib.KVM_EXIT_INTERNAL_ERROR: _internal,
    lib.KVM_EXIT_SYSTEM_EVENT: _system_event,
    lib.KVM_EXIT_IOAPIC_EOI: lambda run, area: IoapicEoi(run.eoi.vector),
    lib.KVM_EXIT_HYPERV: lambda run, area: Hyperv(run.hyperv.type),
    lib.KVM_EXIT_X86_RDMSR: lambda run, area: ReadMsr(run.msr.index, run.msr.reason),
    lib.KVM_EXIT_X86_WRMSR: lambda run, area: WriteMsr(run.msr.index, run.msr.data, run.msr.reason),
    lib.KVM_EXIT_DIRTY_RING_FULL: lambda run, area: Simple(lib.KVM_EXIT_DIRTY_RING_FULL),
    lib.KVM_EXIT_AP_RESET_HOLD: lambda run, area: Simple(lib.KVM_EXIT_AP_RESET_HOLD),
    lib.KVM_EXIT_X86_BUS_LOCK: lambda run, area: Simple(lib.KVM_EXIT_X86_BUS_LOCK),
    lib.KVM_EXIT_XEN: lambda run, area: Xen(run.xen.type),
    lib.KVM_EXIT_NOTIFY: lambda run, area: Notify(run.notify.flags),
    lib.KVM_EXIT_MEMORY_FAULT: lambda run, area: _memory_fault(run, 0),
}

# Exits that the guest is still inside of: they complete in the next KVM_RUN, and until then the registers are those
# before (or half way through) the instruction.
PENDING = frozenset(
    getattr(lib, f"KVM_EXIT_{name}") for name in ("IO", "MMIO", "HYPERCALL", "X86_RDMSR", "X86_WRMSR", "HYPERV", "XEN")
)


def decode(run: Any, area: Area, error: int = 0) -> Exit | None:
    """The exit in `run`, given KVM_RUN's errno (0 for success).

    None: the ioctl failed in a way that is no exit (EFAULT without a reason, EBADF, ...); the caller reports it.
    MEMORY_FAULT comes with EFAULT or EHWPOISON (Linux 6.8); EINTR and EAGAIN leave `exit_reason` stale.
    """
    if error in (errno.EINTR, errno.EAGAIN):
        return Interrupted(error)
    reason = run.exit_reason
    if error:
        known = error in (errno.EFAULT, EHWPOISON) and reason == lib.KVM_EXIT_MEMORY_FAULT
        return _memory_fault(run, error) if known else None
    decoder = _DECODERS.get(reason)
    if decoder is not None:
        return decoder(run, area)
    return UnknownExit(reason, bytes(ffi.buffer(ffi.addressof(run.hw), PAYLOAD_KEPT)))


def answer(run: Any, area: Area, exit: Exit, reply: bytes | int | None) -> None:
    """Put the answer to `exit` into kvm_run; the next KVM_RUN hands it to the guest.

    Bytes answer a port or MMIO read (as many as were asked for); an int answers an MSR read or a hypercall (its
    64 bits); None refuses an MSR access, so that the guest takes #GP.

    Raises:
        ValueError: the reply does not fit the exit.
    """
    match exit, reply:
        case PortIn(_, size, count), bytes():
            if len(reply) != size * count:
                raise ValueError(f"{len(reply)} bytes answer a port read of {size * count}")
            start = run.io.data_offset
            area[start : start + len(reply)] = reply
        case MmioRead(_, size), bytes():
            if len(reply) != size:
                raise ValueError(f"{len(reply)} bytes answer an MMIO read of {size}")
            ffi.memmove(run.mmio.data, reply, size)
        case ReadMsr(), int():
            run.msr.error = 0
            run.msr.data = reply & MASK64
        case WriteMsr(), int():
            run.msr.error = 0
        case ((ReadMsr() | WriteMsr()), None):
            run.msr.error = 1
        case Hypercall(), int():
            run.hypercall.ret = reply & MASK64
        case _:
            raise ValueError(f"{exit} takes no reply {reply!r}")

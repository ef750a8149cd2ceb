# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a vCPU came back from KVM_RUN: one frozen value for each exit reason of the x86 header.

Values only: data is copied out of kvm_run, so an exit can be kept, compared and replayed after the next KVM_RUN.
Decoding is in decode.py, handling in vmm/machine/run/handle.py. Source: Documentation/virt/kvm/api.rst, section 5.
An exit that waits for an answer (a read, an MSR, a hypercall) completes only inside the next KVM_RUN.
"""

from __future__ import annotations

from vmm.base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias


class PortIn(Record):
    """The guest reads `count` elements of `size` (1, 2, 4) bytes from one port; the answer is size * count bytes."""

    port: int
    size: int
    count: int


class PortOut(Record):
    """The guest wrote `data`, elements of `size` (1, 2, 4) bytes, to one port; more than one comes from REP OUTS."""

    port: int
    size: int
    data: bytes


class MmioRead(Record):
    """The guest reads `size` (1 to 8) bytes at a guest-physical address that no memslot holds."""

    address: int
    size: int


class MmioWrite(Record):
    """The guest wrote `data` (1 to 8 bytes) at a guest-physical address that no (writable) memslot holds."""

    address: int
    data: bytes


class Halt(Record):
    """HLT, and no in-kernel LAPIC to wait in."""


class Hypercall(Record):
    """A hypercall that KVM passes on (KVM_CAP_EXIT_HYPERCALL): its number `nr` and the registers `args` (RBX, RCX, RDX,
    RSI, and RDI of 64-bit code); the answer goes to RAX.
    """

    nr: int
    args: tuple[int, ...]
    long_mode: bool


class ReadMsr(Record):
    """RDMSR that KVM passes on (KVM_CAP_X86_USER_SPACE_MSR); `reason` is a KVM_MSR_EXIT_REASON bit."""

    index: int
    reason: int


class WriteMsr(Record):
    """WRMSR that KVM passes on; `reason` is a KVM_MSR_EXIT_REASON bit."""

    index: int
    value: int
    reason: int


class Debug(Record):
    """A debug event of KVM_SET_GUEST_DEBUG: `exception` is its vector, 1 or 3, at the linear address `pc`, with the
    bits of `dr6` and `dr7`.
    """

    exception: int
    pc: int
    dr6: int
    dr7: int


class IrqWindowOpen(Record):
    """The guest can take an interrupt now (request_interrupt_window was set)."""


class Shutdown(Record):
    """Triple fault (or another shutdown condition of the CPU)."""


class FailEntry(Record):
    """The hardware refused to enter the guest; `reason` is the vendor's code, `cpu` the host CPU that refused."""

    reason: int
    cpu: int


class Interrupted(Record):
    """KVM_RUN ended early: EINTR (a signal or immediate_exit) or EAGAIN (an AP was woken by INIT/SIPI) is `errno`."""

    errno: int


class InternalError(Record):
    """KVM gave up: `suberror` is a KVM_INTERNAL_ERROR_*, 1 for a failed emulation; `instruction` are its bytes where
    KVM tells them, and `data` the 64-bit words that it left.
    """

    suberror: int
    data: tuple[int, ...]
    instruction: bytes


class SystemEvent(Record):
    """The guest asked for a shutdown, reset, crash report, ...: `type` is a KVM_SYSTEM_EVENT_*, `data` its 64-bit
    words.
    """

    type: int
    data: tuple[int, ...]


class MemoryFault(Record):
    """A guest access that KVM could not resolve (Linux 6.8; KVM_RUN itself fails with `errno`): `size` bytes at `gpa`,
    `flags` are KVM_MEMORY_EXIT_FLAG_*.
    """

    flags: int
    gpa: int
    size: int
    errno: int


class IoapicEoi(Record):
    """Split irqchip: the guest ended a level-triggered interrupt of this vector; the IOAPIC is ours."""

    vector: int


class TprAccess(Record):
    """The guest touched the task priority register (KVM_TPR_ACCESS_REPORTING), by the instruction at `rip`."""

    rip: int
    write: bool


class Notify(Record):
    """The guest did not open an event window for too long (KVM_CAP_X86_NOTIFY_VMEXIT); `flags` are KVM_NOTIFY_*."""

    flags: int


class ExceptionExit(Record):
    """Old kernels: an exception nobody handled, by its `vector` and the `error_code` that the CPU pushed."""

    vector: int
    error_code: int


class HardwareUnknown(Record):
    """KVM_EXIT_UNKNOWN: `hardware_exit_reason` is VMX's or SVM's own, which KVM does not know."""

    hardware_exit_reason: int


class Hyperv(Record):
    """A Hyper-V enlightenment that needs the VMM (SynIC, hypercall, debugger: `type`, a KVM_EXIT_HYPERV_*)."""

    type: int


class Xen(Record):
    """A Xen hypercall, with KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL; `type` is a KVM_EXIT_XEN_*."""

    type: int


class Simple(Record):
    """A reason that says all: INTR, NMI, SET_TPR, DIRTY_RING_FULL, AP_RESET_HOLD, X86_BUS_LOCK, ..."""

    reason: int


class UnknownExit(Record):
    """A reason that this pyvmm does not know; `payload` are the first 64 bytes of the union."""

    reason: int
    payload: bytes


Exit: TypeAlias = (
    PortIn
    | PortOut
    | MmioRead
    | MmioWrite
    | Halt
    | Hypercall
    | ReadMsr
    | WriteMsr
    | Debug
    | IrqWindowOpen
    | Shutdown
    | FailEntry
    | Interrupted
    | InternalError
    | SystemEvent
    | MemoryFault
    | IoapicEoi
    | TprAccess
    | Notify
    | ExceptionExit
    | HardwareUnknown
    | Hyperv
    | Xen
    | Simple
    | UnknownExit
)

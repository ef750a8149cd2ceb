# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a vCPU came back from KVM_RUN: one frozen value for each exit reason of the x86 header.

Values only: data is copied out of kvm_run, so an exit can be kept, compared and replayed after the next KVM_RUN.
Decoding is in decode.py, handling in vmm/machine/run/handle.py. Source: Documentation/virt/kvm/api.rst, section 5.
An exit that waits for an answer (a read, an MSR, a hypercall) completes only inside the next KVM_RUN.
"""

from __future__ import annotations

from vmm.base.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias


@record
class PortIn:
    """The guest reads `count` elements of `size` (1, 2, 4) bytes from one port; the answer is size * count bytes."""

    port: int
    size: int
    count: int


@record
class PortOut:
    """The guest wrote `data`, elements of `size` (1, 2, 4) bytes, to one port; more than one comes from REP OUTS."""

    port: int
    size: int
    data: bytes


@record
class MmioRead:
    """The guest reads `size` (1 to 8) bytes at a guest-physical address that no memslot holds."""

    address: int
    size: int


@record
class MmioWrite:
    """The guest wrote `data` (1 to 8 bytes) at a guest-physical address that no (writable) memslot holds."""

    address: int
    data: bytes


@record
class Halt:
    """HLT, and no in-kernel LAPIC to wait in."""


@record
class Hypercall:
    """A hypercall that KVM passes on (KVM_CAP_EXIT_HYPERCALL); the answer goes to RAX."""

    nr: int
    args: tuple[int, ...]
    long_mode: bool


@record
class ReadMsr:
    """RDMSR that KVM passes on (KVM_CAP_X86_USER_SPACE_MSR); `reason` is a KVM_MSR_EXIT_REASON bit."""

    index: int
    reason: int


@record
class WriteMsr:
    """WRMSR that KVM passes on; `reason` is a KVM_MSR_EXIT_REASON bit."""

    index: int
    value: int
    reason: int


@record
class Debug:
    """A debug event of KVM_SET_GUEST_DEBUG: vector 1 or 3 at `pc`, with DR6 and DR7."""

    exception: int
    pc: int
    dr6: int
    dr7: int


@record
class IrqWindowOpen:
    """The guest can take an interrupt now (request_interrupt_window was set)."""


@record
class Shutdown:
    """Triple fault (or another shutdown condition of the CPU)."""


@record
class FailEntry:
    """The hardware refused to enter the guest; the reason is the vendor's code."""

    reason: int
    cpu: int


@record
class Interrupted:
    """KVM_RUN ended early: EINTR (a signal or immediate_exit) or EAGAIN (an AP was woken by INIT/SIPI)."""

    errno: int


@record
class InternalError:
    """KVM gave up. Suberror 1 is a failed emulation; `instruction` are its bytes where KVM tells them."""

    suberror: int
    data: tuple[int, ...]
    instruction: bytes


@record
class SystemEvent:
    """The guest asked for a shutdown, reset, crash report, ... (KVM_SYSTEM_EVENT_*)."""

    type: int
    data: tuple[int, ...]


@record
class MemoryFault:
    """A guest access that KVM could not resolve (Linux 6.8; KVM_RUN itself fails with `errno`)."""

    flags: int
    gpa: int
    size: int
    errno: int


@record
class IoapicEoi:
    """Split irqchip: the guest ended a level-triggered interrupt of this vector; the IOAPIC is ours."""

    vector: int


@record
class TprAccess:
    """The guest touched the task priority register (KVM_TPR_ACCESS_REPORTING)."""

    rip: int
    write: bool


@record
class Notify:
    """The guest did not open an event window for too long (KVM_CAP_X86_NOTIFY_VMEXIT)."""

    flags: int


@record
class ExceptionExit:
    """Old kernels: an exception nobody handled."""

    vector: int
    error_code: int


@record
class HardwareUnknown:
    """KVM_EXIT_UNKNOWN: the hardware's own exit reason, which KVM does not know."""

    hardware_exit_reason: int


@record
class Hyperv:
    """A Hyper-V enlightenment that needs the VMM (SynIC, hypercall, debugger)."""

    type: int


@record
class Xen:
    """A Xen hypercall, with KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL."""

    type: int


@record
class Simple:
    """A reason that says all: INTR, NMI, SET_TPR, DIRTY_RING_FULL, AP_RESET_HOLD, X86_BUS_LOCK, ..."""

    reason: int


@record
class UnknownExit:
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

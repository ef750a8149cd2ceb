# SPDX-License-Identifier: GPL-2.0-or-later
"""Why KVM_RUN came back: exit reasons and the small enumerations inside kvm_run. It decodes no memory.

Numbers: <linux/kvm.h>; meanings: Documentation/virt/kvm/api.rst, "The kvm_run structure". `since` names the kernel
release for rows that the Linux 6.1 header lacks.
"""

from __future__ import annotations

from typing import NamedTuple

from vmm.abi.rows import Named as Named
from vmm.abi.rows import value_meaning as value_meaning
from vmm.abi.rows import value_name as value_name

HEADER = "linux/kvm.h"


class ExitReason(NamedTuple):
    """`kvm_run.exit_reason`; `name` is without KVM_EXIT_, `arch` names the only architecture that raises it."""

    number: int
    name: str
    meaning: str
    arch: str = ""
    since: str | None = None

    @property
    def kernel_name(self) -> str:
        return f"KVM_EXIT_{self.name}"


EXITS = (
    ExitReason(0, "UNKNOWN", "The CPU left the guest for a hardware reason that KVM does not know."),
    ExitReason(1, "EXCEPTION", "An exception that KVM could not handle (current x86 kernels never report it)."),
    ExitReason(2, "IO", "The guest read or wrote an I/O port that no in-kernel device owns."),
    ExitReason(3, "HYPERCALL", "The guest made a hypercall that the VMM asked to serve itself."),
    ExitReason(4, "DEBUG", "A breakpoint, watchpoint or single step that the VMM asked for was hit."),
    ExitReason(5, "HLT", "The guest executed HLT, and no in-kernel local APIC waits for its next interrupt."),
    ExitReason(6, "MMIO", "The guest accessed a guest-physical address that no memslot backs."),
    ExitReason(7, "IRQ_WINDOW_OPEN", "The guest can take an interrupt now, as the VMM asked to be told."),
    ExitReason(8, "SHUTDOWN", "The guest's CPU shut down: a triple fault, or a fault while delivering one."),
    ExitReason(9, "FAIL_ENTRY", "The hardware refused to enter the guest with the state it was given."),
    ExitReason(10, "INTR", "A signal for the vCPU's thread interrupted KVM_RUN (together with EINTR)."),
    ExitReason(11, "SET_TPR", "The guest lowered its task priority through CR8, and the local APIC is the VMM's."),
    ExitReason(12, "TPR_ACCESS", "The guest accessed the task-priority register, as the VMM asked to be told."),
    ExitReason(13, "S390_SIEIC", "An s390 instruction was intercepted.", "s390"),
    ExitReason(14, "S390_RESET", "The s390 guest asked for a reset.", "s390"),
    ExitReason(15, "DCR", "A PowerPC device control register was accessed (deprecated).", "powerpc"),
    ExitReason(16, "NMI", "A non-maskable interrupt of the host ended the run."),
    ExitReason(17, "INTERNAL_ERROR", "KVM gave up: it met something it cannot emulate or deliver; see the sub-error."),
    ExitReason(18, "OSI", "A PowerPC guest made an OSI hypercall.", "powerpc"),
    ExitReason(19, "PAPR_HCALL", "A PowerPC guest made a PAPR hypercall.", "powerpc"),
    ExitReason(20, "S390_UCONTROL", "A page fault of an s390 user-controlled VM.", "s390"),
    ExitReason(21, "WATCHDOG", "A PowerPC guest's watchdog expired.", "powerpc"),
    ExitReason(22, "S390_TSCH", "An s390 guest executed TEST SUBCHANNEL.", "s390"),
    ExitReason(23, "EPR", "A PowerPC guest reads its external proxy register.", "powerpc"),
    ExitReason(24, "SYSTEM_EVENT", "The guest asked for something that concerns the whole machine, such as a reset."),
    ExitReason(25, "S390_STSI", "An s390 guest executed STORE SYSTEM INFORMATION.", "s390"),
    ExitReason(26, "IOAPIC_EOI", "The guest ended a level-triggered interrupt, and the IOAPIC is the VMM's."),
    ExitReason(27, "HYPERV", "The guest used a Hyper-V interface that the VMM serves."),
    ExitReason(28, "ARM_NISV", "An arm64 access outside memslots came without a decoded syndrome.", "arm64"),
    ExitReason(29, "X86_RDMSR", "The guest read an MSR that the VMM asked to serve itself."),
    ExitReason(30, "X86_WRMSR", "The guest wrote an MSR that the VMM asked to serve itself."),
    ExitReason(31, "DIRTY_RING_FULL", "The ring of dirtied pages is full; the VMM must collect it."),
    ExitReason(32, "AP_RESET_HOLD", "An encrypted guest parked this vCPU until it is started again."),
    ExitReason(33, "X86_BUS_LOCK", "The guest took a bus lock, as the VMM asked to be told."),
    ExitReason(34, "XEN", "The guest made a Xen hypercall that the VMM serves."),
    ExitReason(35, "RISCV_SBI", "A RISC-V guest made an SBI call that the VMM serves.", "riscv"),
    ExitReason(36, "RISCV_CSR", "A RISC-V guest accessed a control register that the VMM serves.", "riscv"),
    ExitReason(37, "NOTIFY", "The guest opened no event window for longer than the VMM allowed."),
    ExitReason(38, "LOONGARCH_IOCSR", "A LoongArch guest accessed an I/O control register.", "loongarch", "6.7"),
    ExitReason(
        39, "MEMORY_FAULT", "KVM cannot resolve a guest page: its backing or its private/shared state.", "", "6.8"
    ),
    ExitReason(40, "TDX", "A TDX guest made a call that the VMM serves.", "", "6.16"),
    ExitReason(41, "ARM_SEA", "An arm64 guest met a synchronous external abort.", "arm64", "6.19"),
    ExitReason(42, "ARM_LDST64B", "An arm64 guest used a 64-byte load or store outside memslots.", "arm64", "7.0"),
    ExitReason(43, "SNP_REQ_CERTS", "An SEV-SNP guest asks for an attestation with certificates.", "", "7.0"),
)
_BY_NUMBER = {row.number: row for row in EXITS}

INTERNAL_ERRORS = (
    Named(1, "KVM_INTERNAL_ERROR_EMULATION", "KVM cannot emulate the instruction at RIP"),
    Named(2, "KVM_INTERNAL_ERROR_SIMUL_EX", "several exceptions came at once in a way that KVM does not expect"),
    Named(3, "KVM_INTERNAL_ERROR_DELIVERY_EV", "the CPU left the guest while it was delivering an event"),
    Named(4, "KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON", "the hardware gave an exit reason that KVM never expects"),
)
INTERNAL_ERROR_FLAGS = (
    Named(1, "KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES", "the instruction's bytes are included"),
)
SYSTEM_EVENTS = (
    Named(1, "KVM_SYSTEM_EVENT_SHUTDOWN", "the guest asked to be shut down"),
    Named(2, "KVM_SYSTEM_EVENT_RESET", "the guest asked to be reset"),
    Named(3, "KVM_SYSTEM_EVENT_CRASH", "the guest reports that its system crashed"),
    Named(4, "KVM_SYSTEM_EVENT_WAKEUP", "a suspended guest has a wake-up event"),
    Named(5, "KVM_SYSTEM_EVENT_SUSPEND", "the guest asked to be suspended"),
    Named(6, "KVM_SYSTEM_EVENT_SEV_TERM", "an SEV guest asked to be ended"),
    Named(7, "KVM_SYSTEM_EVENT_TDX_FATAL", "a TDX guest reports a fatal error", "6.16"),
)
MSR_EXIT_REASONS = (
    Named(1 << 0, "KVM_MSR_EXIT_REASON_INVAL", "the access breaks a rule: a reserved bit or a bad value"),
    Named(1 << 1, "KVM_MSR_EXIT_REASON_UNKNOWN", "KVM has no such MSR, or its feature is hidden from this guest"),
    Named(1 << 2, "KVM_MSR_EXIT_REASON_FILTER", "the VMM's own MSR filter denied it"),
)
MP_STATES = (
    Named(0, "KVM_MP_STATE_RUNNABLE", "runs when KVM_RUN is called"),
    Named(1, "KVM_MP_STATE_UNINITIALIZED", "an application processor that waits for INIT"),
    Named(2, "KVM_MP_STATE_INIT_RECEIVED", "got INIT and waits for a start-up IPI"),
    Named(3, "KVM_MP_STATE_HALTED", "in HLT, waits for an interrupt"),
    Named(4, "KVM_MP_STATE_SIPI_RECEIVED", "got its start-up IPI"),
    Named(9, "KVM_MP_STATE_AP_RESET_HOLD", "parked by an encrypted guest"),
)
IO_DIRECTIONS = (
    Named(0, "KVM_EXIT_IO_IN", "the guest reads the port"),
    Named(1, "KVM_EXIT_IO_OUT", "the guest writes the port"),
)
HYPERV_EXITS = (
    Named(1, "KVM_EXIT_HYPERV_SYNIC", "the synthetic interrupt controller changed"),
    Named(2, "KVM_EXIT_HYPERV_HCALL", "a Hyper-V hypercall"),
    Named(3, "KVM_EXIT_HYPERV_SYNDBG", "the synthetic debugger"),
)
XEN_EXITS = (Named(1, "KVM_EXIT_XEN_HCALL", "a Xen hypercall"),)
MEMORY_FAULT_FLAGS = (Named(1 << 3, "KVM_MEMORY_EXIT_FLAG_PRIVATE", "the guest meant its private memory", "6.8"),)
NOTIFY_FLAGS = (Named(1 << 0, "KVM_NOTIFY_CONTEXT_INVALID", "the vCPU's state is corrupt"),)

ENUMERATIONS = (
    *INTERNAL_ERRORS,
    *INTERNAL_ERROR_FLAGS,
    *SYSTEM_EVENTS,
    *MSR_EXIT_REASONS,
    *MP_STATES,
    *IO_DIRECTIONS,
    *HYPERV_EXITS,
    *XEN_EXITS,
    *MEMORY_FAULT_FLAGS,
    *NOTIFY_FLAGS,
)


def exit_reason(number: int) -> ExitReason | None:
    """The row of an exit reason, or None for one that this release of pyvmm does not know."""
    return _BY_NUMBER.get(number)


def exit_name(number: int) -> str:
    """`IO` for 2; `REASON_99` for a number that no row has. Never fails."""
    row = _BY_NUMBER.get(number)
    return row.name if row else f"REASON_{number}"


def exit_meaning(number: int) -> str:
    """One sentence about an exit reason, also for an unknown one."""
    row = _BY_NUMBER.get(number)
    return row.meaning if row else f"KVM gave exit reason {number}, which is newer than this release of pyvmm."

# SPDX-License-Identifier: GPL-2.0-or-later
"""Events put into a vCPU by KVM_SET_VCPU_EVENTS: what it takes at its next entry, as if the CPU had raised it.

Source: api.rst, KVM_GET_VCPU_EVENTS and KVM_SET_VCPU_EVENTS, KVM_CAP_EXCEPTION_PAYLOAD, KVM_CAP_X86_TRIPLE_FAULT_EVENT.
Call them while the vCPU does not run, from one of its hooks or between two runs. Inside an exit the instruction that
caused it ends first, so the event is taken after it.
"""

from __future__ import annotations

from vmm.abi import flags
from vmm.abi.rows import value_of
from vmm.abi.x86 import HAS_ERROR_CODE, vector_name
from vmm.errors import UsageError
from vmm.kvm.vcpu import Vcpu

NMI_PENDING = value_of(flags.VCPU_EVENTS, "KVM_VCPUEVENT_VALID_NMI_PENDING")
PAYLOAD = value_of(flags.VCPU_EVENTS, "KVM_VCPUEVENT_VALID_PAYLOAD")
TRIPLE_FAULT = value_of(flags.VCPU_EVENTS, "KVM_VCPUEVENT_VALID_TRIPLE_FAULT")
EXCEPTIONS, NMI = 32, 2


def exception(vcpu: Vcpu, vector: int, error_code: int | None = None, *, payload: int | None = None) -> None:
    """Inject an exception. It has an `error_code` of 32 bits exactly if the CPU pushes one for this vector.

    `payload` (KVM_CAP_EXCEPTION_PAYLOAD, to be enabled before) is what delivery does besides: the address in CR2 for
    #PF, bits for DR6 for #DB. The exception is pending then, not injected; without a payload those registers stay.

    Raises:
        UsageError: no such exception, or an error code where there is none or none where there is one.
    """
    if not 0 <= vector < EXCEPTIONS or vector == NMI:
        raise UsageError(f"vector {vector:#x} is no exception; inject.nmi and inject.interrupt are for the others")
    if (error_code is not None) != (vector in HAS_ERROR_CODE):
        has = "has an" if vector in HAS_ERROR_CODE else "has no"
        raise UsageError(f"{vector_name(vector)} {has} error code")
    events = vcpu.get_vcpu_events()
    events.exception_nr = vector
    events.exception_has_error_code = int(error_code is not None)
    events.exception_error_code = error_code or 0
    events.exception_injected, events.exception_pending = int(payload is None), int(payload is not None)
    events.exception_has_payload, events.exception_payload = int(payload is not None), payload or 0
    if payload is not None:
        events.flags |= PAYLOAD
    vcpu.set_vcpu_events(events)
    if vcpu.raised is not None:
        vcpu.raised("exception", vector)


def interrupt(vcpu: Vcpu, vector: int) -> None:
    """Inject an external interrupt, past every controller: one that had been accepted already.

    RFLAGS.IF must be set: VMX refuses the entry else (Intel SDM vol. 3C, 27.3.1.4).

    Raises:
        UsageError: the vector does not fit.
    """
    events = vcpu.get_vcpu_events()
    events.interrupt_injected, events.interrupt_nr, events.interrupt_soft = 1, vector, 0
    vcpu.set_vcpu_events(events)
    if vcpu.raised is not None:
        vcpu.raised("interrupt", vector)


def nmi(vcpu: Vcpu) -> None:
    """Make an NMI pending; it is taken when NMIs are not masked."""
    events = vcpu.get_vcpu_events()
    events.nmi_pending = 1
    events.flags |= NMI_PENDING
    vcpu.set_vcpu_events(events)
    if vcpu.raised is not None:
        vcpu.raised("nmi", NMI)


def triple_fault(vcpu: Vcpu) -> None:
    """Make a triple fault pending (KVM_CAP_X86_TRIPLE_FAULT_EVENT, to be enabled before): KVM_EXIT_SHUTDOWN."""
    events = vcpu.get_vcpu_events()
    events.triple_fault_pending = 1
    events.flags |= TRIPLE_FAULT
    vcpu.set_vcpu_events(events)

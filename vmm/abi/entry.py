# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM_EXIT_FAIL_ENTRY in words: what `hardware_entry_failure_reason` says, and whose the fault is. Facts only.

The field has no kind of its own, so its value tells which CPU it comes from. For Intel KVM stores the exit reason of a
failed entry (bit 31 set) or a VM-instruction error, for AMD the exit code VMEXIT_INVALID. Sources: vmx/vmx.c and
svm/svm.c in arch/x86/kvm; Intel SDM vol. 3C, 27.8 and 31.4; AMD APM vol. 2, 15.5.1.
"""

from __future__ import annotations

from vmm.abi import svm, vmx
from vmm.abi.rows import Named, value_of
from vmm.base.light import NamedTuple

_FAILED = value_of(vmx.EXITS, "VMX_EXIT_REASONS_FAILED_VMENTRY")
_SVM_INVALID = value_of(svm.EXITS, "SVM_EXIT_ERR")
_GUEST_STATE = value_of(vmx.EXITS, "EXIT_REASON_INVALID_STATE")


class EntryFailure(NamedTuple):
    """`words` is what the CPU found. `guest_state`: the registers that the vCPU got may be at fault; else what KVM
    has set up is, or a hypervisor below it.
    """

    words: str
    guest_state: bool


def entry_failure(reason: int) -> EntryFailure:
    """The meaning of a reason; one that nobody knows is the host's, and stays a number."""
    if reason in (_SVM_INVALID, _SVM_INVALID & 0xFFFF_FFFF):  # 32 bits of it were kept where the field had no more
        return EntryFailure(f"SVM: {_what(svm.EXITS, _SVM_INVALID)}: controls or guest state are not valid", True)
    if reason & _FAILED and reason < 1 << 32:
        basic = reason & 0xFFFF  # bits 30:16 tell of other things (27.9.1)
        return EntryFailure(f"VMX: {_what(vmx.EXITS, basic) or f'exit reason {basic}'}", basic == _GUEST_STATE)
    if words := _what(vmx.ERRORS, reason):
        return EntryFailure(f"VMX: VM-instruction error {reason}: {words}", False)
    return EntryFailure(f"a reason without a name, {reason:#x}", False)


def _what(rows: tuple[Named, ...], value: int) -> str:
    return next((row.meaning for row in rows if row.value == value), "")

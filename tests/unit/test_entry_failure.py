# SPDX-License-Identifier: GPL-2.0-or-later
"""A refused entry in words, whose the fault is, and what becomes of a proof and of a run then. And a VM that died."""

import errno

import pytest

from vmm.abi.entry import entry_failure
from vmm.errors import KvmCallError
from vmm.kvm.exits import FailEntry
from vmm.machine.ends import Result, Stop, Why
from vmm.observe.reasons import hint
from vmm.payload.catalog import find
from vmm.payload.proof.ending import broke
from vmm.payload.proof.probe import Probe, Target
from vmm.payload.proof.verdict import Unproven, Verdict
from vmm.payload.run import judge

SVM = "SVM: VMRUN refused the VMCB (VMEXIT_INVALID): controls or guest state are not valid"
REASONS = [
    (0x8000_0021, "VMX: the entry found guest state that is not valid", True),
    (0x8000_0022, "VMX: the entry could not load an MSR", False),
    (0x8000_0029, "VMX: a machine check came during the entry", False),
    (0x8000_00FF, "VMX: exit reason 255", False),
    (7, "VMX: VM-instruction error 7: entry with a control that is not allowed", False),
    (8, "VMX: VM-instruction error 8: entry with host state that is not valid", False),
    (0xFFFF_FFFF, SVM, True),
    (
        0xFFFF_FFFF_FFFF_FFFF,
        SVM,
        True,
    ),
    (0x1234, "a reason without a name, 0x1234", False),
    (1 << 63 | 0x21, "a reason without a name, 0x8000000000000021", False),
]


def ended(reason: int) -> Result:
    stop = Stop(Why.FAIL_ENTRY, f"refused: {reason:#x}", FailEntry(reason, 0))
    return Result(stop, 0, b"", 0.0, {}, {}, 0)


@pytest.mark.parametrize(("reason", "words", "guest_state"), REASONS, ids=[hex(row[0]) for row in REASONS])
def test_words_and_whose(reason, words, guest_state):
    assert entry_failure(reason) == (words, guest_state)
    result = ended(reason)
    told = hint(result.stop, b"", mp_state=0, rflags=2)
    assert ("host's fault" in told) == (not guest_state)
    assert ("segments" in told) == guest_state
    assert "dmesg" in told
    assert judge(result) == ("fail" if guest_state else "error", result.stop.text)


def test_what_the_host_refuses_leaves_a_feature_unproven():
    found = broke(None, ended(7))
    assert isinstance(found, Unproven)
    assert "refused: 0x7" in str(found)
    assert "dmesg" in str(found)


def test_a_vm_that_died_is_no_mistake_of_pyvmm(monkeypatch):
    def died(*arguments, **options):
        raise KvmCallError("KVM_RUN", errno.EIO, "running vCPU 0")

    monkeypatch.setattr("vmm.payload.proof.probe.prove", died)
    (row,) = Probe([Target("ipi_smi", find("ipi_smi"), group="api")])
    assert row.verdict is Verdict.UNPROVEN
    assert not row.error
    assert "KVM_BUG_ON" in row.finding.reason
    assert "dmesg" in row.finding.reason


@pytest.mark.parametrize(
    ("call", "number", "died"),
    [("KVM_GET_REGS", errno.EIO, True), ("KVM_RUN", errno.EFAULT, False), ("read", errno.EIO, False)],
)
def test_only_eio_of_kvm_is_a_death(call, number, died):
    error = KvmCallError(call, number, "asking")
    assert error.vm_died == died
    assert ("KVM_BUG_ON" in str(error)) == died

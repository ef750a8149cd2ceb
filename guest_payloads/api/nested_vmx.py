# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of nested_vmx: what each exit of the guest's guest must say, by the SDM; and it moves while that runs."""

from __future__ import annotations

from collections.abc import Sequence

from vmm.abi import msrs, ports, vmx, x86
from vmm.base.bits import MASK64
from vmm.payload.guest import Guest
from vmm.payload.proof.accesses import rdmsr
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.nested import Evidence, Exit, Numbers, hidden, masked, observe, prove_move
from vmm.payload.proof.nested import judge as judge_exits
from vmm.payload.proof.verdict import Finding, Refusal

ROW = ("exit", "qualification", "event", "error", "rip", "length", "rax", "rbx")
_EXITS = {row.name: row.value for row in vmx.EXITS}
_ERRORS = {row.name: row.value for row in vmx.ERRORS}
_CONSTANTS = {row.name: row.value for row in vmx.CONSTANTS}
_VECTORS = x86.vectors_in_header()
_EXCEPTION = _CONSTANTS["INTR_INFO_VALID_MASK"] | _CONSTANTS["INTR_TYPE_HARD_EXCEPTION"]
_WITH_CODE = _CONSTANTS["INTR_INFO_DELIVER_CODE_MASK"]
FAIL_INVALID = MASK64  # what vmx_error says where no VMCS could hold an error
WANTED = {
    "not_enabled": _VECTORS["UD_VECTOR"],
    "not_locked": _VECTORS["GP_VECTOR"],
    "on": 0,
    "on_again": FAIL_INVALID,
    "no_vmcs": FAIL_INVALID,
    "own_region": _ERRORS["VMXERR_VMPTRLD_VMXON_POINTER"],
    "no_field": _ERRORS["VMXERR_UNSUPPORTED_VMCS_COMPONENT"],
    "not_launched": _ERRORS["VMXERR_VMRESUME_NONLAUNCHED_VMCS"],
    "bad_control": _ERRORS["VMXERR_ENTRY_INVALID_CONTROL_FIELD"],
    "bad_host": _ERRORS["VMXERR_ENTRY_INVALID_HOST_STATE_FIELD"],
    "bad_guest": _EXITS["VMX_EXIT_REASONS_FAILED_VMENTRY"] | _EXITS["EXIT_REASON_INVALID_STATE"],
    "exits": 9,
    "launch_again": _ERRORS["VMXERR_VMLAUNCH_NONCLEAR_VMCS"],
}


def expect(guest: Guest) -> Sequence[Exit]:
    """The exits in order. Where the SDM leaves a field undefined, the row does not name it."""
    said, at = Numbers(guest), guest.symbol
    return (
        {"exit": _EXITS["EXIT_REASON_EXTERNAL_INTERRUPT"], "rip": at("l2_interrupted")},
        {"exit": _EXITS["EXIT_REASON_CPUID"], "rip": at("l2_cpuid"), "length": 2, "rax": said.asked},
        {
            "exit": _EXITS["EXIT_REASON_VMCALL"],
            "rip": at("l2_call"),
            "length": 3,
            "rax": said.answer,
            "rbx": said.answer,
        },
        {
            "exit": _EXITS["EXIT_REASON_IO_INSTRUCTION"],
            "rip": at("l2_out"),
            "length": 2,
            "qualification": said.port << _CONSTANTS["VMX_IO_PORT_SHIFT"] | _CONSTANTS["VMX_IO_IMMEDIATE_MASK"],
            "rax": said.answer & ~0xFF | said.said,
        },
        {"exit": _EXITS["EXIT_REASON_MSR_READ"], "rip": at("l2_rdmsr"), "length": 2},
        {
            "exit": _EXITS["EXIT_REASON_EXCEPTION_NMI"],
            "rip": at("l2_ud2"),
            "event": _EXCEPTION | _VECTORS["UD_VECTOR"],
            "rbx": said.read,
        },
        {
            "exit": _EXITS["EXIT_REASON_EXCEPTION_NMI"],
            "rip": at("l2_load"),
            "event": _EXCEPTION | _WITH_CODE | _VECTORS["PF_VECTOR"],
            "error": 0,  # a read by ring 0 from a page that is not present
            "qualification": said.page,
        },
        {"exit": _EXITS["EXIT_REASON_HLT"], "rip": at("l2_hlt"), "length": 1, "rax": said.content, "rbx": said.read},
        {"exit": _EXITS["EXIT_REASON_VMCALL"], "rip": at("l2_last"), "length": 3, "rax": said.last},
    )


def judge(seen: Evidence) -> Finding:
    """The row nested_vmx."""
    return judge_exits(seen, WANTED, vmx.exit_name)


def prove(lab: Lab) -> dict[str, Finding]:
    absent = masked(lab, "vmx", lab.proves)
    if absent:
        return absent
    with lab.guest() as guest:
        guest.machine.on_port_write(ports.DELAY, lambda value: None)
        alone = observe(guest, ROW, expect)
        vmcs = guest.machine.memory.read_u64(guest.symbol("vmx_vmcs"))
    return {lab.proves[0]: judge(alone), lab.proves[1]: prove_move(lab, alone, vmcs, ROW, expect)}


def refusals(lab: Lab) -> list[Refusal]:
    """The capability MSRs do not exist for a guest without VMX."""
    basic = msrs.msr("MSR_IA32_VMX_BASIC")
    return hidden(lab, "vmx", f"RDMSR of {basic.name}", rdmsr(basic.number))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of nested_svm: what each exit of the guest's guest must say, by the APM; and it moves while that runs."""

from __future__ import annotations

from collections.abc import Sequence

from vmm.abi import msrs, ports, svm, x86
from vmm.abi.rows import value_of
from vmm.machine.x86.boot import LONG_MODE_EFER
from vmm.payload.guest import Guest
from vmm.payload.proof.accesses import wrmsr
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.nested import Evidence, Exit, Numbers, hidden, masked, observe, prove_move
from vmm.payload.proof.nested import judge as judge_exits
from vmm.payload.proof.verdict import Finding, Refusal

ROW = ("exit", "exit_info_1", "exit_info_2", "rip", "rax", "rbx")
OUT_LENGTH = 2  # bytes of OUT imm8, AL
_EXITS = {row.name: row.value for row in svm.EXITS}
_IO_BYTE = value_of(svm.CONSTANTS, "SVM_IOIO_SIZE8_MASK")
_PORT_SHIFT = value_of(svm.CONSTANTS, "SVM_IOIO_PORT_SHIFT")
_VECTORS = x86.vectors_in_header()
WANTED = {
    "unready": _VECTORS["UD_VECTOR"],
    "misplaced": _VECTORS["GP_VECTOR"],
    "exits": 9,
    "no_asid": _EXITS["SVM_EXIT_ERR"],
    "no_vmrun": _EXITS["SVM_EXIT_ERR"],
    "again": _EXITS["SVM_EXIT_HLT"],
}


def expect(guest: Guest) -> Sequence[Exit]:
    """The exits in order. Where the APM leaves a field undefined, the row does not name it."""
    said, at, exception = Numbers(guest), guest.symbol, _EXITS["SVM_EXIT_EXCP_BASE"]
    return (
        {"exit": _EXITS["SVM_EXIT_INTR"], "rip": at("l2_interrupted")},
        {"exit": _EXITS["SVM_EXIT_CPUID"], "rip": at("l2_cpuid"), "rax": said.asked},
        {"exit": _EXITS["SVM_EXIT_VMMCALL"], "rip": at("l2_call"), "rax": said.answer, "rbx": said.answer},
        {
            "exit": _EXITS["SVM_EXIT_IOIO"],
            "rip": at("l2_out"),
            "exit_info_1": said.port << _PORT_SHIFT | _IO_BYTE,
            "exit_info_2": at("l2_out") + OUT_LENGTH,
            "rax": said.answer & ~0xFF | said.said,
        },
        {"exit": _EXITS["SVM_EXIT_MSR"], "rip": at("l2_rdmsr"), "exit_info_1": 0},
        {"exit": exception + _VECTORS["UD_VECTOR"], "rip": at("l2_ud2"), "rbx": said.read},
        {
            "exit": exception + _VECTORS["PF_VECTOR"],
            "rip": at("l2_load"),
            "exit_info_1": 0,  # a read by ring 0 from a page that is not present
            "exit_info_2": said.page,
        },
        {"exit": _EXITS["SVM_EXIT_HLT"], "rip": at("l2_hlt"), "rax": said.content, "rbx": said.read},
        {"exit": _EXITS["SVM_EXIT_VMMCALL"], "rip": at("l2_last"), "rax": said.last},
    )


def judge(seen: Evidence) -> Finding:
    """The row nested_svm."""
    return judge_exits(seen, WANTED, svm.exit_name)


def prove(lab: Lab) -> dict[str, Finding]:
    absent = masked(lab, "svm", lab.proves)
    if absent:
        return absent
    with lab.guest() as guest:
        guest.machine.on_port_write(ports.DELAY, lambda value: None)
        alone = observe(guest, ROW, expect)
        vmcb = guest.machine.memory.read_u64(guest.symbol("vmcb"))
    return {lab.proves[0]: judge(alone), lab.proves[1]: prove_move(lab, alone, vmcb, ROW, expect)}


def refusals(lab: Lab) -> list[Refusal]:
    """EFER.SVME is a reserved bit for a guest without SVM."""
    efer = msrs.msr("MSR_EFER")
    return hidden(lab, "svm", "WRMSR of EFER.SVME", wrmsr(efer.number, int(LONG_MODE_EFER | x86.EFER.SVME)))

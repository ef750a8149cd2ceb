# SPDX-License-Identifier: GPL-2.0-or-later
"""Post-mortems of machines on the device: whatever state a guest left, examining it says so and raises nothing."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from vmm.abi.x86 import CR0
from vmm.errors import HostError
from vmm.kvm.vcpu import Vcpu
from vmm.machine.ends import Result, Why
from vmm.machine.machine import Machine
from vmm.machine.memory import layout
from vmm.observe.postmortem import PostMortem, examine
from vmm.payload.catalog import find
from vmm.payload.guest import Guest
from vmm.payload.header import MissingResult, parse
from vmm.payload.options import Options
from vmm.payload.run import run_payload
from vmm.report.style import Style
from vmm.report.text import postmortem_lines

UD2, HLT, SPIN = b"\x0f\x0b", b"\xf4", b"\xeb\xfe"
CODE = layout.REGIONS["code"].base
Booted = Callable[..., Machine]


def look(machine: Machine, result: Result) -> PostMortem:
    """Examined twice, to the same; and shown."""
    post = examine(machine, result)
    assert examine(machine, result) == post
    assert postmortem_lines(post, Style())
    return post


def test_registers_are_those_at_the_fault_and_not_the_gates(booted: Booted) -> None:
    machine = booted(b"\xb8\x34\x12\x00\x00\x54" + UD2)  # mov eax, 0x1234; push rsp; ud2
    result = machine.run(30)
    assert result.stop.why is Why.GUEST_FAULT
    post = look(machine, result)
    vcpu = post.vcpus[0]
    assert (vcpu.rip, vcpu.registers["rax"]) == (CODE + 6, 0x1234)
    assert vcpu.registers["rsp"] == layout.cpu_block(0).boot_stack_top - 8
    assert post.fault
    assert (post.fault.vector, post.fault.cr2) == (6, None)
    assert len(vcpu.walks) == 1


def test_a_page_fault_shows_both_walks(booted: Booted) -> None:
    machine = booted(b"\xbb\x08\x00\x00\x00\x8a\x03")  # mov ebx, 8; mov al, [rbx]
    post = look(machine, machine.run(30))
    assert post.fault
    assert (post.fault.vector, post.fault.error_code, post.fault.cr2) == (14, 0, 8)
    assert "supervisor read from a page that is not present at 0x8" in post.fault.detail
    assert [walk[0].split(",")[0] for walk in post.vcpus[0].walks] == [hex(CODE + 5), "0x8"]


def test_a_fault_on_a_stack_that_is_gone(booted: Booted) -> None:
    """The default gate of #PF has a stack of its own only where the layout gives it one; either way it is said."""
    machine = booted(b"\x31\xe4\x50")  # xor esp, esp; push rax
    result = machine.run(30)
    post = look(machine, result)
    assert result.stop.why in (Why.GUEST_FAULT, Why.SHUTDOWN, Why.INTERNAL_ERROR)
    assert post.reason


def test_a_fault_frame_that_cannot_be_read(booted: Booted) -> None:
    """A guest may use the fault port itself, with RSP at nothing."""
    machine = booted(b"\x48\xc7\xc4\x00\x00\xff\x7f\xe6\xf5\xf4")  # mov rsp, 0x7fff0000; out 0xf5, al
    result = machine.run(30)
    assert result.stop.why is Why.GUEST_FAULT
    post = look(machine, result)
    assert post.fault is None
    assert post.notes[0].startswith("the fault frame could not be read: ")
    assert post.vcpus[0].registers["rsp"] == 0x7FFF0000


def test_code_that_cannot_be_read(booted: Booted) -> None:
    machine = booted(b"\xb8\x00\x00\x00\x10\xff\xe0")  # mov eax, 0x10000000; jmp rax
    post = look(machine, machine.run(1))
    assert post.vcpus[0].rip >> 28 == 1
    assert not [row for row in post.vcpus[0].code if row.here]


def test_page_tables_that_are_gone(booted: Booted) -> None:
    machine = booted(SPIN)
    result = machine.run(0.05)
    sregs = machine.cpus[0].vcpu.get_sregs()
    sregs.cr3 = 0x7FFF0000
    machine.cpus[0].vcpu.set_sregs(sregs)
    post = look(machine, result)
    assert not post.vcpus[0].code
    assert "no RAM at the entry" in "\n".join(post.vcpus[0].walks[0])


def test_no_paging_and_real_mode(booted: Booted) -> None:
    machine = booted(SPIN)
    result = machine.run(0.05)
    vcpu = machine.cpus[0].vcpu
    sregs = vcpu.get_sregs()
    sregs.cr0, sregs.cr4, sregs.efer = sregs.cr0 & ~int(CR0.PG | CR0.PE), 0, 0
    sregs.cs.l, sregs.cs.db, sregs.cs.base, sregs.cs.selector = 0, 0, CODE, CODE >> 4
    vcpu.set_sregs(sregs)
    regs = vcpu.get_regs()
    regs.rip = 0
    vcpu.set_regs(regs)
    state = look(machine, result).vcpus[0]
    assert state.mode == "real mode"
    here = [row for row in state.code if row.here]
    assert [(row.address, row.bytes) for row in here] == [(CODE, "eb fe")], "RIP counts from the base of CS"


def test_every_vcpu_is_there_the_one_that_ended_it_first(booted: Booted) -> None:
    machine = booted(SPIN + UD2, aps={1: 0, 2: 2}, cpus=[0, 3, 7])
    result = machine.run(30)
    assert (result.stop.why, result.vcpu) == (Why.GUEST_FAULT, 2)
    post = look(machine, result)
    assert [(each.index, each.apic_id) for each in post.vcpus] == [(2, 7), (0, 0), (1, 3)]
    assert [each.rip for each in post.vcpus] == [CODE + 2, CODE, CODE]
    assert post.fault


@pytest.mark.parametrize("irqchip", ["kernel", "split"])
def test_asleep_in_hlt(irqchip: str, booted: Booted) -> None:
    machine = booted(HLT, irqchip=irqchip)
    result = machine.run(0.1)
    post = look(machine, result)
    assert result.stop.why is Why.TIME_LIMIT
    assert "HLT with interrupts off" in post.hint
    assert post.vcpus[0].mp_state == 3


def test_a_vcpu_that_cannot_be_asked_is_a_note(booted: Booted, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = booted(SPIN, irqchip="kernel")
    result = machine.run(0.05)

    def refuse(self: Vcpu) -> None:
        raise HostError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(Vcpu, "get_mp_state", refuse)
        assert examine(machine, result).vcpus[0].mp_state is None
    monkeypatch.setattr(Vcpu, "get_regs", refuse)
    post = examine(machine, result)
    assert (post.vcpus, post.notes, post.hint) == ((), ("vCPU 0: no answer",), "")
    assert postmortem_lines(post, Style())[-1] == "  note  vCPU 0: no answer"


def test_an_instruction_that_the_emulator_lacks_is_shown_with_its_reason(booted: Booted) -> None:
    """Where ring 0 is emulated, popcnt ends the run; elsewhere it counts, and the guest halts."""
    machine = booted(b"\xf3\x48\x0f\xb8\xc0" + HLT)
    result = machine.run(30)
    if result.stop.why is Why.HALT:
        return
    post = look(machine, result)
    assert result.stop.why is Why.INTERNAL_ERROR
    assert "its emulator does not know" in post.hint
    assert [row.text for row in post.vcpus[0].code if row.here] == ["popcnt rax, rax"]


# What host halves read ---------------------------------------------------------------------------------------------

TYPES = parse(
    "; result: u8 u8\n; result: u16 u16\n; result: u32 u32\n; result: u64 u64\n; result: i64 i64\n; result: bool bool",
    "x",
)


@pytest.mark.parametrize("raw", [0, 1, 0xFF, 0x1_0000, 2**32, 2**63, 2**64 - 1])
def test_results_by_type(raw: int) -> None:
    with Guest(find("hlt")) as guest:
        for slot in TYPES.results.values():
            assert guest.value(slot) is None
            guest.machine.memory.write(layout.REGIONS["results"].base + slot.offset, struct.pack("<QB", raw, 1))
        got = {name: guest.value(slot) for name, slot in TYPES.results.items()}
    assert got == {
        "u8": raw & 0xFF, "u16": raw & 0xFFFF, "u32": raw & 0xFFFFFFFF, "u64": raw,
        "i64": raw if raw < 2**63 else raw - 2**64, "bool": int(bool(raw)),
    }  # fmt: skip


def test_results_can_be_cleared_for_another_run() -> None:
    with Guest(find("hlt")) as guest:
        guest.run(30)
        assert guest["reached"] == 1
        guest.clear_results()
        assert guest.results == {"reached": None}
        with pytest.raises(MissingResult, match="stored no result 'reached'"):
            guest["reached"]


def test_expectations_are_kept_with_their_numbers() -> None:
    with Guest(find("hlt")) as guest:
        assert guest.equal("a", 1, 1)
        assert not guest.equal("b", 16, 17)
        assert not guest.equal("c", True, 0x10)
        assert not guest.expect(0, "d")
        assert guest.failures == ["b is 0x10, and should be 0x11", "c is True, and should be 0x10", "d"]


def test_drive_in_place_of_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from guest_payloads.basics import pio

    def twice(guest: Guest) -> None:
        guest.run(0.0)
        guest.run(30)

    monkeypatch.setattr(pio, "drive", twice, raising=False)
    assert run_payload(find("pio"), Options(timeout=30)).outcome == "pass"
    monkeypatch.setattr(pio, "drive", lambda guest: None)
    with pytest.raises(Exception, match="host half of pio never ran its guest"):
        run_payload(find("pio"), Options(timeout=30))


# -- why, by what the guest's state says

RING3 = """
; user: user_begin user_end
%include "results.inc"
%include "ring3.inc"
start:
{}
    ENTER_RING3 user
kernel:
    PASS
%include "idt.inc"
.align 4096
user_begin:
user:
    {}
    ud2
.align 4096
user_end:
"""
BY_INT = RING3.format(
    "    mov edi, 0x80\n    lea rsi, [rip + kernel]\n    call set_gate\n"
    "    or byte ptr [IDT_BASE + 0x80 * 16 + 5], 0x60",
    "int 0x80",
)
BY_SYSCALL = RING3.format(
    "    mov ecx, MSR_LSTAR\n    lea rax, [rip + kernel]\n    xor edx, edx\n    wrmsr\n    mov ecx, MSR_STAR\n"
    "    xor eax, eax\n    mov edx, 0x00180008\n    wrmsr",
    "syscall",
)


@pytest.mark.parametrize(
    ("text", "said"),
    [("start: mov eax, 1", "RIP is past the last byte of the program, which ends at 0x20005"),
     ("start: mov rsp, 0x100000\n push rax\n hlt", "The stack is at its end: RSP is 0x100000, and 0xffff8 below it"),
     ("start: sub rsp, 0x5000\n mov [rsp + 0x2800], al\n hlt",
      "0xff800 (guard+0x800) is below a boot stack, which has 8192 bytes: RSP is 0xfd000"),
     ("start: mov rax, 0xd0000000\n mov cr3, rax\n hlt", "CR3 is 0xd0000000, and there is no RAM at 0xd0000000"),
     ("start: lgdt [rip + g]\n mov ax, 0x10\n mov ss, ax\n hlt\ng: .word 0xfff\n .quad 0xd0000000",
      "GDTR says 0xd0000000"),
     (BY_INT, "cannot call a gate by INT n"), (BY_SYSCALL, "came here by the SYSCALL at 0x21000")],
)  # fmt: skip
def test_why_by_the_state_of_the_guest(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "own.asm"
    file.write_text(text, encoding="utf-8")
    outcome = run_payload(find(str(file)), Options(timeout=2.0))
    if outcome.outcome == "pass":  # INT and SYSCALL work on most hosts
        assert text in (BY_INT, BY_SYSCALL)
        return
    assert outcome.postmortem is not None
    if text.startswith("start: lgdt") and outcome.outcome == "fail" and not outcome.postmortem.hint:
        return  # a host whose CPU loads SS without a look at memory that answers
    assert said in outcome.postmortem.hint


def test_a_guest_that_was_in_ring_3_is_shown_in_ring_3(tmp_path: Path) -> None:
    file = tmp_path / "own.asm"
    file.write_text("; machine: ring=3\n; user: start b\n.align 4096\nstart: ud2\n.align 4096\nb:", encoding="utf-8")
    outcome = run_payload(find(str(file)))
    assert outcome.postmortem is not None
    vcpu = outcome.postmortem.vcpus[0]
    assert vcpu.segments["cs"].endswith("dpl 3")
    assert any(text.startswith("OUT port 0xf5 (fault port), 1 byte") for text in vcpu.last_exits)

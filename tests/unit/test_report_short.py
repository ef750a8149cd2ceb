# SPDX-License-Identifier: GPL-2.0-or-later
"""The short post-mortem: few lines, and the ones that matter."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmm.observe.postmortem import CodeLine, FaultInfo, PostMortem, VcpuState
from vmm.payload.outcome import Outcome
from vmm.report.short import named_registers, short_lines
from vmm.report.style import Style
from vmm.report.text import outcome_lines, postmortem_lines

PLAIN = Style()
GPRS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)))
CODE = tuple(
    CodeLine(0x20000 + 4 * number, "90 90 90 90", text, text == "mov dword ptr [rdi], eax")
    for number, text in enumerate(
        ("mov r15, 1", "mov edi, 0x7000", "lea r9d, [rbx]", "mov dword ptr [rdi], eax", "add rbp, 1")
    )
)
VCPU = VcpuState(
    index=0,
    apic_id=0,
    rip=0x2000C,
    where="start+0xc",
    mode="64-bit ring 0",
    mp_state=None,
    registers=dict.fromkeys(GPRS, 7) | {"rdi": 0x7000, "rip": 0x2000C, "rflags": 0x246},
    control=dict.fromkeys(("cr0", "cr2", "cr3", "cr4", "efer", "apic_base"), 0),
    segments={"cs": "CS!", "ss": "SS!", "tr": "TR!"},
    code=CODE,
    walks=(
        ("0x2000c, paging 4-level", "  PTE   at ..", "  -> 0x2000c (code+0xc), 4 KiB page"),
        ("0x7000, paging 4-level", "  PTE   at 0x000010038 = 0", "  no page: PTE at 0x10038: not present"),
    ),
    last_exits=("OUT one", "OUT two", "OUT three", "OUT port 0xf5 (fault port)"),
    source="a.asm:7  mov [rdi], eax",
)
FAULT = FaultInfo(14, "#PF (page fault)", 2, "supervisor write at 0x7000", 0x7000)
POST = PostMortem("the guest took an exception", "Because.", FAULT, (VCPU,), ("a note",))


def test_it_says_what_where_with_what_and_why() -> None:
    assert short_lines(POST, PLAIN) == [
        "post-mortem: the guest took an exception",
        "  exception  #PF (page fault), error code 0x2: supervisor write at 0x7000",
        "  vCPU 0 (APIC id 0, 64-bit ring 0) at 0x2000c start+0xc",
        "    a.asm:7  mov [rdi], eax",
        "      0x20004  90 90 90 90                     mov edi, 0x7000",
        "      0x20008  90 90 90 90                     lea r9d, [rbx]",
        "  ->  0x2000c  90 90 90 90                     mov dword ptr [rdi], eax",
        "  rdi 0x7000  rax 0x7  r9 0x7  rbx 0x7",
        "  0x7000: no page: PTE at 0x10038: not present",
        "  before  OUT two",
        "  before  OUT three",
        "  why  Because.",
        "  note  a note",
        "  try  `pyvmm explain 0x7000`: what lies there; -v: every register, page walks, each vCPU, the exits before",
    ]


def test_the_outcome_has_it_when_asked_and_the_whole_otherwise() -> None:
    outcome = Outcome("x", "fail", "why", postmortem=POST)
    assert outcome_lines(outcome, PLAIN, short_lines)[:-1] == short_lines(POST, PLAIN)
    assert outcome_lines(outcome, PLAIN)[:-1] == postmortem_lines(POST, PLAIN)


def test_sixteen_lines_hold_the_largest() -> None:
    many = tuple(replace(VCPU, index=number, apic_id=number) for number in range(64))
    lines = short_lines(replace(POST, vcpus=many, notes=()), PLAIN)
    assert len(lines) <= 18
    assert "  and 60 vCPUs more" in lines


def test_what_is_not_known_has_no_line() -> None:
    assert short_lines(PostMortem("why", "", None, ()), PLAIN)[0] == "post-mortem: why"
    bare = replace(VCPU, code=(), walks=(), last_exits=(), where="", source="")
    assert short_lines(PostMortem("why", "", None, (bare,)), PLAIN)[1:3] == [
        "  vCPU 0 (APIC id 0, 64-bit ring 0) at 0x2000c",
        "  rax 0x7  rsp 0x7",
    ]


def test_memory_of_zeroes_before_the_code_is_no_code() -> None:
    code = (
        CodeLine(0x1FFFE, "00 00", "add byte ptr [rax], al", False),
        CodeLine(0x20000, "eb fe", "jmp 0x20000", True),
    )
    assert "add byte" not in "\n".join(short_lines(replace(POST, vcpus=(replace(VCPU, code=code),)), PLAIN))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("mov ah, dil", ["rax", "rdi"]),
        ("mov r8b, bh", ["r8", "rbx"]),
        ("wrmsr", ["rcx", "rax", "rdx"]),
        ("rep movsb byte ptr [rdi], byte ptr [rsi]", ["rdi", "rsi", "rcx"]),
        ("push rax", ["rax", "rsp"]),
        ("jne 0x20000", ["rflags"]),
        ("jmp 0x20000", []),
        ("hlt", ["rflags"]),
        ("ud2", []),
        ("movaps xmm0, xmmword ptr [rsp + 8]", ["rsp"]),
        ("", []),
    ],
)
def test_the_registers_that_matter(text: str, names: list[str]) -> None:
    assert named_registers([CodeLine(0, "", text, True)]) == names


def test_a_guest_reaches_no_terminal_raw() -> None:
    evil = "\x1b[2J"
    code, walks = (CodeLine(0, "", evil, True),), ((evil, f"  no page {evil}"),)
    vcpu = replace(VCPU, where=evil, source=evil, odd=evil, last_exits=(evil, evil), walks=walks, code=code)
    text = "\n".join(short_lines(PostMortem(evil, "", replace(FAULT, detail=evil), (vcpu, vcpu), (evil,)), PLAIN))
    assert "\x1b" not in text
    assert text.count("\\x1b[2J") >= 9

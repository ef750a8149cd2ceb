# SPDX-License-Identifier: GPL-2.0-or-later
"""Where code is executed and none should be: said by the program's text. And what an instruction changed."""

from __future__ import annotations

import pytest

from vmm.asm.assembler import assemble
from vmm.asm.program import Line, Program
from vmm.kvm.state import Regs, Sregs
from vmm.machine.memory.layout import REGIONS
from vmm.observe.changes import changes
from vmm.observe.standing import Standing
from vmm.report.trace import changed_text

BASE = REGIONS["code"].base
TEXT = """start:
    mov   eax, 42
    jmp   over
counter: .quad 7
         .long 1
over:
    nop
    .balign 16
    .byte 0x0f, 0x0b
    nop
"""


@pytest.fixture(scope="module")
def program() -> Program:
    return assemble(TEXT, name="odd.asm", base=BASE, constants={}, cache=False)


def at(program: Program, label: str, offset: int = 0) -> str:
    return Standing().odd(program, program.symbols[label] + offset)


@pytest.mark.parametrize(
    ("label", "offset", "says"),
    [
        ("start", 0, ""),
        ("start", 2, "2 bytes into an instruction of odd.asm:2  mov   eax, 42"),
        ("counter", 0, "in data, not in code: counter, odd.asm:4  .quad 7"),
        ("counter", 9, "in data, not in code: counter+0x9, odd.asm:4  .quad 7"),
        ("over", 0, ""),
        ("over", 1, ""),  # filling
    ],
)
def test_where_a_vcpu_should_not_be(program: Program, label: str, offset: int, says: str) -> None:
    assert at(program, label, offset) == says


def test_an_instruction_by_hand_is_code(program: Program) -> None:
    for offset in (-3, -2):
        assert Standing().odd(program, program.end + offset) == ""


def test_past_the_end(program: Program) -> None:
    for address in (program.end, program.end + 0x100):
        assert Standing().odd(program, address) == "past the end of your program, which ends with odd.asm:10  nop"
    for address in (BASE - 1, REGIONS["code"].end, 0):
        assert Standing().odd(program, address) == ""


def test_of_compiled_code_the_bytes_say_it() -> None:
    stretches = (Line(BASE, 7, "x.c", 3, "return f(1);"),)
    made = Program("x.c", BASE, bytes.fromhex("b80100000031d2"), {"main": BASE}, (), stretches=stretches)
    assert Standing().odd(made, BASE + 5) == ""
    assert Standing().odd(made, BASE + 3) == "3 bytes into an instruction of x.c:3  return f(1);"
    assert Standing().odd(made, BASE + 7).startswith("past the end of your program")


def test_of_code_without_a_text_nothing_is_said() -> None:
    assert Standing().odd(Program("x.bin", BASE, b"\x90", {}, ()), BASE + 8) == ""
    assert Standing().odd(None, BASE) == ""


def test_changes_by_name() -> None:
    before, now = (Regs(rax=1, rip=5), Sregs(cr3=0x1000)), (Regs(rax=0x2A, rip=9), Sregs(cr3=0x2000))
    now[0].rflags |= 0x100 | 0x10000 | 0x40  # TF and RF are the step's
    now[1].cs.selector = 8
    now[1].gs.base = 0x5000
    found = changes(before, now)
    assert found == (
        ("rax", 1, 0x2A), ("rflags", 2, 0x42), ("cr3", 0x1000, 0x2000), ("cs", 0, 8), ("gs_base", 0, 0x5000),
    )  # fmt: skip
    assert changed_text(found[:2]) == "rax 0x1 -> 0x2a, rflags 0x2 -> 0x42 (ZF)"
    assert changed_text((("rflags", 0x42, 2),)) == "rflags 0x42 -> 0x2 (0)"
    assert changes(before, before) == ()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows, includes, macros, conditions, numbers: what Python does before any instruction is encoded."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from vmm.asm import assembler
from vmm.asm.program import Program
from vmm.asm.source import strip_comment
from vmm.errors import PayloadError

assemble = partial(assembler.assemble, base=0x20000)
assemble_file = partial(assembler.assemble_file, base=0x20000)


def asm(text: str, **options: object) -> Program:
    return assemble(text, constants={"TEN": 10, "BIG": 0x1122334455667788}, cache=False, **options)  # type: ignore[arg-type]


def code(text: str) -> str:
    return asm(text).code.hex(" ")


def refused(text: str) -> PayloadError:
    with pytest.raises(PayloadError) as caught:
        asm(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("nop ; comment", "nop"),
        ('.ascii "a;b" ; c', '.ascii "a;b"'),
        ("mov al, ';' ; x", "mov al, ';'"),
        (r'.ascii "a\";b" ; c', r'.ascii "a\";b"'),
        ("; all", ""),
    ],
)
def test_comments_respect_quotes(text: str, kept: str) -> None:
    assert strip_comment(text) == kept


@pytest.mark.parametrize(
    ("literal", "value"),
    [("10", 10), ("0x10", 16), ("0b101", 5), ("0o17", 15), ("10h", 16), ("0ffh", 255), ("'a'", 97), ("'\\n'", 10),
     ("TEN", 10), ("TEN*2+1", 21), ("(1<<4)|3", 19), ("~0 & 0xff", 255), ("7 % 4", 3), ("-7 / 2 + 8", 5), ("1 == 1", 1),
     ("!5", 0), ("regnum(r9)", 9), ("2 + 3 * 4 - 1", 13)],
)  # fmt: skip
def test_numbers_mean_what_they_say(literal: str, value: int) -> None:
    assert code(f"mov eax, {literal}") == "b8 " + value.to_bytes(4, "little").hex(" ")


@pytest.mark.parametrize(
    ("literal", "says"),
    [("017", "octal or decimal"), ("1f2", "0x1f2"), ("101b", "0b101"), ("0xg", "bad number"), ("'ab'", "single"),
     ("1/0", "division by zero"), ("1<<64", "shift by 64"), ("(1", "expected ')'"), ("nam", "unknown symbol 'nam'"),
     ("TEM", "did you mean TEN"), ("1 +", "a value is missing"), ("3f", "no local label 3"), ("#1", "comment starts")],
)  # fmt: skip
def test_bad_numbers_are_refused_in_words(literal: str, says: str) -> None:
    error = refused(f"    mov eax, {literal}")
    assert says in str(error)
    assert error.line == 1
    assert error.column >= 14


def test_wide_constants_and_their_order() -> None:
    assert code("mov rax, BIG").startswith("48 b8 88 77")
    assert code("mov eax, LATE\nLATE = EARLY + 1\nEARLY = 4") == "b8 05 00 00 00"
    assert code(".set A, 3\nB equ 4\nmov al, A + B") == "b0 07"
    assert code("TEN = 11\nmov al, TEN") == "b0 0b"  # the text's own definition wins
    assert "defined by itself" in str(refused("A = B\nB = A\nnop"))
    assert "already defined at <text>:1" in str(refused("A = 1\nA = 2"))
    assert asm("A = 1\nA = 1").code == b""
    assert "both a label and a constant" in str(refused("A = 1\nA: nop"))
    assert "register" in str(refused("rax = 1"))


def test_here_in_a_constant_is_its_own_line() -> None:
    assert code('msg: .ascii "abc"\nlen = . - msg\nnop\nmov al, len') == "61 62 63 90 b0 03"


def test_local_labels() -> None:
    assert code("1: jmp 1f\nnop\n1: jmp 1b") == "eb 01 90 eb fe"
    assert "no local label 1: before" in str(refused("jmp 1b\n1:"))
    assert "no local label 2: after" in str(refused("jmp 2f"))


def test_macros() -> None:
    text = ".macro PUT reg, value=7\n mov \\reg, \\value\nl\\@: nop\n.endm\nPUT al\nPUT value=9, reg=cl\n"
    program = asm(text)
    assert program.code.hex() == "b00790b10990"
    assert program.symbols == {"l0": 0x20002, "l1": 0x20005}
    assert (program.lines[0].line, program.lines[0].origin) == (5, "PUT (<text>:2)")


def test_macros_nest_and_paste() -> None:
    assert code(".macro A x\n.byte \\x\\()0\n.endm\n.macro B y\nA \\y\nA 2\n.endm\nB 1") == "0a 14"
    assert code(".macro A x\n.byte \\x\n.endm\nA (1, 2)"[:-6] + "'a'") == "61"


@pytest.mark.parametrize(
    ("text", "says", "line"),
    [
        (".macro A x\n mov \\x, foo\n.endm\n\nA eax", "unknown symbol 'foo' (in A, used at <text>:5)", 2),
        (".macro A\nA\n.endm\nA", "does it use itself", 2),
        (".macro A x\nnop\n.endm\nA", "needs a value for 'x'", 4),
        (".macro A x\nnop\n.endm\nA 1, 2", "too many", 4),
        (".macro A\nnop", ".macro without .endm", 1),
        (".endm", "without its opening", 1),
        (".macro A\n.endm\n.macro A\n.endm", "already defined", 3),
        (".macro A\n.macro B\n.endm\n.endm", "cannot define another", 2),
        (".macro 1\n.endm", ".macro wants a name", 1),
        (".rept 1000000\nnop\n.endr", "out of range", 1),
        (".rept x\nnop\n.endr", "no constant known", 1),
        (".if 1\nnop", ".if without .endif", 1),
        ('.error "stop here"', "stop here", 1),
        (". = 0x100", "current address cannot be set", 1),
        (r".byte \x", "macro parameters exist only", 1),
    ],
)
def test_macro_mistakes(text: str, says: str, line: int) -> None:
    error = refused(text)
    assert says in str(error)
    assert error.line == line


def test_repetition_and_conditions() -> None:
    assert code(".rept 3\n.byte 1\n.endr") == "01 01 01"
    assert code(".irp r, al, cl\nmov \\r, 1\n.endr") == "b0 01 b1 01"
    branch = (
        "A = {}\n.if A == 1\n.byte 1\n.elseif A == 2\n.if 1\n.byte 2\n.else\n.byte 9\n.endif\n.else\n.byte 3\n.endif"
    )
    assert [code(branch.format(n)) for n in (1, 2, 3)] == ["01", "02", "03"]
    assert code(".ifdef TEN\n.byte 1\n.endif\n.ifndef NO\n.byte 2\n.endif") == "01 02"
    assert code(".macro A x=\n.ifb \\x\n.byte 0\n.else\n.byte \\x\n.endif\n.endm\nA\nA 5") == "00 05"


def test_include(tmp_path: Path) -> None:
    inc = tmp_path / "inc"
    inc.mkdir()
    (inc / "one.inc").write_text('%include "two"\n')
    (inc / "two.inc").write_text("TWO = 2\nnop\nbogus eax\n")
    main = tmp_path / "main.asm"
    main.write_text('; summary: x\n%include "one"\nmov al, TWO\n')
    with pytest.raises(PayloadError, match="unknown instruction 'bogus'") as caught:
        assemble_file(main, constants={}, include_dirs=[inc], cache=False)
    assert (caught.value.file, caught.value.line) == (str(inc / "two.inc"), 3)
    (inc / "two.inc").write_text("TWO = 2\nnop\n")
    assert assemble_file(main, constants={}, include_dirs=[inc], cache=False).code.hex() == "90b002"
    (inc / "two.inc").write_text('%include "one"\n')
    with pytest.raises(PayloadError, match="includes itself"):
        assemble_file(main, constants={}, include_dirs=[inc], cache=False)


def test_include_mistakes(tmp_path: Path) -> None:
    error = refused('nop\n  %include "nowhere"')
    assert "'nowhere' not found" in str(error)
    assert (error.line, error.column) == (2, 12)
    assert "a name in quotes" in str(refused("%include nowhere"))
    with pytest.raises(PayloadError, match="cannot read the source"):
        assemble_file(tmp_path / "no.asm", constants={}, cache=False)
    (tmp_path / "bin.asm").write_bytes(b"nop\n\xff")
    with pytest.raises(PayloadError, match="not a text file"):
        assemble_file(tmp_path / "bin.asm", constants={}, cache=False)


@pytest.mark.parametrize(
    ("text", "says"),
    [("mov %eax, %ebx", "AT&T"), ("movl $5, %eax", "AT&T"), ("section .text", ".section NAME"), ("db 1", ".byte"),
     ("bits 64", ".code64"), (".org 0x100", "host's"), ('.include "x"', "%include"), (".octa 1", "two .quad"),
     (".bytee 1", "did you mean .byte"), ("movv eax, 1", "did you mean mov"), ("rdpid rax", '%include "insns.inc"'),
     ("%define A 1", "NAME = value"), ("x" * 5000, "longer than"), ("eax: nop", "register"), (".: nop", "current"),
     ("a: nop\na: nop", "already at <text>:1"), (".ascii abc", "double quotes"), ('.ascii "abc', "does not end"),
     ('.byte "abc"', ".ascii"), (".byte", "takes"), (".byte 256", "8 bits"), (".word 65536", "16 bits"),
     (".quad 1 << 63 << 1", "64 bits"), (".skip -1", "count"), (".skip 1 << 30", "count"), (".fill 1, 3", "size"),
     (".p2align 21", "power of two"), (".align 3", "power of two"), ('.ascii "\\q"', "unknown escape"),
     ("A = lab\n.if A\n.endif\nlab:", "no constant known"), ("s: .skip e - s + 1\ne:", "layout does not settle")],
)  # fmt: skip
def test_refusals(text: str, says: str) -> None:
    assert says in str(refused(text))


# -- words that lead on -------------------------------------------------------------------------------------------


def test_a_macro_without_its_include_is_named_with_the_file() -> None:
    """`RESULT x` offered dx, cx and bx."""
    error = refused("  RESULT answer")
    assert 'there is a macro RESULT, but its file is not included: %include "results.inc"' in str(error)
    assert (error.line, error.column) == (1, 3)
    assert '%include "apic.inc"' in str(refused("X2APIC_SEND 1, 0x500"))
    assert "unknown symbol 'answer'" in str(refused("mov eax, answer")), "a known instruction is not to blame"


def test_an_undeclared_result_is_said_with_its_declaration() -> None:
    error = refused('RESULTS_BASE = 0x1000\n%include "results.inc"\nRESULT answer')
    assert "; result: answer u64" in str(error)
    assert "used at <text>:3" in str(error)
    assert "; param: often = 1" in str(refused("mov eax, PARAM_often"))


def test_a_missing_include_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.asm").write_text('%include "nowhere"')
    with pytest.raises(PayloadError) as caught:
        assemble_file("x.asm", constants={}, include_dirs=[""], cache=False)
    assert "looked in the current folder, where x.asm is)" in str(caught.value)
    with pytest.raises(PayloadError, match="looks nowhere"):
        assemble('%include "nowhere"', constants={}, include_dirs=[], cache=False)


# -- what a source may cost -----------------------------------------------------------------------------------------

DOUBLING = ".macro A n\n .if \\n\n A \\n-1\n A \\n-1\n .endif\n.endm\nstart: A 40"


@pytest.mark.no_cover  # the same few lines a million times: followed one by one they take thrice as long
@pytest.mark.parametrize(
    ("text", "says", "line"),
    [
        (DOUBLING, "macro A: more than", 0),
        (".macro A n\n .if \\n\n A (\\n-1)\n A (\\n-1)\n.endif\n.endm\nA 30", "macro A", 0),
        (".macro A\nB\nB\n.endm\n.macro B\nC\nC\n.endm\n.macro C\n.endm\n.rept 10000\nA\n.endr", "macro [ABC]", 0),
        (".macro A x\nA \\x\\x\n.endm\nA 1", "nested|longer than", 2),
        (".rept 100000\n.rept 100000\n.endr\n.endr", "more than 200000 lines", 0),
        (".rept 1000\n.rept 1000\nnop\n.endr\n.endr", "more than 200000 lines", 0),
        (".rept 1 << 60\n.endr", "out of range", 1),
        (".rept 100000\n.irp x, 1, 2, 3\n.endr\n.endr", "more than 200000 lines", 0),
        (".irp x, " + ", ".join(["1"] * 1000) + "\n.byte " + "\\x," * 800 + "1\n.endr", "more than 262144 char", 2),
        (".space 1 << 40", "no sensible count", 1),
        (".zero 16777217", "no sensible count", 1),
        (".fill 1 << 30, 8", "no sensible count", 1),
        (".rept 20\n.space 1 << 20\n.endr", "grows beyond", 2),
        (".comm x, 1 << 60", "no sensible count", 1),
        ("a: .p2align 40", "power of two", 1),
        ("x = " + "(" * 200 + "1" + ")" * 200, "nested too deeply", 1),
        (".if 1\n" * 3000 + ".endif\n" * 3000, "nested|more than", 0),
    ],
)  # fmt: skip
def test_what_grows_without_end_is_refused(text: str, says: str, line: int) -> None:
    """No bound is a time: each ends after as much work as a hundred of the largest payloads that come with pyvmm."""
    error = refused(text)
    assert re.search(says, str(error)), str(error)
    assert error.line == line or not line
    assert len(str(error)) < 1000, "a chain of macro uses is cut"


@pytest.mark.parametrize(
    ("line", "left"),
    [("push rbp #", "push rbp"), ("sub rsp, 16\t#,", "sub rsp, 16"), ("mov eax, 5 # tmp", "mov eax, 5"),
     ("mov al, #5", "mov al, #5"), ('.ascii "a # b"', '.ascii "a # b"'), ("# a line", "")],
)  # fmt: skip
def test_a_hash_that_stands_alone_begins_a_comment(line, left):
    """gcc -fverbose-asm writes them; an immediate of another assembler is none."""
    assert strip_comment(line) == left

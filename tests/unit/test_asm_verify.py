# SPDX-License-Identifier: GPL-2.0-or-later
"""What was assembled is what was written: what keystone narrows is encoded rightly or refused, and nothing gets by."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from vmm.asm import assembler, branches, instruction, keystone_engine, mend, quirks, synonyms, verify
from vmm.asm.disassembler import disassemble
from vmm.asm.expand import Statement
from vmm.asm.expression import SourceError, Value
from vmm.asm.source import Row
from vmm.errors import PayloadError

assemble = partial(assembler.assemble, base=0x20000)

ROOT = Path(__file__).resolve().parents[2]
INSNS = ROOT / "guest_payloads" / "inc" / "insns.inc"


def code(text: str) -> str:
    return assemble(text, constants={}, cache=False).code.hex()


def lookup(name: str, column: int) -> Value:
    raise SourceError(f"no {name}", column)


def differs(text: str, data: bytes, mode: int = 64, address: int = 0x1000) -> str:
    """What is wrong with bytes that stand for a text; "" where nothing is."""
    word, _, rest = text.partition(" ")
    statement = Statement(Row("t", 1, text), word, 1, rest, len(word) + 2, {})
    try:
        verify.check(instruction.build(statement, mode, lambda word: []), data, lookup, address)
    except SourceError as e:
        return e.what
    return ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("push 0x7f\npush 0x80", "6a7f6880000000"),
        ("push 0xffff\npush 0xff80\npush 0x10000", "68ffff00006880ff00006800000100"),
        ("push -1\npush 0xffffffffffffff80\npush -0x80000000", "6aff6a806800000080"),
        (".code32\npush 0xffff\npush 0xffffff80\npush 0xffff8000", "68ffff00006a806800" "80ffff"),
        (".code16\npush 0xff80\ndata32 push 0x12345678", "6a80666878563412"),
        (".code32\ndata16 push 0x1234", "66683412"),
        ("ret 0xffff\nretf 0xfff0\nretfq 0xfff0", "c2ffffcaf0ff48caf0ff"),
        ("enter 0xffff, 0xff\n.code16\nenter 8, 0", "c8ffffffc8080000"),
        (".code32\nlgdt cs:[ebx]\nlidt fs:[ebx]\nsgdt es:[edi]\nlgdt [bx]\nsidt [bx]",
         "2e0f0113" "640f011b" "260f0107" "670f0117" "670f010f"),
        (".code32\ndata16 lgdt [ebx]", "660f0113"),
        (".code16\nlgdt fword ptr [bx]", "660f0117"),
        ("mov [rbx], ds\nmov word ptr [rbx], ds", "8c1b8c1b"),
        ("vpmovdb [rbx + 0x10], zmm1", "62f27e48318b10000000"),
        (".code16\nvpmovdb [bx + 0x10], zmm1", "62f27e48318f1000"),
        ("vpbroadcastd zmm1, [rbx + rcx*4 + 0x10]", "62f27d48588c8b10000000"),
        ("xchg ax, ax\nxchg eax, eax", "669087c0"),
        ("lar cx, cx\nlsl cx, cx", "660f02c9660f03c9"),
        (".code16\ndata32 call l\nl:", "66e800000000"),
        (".code32\ndata16 call l\nl:", "66e80000"),
        ("data16 pushf\n.code16\ndata32 iret", "669c66cf"),
        ("rep bsf eax, edi\nrep nop", "f30fbcc7f390"),
    ],
)  # fmt: skip
def test_what_keystone_narrows_is_right(text: str, expected: str) -> None:
    assert code(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("push 0xffff8000", "then push the register"), ("push 0xfffffff0", "64 bits|32 bits"),
        (".code16\npush 0x12345", "16 bits"), ("ret 0x10000", "does not fit"), ("retf -1", "does not fit"),
        ("enter 0x10000, 0", "16 bits"), ("enter 1, 0x100", "8 bits"), ("add cl, 0xfff0", "does not fit"),
        ("bt cx, 0xfff0", "does not fit"), ("imul cx, dx, 0x12345", "does not fit"), ("int 0x100", "int"),
        ("pshufd xmm1, xmm2, 0x100", "pshufd"), ("out 0x100, al", "out"), ("test cl, 0x1234", "does not fit"),
        ("movzx eax, [rbx]", "size of this memory"), ("vcvtsd2si ecx, [rbx]", "AVX-512"),
        ("vextractps ecx, xmm1, 1", "AVX-512"), ("faddp st(0), st(1)", "st"), ("xlatb [rcx]", "no operands"),
        ("data16 mov eax, ebx", "eax was written"), ("addr32 mov eax, [rbx]", "32 bits, not 64"),
        ("movzx cx, [rbx]", "size of this memory"), ("montmul", "wants rep"), ("lock add eax, ebx", "changes memory"),
        ("lock mov [rax], ebx", "changes memory"),
        ("data16 vaddps xmm0, xmm1, xmm2", "before VEX"), ("data16 call l\n.skip 300\nl:", "some processors"),
        (".code16\ncall dword ptr [bx]", "far pointer"), ("lgdt byte ptr [rax]", "byte ptr was written"),
        ("ud2b", "cannot|unknown|ud1|over"), ("fxsave byte ptr [rax]", "byte ptr was written"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_refused_in_words(text: str, says: str) -> None:
    with pytest.raises(PayloadError) as caught:
        code(text)
    assert re.search(says, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("text", "data", "mode"),
    [
        ("push 0xffff", "6aff", 64), ("push 0xfffffff0", "666af0", 64), ("ret 0x10001", "c20100", 64),
        ("enter 0x10008, 0", "c8080000", 64), ("lgdt [ebx]", "660f0113", 32), ("lgdt cs:[ebx]", "2e660f0113", 32),
        ("mov eax, ebx", "89d9", 64), ("mov eax, ebx", "01d8", 64), ("mov eax, ebx", "89d890", 64),
        ("mov eax, [rbx]", "8b4301", 64), ("mov eax, [rbx]", "8b01", 64), ("mov eax, [rbx]", "678b03", 64),
        ("mov eax, [rbx]", "648b03", 64), ("mov eax, fs:[rbx]", "8b03", 64), ("mov eax, [rbx + rcx*4]", "8b044b", 64),
        ("mov eax, [ebp]", "3e8b4500", 32), ("mov dword ptr [rbx], 1", "66c7030100", 64), ("inc eax", "f3ffc0", 64),
        ("add eax, 1", "f083c001", 64), ("movsb", "64a4", 64), ("movsb", "a5", 64), ("jmp 0x1010", "eb0f", 64),
        ("jmp rax", "ff28", 64), ("jmp far [rax]", "ff20", 64), ("jmp tbyte ptr [rax]", "ff28", 64),
        ("vaddps zmm1, zmm2, zmm3", "62f16c58" "58cb", 64), ("vaddps zmm1{k1}, zmm2, zmm3", "62f16c48" "58cb", 64),
        ("cmpltps xmm1, xmm2", "0fc2ca02", 64), ("vcmpps xmm1, xmm2, xmm3, 5", "c5e8c2cb01", 64),
        ("pclmulhqlqdq xmm1, xmm2", "660f3a44ca10", 64), ("fadd st(0), st(1)", "dcc1", 64), ("fsubp", "dee2", 64),
        ("xchg eax, eax", "90", 64), ("pushf", "669c", 64), ("iret", "66cf", 32), ("ret", "66c3", 16),
        ("retf", "66cb", 32), ("push ds", "661e", 32), ("ljmp 8:0x1234", "ea3412000009" "00", 32),
        ("vmovdqa64 zmm1, zmm2", "62f17d486fca", 32), ("aam", "d40b", 32), ("movzx eax, byte ptr [rbx]", "0fb703", 64),
        ("lea rax, [rip + 4]", "488d0505000000", 64), ("rep movsb", "a4", 64), ("addps xmm1, xmm2", "660f58ca", 16),
        ("vmload eax", "0f01da", 16), ("clwb [rbx]", "660fae33", 64), ("cdq", "99", 16),
    ],
)  # fmt: skip
def test_other_bytes_are_found_out(text: str, data: str, mode: int) -> None:
    expected = {"clwb [rbx]": ""}
    what = differs(text, bytes.fromhex(data), mode)
    assert (what == "") == (text in expected), what or f"{text} is believed to be {data}"


def test_the_error_says_what_was_written_what_came_out_and_what_to_write() -> None:
    what = differs("push 0xffff", b"\x6a\xff")
    assert what.startswith("push would come out as `push -1` (6a ff): 0xffff does not fit in this operand of push")
    assert what.endswith("push a register that holds it")


def test_every_instruction_is_verified_whoever_encodes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """keystone, the branches, the strings, the fixed ones, the mended ones: a wrong byte of any is refused."""
    monkeypatch.setattr(keystone_engine, "encode", lambda text, mode: b"\x90")
    monkeypatch.setattr(branches, "encode", lambda *_: b"\xeb\x11")
    monkeypatch.setattr(mend, "stack", lambda *_: b"\x6a\x02")
    monkeypatch.setattr(quirks, "FIXED", {("pushf", 64): b"\x9d"})
    monkeypatch.setattr("vmm.asm.strings.encode", lambda *_: b"\xa4")
    for text in ("mov eax, 1", "cpuid", "jmp 0x20000", "push 1", "pushf", "movs word ptr [rdi], word ptr [rsi]"):
        with pytest.raises(PayloadError, match="come out as"):
            code(text)
    assert code("nop") == "90"


@pytest.mark.parametrize("mode", [16, 32, 64])
def test_what_the_tables_say_is_accepted(mode: int) -> None:
    """Each row that stands for bytes is encoded and verified: a row that is wrong, or is needed no more, shows."""
    for (name, bits), data in synonyms.EXACT.items():
        if bits == mode:
            assert code(f".code{mode}\n{name}") == data.hex()
    for (text, bits), data in quirks.FIXED.items():
        if bits == mode:
            assert code(f".code{mode}\n{text}") == data.hex()


def test_the_tables_of_what_is_not_compared_are_in_the_docs() -> None:
    text = (ROOT / "docs" / "payloads.md").read_text(encoding="utf-8")
    for table in (synonyms.NO_WIDTH, synonyms.IMPLIED, {name for name, _ in synonyms.EXACT}):
        missing = [name for name in table if f"`{name}`" not in text]
        assert not missing, missing


# -- what capstone does not know -----------------------------------------------------------------------------------


def test_every_macro_of_insns_is_shown_by_its_name() -> None:
    """`serialize` was `.byte 0x0f` and an ADD, UD0 and UD1 lost a byte, CLUI was RDPKRU."""
    wrong = []
    for found in re.finditer(r"^\.macro (\w+)(.*)", INSNS.read_text(encoding="utf-8"), re.M):
        name, parameters = found[1], found[2]
        if name == "INSN_F3_REG":
            continue
        for argument in ("rcx", "r9") if "reg" in parameters else ("1", "0x10") if "imm" in parameters else ("",):
            data = assemble(f'%include "insns.inc"\n{name} {argument}', constants={}, cache=False).code
            rows = disassemble(b"\x90" + data + b"\xc3", 0)
            if [row.text.split()[0] for row in rows] != ["nop", name.replace("ptwriteq", "ptwrite"), "ret"]:
                wrong.append((name, argument, [row.text for row in rows]))
    assert not wrong


def test_ud0_and_ud1_keep_their_operands() -> None:
    rows = disassemble(bytes.fromhex("0fff8310000000 0fb9c1 0fb9"), 0)
    assert [row.text for row in rows] == ["ud0 eax, dword ptr [rbx + 0x10]", "ud1 eax, ecx", ".byte 0x0f", ".byte 0xb9"]
    assert [row.text for row in disassemble(bytes.fromhex("f30fc7f1"), 0, bits=32)] != ["senduipi rcx"]
    assert [row.text for row in disassemble(bytes.fromhex("0f01e890"), 0, count=1)] == ["serialize"]

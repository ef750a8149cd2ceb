# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes: the traps of keystone 0.9.2, the modes, labels and data. Expected bytes are those of GNU as unless said."""

from __future__ import annotations

import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.asm import assembler, keystone_engine, quirks
from vmm.asm.disassembler import disassemble
from vmm.asm.registers import REGISTERS
from vmm.errors import PayloadError, UsageError

assemble = partial(assembler.assemble, base=0x20000)


def code(text: str, base: int = 0x20000) -> str:
    return assemble(text, base=base, constants={}, cache=False).code.hex()


def refused(text: str) -> PayloadError:
    with pytest.raises(PayloadError) as caught:
        code(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # absolute operands: keystone makes them RIP-relative, or wrong
        ("mov ebx, [0x1000]", "8b1c2500100000"),
        ("mov dword ptr [0x7ffffffc], 1", "c70425fcffff7f01000000"),
        ("mov ebx, fs:[0x10]", "648b1c2510000000"),
        ("mov eax, [fs:0x10]", "648b042510000000"),
        ("lgdt [lab]\nlab:", "0f01142508000200"),
        ("mov rbx, [-8]", "488b1c25f8ffffff"),
        ("mov eax, [0xfed00000]", "a10000d0fe00000000"),
        ("movabs rax, [0x1000]", "48a10010000000000000"),
        # rsp as the second register is lost
        ("mov eax, [rcx + rsp]", "8b040c"),
        ("mov eax, [rcx + rsp*1]", "8b040c"),
        ("mov eax, [rbx*1 + rbp]", "8b441d00"),
        ("mov eax, [rcx + rcx]", "8b0409"),
        ("mov eax, [8*rcx + 16 - 4]", "8b04cd0c000000"),
        ("mov eax, [rbx - 4 + 8]", "8b4304"),
        # differences of labels inside brackets lose a half
        ("lea rax, [rbx + b - a]\na: nop\nb:", "488d430190"),
        ("mov cl, b - a\na: nop\nb:", "b10190"),
        ("jmp lab + 1\nlab: nop\nnop", "eb019090"),
        ("jmp short lab\nlab:", "eb00"),
        # rip-relative, with an immediate behind the displacement
        ("mov dword ptr [rip + lab], 0x12345678\nlab:", "c7050000000078563412"),
        ("mov eax, [rip + 0x10]", "8b0510000000"),
        ("lab: lea rax, [rip + lab]", "488d05f9ffffff"),
        ("lea rax, [rip + lab + 4]\nlab:", "488d0504000000"),
        # widths
        ("pushf\npopf", "9c9d"),
        ("sysretq\nsysretd\nsysexitq\nsysexitd", "480f070f07480f350f35"),
        ("movsd\nrep movsd\nmovsd xmm0, xmm1", "a5f3a5f20f10c1"),
        ("lar eax, bx\nlsl rax, cx", "0f02c3480f03c1"),
        ("lret", "cb"),
        ("vmload\nvmsave\nvmrun", "0f01da0f01db0f01d8"),
        ("jmp far [rax]\njmp tbyte ptr [r8]\ncall fword ptr [rax]", "ff2849ff28ff18"),
        ("jmp tbyte ptr [rax]", "48ff28"),
        ("and rax, 0xfffffffffffffff0", "4883e0f0"),
        ("and ax, 0xfff0", "6683e0f0"),
        ("shl eax, 1", "d1e0"),
        ("mov rax, 0xffffffff", "48b8ffffffff00000000"),
        ("mov byte [rax], 1", "c60001"),
        ("mov eax, offset lab\nlab:", "b805000200"),
        ("fadd st(0), st(1)", "d8c1"),
        ("vmovdqa32 zmm1{k1}{z}, [rax]", "62f17dc96f08"),
        ("lock inc dword ptr [rax]\nrepe cmpsb", "f0ff00f3a6"),
        # strings with operands: keystone crashes on some
        ("movs byte ptr [rdi], byte ptr [rsi]", "a4"),
        ("rep movs qword ptr [rdi], qword ptr [rsi]", "f348a5"),
        ("movs word ptr [edi], word ptr [esi]", "6766a5"),
        ("lods al, byte ptr fs:[rsi]", "64ac"),
        ("outs dx, dword ptr [rsi]\nins byte ptr [rdi], dx", "6f6c"),
        ("stos byte ptr [rdi]\nscas eax, dword ptr [rdi]", "aaaf"),
        # 16-bit code
        (".code16\ncall lab\nlab: ret", "e80000c3"),
        (".code16\nret 4\nretf 4\nretf", "c20400ca0400cb"),
        (".code16\npush 0x1234\npush -1\npush 0xffff", "6834126aff6aff"),
        (".code16\nljmp 8:0x1234", "ea34120800"),
        (".code16\ndata32 ljmp 8:lab\nlab:", "66ea080002000800"),
        (".code16\nmov ax, [bx + si + 4]\nmov eax, [ebx + ecx*4]", "8b400467668b048b"),
        (".code16\nlgdt [0x1234]\ndata32 lgdt [0x1234]", "0f01163412660f01163412"),
        (".code16\nrep movsd\nmovs word ptr [di], word ptr [si]", "f366a5a5"),
        (".code16\n jcxz lab\njecxz lab\nlab:", "e30367e300"),
        (".code16\nnop\n.p2align 2\nnop", "9090909090"),
        # 32-bit code
        (".code32\nlgdt [eax]\nlidt [lab]\nlab:", "0f01100f011d0a000200"),
        (".code32\npush ds\npop es\npush fs\npop gs", "1e070fa00fa9"),
        (".code32\nljmp 8:lab\nlab:", "ea070002000800"),
        (".code32\nljmp 8, lab\nlab:", "ea070002000800"),
        (".code32\nlcall 8:lab\nlab:", "9a070002000800"),
        (".code32\niret\npushf\npopf", "cf9c9d"),
        (".code32\nmov dword ptr [0xfed00000], ebx", "891d0000d0fe"),
        (".code32\nmov eax, [ebx + 0xffffffff]", "8b43ff"),
        # data
        ('.ascii "a;b\\n\\x41\\101", "c"\n.asciz "\xe9"', "613b620a414163c3a900"),
        (".byte 1, -1, 'a'\n.word 0x1234, -1\n.long 1\n.quad lab\nlab:", "01ff613412ffff010000001300020000000000"),
        (".skip 2\n.zero 1\n.space 2, 0x90\n.fill 2, 2, 0x1234\n.fill 1", "00000090903412341200"),
        ("nop\n.p2align 2\nnop\n.align 8, 0xcc\n.balign 2", "900f1f0090cccccc"),
        ("a: .skip 4 - (. - a)\nnop", "0000000090"),
        (".word lab - 0x20000, (lab >> 4) & 0xff\nlab:", "04000000"),
    ],
)  # fmt: skip
def test_bytes(text: str, expected: str) -> None:
    assert code(text) == expected


@pytest.mark.parametrize(
    ("text", "says", "column"),
    [
        ("mov dword ptr [0xfed00000], ebx", "sign-extend", 5),
        ("push 0x80000000", "does not fit", 6),
        ("cmp al, 0x100", "does not fit", 9),
        ("ret 0x10000", "does not fit", 5),
        ("mov eax, -0x80000001", "does not fit", 10),
        ("mov eax, [rbx + 0x100000000]", "displacement", 10),
        ("mov eax, [rbx + 0x80000000]", "displacement", 10),
        ("mov ah, r8b", "ah, bh, ch and dh", 5),
        ("mov ah, [r8]", "ah, bh, ch and dh", 5),
        ("mov spl, ah", "ah, bh, ch and dh", 10),
        ("movzx rax, ah", "ah, bh, ch and dh", 12),
        ("iret", "iretq", 1),
        ("sysret", "sysretq or sysretd", 1),
        ("into", "64-bit", 1),
        ("nop eax", ".p2align", 1),
        ("ljmp 8:0", "retfq", 6),
        ("mov [rax], 1", "size of this memory", 5),
        ("mov [rax], [rbx]", "two memory", 12),
        ("mov eax, bl", "different widths", 10),
        ("mov eax, [rip", "expected ']'", 14),
        ("mov eax, [rip + rax]", "rip takes no other", 17),
        ("mov eax, [rax + rbx + rcx]", "at most two", 23),
        ("mov eax, [rax*3]", "1, 2, 4 or 8", 14),
        ("mov eax, [rax*2 + rbx*2]", "only one register", 19),
        ("mov eax, [rsp*2]", "cannot be an index", 11),
        ("mov eax, [rsp + rsp]", "cannot be an index", 11),
        ("mov eax, [rax + ebx]", "different widths", 17),
        ("mov eax, [bx]", "16-bit addresses", 11),
        ("mov eax, [1 - rax]", "cannot be subtracted", 15),
        ("mov eax, [cr0]", "cannot address", 11),
        ("mov eax, 1 + rax", "register rax where a number", 14),
        ("mov eax, dword ptr 5", "brackets", 10),
        ("mov eax, fs:0x10", "fs:[...]", 10),
        ("mov eax, rip", "inside brackets", 10),
        ("mov eax,, ebx", "missing", 9),
        ("loop lab\n.skip 200\nlab:", "127", 6),
        ("jmp short lab\n.skip 200\nlab:", "127", 5),
        ("call short lab\nlab:", "no short form", 6),
        ("rep", "needs an instruction", 1),
        ("movsb byte ptr [rdi], byte ptr [rsi]", "takes no operands", 1),
        ("movs byte ptr [rsi], byte ptr [rdi]", "expected [rdi]", 6),
        ("movs byte ptr [rdi], word ptr [rsi]", "one width", 6),
        ("data32 nop", "changes nothing", 1),
        ("rex64 [rax + xmm1*4], 1", "the operands choose REX", 1),
        ("rep fs stosb", "fs:[...]", 5),
        ("mov ax, 0x12345", "does not fit", 9),
        ("fadd st(8)", "st(0) to st(7)", 9),
        ("out 0x1f0, al", "no such form", 12),
        ("mov qword ptr [0xb2028], 0x8000005003", "0x8000005003 has more than 32 bits: load it into a register", 26),
        ("mov [0xa1000], cr2", "`mov [0xa1000], cr2`: cr2 goes to and from a register only, as `mov rax, cr2`", 16),
    ],
)
def test_refused_with_column(text: str, says: str, column: int) -> None:
    error = refused(text)
    assert says in str(error)
    assert (error.line, error.column) == (1, column)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (".code32\nmov rax, 1", "64-bit code only"),
        (".code32\nmov eax, [rax]", "64-bit code only"),
        (".code32\nswapgs", "64-bit code only"),
        (".code32\njrcxz l\nl:", "does not exist in 32-bit"),
        (".code16\nmov eax, [0x12345]", "16 bits"),
        (".code16\nljmp 8:0x12345", "write `data32 ljmp`"),
        (".code16\nmov ax, [ax]", "[bx|bp]"),
        (".code16\npush 0x12345", "16 bits"),
        (".code32\nljmp 0x12345:0", "selector"),
        (".code32\naddr32 nop", "changes nothing"),
    ],
)
def test_refused_by_mode(text: str, says: str) -> None:
    assert says in str(refused(text))


def test_branches_grow_only_where_needed() -> None:
    near, far = "\n".join(["nop"] * 127), "\n".join(["nop"] * 128)
    assert code(f"jmp l\n{near}\nl:")[:4] == "eb7f"
    assert code(f"jmp l\n{far}\nl:")[:10] == "e980000000"
    assert code(f"je l\n{far}\nl:")[:12] == "0f8480000000"
    chain = "a: jmp c\n" + ".skip 124\n" + "b: jmp a\n" + "c:"  # one jump's growth pushes the other out of reach
    assert code(chain)[:4] == "eb7e"
    assert code("jmp 0x20000") == "ebfe"
    assert code(f"je l\njmp 0x20000\n{far}\nl:")[12:16] == "ebf8"  # it moved when the one before it grew
    assert code("xbegin l\nl:") == "c7f800000000"


def test_base_moves_labels_only() -> None:
    text = "start: lea rax, [rip + start]\nmov ebx, start\njmp start"
    assert code(text, 0x8000) == code(text, 0x20000).replace("00000200", "00800000")
    with pytest.raises(UsageError, match="0x7fffffff"):
        code("nop", 1 << 31)


def test_sizes_that_depend_on_each_other_settle() -> None:
    # `add` shrinks when the distance it adds is small, which its own size decides.
    text = "a: add ecx, b - a + 122\n.skip 2\nb:"
    assert code(text) in ("83c17f0000", "81c182000000" + "0000", "81c1820000000000")


def test_insns_macros_are_needed_and_right() -> None:
    assert code('%include "insns.inc"\nendbr64\nrdpid rax\nrdpid r9\nincsspq r10\numonitor rdi') == (
        "f30f1efa" "f30fc7f8" "f3410fc7f9" "f3490faeea" "f30faef7"
    )  # fmt: skip
    text = (Path(__file__).parents[2] / "guest_payloads/inc/insns.inc").read_text()
    names = [line.split()[1] for line in text.splitlines() if line.startswith(".macro ")]
    assert len(names) > 30
    assert [name for name in names if keystone_engine.knows(name.lower().replace("_", ""), 64)] == []


@pytest.mark.parametrize("text", ["1e", "0.", "1.5", "9 eax", "vaddps zmm0, zmm1, [rax]{1e}", "vaddps zmm0, zmm1{1.5}"])
def test_what_looks_like_a_float_never_reaches_keystone(text: str) -> None:
    assert refused(text).line == 1  # keystone would not come back


@pytest.mark.parametrize(
    "text", ["1e", "nop 1e3", "nop 0.", ".quad 1", "nop\n", "nop;nop", "Nop", "nop 10", "nop # x", ""]
)
def test_the_last_guard_before_keystone(text: str) -> None:
    with pytest.raises(keystone_engine.Refused, match="survives"):
        keystone_engine.encode(text, 64)


def test_broadcasts_and_rounding_pass() -> None:
    assert code("vaddps zmm0, zmm1, dword ptr [rax]{1to16}") == "62f174585800"
    assert code("vaddps zmm0, zmm1, zmm2, {rn-sae}") == "62f1741858c2"


def test_one_keystone_engine_never_sets_the_syntax() -> None:
    assert "syntax =" not in Path(keystone_engine.__file__).read_text()


# -- against GNU as -------------------------------------------------------------------------------------------------

CORPUS = """mov rax, 0x1122334455667788
mov qword ptr [r15 + 0x10], rax
mov r10d, dword ptr [rsp + r12*4 + 0x80]
movzx eax, byte ptr [rbx]
lea rdi, [rdi + rdi*8 - 0x80]
add qword ptr [rip + 0x20], 0x7f
imul r9, qword ptr [rbp], 0x1000
xchg qword ptr [rax], rbx
lock cmpxchg16b xmmword ptr [rdi]
bts dword ptr [rax], 0x3
mov cr8, rax
mov dr7, r9
invpcid rax, xmmword ptr [rbx]
xsavec64 [rdi]
cvtsi2sd xmm0, r8
vpaddd ymm1, ymm2, ymmword ptr [r9]
vmread rax, rbx
out dx, eax
in al, 0x60
shld eax, ebx, 0x4
sub rsp, -0x80
test r8b, 0x1
push qword ptr [rax + 0x8]
jmp qword ptr [rax + rbx*8]
enter 0x10, 0x0
crc32 eax, bl
movnti [rax], ebx
ltr word ptr [rax]
.code32
mov eax, [ebx + ecx*4 + 0x10]
mov dword ptr [0xfed00000], ebx
push 0x12345678
mov cr4, eax
les eax, [ebx]
.code16
mov word ptr [0x1234], 0x5678
mov eax, cr0
mov byte ptr [bp + 0x4], 0x1
int 0x10
movzx eax, al""".splitlines()


@pytest.mark.skipif(not shutil.which("as") or not shutil.which("objcopy"), reason="GNU as is not installed")
def test_corpus_agrees_with_gnu_as(tmp_path: Path) -> None:
    source = "\n".join(CORPUS) + "\n"
    (tmp_path / "x.s").write_text(source)
    run = ["as", "-msyntax=intel", "-mnaked-reg", "--64", "x.s", "-o", "x.o"]
    subprocess.run(run, cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "x.o", "x.bin"], cwd=tmp_path, check=True)
    assert code(source) == (tmp_path / "x.bin").read_bytes().hex()


# -- random input ---------------------------------------------------------------------------------------------------

GPR64 = sorted(row.name for row in REGISTERS.values() if row.kind == "gpr" and row.bits == 64)
INDEX = [name for name in GPR64 if name != "rsp"]
DISPLACEMENT = st.integers(-(1 << 31), (1 << 31) - 1)


@settings(deadline=None)
@given(st.sampled_from(GPR64), st.sampled_from(INDEX), st.sampled_from([1, 2, 4, 8]), DISPLACEMENT)
def test_every_address_is_read_back(base: str, index: str, scale: int, displacement: int) -> None:
    data = bytes.fromhex(code(f"lea rax, [{base} + {index}*{scale} + {displacement}]"))
    (row,) = disassemble(data, 0x20000)
    text = row.text.removeprefix("lea rax, [").removesuffix("]").replace(" ", "")
    want = f"{base}+{index}" + (f"*{scale}" if scale > 1 else "")
    if displacement:
        size = abs(displacement)
        want += ("-" if displacement < 0 else "+") + (f"{size:#x}" if size > 9 else f"{size}")
    assert text == want


@settings(deadline=None)
@given(st.sampled_from(GPR64), st.integers(-(1 << 63), (1 << 64) - 1))
def test_every_number_reaches_the_register(register: str, value: int) -> None:
    data = bytes.fromhex(code(f"mov {register}, {value}"))
    (row,) = disassemble(data, 0x20000)
    assert int(row.text.split(", ")[1], 0) & ((1 << 64) - 1) == value & ((1 << 64) - 1)


WORDS = st.sampled_from(
    [*quirks.COMMON.split(), *REGISTERS, ".byte", ".skip", ".macro m", ".endm", ".if", ".rept 2", ".endr", ".code16",
     "[", "]", "+", "*", ",", ",", ":", "(", "1f", "1:", "x", "x:", "x =", "10", "0xffffffff", "-1", "dword ptr", "fs:",
     '"', "'", "\\", "%include", "{k1}", "far", "rip", "\n", "\n", "\n"]
)  # fmt: skip


@pytest.mark.no_cover  # the same few lines a million times: followed one by one they take thrice as long
@settings(deadline=None, max_examples=300)
@given(st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=60))
def test_garbage_gives_bytes_or_a_payload_error(text: str) -> None:
    error = None
    try:
        program = assemble(text, constants={}, cache=False)
    except PayloadError as e:
        error = e
    if error:
        assert error.line
    else:
        assert sum(line.size for line in program.lines) == len(program.code)

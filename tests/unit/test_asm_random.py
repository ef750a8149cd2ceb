# SPDX-License-Identifier: GPL-2.0-or-later
"""Random instructions against GNU as: what pyvmm takes is what GNU as makes of the same text, or it is refused.

PYVMM_ASM_FORMS says how many forms are tried (2000); a long run takes 100000. The forms are of all mnemonics, operand
kinds, widths, addresses and numbers in 16-, 32- and 64-bit code, right ones and wrong ones.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from vmm.asm import assembler
from vmm.asm.disassembler import disassemble
from vmm.asm.registers import words
from vmm.errors import PayloadError

assemble = partial(assembler.assemble, base=0x20000)

PER_RUN = 200  # forms of one run of GNU as
FORMS = int(os.environ.get("PYVMM_ASM_FORMS", "2000"))

ONE = words(
    "inc dec neg not mul div idiv imul push pop call jmp bswap lgdt sidt lldt ltr str sldt smsw lmsw "
    "invlpg rdrand fld fst fstp fild fistp fadd fmul fsubr fxch fnstcw fldcw fnstsw fxsave xsave clflush "
    "setne seta rdfsbase ret retf int cmpxchg8b verr"
)
TWO = words(
    "mov add adc sub sbb and or xor cmp test xchg xadd cmpxchg lea movzx movsx movsxd imul bt bts btr btc "
    "bsf bsr popcnt lzcnt tzcnt shl shr sar rol rcr sal in out enter cmovne cmova crc32 movbe lar lsl lds "
    "les lfs lss bound movd movq movaps movups movdqa movdqu movsd movss addsd addps mulss paddd pxor "
    "xorps pshufb cvtsi2sd cvttsd2si comisd movmskps pmovmskb pslld psrldq movnti movhps unpcklps vmovdqa "
    "vmovups vaddpd vbroadcastss vpmovmskb vmread vmwrite invpcid invept fadd fsubp fcomi faddp adcx mulx"
)
THREE = words(
    "imul shld shrd pshufd shufps pinsrw pextrw pinsrd cmpps roundsd vaddpd vaddss vpaddd vpxor vshufps "
    "vpshufd andn bextr shlx rorx mulx pdep palignr vpermq vextractf128 vinsertf128 vfmadd231sd vpsllq "
    "vpcmpeqd vcmpps"
)
NONE = words(
    "nop hlt cli sti cld ret retf leave pushf popf cbw cwde cdq cwd cpuid rdtsc rdmsr wrmsr lahf sahf "
    "movsb stosw lodsd scasb cmpsw insb outsd clts wbinvd pause mfence lfence fninit fadd fmulp fxch "
    "xlatb int3 pushfd popfd iretd syscall sysenter swapgs vmcall monitor mwait xgetbv aam aad daa aaa "
    "into cmc stc clc emms vzeroupper cdqe cqo iretq pushfq stosq movsq pusha popad"
)
NUMBERS = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFF80, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000,
           0xFFFF8000, 0xFFFFFF80, 0xFFFFFFFF, 0x100000000, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFF80000000,
           0xFFFFFFFFFFFFFFF0, -1, -2, -0x80, -0x81, -0x8000, -0x80000000, -0x80000001)  # fmt: skip
SIZES = ("byte", "word", "dword", "qword", "fword", "tbyte", "xmmword", "ymmword")
SMALL = ("bx + si", "bp + di", "si", "di", "bp", "bx", "bx + di + 0x12", "bp - 0x80", "si + 0x1234", "bp + 0")
LEGACY = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")

needs_as = pytest.mark.skipif(not shutil.which("as"), reason="GNU as is not installed")


def registers(mode: int) -> list[str]:
    names = ["al", "cl", "dl", "bl", "ah", "bh", *LEGACY, *(f"e{name}" for name in LEGACY)]
    if mode == 64:
        names += [f"r{name}" for name in LEGACY] + words("sil bpl r8b r15b r9w r10d r12 r13 r15")
    return names


def address(pick: random.Random, mode: int) -> str:
    if mode != 64 and pick.random() < 0.3:
        return f"[{pick.choice(SMALL)}]"
    wide = "r" if mode == 64 else "e"
    names = [f"{wide}{name}" for name in LEGACY] + (["r8", "r12", "r13", "r15"] if mode == 64 else [])
    shape = pick.randint(1, 7)
    parts = [pick.choice(names)] if shape & 1 else []
    parts += [f"{pick.choice([name for name in names if name[1:] != 'sp'])}*{pick.choice((1, 2, 4, 8))}"] * (
        shape >> 1 & 1
    )
    number = pick.choice((0, 1, 0x10, 0x7F, 0x80, -0x80, -0x81, 0x1234, 0x7FFFFFFF, -0x80000000))
    if not parts:
        return f"[{abs(number) % (0x80000000 if mode == 64 else 0x8000):#x}]"  # GNU as cuts it in 16-bit code
    tail = f" {'-' if number < 0 else '+'} {abs(number):#x}" if shape & 4 else ""
    return f"[{' + '.join(parts)}{tail}]"


def operand(pick: random.Random, mode: int) -> str:
    kind = pick.randint(0, 9)
    if kind < 4:
        return pick.choice(registers(mode))
    if kind < 6:
        size = pick.choice(("", "", *(f"{name} ptr " for name in SIZES)))
        segment = pick.choice(("", "", "", "", "fs:", "gs:", "cs:", "ss:", "es:", "ds:"))
        return size + segment + address(pick, mode)
    if kind < 7:
        return pick.choice([f"{name}{number}" for name in ("xmm", "ymm", "mm") for number in (0, 1, 3, 7)])
    return (
        str(pick.choice(NUMBERS))
        if kind < 9
        else pick.choice(("ds", "fs", "ss", "cr0", "cr4", "dr7", "st(0)", "st(1)"))
    )


def form(pick: random.Random, mode: int) -> str:
    count = pick.choice((0, 1, 1, 2, 2, 2, 2, 3))
    mnemonic = pick.choice((NONE, ONE, TWO, THREE)[count])
    prefix = pick.choice(("",) * 12 + ("data16 ", "addr32 ", "data32 ", "addr16 "))
    operands = [operand(pick, mode) for _ in range(count)]
    if mnemonic in ("jmp", "call") and operands[0].lstrip("-").isdigit():
        operands = ["cx"]  # the distance to a number is a linker's
    return f"{prefix}{mnemonic} {', '.join(operands)}".strip()


def gnu(texts: list[str], mode: int, folder: Path) -> list[bytes | None]:
    """What GNU as makes of each line; None where it refuses."""
    refused: set[int] = set()
    while True:
        kept = [number for number in range(len(texts)) if number not in refused]
        head = [".intel_syntax noprefix", f".code{mode}"]
        (folder / "x.s").write_text("\n".join([*head, *(texts[number] for number in kept)]) + "\n")
        run = subprocess.run(
            ["as", "--64" if mode == 64 else "--32", "-o", "x.o", "-al", "--listing-rhs-width=100",
             "--listing-lhs-width=8", "x.s"],
            cwd=folder, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False,
        )  # fmt: skip
        bad = {int(found[1]) for found in re.finditer(r"^x\.s:(\d+): Error", run.stderr, re.M)}
        if not bad:
            break
        refused |= {kept[line - 1 - len(head)] for line in bad}
    found: dict[int, str] = {}
    for line in run.stdout.splitlines():
        if row := re.match(r"\s*(\d+) [0-9a-f]{4} ((?:[0-9A-F]+ ?)+)", line):
            found[kept[int(row[1]) - 1 - len(head)]] = row[2].replace(" ", "")
    return [bytes.fromhex(found[number]) if number in found else None for number in range(len(texts))]


def ours(text: str, mode: int) -> bytes | None:
    try:
        return assemble(f".code{mode}\n{text}", constants={}, cache=False).code
    except PayloadError:
        return None


# The same instruction in other words: MOV of a segment register, SLDT and STR look at or clear the upper half anyway,
# MOVQ of a number is MOV, `int 3` is CD 03 as written.
EQUAL = re.compile(
    r"(?:data16 |addr32 |data32 |addr16 )?(?:mov [defgs]s, |mov \w+, [defgs]s$|sldt |str |xchg |int 3$|movq r\w+, -?\d)"
)
UNNEEDED = re.compile(r"\bds:(?!\[[re]?[bs]p)|\bss:(?=\[[re]?[bs]p)")  # the segment that is meant anyway


PREFIXES = (0x66, 0x67, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0xF0, 0xF2, 0xF3)


def in_order(code: bytes) -> bytes:
    """With its prefixes in one order, which means nothing to a CPU; capstone reads `66 64 67 0f c3`, and not
    `64 67 66 0f c3`.
    """
    count = next((at for at, byte in enumerate(code) if byte not in PREFIXES), len(code))
    return bytes(sorted(code[:count], key=PREFIXES.index)) + code[count:]


def same(text: str, mine: bytes, theirs: bytes, mode: int) -> bool:
    if mine == theirs or EQUAL.match(text):
        return True
    ignored = re.compile(r"\b[cdes]s:|notrack ") if mode == 64 else UNNEEDED  # only FS and GS mean anything there
    for order in (bytes, in_order):
        read = (" ".join(row.text for row in disassemble(order(code), 0, bits=mode)) for code in (mine, theirs))
        one, other = (ignored.sub("", each) for each in read)
        if one == other:
            return True
    return False


def test_the_order_of_prefixes_is_no_difference_and_all_else_is() -> None:
    text, mine = "data16 movnti dword ptr fs:[bp + di], edi", bytes.fromhex("6664670fc37b00")
    assert same(text, mine, bytes.fromhex("6467660fc33b"), 32)
    assert not same(text, mine, bytes.fromhex("6567660fc33b"), 32)  # GS
    assert not same(text, mine, bytes.fromhex("6467660fc33a"), 32)  # [bp + si]


LONE = re.compile(r"\[(?!\w*bp)\w+\*1\]")
"""`[eax*1]` is `[eax]`, of which GNU as makes the longer encoding; capstone does not read every one of either."""


@needs_as
@pytest.mark.parametrize("mode", [16, 32, 64])
def test_random_forms_are_those_of_gnu_as_or_refused(mode: int, tmp_path: Path) -> None:
    taken = 0

    @settings(deadline=None, max_examples=max(1, FORMS // PER_RUN // 3), database=None, phases=[Phase.generate])
    @given(st.integers(0, 1 << 64))
    def run(seed: int) -> None:
        nonlocal taken
        pick = random.Random(seed)
        texts = [form(pick, mode) for _ in range(PER_RUN)]
        wrong = []
        for text, other in zip(texts, gnu(texts, mode, tmp_path), strict=True):
            mine = ours(text, mode)
            taken += mine is not None and other is not None
            if mine is not None and other is not None and not LONE.search(text) and not same(text, mine, other, mode):
                wrong.append(f"{text}: {mine.hex(' ')}, GNU as {other.hex(' ')}")
        assert not wrong, "\n".join(wrong)

    run()
    assert taken > 5, "hardly a form was taken by both: nothing was compared"

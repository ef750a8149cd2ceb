# SPDX-License-Identifier: GPL-2.0-or-later
"""What gcc writes with `-S -masm=intel` is accepted as it stands, and does what gcc's own object code does.

The functions of C_SOURCE are compiled twice: to assembly, which pyvmm assembles, and to a shared library. A process of
its own maps pyvmm's bytes at their address, calls both with the same numbers, and prints what came back.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from vmm.asm import assembler
from vmm.asm.registers import words
from vmm.errors import PayloadError

assemble = partial(assembler.assemble, base=0x20000)
assemble_file = partial(assembler.assemble_file, base=0x20000)

BASE = 0x10000000  # nothing of a Linux process is there
LEVELS = ("-O0", "-O2", "-Os", "-O3")

C_SOURCE = r"""
typedef unsigned long u64; typedef unsigned u32; typedef unsigned char u8;
static u32 table[8] = {1, 2, 3, 5, 8, 13, 21, 34};
static u64 counter, counters[4];
const char text[] = "hello \"world\"; \x81\n# no comment";
u64 sum(u64 n) { u64 s = 0; for (u64 i = 0; i < (n & 7); i++) s += table[i] * i; return s; }
u64 fib(u64 n) { n &= 15; return n < 2 ? n : fib(n - 1) + fib(n - 2); }
u64 count(u64 n) { counters[counter & 3] += n; return ++counter + counters[n & 3]; }
u64 choose(u64 n)
{
    switch (n & 15) {
    case 0: return 10; case 1: return 25; case 2: return choose(n + 7); case 3: return 7; case 4: return -1;
    case 5: return 99; case 6: return sum(n); case 9: return fib(n); default: return n;
    }
}
u64 length(u64 n) { u64 at = 0; while (text[at]) at++; return at * 256 + (u8)text[n % at]; }
double mean(double a, double b) { return (a + b) * 0.5 + 1.25; }
u64 floats(u64 n)
{
    float v[16], s = 0;
    for (int i = 0; i < 16; i++) v[i] = i + (int)(n & 0xff);
    for (int i = 0; i < 16; i++) s += v[i] * v[i];
    return (u64)s + (u64)mean((double)(n & 0xffff), 3.0);
}
long double wide(long double x) { return (x * 2.0L + 1.0L) / 3.0L; }
u64 x87(u64 n) { return (u64)(long)wide((long)(n & 0xffffff)); }
u64 mix(u64 n)
{
    u64 b = n * 0x9e3779b97f4a7c15ul;
    n ^= b << 13; n = (n >> 7) | (n << 57); n = n / ((b | 1) & 0xffff) + n % ((b | 1) + 2);
    return n + (u64)(((unsigned __int128)n * b) >> 64) + (int)n / 7 + (short)b + (signed char)n;
}
u64 bits(u64 n)
{
    return __builtin_ctzl(n | 256) + __builtin_clzl(n | 1) + __builtin_bswap32(n) + (n > 5 ? n & ~3ul : 1);
}
u64 (*const functions[])(u64) = {fib, sum, mix};
u64 through(u64 n) { return functions[n % 3](n); }
u64 copy(u64 n)
{
    u8 from[64], to[64];
    u64 s = 0;
    for (u32 i = 0; i < 64; i++) from[i] = n >> (i & 7);
    for (u32 i = 0; i < 64; i++) to[i] = from[63 - i] + 1;
    for (u32 i = 0; i < 64; i++) s = s * 31 + to[i];
    return s;
}
u64 atomics(u64 n)
{
    static u64 v;
    __atomic_store_n(&v, n, 5); __atomic_fetch_add(&v, 3, 5);
    u64 expected = n + 3;
    __atomic_compare_exchange_n(&v, &expected, expected * 2, 0, 5, 5);
    __atomic_thread_fence(5);
    return v;
}
struct s { int a; short b; char c; u64 d; };
u64 structs(u64 n)
{
    struct s v[3] = {{1, 2, 3, n}, {4, 5, 6, n * 2}, {7, 8, 9, n * 3}};
    u64 t = 0;
    for (int i = 0; i < 3; i++) t += v[i].a + v[i].b * v[i].c + v[i].d;
    return t;
}
u64 flags(u64 n)
{
    u64 f, back;
    __asm__ volatile("pushfq\n\tpop %0\n\tlea %1, [%0 + 1]" : "=r"(f), "=r"(back));
    return back - f + n;
}
"""
NAMES = words("sum fib count choose length floats x87 mix bits through copy atomics structs flags")
NUMBERS = [0, 1, 2, 3, 4, 5, 6, 9, 77, 0xFFFF, 0x12345678, 0x80000000, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFF1]

RUNNER = r"""
import ctypes, json, mmap, sys
image, library, order = sys.argv[1:]
job = json.load(open(order))
code = open(image, "rb").read()
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
room = libc.mmap(job["base"], len(code), 7, 0x100022, -1, 0)  # MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
assert room == job["base"], (room, ctypes.get_errno())
ctypes.memmove(room, code, len(code))
kind = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)
theirs = ctypes.CDLL(library)
for name in job["names"]:
    ours, other = kind(job["symbols"][name]), kind((name, theirs))
    print(name, [(n, ours(n), other(n)) for n in job["numbers"]])
"""

needs_gcc = pytest.mark.skipif(
    not shutil.which("gcc") or platform.machine() != "x86_64", reason="gcc for x86-64 is not installed"
)


@needs_gcc
@pytest.mark.parametrize("pic", ["-fno-pic", "-fPIE"])
@pytest.mark.parametrize("level", LEVELS)
def test_functions_of_gcc_do_what_gcc_says(level: str, pic: str, tmp_path: Path) -> None:
    (tmp_path / "x.c").write_text(C_SOURCE)
    flags = ["-masm=intel", "-ffreestanding", level]
    subprocess.run(["gcc", *flags, pic, "-S", "x.c", "-o", "x.s"], cwd=tmp_path, check=True)
    subprocess.run(["gcc", *flags, "-shared", "-fPIC", "-nostdlib", "x.c", "-o", "x.so"], cwd=tmp_path, check=True)
    program = assemble_file(tmp_path / "x.s", base=BASE, constants={}, cache=False)
    (tmp_path / "x.bin").write_bytes(program.code)
    job = {"base": BASE, "names": NAMES, "symbols": program.symbols, "numbers": NUMBERS}
    (tmp_path / "job").write_text(json.dumps(job))
    run = subprocess.run(
        [sys.executable, "-c", RUNNER, "x.bin", "./x.so", "job"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == len(NAMES)
    for line in lines:
        name, _, rows = line.partition(" ")
        for number, ours, theirs in json.loads(rows.replace("(", "[").replace(")", "]")):
            assert ours == theirs, f"{name}({number:#x}): {ours:#x}, with gcc's own object code {theirs:#x}"


@needs_gcc
@pytest.mark.parametrize("level", LEVELS)
def test_what_gcc_writes_for_32_bits_is_accepted(level: str, tmp_path: Path) -> None:
    source = "static int v[4] = {1, 2, 3, 4}; int n; int f(int i) { return v[i & 3] + n++; }\n"
    (tmp_path / "x.c").write_text(source)
    flags = ["-m32", "-masm=intel", "-ffreestanding", "-fno-pic", level, "-S"]
    subprocess.run(["gcc", *flags, "x.c", "-o", "x.s"], cwd=tmp_path, check=True)
    text = ".code32\n" + (tmp_path / "x.s").read_text()
    assert "f" in assemble(text, constants={}, cache=False).symbols


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mov ecx, OFFSET FLAT:x\nhlt\nx: .long 5", "b906000200f405000000"),
        ("mov eax, DWORD PTR x[rip]\nx:", "8b0500000000"),
        ("mov eax, DWORD PTR x[rip+4]\nx:", "8b0504000000"),
        ("mov eax, DWORD PTR x[0+rdi*4]\nx:", "8b04bd07000200"),
        ("mov BYTE PTR x[rdi], 1\nx:", "c6870700020001"),
        ("lea rax, x[rip-1]\nx:", "488d05ffffffff"),
        ("jmp [QWORD PTR x[0+rax*8]]\nx:", "ff24c507000200"),
        ("mov eax, DWORD PTR -4[rbp]", "8b45fc"),
        ("mov rax, QWORD PTR fs:40", "64488b042528000000"),
        ("mov eax, DWORD PTR x\nx:", "8b042507000200"),
        ("call f@PLT\nf:", "e800000000"),
        ("movsx rax, DWORD PTR [rdi]\nmovsx rax, ecx", "48630748" "63c1"),
        ("rep bsf eax, edi", "f30fbcc7"),
        ("lock\tadd QWORD PTR [rax], 3", "f048830003"),
        ("endbr64", "f30f1efa"),
        ("fstp TBYTE PTR [rsp]\nfaddp st(1), st\nfxch st(1)\nfld st(0)", "db3c24dec1d9c9d9c0"),
        ("# 1 \"x.c\" 1\n#APP\nnop\n\t#NO_APP", "90"),
        ("nop\n.p2align 4,,10\nnop", "9090"),
        ("nop\n.p2align 2,,10\nnop", "900f1f0090"),
    ],
)  # fmt: skip
def test_gcc_writes_it_so(text: str, expected: str) -> None:
    assert assemble(text, constants={}, cache=False).code.hex() == expected


def test_sections_are_joined_code_first() -> None:
    text = """.data
d: .byte 1
.section .rodata.str1.1,"aMS",@progbits,1
r: .byte 2
.bss
b: .zero 1
.section .debug_info,"",@progbits
.Ldebug: .byte 9
.text
start: nop
.pushsection .data
e: .byte 3
.popsection
nop
.comm c,8,8
.section .text.startup,"ax"
nop
.previous
nop
"""
    program = assemble(text, base=0x20000, constants={}, cache=False)
    assert program.code.hex() == "9090909002010300" + "00" * 8
    assert list(program.symbols) == words("start r d e b c")
    assert list(program.symbols.values()) == [0x20000, 0x20004, 0x20005, 0x20006, 0x20007, 0x20008]
    assert [line.address for line in program.lines] == sorted(line.address for line in program.lines)


def test_the_entry_is_start_then_underscore_start_then_the_first_byte() -> None:
    def entry(text: str) -> int:
        return assemble(text, base=0x20000, constants={}, cache=False).entry

    assert entry("nop\n_start: nop\nstart: nop") == 0x20002
    assert entry("nop\n_start: nop") == 0x20001
    assert entry("nop\nmain: nop") == 0x20000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mov rax, x@GOTPCREL[rip]\nx:", "compile with -fno-pic"),
        (".popsection", "without .pushsection"),
        (".section", "wants a name"),
        (".comm x", "a name, a size"),
        ("mov eax, DWORD PTR 5", "a number alone"),
        ("mov eax, x[rax][rbx][rcx]\nx:", "at most two registers"),
    ],
)
def test_refused_in_words(text: str, says: str) -> None:
    with pytest.raises(PayloadError, match="(?s)" + says.replace("(", r"\(")):
        assemble(text, constants={}, cache=False)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The fuzzer with guests: a magic number, a buffer's end, a hang; and what needs a machine beside it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from vmm.asm.assembler import assemble
from vmm.asm.elf_out import elf
from vmm.bench.processes import multiboot
from vmm.cli import main
from vmm.fuzz.blocks import blocks
from vmm.fuzz.elf_input import with_bytes
from vmm.fuzz.engine import Engine
from vmm.fuzz.folder import Folder, read_crash
from vmm.fuzz.targets.catalog import shipped
from vmm.machine.images.elf import Elf

pytestmark = pytest.mark.kvm

GUEST = """
start:  lea rdi, [rip + data]
        mov rsi, 16
        call look
        hlt
look:   cmp rsi, 8
        jb  .no
        cmp dword ptr [rdi], 0x6d6d7679
        jne .no
        cmp byte ptr [rdi + 4], 'a'
        jne .no
        cmp byte ptr [rdi + 5], 'q'
        jne .no
        cmp byte ptr [rdi + 6], 'k'
        jne .no
        cmp byte ptr [rdi + 7], 'z'
        jne .no
        ud2
.no:    xor eax, eax
        ret
stuck:  cmp byte ptr [rdi], 'A'
.hang:  je  .hang
        ret
reads:  mov al, [rdi + 4]
        ret
data:   .zero 16
"""


IN_C = """// summary: a length that is believed
#include <pyvmm.h>
unsigned char packet[24];

__attribute__((noinline)) static int parse(const unsigned char *p)
{
    char name[8];

    if (p[0] != 0x7e || p[1] != 0x81)
        return 1;
    if (p[2] == 0x42 && p[3] > sizeof name)
        *(volatile char *)(0xdead00000000ul + p[3]) = name[0];
    return 0;
}

int main(void)
{
    parse(packet);
    return PASS;
}
"""
FREE = """
unsigned char buffer[8] = {1};
int check(const unsigned char *p, long size)
{
    if (size > 3 && p[0] == 0x17 && p[1] == 0x2a && p[2] == 0x99)
        __builtin_trap();
    return 0;
}
__attribute__((noreturn)) void _start(void)
{
    check(buffer, sizeof buffer);
    for (;;)
        __asm__ volatile("hlt");
}
"""


def linked(name: str, at: int, *words: str) -> None:
    """FREE as an ELF file, with its text at an address."""
    Path("free.c").write_text(FREE)
    flags = ["-O1", "-g", "-static", "-nostdlib", "-no-pie", "-ffreestanding", "-fno-asynchronous-unwind-tables"]
    subprocess.run(["gcc", *flags, f"-Wl,-Ttext-segment={at:#x}", *words, "-o", name, "free.c"], check=True)


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("look.asm").write_text(GUEST)
    return "look.asm"


def fuzzed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["fuzz", *words, "--seed", "1", "--json"]) == 1
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


@pytest.mark.every_host
def test_a_function_behind_a_magic_number(guest: str, capsys: pytest.CaptureFixture[str]):
    told = fuzzed(capsys, guest, "--call", "look", "--length", "24", "--execs", "3000")
    kinds = {each["kind"]: each["file"] for each in told["crashes"]}
    file = Path(kinds["guest-fault-UD-invalid-opcode-at-look+0x26"])
    assert read_crash(file)["input"].startswith(b"yvmmaqkz")
    text = file.with_suffix(".txt").read_text()
    assert "#UD (invalid opcode)" in text
    assert "look.asm:18  ud2" in text


def test_a_byte_behind_the_input_is_a_fault(guest: str, capsys: pytest.CaptureFixture[str]):
    told = fuzzed(capsys, guest, "--call", "reads", "--execs", "200")
    (crash,) = told["crashes"]
    assert crash["kind"] == "guest-fault-PF-page-fault-at-reads"
    assert len(read_crash(Path(crash["file"]))["input"]) < 5
    assert main(["fuzz", "--replay", crash["file"]]) == 1
    out = capsys.readouterr().out
    assert "#PF" in out
    assert "mov al, [rdi + 4]" in out
    assert "crash  " in out


@pytest.mark.usefixtures("forks_count")
def test_a_whole_program_and_its_reproducer_runs_as_a_payload(guest: str, capsys: pytest.CaptureFixture[str]):
    told = fuzzed(capsys, guest, "--input", "data", "--length", "16", "--execs", "2000")
    (crash,) = told["crashes"]
    assert crash["kind"] == "guest-fault-UD-invalid-opcode-at-look+0x26"
    assert told["reached"] == 9, "start, behind its call, look, behind its jumps up to the UD2, .no"
    assert main(["run", str(Path(crash["file"]).with_suffix(".elf"))]) == 1
    assert "#UD (invalid opcode)" in capsys.readouterr().out


@pytest.mark.usefixtures("forks_count")
def test_a_guest_in_c_and_its_elf_file(guest: str, capsys: pytest.CaptureFixture[str]):
    """The size of the object is the length; in .bss, of which the file has nothing."""
    Path("packet.c").write_text(IN_C)
    assert main(["run", "packet.c", "--elf-out", "packet.elf"]) == 0
    capsys.readouterr()
    for name in ("packet.c", "packet.elf"):
        told = fuzzed(capsys, name, "--input", "packet", "--execs", "6000", "--corpus", f"of-{name}")
        (crash,) = told["crashes"]
        assert "parse" in crash["kind"]
        data = read_crash(Path(crash["file"]))["input"]
        assert data[:3] == b"\x7e\x81\x42"
        assert data[3] > 8
        assert len(data) <= 24
        again = Path(crash["file"]).with_suffix(".elf")
        assert main(["run", str(again), "--no-sandbox"]) == 1
        assert "packet.c:12" in capsys.readouterr().out


@pytest.mark.usefixtures("forks_count")
def test_an_elf_file_of_any_compiler(guest: str, capsys: pytest.CaptureFixture[str]):
    linked("free", 0x100000)
    told = fuzzed(capsys, "./free", "--input", "buffer", "--execs", "1500")
    (crash,) = told["crashes"]
    assert crash["kind"].startswith("guest-fault-UD-invalid-opcode-at-")
    assert main(["fuzz", "./free", "--call", "check", "--execs", "1"]) == 2
    assert "is not linked for 0x20000 to 0x7ffff" in capsys.readouterr().err
    assert read_crash(Path(crash["file"]))["input"][:3] == b"\x17\x2a\x99"
    linked("low", 0x30000)
    told = fuzzed(capsys, "./low", "--call", "check", "--execs", "1500")
    (crash,) = told["crashes"]
    assert read_crash(Path(crash["file"]))["input"][:3] == b"\x17\x2a\x99"


def test_an_elf_file_with_other_bytes():
    file = elf(assemble("start: hlt\nhere: .zero 8", base=0x20000), "/")
    program = Elf(file, "x")
    at = program.symbols["here"]
    made = with_bytes(file, at, b"12345678")
    assert made is not None
    (before,), (after,) = program.segments, Elf(made, "x").segments
    assert after.data == before.data[: at - before.gpa] + b"12345678"
    assert with_bytes(file, at + 1, b"12345678") is None, "it ends behind the segment"
    assert with_bytes(file, before.gpa - 1, b"1") is None


def test_a_function_that_hangs(guest: str, capsys: pytest.CaptureFixture[str]):
    told = fuzzed(capsys, guest, "--call", "stuck", "--execs", "2", "--timeout", "0.05")
    (crash,) = told["crashes"]
    assert crash["kind"] == "time-limit"
    assert read_crash(Path(crash["file"]))["input"][:1] == b"A"


def test_blocks_are_followed_and_numbers_are_words():
    # jz +2; mov eax, 0x11223344; jmp over a data byte; hlt
    code = bytes.fromhex("7405 b844332211 eb01 ff f4".replace(" ", ""))
    begins, words = blocks(code, 0x1000, (0x1000,))
    assert begins == {0x1000, 0x1002, 0x1007, 0x100A}
    assert bytes.fromhex("44332211") in words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["look.asm"], "where does the input go?"),
        (["look.asm", "--call", "look", "--input", "data"], "where does the input go?"),
        (["look.asm", "--input", "data"], "how long is an input?"),
        (["look.asm", "--input", "nodata", "--length", "4"], "no label 'nodata'"),
        (["look.asm", "--input", "0x10000000", "--length", "4"], "--input: "),
        (["look.asm", "--call", "nothing"], "nothing"),
        (["look.asm", "--call", "look", "--length", "0"], "give at least 1"),
        (["look.asm", "--call", "look", "--timeout", "0"], "give more than 0"),
        (["look.asm", "--call", "look", "--length", "65537"], "give at most 65536"),
        (["uart", "--input", "x"], "--input: uart is no guest"),
        (["gone.asm", "--call", "x"], "gone.asm"),
        (["ring.asm", "--input", "0x20000", "--length", "4"], "runs in ring 3"),
        (
            ["multiboot", "--input", "0x100000", "--length", "4"],
            "begins in protected mode, by the protocol multiboot",
        ),
    ],
)
def test_what_cannot_be_is_said_in_a_line(words: list[str], said: str, guest: str, capsys: pytest.CaptureFixture[str]):
    Path("ring.asm").write_text("; machine: ring=3\nstart: out 0xf4, al\n")
    Path("multiboot").write_bytes(multiboot())
    there = set(Path().iterdir())
    assert main(["fuzz", *words, "--execs", "1"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert set(Path().iterdir()) == there  # no folder for what never began


@pytest.mark.parametrize("name", ["hypercalls", "gdb"])
def test_what_stands_beside_a_machine_takes_what_comes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vmm.fuzz.engine.TRIMMING", 4)
    target = shipped(name)
    engine = Engine(target, Folder(tmp_path, name), "3")
    try:
        for data in target.seeds():
            assert target.run(data).crash is None
        engine.begin()
        for _ in range(200 if name == "hypercalls" else 40):
            engine.step()
    finally:
        target.close()
    assert not engine.found, engine.found[0].with_suffix(".txt").read_text()
    assert len(engine.reached) > 40


@pytest.mark.usefixtures("forks_count")
def test_a_guest_that_does_not_assemble_is_said_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Though a process of its own has found that out."""
    monkeypatch.chdir(tmp_path)
    Path("bad.asm").write_text("f:  ret\nstart:\n    nonsense rax\n")
    assert main(["fuzz", "bad.asm", "--call", "f", "--execs", "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"pyvmm: {Path('bad.asm').resolve()}:3:5: unknown instruction 'nonsense'")
    assert "\n      nonsense rax\n      ^\n" in error

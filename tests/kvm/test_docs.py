# SPDX-License-Identifier: GPL-2.0-or-later
"""What the documentation shows is what happens: its Python is run, its commands are run, its output is compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.made_images import Load, elf, multiboot1
from vmm.asm.assembler import assemble

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"\b(0x[0-9a-f]+|\d+(\.\d+)?)\b")
PAGES = ("docs/library.md", "docs/trace.md")
SCRIPTS = (
    "docs/library.md", "docs/debug.md", "docs/cpu.md", "docs/interrupts.md", "docs/memory.md", "docs/virtio.md",
    "docs/boards.md", "README.md",
)  # fmt: skip


def blocks(page: str, language: str) -> list[tuple[int, str]]:
    """(line, text) of each fenced block of a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [(text[: m.start()].count("\n") + 1, m[2]) for m in BLOCK.finditer(text) if m[1] == language]


def scripts() -> list[object]:
    found = [(page, line, text) for page in SCRIPTS for line, text in blocks(page, "python")]
    return [pytest.param(page, line, text, id=f"{page}:{line}") for page, line, text in found if "Machine" in text]


def test_there_is_something_to_run() -> None:
    assert len(blocks("docs/library.md", "python")) >= 7
    assert len(blocks("docs/trace.md", "console")) >= 3
    assert len(commands("docs/bench.md")) >= 4


@pytest.mark.parametrize(("page", "line", "text"), scripts())
def test_a_script_runs_and_prints_what_its_comments_say(
    page: str, line: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile("\n" * line + text, str(ROOT / page), "exec"), {"__name__": "docs"})
    printed = capsys.readouterr().out
    for said in re.findall(r"print\(.*?# (.+)$", text, re.M):
        for each in said.split(", "):
            assert each in printed.splitlines(), f"{page}:{line} says that it prints {said!r}; it printed {printed!r}"
    if "# prints 42" in text:
        assert printed.startswith("42\n")


def test_the_images_page_loads_a_kernel_as_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it prints beside: that its kernel was handed the arguments and the module that the page gives."""
    text = """
    mov esi, [ebx + 16]     ; the command line
    call say
    mov esi, [ebx + 24]     ; the first module: its begin, its end
    mov edi, [esi + 4]
    mov esi, [esi]
    sub edi, esi
    mov eax, edi
    add al, 0x30
    out 0xe9, al
    call say
    mov dx, 0x604
    mov ax, 0x2000
    out dx, ax
    hlt
say: mov al, [esi]
    test al, al
    jz said
    out 0xe9, al
    inc esi
    jmp say
said: ret
"""
    head = multiboot1()
    code = assemble(f".code32\n{text}", base=0x10_0000 + len(head)).code
    Path(tmp_path / "kernel.elf").write_bytes(elf(Load(head + code, 0x10_0000), bits=32, entry=0x10_0000 + len(head)))
    monkeypatch.chdir(tmp_path)
    ((_, script),) = blocks("docs/images.md", "python")
    exec(compile(script, "docs/images.md", "exec"), {"__name__": "docs"})
    assert capsys.readouterr().out == "multiboot 1, ELF32 0x10000c protected\nkernel.elf a=18a module\n"


def commands(page: str) -> list[tuple[str, list[str]]]:
    """(command, lines that it must print) of each `$ ` line."""
    found: list[tuple[str, list[str]]] = []
    for _, text in blocks(page, "console"):
        for line in text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line != "...":
                found[-1][1].append(line)
    return found


def shape(line: str) -> str:
    """The line with every number the same and every gap a space."""
    return " ".join(NUMBER.sub("#", line).split())


def test_the_commands_of_the_trace_page_print_what_it_shows(tmp_path: Path) -> None:
    pyvmm = f"{sys.executable} -m vmm"
    for command, wanted in commands("docs/trace.md"):
        line = re.sub(r"\bpyvmm (?=run|replay)", f"{pyvmm} ", command)
        done = subprocess.run(
            line,
            shell=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        printed = [shape(each) for each in (done.stdout + done.stderr).splitlines()]
        for each in wanted:
            assert shape(each) in printed, f"`{command}` does not print {each!r}"
        assert done.returncode == (2 if any(each.startswith("pyvmm:") for each in wanted) else 0)


def beginnings(lines: list[str]) -> list[str]:
    """Two words of each line, numbers the same; without what a noisy machine adds. The rest differs by host and run."""
    found = [" ".join(shape(re.sub(r"^Linux .*", "Linux", line)).split()[:2]) for line in lines]
    return [each for each in found if each and not each.startswith("note:")]


def test_the_commands_of_the_bench_page_do_what_it_shows(tmp_path: Path) -> None:
    for command, wanted in commands("docs/bench.md"):
        few = command.replace(" goals", "") if wanted else command.replace(" goals", "") + " pio_out_c"
        line = few.replace("pyvmm bench", f"{sys.executable} -m vmm bench --quick")
        done = subprocess.run(
            line,
            shell=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode in ((0, 1) if "--against" in command else (0,)), done.stderr  # few samples scatter
        if wanted:
            assert beginnings(done.stdout.splitlines()) == beginnings(wanted), command
    assert {each.name for each in tmp_path.iterdir()} == {"before.json", "bench.svg"}


def test_the_comparison_of_output_can_fail() -> None:
    assert shape("  1.902 ms   0  OUT x 0xa") == shape("0.5 ms 1 OUT x 0x0")
    assert shape("OUT exit port") != shape("IN exit port")

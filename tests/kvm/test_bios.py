# SPDX-License-Identifier: GPL-2.0-or-later
"""16-bit code calls the BIOS, and gets what a PC's would say; what nobody serves ends the run with its number."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.made_images import Load, elf, multiboot1
from vmm import Machine
from vmm.asm.assembler import assemble
from vmm.machine.ends import Result, Why
from vmm.observe.postmortem import examine

MIB = 1 << 20
DONE = "\n mov al, 0\n out 0xf4, al\n hlt\nfail: mov al, 1\n out 0xf4, al\n hlt\n"


def boot_sector(text: str) -> bytes:
    code = assemble(f".code16\nstart:\n{text}\n{DONE}", base=0x7C00).code
    return code.ljust(510, b"\0") + b"\x55\xaa"


def ran(
    text: str, memory: str = "64M", board: str = "pc", irqchip: Any = None, timeout: float = 10
) -> tuple[Result, Machine]:
    with Machine(memory, board=board, irqchip=irqchip) as m:
        m.load_image(boot_sector(text))
        return m.run(timeout=timeout), m


def passes(text: str, **machine: Any) -> str:
    result, _ = ran(text, **machine)
    assert result.stop.why is Why.DEBUG_EXIT, result.stop
    assert result.stop.code == 0
    return result.text


@pytest.mark.every_host
def test_the_vector_table_is_where_a_cpu_looks_for_it():
    """Where ring 0 is emulated, an INT goes there whatever the limit says; a CPU of its own ends in a shutdown."""
    passes("""
    sidt [0x6000]
    cmp word ptr [0x6000], 0x3ff
    jne fail
    cmp dword ptr [0x6002], 0
    jne fail
""")


@pytest.mark.parametrize("irqchip", ["kernel", "split", "none"])
def test_the_clocks_interrupt_comes_where_a_bios_has_it(irqchip):
    """Controllers that nobody has set up give IRQ 8 the vector 0, which reads as a divide error: iPXE, which takes
    random numbers by this interrupt, ended so.
    """
    passes("""
    mov word ptr [4 * 0x70], offset came
    mov word ptr [4 * 0x70 + 2], 0
    in al, 0xa1
    and al, 0xfe
    out 0xa1, al
    mov al, 0x0b                                ; periodic interrupts, each 976 us
    out 0x70, al
    in al, 0x71
    or al, 0x40
    mov bl, al
    mov al, 0x0b
    out 0x70, al
    mov al, bl
    out 0x71, al
    sti
wait: cmp byte ptr [0x6000], 1
    jne wait
    jmp over
came: mov byte ptr [0x6000], 1
    iret
over: cli
""", irqchip=irqchip, timeout=20)  # fmt: skip


@pytest.mark.every_host
def test_teletype_and_strings_are_the_console():
    said = passes("""
    mov ax, 0x0e48
    int 0x10
    mov ax, 0x0e69
    int 0x10
    mov ax, 0x1301
    mov cx, 3
    mov bp, offset text
    int 0x10
    jmp after
text: .byte 0x21, 0x21, 0x0a
after:
""")  # fmt: skip
    assert said == "Hi!!\n"


def test_memory_is_told_in_every_way():
    passes("""
    int 0x12
    cmp ax, 639
    jne fail
    mov ah, 0x88
    int 0x15
    jc fail
    cmp ax, 64512
    jne fail
    mov ax, 0xe801
    int 0x15
    jc fail
    cmp ax, 0x3c00
    jne fail
    cmp bx, 768
    jne fail
    int 0x11
    test ax, 0x200
    jz fail
    mov ax, 0x2401
    stc
    int 0x15
    jc fail
""")  # fmt: skip


def test_e820_gives_each_row_of_the_memory_map():
    with Machine("64M", board="pc") as m:
        m.load_image(boot_sector("""
    mov di, 0x500
    xor ebx, ebx
more: mov eax, 0xe820
    mov edx, 0x534d4150
    mov ecx, 20
    int 0x15
    jc fail
    cmp eax, 0x534d4150
    jne fail
    cmp ecx, 20
    jne fail
    add di, 20
    test ebx, ebx
    jnz more
    mov eax, 0xe820             # behind the last
    mov ebx, 9
    int 0x15
    jnc fail
"""))  # fmt: skip
        assert m.run(timeout=10).stop.code == 0
        rows = [struct.unpack("<QQI", m.memory.read(0x500 + 20 * n, 20)) for n in range(3)]
        assert rows == [(0, 0x9FC00, 1), (0x9FC00, 0x60400, 2), (MIB, 63 * MIB, 1)]


def test_memory_is_moved_to_where_real_mode_cannot_reach():
    with Machine("64M", board="pc") as m:
        m.load_image(boot_sector("""
    push cs
    pop es
    mov si, offset table
    mov cx, 4
    mov ah, 0x87
    int 0x15
    jc fail
    cmp ah, 0
    jne fail
    jmp after
table: .zero 16
    .byte 0xff, 0xff, 0x00, 0x7c, 0x00, 0x93, 0, 0
    .byte 0xff, 0xff, 0x00, 0x00, 0x20, 0x93, 0, 0x02
    .zero 16
after:
"""))  # fmt: skip
        assert m.run(timeout=10).stop.code == 0
        assert m.memory.read(0x220_0000, 8) == m.memory.read(0x7C00, 8)


def test_there_is_no_disk_no_key_and_no_serial_service():
    passes("""
    mov ax, 0x0201
    mov dx, 0x80
    clc
    int 0x13
    jnc fail
    cmp ah, 1
    jne fail
    mov ah, 1
    int 0x16
    jnz fail
    mov ax, 0x0305              # the keyboard's rate, which Linux sets
    int 0x16
    cmp ax, 0x0305
    jne fail
    mov ah, 0x53
    int 0x15
    jnc fail
    cmp ah, 0x86
    jne fail
    mov ah, 0
    int 0x1a
    cmp al, 0
    jne fail
    mov ah, 2
    int 0x1a
    jnc fail
""")  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mov ah, 9\n int 0x21", r"nobody serves INT 0x21, AX 0x0900, before 0x0000:0x7c04"),
        ("mov ah, 0\n int 0x16", "waits for a key, and its BIOS has no keyboard"),
        ("mov ah, 0x10\n int 0x16", "waits for a key, and its BIOS has no keyboard"),
        ("int 0x19", "asks the BIOS to boot something else"),
        ("xor cx, cx\n div cx", r"nobody serves INT 0x00.*which is #DE"),
        ("mov al, 0\n out 0xf8, al", "not by one of its stubs"),
        ("mov sp, 0x1\n mov ax, 0xa000\n mov es, ax\n mov ah, 0x0e\n ud2", r"INT 0x06.*#UD"),
    ],
)  # fmt: skip
def test_what_nobody_serves_ends_the_run_with_its_caller(text, said):
    with Machine("64M", board="pc") as m:
        m.load_image(boot_sector(text))
        result = m.run(timeout=10)
        assert result.stop.why is Why.GUEST_FAULT
        import re

        assert re.search(said, result.stop.text), result.stop.text
        found = examine(m, result)
    assert found.vcpus[0].mode == "real mode"
    if "INT" in said and "div" not in text and "ud2" not in text:
        assert found.vcpus[0].rip == 0x7C04


def test_a_multiboot_kernel_that_goes_to_real_mode_finds_it():
    with Machine("64M", board="pc") as m:
        m.load_image(elf(Load(multiboot1() + b"\xf4", MIB), bits=32, entry=MIB + 12))
        offset, segment = m.memory.unpack("HH", 4 * 0x15)
        assert m.memory.read((segment << 4) + offset, 3) == b"\xe6\xf8\xcf"


def test_loading_again_has_one_bios():
    with Machine("64M", board="pc") as m:
        for _ in range(2):
            m.load_image(boot_sector("mov ax, 0x0e41\n int 0x10"))
            assert m.run(timeout=10).stop.code == 0
        assert m.sink.data == b"AA"


def test_a_trace_of_bios_calls_is_replayed(tmp_path, capsys):
    from vmm.cli import main

    image, trace = tmp_path / "boot.img", tmp_path / "t.jsonl"
    image.write_bytes(boot_sector("mov ax, 0x0e41\n int 0x10"))
    assert main(["run", str(image), "--trace", str(trace)]) == 0  # a boot sector has pyvmm's own board
    assert capsys.readouterr().out.startswith("A")
    assert main(["replay", str(trace)]) == 0


@pytest.mark.every_host
@pytest.mark.parametrize("irqchip", ["kernel", "split", "none"])
def test_the_timer_ticks_and_calls_who_waits(irqchip):
    """As a BIOS leaves it: IRQ 0 at vector 8, which counts at 0x46c and calls INT 1Ch; all others are shut."""
    passes("""
    in al, 0x21
    cmp al, 0xfa
    jne fail
    in al, 0xa1
    cmp al, 0xff
    jne fail
    mov word ptr [4 * 0x1c], offset hook
    mov word ptr [4 * 0x1c + 2], 0
    mov ebx, dword ptr [0x46c]
    xor cx, cx
    sti
more: hlt
    cmp cx, 3
    jb more
    cli
    mov eax, dword ptr [0x46c]
    sub eax, ebx
    cmp eax, 3
    jb fail
    jmp after
hook: inc cx
    iret
after:
""", irqchip=irqchip, timeout=20)  # fmt: skip


@pytest.mark.every_host
@pytest.mark.parametrize("irqchip", ["kernel", "split"])
def test_an_interrupt_of_the_second_controller_comes_at_its_vector(irqchip):
    passes("""
    mov word ptr [4 * 0x73], offset hook
    mov word ptr [4 * 0x73 + 2], 0
    in al, 0xa1
    and al, 0xf7
    out 0xa1, al
    xor cx, cx
    mov dx, 0x200b
    mov al, 1
    out dx, al
    sti
more: hlt
    test cx, cx
    jz more
    jmp after
hook: inc cx
    mov al, 0x20
    out 0xa0, al
    out 0x20, al
    iret
after:
""", board="testdev", irqchip=irqchip, timeout=20)  # fmt: skip


@pytest.mark.every_host
def test_the_ticks_are_not_counted_in_an_image_that_lies_over_the_data_area():
    code = assemble(f"""
.code16
start:
    mov word ptr [4 * 0x1c], offset hook
    mov word ptr [4 * 0x1c + 2], 0
    xor cx, cx
    sti
more: hlt
    cmp cx, 2
    jb more
    cmp dword ptr [0x46c], 0x90909090
    jne fail
{DONE}
hook: inc cx
    iret
""", base=0x400).code.ljust(0x70, b"\x90")  # fmt: skip
    with Machine("64M", board="pc") as m:
        m.load_image(code, base=0x400, mode="real")
        result = m.run(timeout=20)
    assert (result.stop.why, result.stop.code) == (Why.DEBUG_EXIT, 0), result.stop

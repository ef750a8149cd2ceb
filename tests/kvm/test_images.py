# SPDX-License-Identifier: GPL-2.0-or-later
"""Images of every format run: each guest prints what its boot protocol handed over, and the console has it all."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.made_images import HLT, PRINT_AND_PASS, Load, bzimage, elf, gzipped, multiboot1, multiboot2, note
from vmm import Machine
from vmm.abi import pc
from vmm.asm.assembler import assemble
from vmm.cli import main
from vmm.errors import ImageError, UsageError
from vmm.machine.ends import Why
from vmm.machine.images.image import Module
from vmm.observe.postmortem import examine

MIB = 1 << 20
DEBUG_EXIT_0 = 1  # the command's status after a 0 to isa-debug-exit, as QEMU has it

# Prints the string at ESI, and ends the run; the words of 32-bit and 64-bit guests alike.
SAY = """
say: mov al, [{si}]
    test al, al
    jz said
    out 0xe9, al
    inc {si}
    jmp say
said: ret
"""


def code(text: str, base: int, bits: int, si: str = "esi") -> bytes:
    """A guest of these bits, with `say` and `fail` behind it."""
    end = "    mov al, 0\n    out 0xf4, al\n    hlt\nfail: mov al, 1\n    out 0xf4, al\n    hlt\n"
    return assemble(f".code{bits}\nstart:\n{text}\n{end}{SAY.format(si=si)}", base=base).code


def ran(image: bytes, *, memory: str = "64M", board: str = "pc", cpus: int = 1, **given) -> str:
    """The console of a machine that ran it to a passing end."""
    with Machine(memory, cpus, board=board) as m:
        m.load_image(image, **given)
        result = m.run(timeout=20)
        assert result.stop.why in (Why.DEBUG_EXIT, Why.EXIT_PORT), result.stop
        assert result.stop.code == 0
        return result.text


# Every protocol -----------------------------------------------------------------------------------------------------

MULTIBOOT1 = """
    cmp eax, 0x2badb002
    jne fail
    mov eax, [ebx]
    and eax, 0x4d
    cmp eax, 0x4d               # memory, command line, modules, memory map
    jne fail
    mov esi, [ebx + 16]
    call say
    mov edx, [ebx + 24]         # the first module
    mov esi, [edx + 8]
    call say
    mov esi, [edx]
    test esi, 0xfff
    jnz fail
    call say
    cmp dword ptr [ebx + 20], 2
    jne fail
    mov esi, [edx + 16]
    call say
    cmp dword ptr [ebx + 4], 639
    jne fail
    cmp dword ptr [ebx + 8], 63 << 10
    jne fail
    mov edx, [ebx + 48]         # the map's first row: memory from 0 to the EBDA
    cmp dword ptr [edx], 20
    jne fail
    cmp dword ptr [edx + 12], 0x9fc00
    jne fail
    cmp word ptr [0x413], 639
    jne fail
"""


def multiboot1_guest() -> bytes:
    return elf(Load(multiboot1() + code(MULTIBOOT1, MIB + 12, 32), MIB), bits=32, entry=MIB + 12)


def test_multiboot_1_has_command_line_modules_and_memory():
    said = ran(
        multiboot1_guest(), name="dir/my kernel", args="a=b c", initrd=b"first\0", modules=[Module(b"2nd\0", b"x", "n")]
    )
    assert said == "my_kernel a=b c" + "initrd" + "first" + "2nd"


def test_multiboot_1_by_its_own_addresses():
    entry = MIB + 32
    image = multiboot1(3, (MIB, MIB, 0, MIB + 0x2000, entry)) + code(
        "cmp eax, 0x2badb002\n jne fail\n cmp dword ptr [0x101ffc], 0\n jne fail\n mov esi, [ebx + 16]\n call say",
        entry, 32,
    )  # fmt: skip
    assert ran(gzipped(image), name="k") == "k"


MULTIBOOT2 = """
    cmp eax, 0x36d76289
    jne fail
    lea edi, [ebx + 8]
next: cmp dword ptr [edi], 0
    je done
    cmp dword ptr [edi], 1
    je words
    cmp dword ptr [edi], 3
    jne step
    lea esi, [edi + 16]
    call say
    mov esi, [edi + 8]
    call say
    jmp step
words: lea esi, [edi + 8]
    call say
step: mov eax, [edi + 4]
    add eax, 7
    and eax, -8
    add edi, eax
    jmp next
done: mov eax, edi
    sub eax, ebx
    add eax, 8
    cmp eax, [ebx]
    jne fail
"""


def test_multiboot_2_has_tags():
    head = multiboot2((1, 0, struct.pack("<II", 4, 6)), (6, 0, b""))
    image = elf(Load(head + code(MULTIBOOT2, MIB + len(head), 32), MIB), entry=MIB + len(head))
    assert ran(image, name="k", args="a", modules=[Module(b"body\0", b"args", "file")]) == "k a" + "file args" + "body"


PVH = """
    cmp dword ptr [ebx], 0x336ec578
    jne fail
    cmp dword ptr [ebx + 12], 1
    jne fail
    mov esi, [ebx + 24]
    call say
    mov edx, [ebx + 16]
    mov esi, [edx]
    call say
    cmp dword ptr [edx + 8], 5
    jne fail
    mov edx, [ebx + 40]
    cmp dword ptr [edx + 8], 0x9fc00
    jne fail
    mov eax, cr0
    test eax, 0x80000000
    jnz fail
"""


def test_pvh_has_start_info():
    image = elf(Load(code(PVH, MIB, 32), MIB), note(MIB), entry=MIB)
    assert ran(image, args="root=x", initrd=b"disk\0") == "root=x" + "disk"


ZERO_PAGE = """
    cmp dword ptr [{si} + 0x202], 0x53726448
    jne fail
    cmp word ptr [{si} + 0x1fe], 0xaa55
    jne fail
    cmp byte ptr [{si} + 0x210], 0xff
    jne fail
    cmp byte ptr [{si} + 0x1e8], 3
    jne fail
    cmp dword ptr [{si} + 0x2d8], 0x9fc00
    jne fail
    mov ebx, esi
    mov esi, [{bx} + 0x228]
    call say
    mov esi, [{bx} + 0x218]
    call say
"""


@pytest.mark.parametrize(("bits", "protocol"), [(64, "linux64"), (32, "linux32")])
def test_a_bzimage_has_a_zero_page(bits, protocol):
    si, bx = ("rsi", "rbx") if bits == 64 else ("esi", "ebx")
    guest = code(ZERO_PAGE.format(si=si, bx=bx), 16 * MIB + (0x200 if bits == 64 else 0), bits, si)
    image = bzimage(**{f"code{bits}": guest})
    assert ran(image, args="console=x", initrd=b"disk\0", protocol=protocol) == "console=x" + "disk"


def test_a_bzimage_may_be_started_in_real_mode():
    guest = code("""
    mov ax, ds
    mov bx, cs
    sub bx, ax
    cmp bx, 0x20                # CS is behind the others by 0x200 bytes
    jne fail
    mov esi, [0x228]
    mov ax, si
    and ax, 15
    shr esi, 4
    mov ds, si
    mov si, ax
    call say
""", 0x26C - 0x200, 16, "si")  # fmt: skip
    image = bzimage(code16=guest, version=0x0207, kernel_alignment=0, relocatable_kernel=0, xloadflags=0)
    assert ran(image, args="16 bits") == "16 bits"


def test_a_vmlinux_is_started_by_its_64_bit_entry_when_asked():
    guest = code(ZERO_PAGE.format(si="rsi", bx="rbx").replace("0x2d8]", "0x2d8]"), MIB, 64, "rsi")
    assert ran(elf(Load(guest, MIB)), args="a", initrd=b"b\0", protocol="linux64") == "ab"


@pytest.mark.parametrize("mode", ["real", "protected", "long"])
@pytest.mark.parametrize("board", ["own", "pc"])
def test_flat_code_runs_in_each_mode(mode, board):
    assert ran(PRINT_AND_PASS, mode=mode, board=board) == "OK"


def test_a_boot_sector_starts_as_by_a_bios():
    guest = code(
        "cmp dl, 0x80\n jne fail\n mov ax, cs\n test ax, ax\n jnz fail\n mov si, 0x7df0\n call say", 0x7C00, 16, "si"
    )
    assert ran(guest.ljust(0x1F0, b"\0") + b"sector\0".ljust(14, b"\0") + b"\x55\xaa") == "sector"


def test_an_elf_file_in_pyvmms_own_map_has_its_tables_and_results():
    guest = code("mov rax, 7\n mov [0x9000], rax\n mov byte ptr [0x9008], 1\n mov esi, edi", 0x20000, 64, "rsi")
    with Machine() as m:
        m.load_image(elf(Load(guest, 0x20000), entry=0x20000, symbols={"start": 0x20000}))
        assert m.run().stop.code == 0
        assert m.memory.unpack("QB", 0x9000) == (7, 1)
        assert m.cpus[0].vcpu.get_sregs().gdt.base == 0x1000


def test_sse_works_where_a_compiler_uses_it():
    guest = code("mov rax, cr4\n test eax, 0x200\n jz fail", MIB, 64, "rsi")
    assert ran(elf(Load(guest, MIB)), board="own") == ""


# Memory -------------------------------------------------------------------------------------------------------------


def test_a_guest_of_16_gib_starts_at_once_and_reaches_its_last_byte():
    """Lazily: what this process holds grows by what the guest touches."""
    guest = code("mov rax, 0x42fffffff\n mov byte ptr [rax], 7\n cmp byte ptr [rax], 7\n jne fail", MIB, 64, "rsi")
    begin = time.monotonic()
    with Machine("16G") as m:
        m.load_image(elf(Load(guest, MIB)))
        assert m.run(timeout=10).stop.code == 0
        assert m.memory.read_u8(0x42FFFFFFF) == 7
        status = Path("/proc/self/status").read_text()
    assert time.monotonic() - begin < 5
    resident = int(status.partition("VmRSS:")[2].split()[0]) >> 10
    assert resident < 1024, f"{resident} MiB"


def test_more_memory_than_pyvmms_own_tables_map_is_for_those_who_bring_some():
    with Machine("20G") as m, pytest.raises(UsageError, match="the boot page tables reach 14592M"):
        m.load("hlt")


def test_zeros_behind_a_segment_are_zeros_also_where_something_was():
    with Machine("8M") as m:
        m.memory.fill(MIB, 0x3000, 0xAA)
        m.load_image(elf(Load(HLT, MIB, memsz=0x2345)))
        assert not any(m.memory.read(MIB + 1, 0x2344))
        assert m.memory.read_u8(MIB + 0x2345) == 0xAA


def test_nothing_is_written_when_something_does_not_fit():
    with Machine("4M") as m:
        before = [m.memory.read(slot.gpa, slot.size) for slot in m.memory.slots]
        with pytest.raises(ImageError, match=r"program header 1 at 0x3fffff..0x400000 does not fit .* of 4M"):
            m.load_image(elf(Load(HLT, MIB), Load(b"ab", 4 * MIB - 1)))
        with pytest.raises(ImageError, match=r"no room in the guest's memory for \d+ bytes"):
            m.load_image(bzimage(pref_address=MIB), initrd=bytes(4 * MIB))
        with pytest.raises(ImageError, match="a command line of 3000 bytes, and this kernel takes 2047"):
            m.load_image(bzimage(pref_address=MIB), args="x" * 3000)
        with pytest.raises(ImageError, match="modules are multiboot's"):
            m.load_image(bzimage(pref_address=MIB), modules=[b"x"])
        with pytest.raises(ImageError, match=r"program header 0 at .* and program header 1 at .* overlap"):
            m.load_image(elf(Load(HLT * 9, MIB), Load(HLT, MIB + 8)))
        with pytest.raises(ImageError, match="no boot protocol, so nobody would find a command line"):
            m.load_image(elf(Load(HLT, MIB)), args="x")
        with pytest.raises(ImageError, match="first NUL"):
            m.load_image(bzimage(pref_address=MIB), args="a\0b")
        assert before == [m.memory.read(slot.gpa, slot.size) for slot in m.memory.slots]
        assert m.program is None


# Post-mortems, traces, the command ----------------------------------------------------------------------------------

FAULTY = """\
static void out(unsigned char v) { __asm__ volatile("outb %0, $0xe9" ::"a"(v)); }
__attribute__((noinline)) void poke(volatile int *p) {
    *p = 3;
}
void _start(void) {
    out('C');
    poke((int *)0xffff900000000000);
    for (;;) ;
}
"""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> Path:
    """A 64-bit C kernel at 1 MiB that writes where nothing is."""
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "bad.c").write_text(FAULTY)
    flags = [
        "-g",
        "-O1",
        "-ffreestanding",
        "-fno-pic",
        "-no-pie",
        "-mno-red-zone",
        "-fno-stack-protector",
        "-nostdlib",
        "-static",
    ]
    subprocess.run(
        ["gcc", *flags, "-Wl,-Ttext=0x100000,--build-id=none", "-o", "bad.elf", "bad.c"], cwd=folder, check=True
    )
    return folder / "bad.elf"


def test_a_post_mortem_shows_symbol_and_source_line(faulty):
    with Machine("8M") as m:
        m.load_image(faulty)
        result = m.run(timeout=10)
        assert result.stop.why is Why.GUEST_FAULT
        found = examine(m, result)
    assert found.fault is not None
    assert (found.fault.name, found.fault.cr2) == ("#PF (page fault)", 0xFFFF900000000000)
    assert found.vcpus[0].where.startswith("poke")
    assert found.vcpus[0].source == "bad.c:3  *p = 3;"
    assert "(program header" in found.vcpus[0].walks[0][-1]
    assert "cpus[" not in str(found)


def test_a_trace_of_an_image_has_its_names_and_is_replayed(faulty, tmp_path, capsys):
    trace = tmp_path / "t.jsonl"
    assert main(["run", str(faulty), "--trace", str(trace), "--trace"]) == 1
    assert "_start+" in capsys.readouterr().out
    assert any('"at":"_start' in line and "bad.c:" in line for line in trace.read_text().splitlines())
    assert main(["replay", str(trace)]) == 1
    assert "all as recorded" in capsys.readouterr().out


def test_a_trace_of_a_pc_is_replayed_from_the_record(tmp_path, capsys):
    kernel, trace = tmp_path / "k", tmp_path / "t.jsonl"
    kernel.write_bytes(multiboot1_guest())
    (tmp_path / "m").write_bytes(b"m\0")
    modules = ["--initrd", str(tmp_path / "m"), "--module", f"{tmp_path / 'm'},x=y"]
    assert main(["run", str(kernel), "--memory", "64M", *modules, "--trace", str(trace)]) == DEBUG_EXIT_0
    assert capsys.readouterr().out.startswith("kinitrdmm")
    assert main(["replay", str(trace)]) == DEBUG_EXIT_0
    assert "answered by the record" in capsys.readouterr().out


def test_the_command_takes_every_option_of_images(tmp_path, capsys):
    flat, kernel = tmp_path / "flat.img", tmp_path / "kernel"
    flat.write_bytes(HLT * 16 + PRINT_AND_PASS)
    assert main(["run", str(flat), "--mode", "real", "--base", "0x8000", "--entry", "0x8010", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["console"] == "OK"
    kernel.write_bytes(elf(Load(HLT + PRINT_AND_PASS, MIB), symbols={"second": MIB + 1}))
    assert main(["run", str(kernel), "--entry", "second", "--timeline", str(tmp_path / "t.svg")]) == 0
    assert main(["run", str(kernel), "--protocol", "elf", "--board", "pc", "--entry", hex(MIB + 1)]) == DEBUG_EXIT_0
    kernel.write_bytes(bzimage(code32=HLT))
    assert main(["run", str(kernel), "--kernel-args", "quiet"]) == DEBUG_EXIT_0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hello", "--kernel-args", "x"], "--kernel-args: hello is a payload of assembly"),
        (["{elf}", "--initrd", "{missing}"], "reading initrd .*missing: No such file"),
        (["{elf}", "--kernel-args", "x"], "no boot protocol, so nobody would find a command line"),
        (["{elf}", "--base", "nonsense"], "--base nonsense: not an address"),
        (["{elf}", "--base", "1M"], "not --base"),
        (["{elf}", "--entry", "nobody"], "no symbol 'nobody'"),
        (["{elf}", "--entry", ""], "no symbol ''"),  # a shell's variable that is not set
        (["{elf}", "--base", ""], "--base : not an address"),
        (["{c}", "--initrd", ""], "--initrd: guest is a guest in C, which takes none of it"),
        (["{source}"], r"main.rs is source text, and pyvmm compiles C alone \(.c\)"),
        (["{elf}", "--memory", "2M", "--protocol", "linux64"], ""),
        (["{cut}"], "ELF: cut off"),
        (["{elf}", "--protocol", "nonsense"], "protocol 'nonsense': there are linux64"),
    ],
)
def test_what_cannot_be_is_one_clear_line(words, said, tmp_path, capsys):
    (tmp_path / "k").write_bytes(elf(Load(PRINT_AND_PASS, MIB)))
    (tmp_path / "cut").write_bytes(elf(Load(PRINT_AND_PASS, MIB))[:50])
    (tmp_path / "guest.c").write_text("int main(void) { return 0; }")
    (tmp_path / "main.rs").write_text("#![no_std]\n#![no_main]\n")
    own = {"c": tmp_path / "guest.c", "source": tmp_path / "main.rs"}
    names = own | {"elf": tmp_path / "k", "cut": tmp_path / "cut", "missing": tmp_path / "missing"}
    status = main(["run", *(word.format(**names) for word in words)])
    err = capsys.readouterr().err
    assert status == (2 if said else DEBUG_EXIT_0)
    if said:
        import re

        assert re.search(said, err)
        assert "Traceback" not in err
        assert len(err.splitlines()) <= 2


def test_a_reader_that_goes_away_from_an_image_is_no_news(tmp_path, uncovered):
    """The process has given up opening files by then, /dev/null among them, and a file of coverage's."""
    endless = elf(Load(bytes.fromhex("b041e6e9ebfa"), MIB))  # mov al, 'A'; out 0xe9, al; jmp $-2
    (tmp_path / "endless").write_bytes(endless)
    with subprocess.Popen(
        [sys.executable, "-m", "vmm", "run", str(tmp_path / "endless")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, env=uncovered,
    ) as process:  # fmt: skip
        assert process.stdout.read(1) == b"A"
        process.stdout.close()
        assert (process.wait(120), process.stderr.read()) == (141, b"")


def test_a_saved_state_of_an_image_can_be_pickled():
    import pickle

    with Machine("8M") as m:
        m.load_image(elf(Load(HLT + PRINT_AND_PASS, MIB), symbols={"start": MIB}))
        m.run(timeout=5)
        saved = pickle.loads(pickle.dumps(m.save()))
        assert m.run(timeout=5).text == "OK"
        m.restore(saved)
        assert m.run(timeout=5).stop.why is Why.EXIT_PORT
        assert pickle.loads(pickle.dumps(m.program)).symbols == {"start": MIB}


def test_a_second_vcpu_waits_for_sipi():
    with Machine("64M", 2, board="pc") as m:
        m.load_image(bzimage())
        assert m.run(timeout=10).stop.code == 0
        assert m.cpus[1].counts == {} or set(m.cpus[1].counts) <= {"Interrupted"}


def test_loading_again_starts_anew():
    with Machine("64M", board="pc") as m:
        for _ in range(3):
            m.load_image(bzimage())
            assert m.run(timeout=10).stop.code == 0
            assert m.sink.data.endswith(b"OK")


# Memory that nobody gave ----------------------------------------------------------------------------------------------


def test_a_machine_without_a_size_gets_what_the_image_needs():
    """As the command gives it: the kernel's usual 256 MiB, of which the board's CMOS tells, and the map."""
    with Machine(board="pc") as m:
        before = m.memory.size
        m.load_image(bzimage(PRINT_AND_PASS))
        assert (m.memory.size, m.ram) == (256 * MIB, ((0, 256 * MIB),))
        assert before < 16 * MIB
        m.memory.write(256 * MIB - 4, b"last")
        assert m.run(timeout=20).text == "OK"
        m.board.rtc.write(0, 1, pc.CMOS_HIGH_64KIB + 1)
        assert m.board.rtc.read(1, 1) == (256 * MIB - 16 * MIB) >> 24


def test_it_grows_with_an_initrd_and_a_second_image_and_never_shrinks():
    small = elf(Load(PRINT_AND_PASS, 0x10_0000))
    with Machine() as m:
        m.load_image(small)
        assert m.memory.size == 128 * MIB
        m.load_image(bzimage(PRINT_AND_PASS), initrd=bytes(40 * MIB))
        grown = m.memory.size
        assert grown >= 256 * MIB + 160 * MIB
        m.load_image(small)
        assert m.memory.size == grown


def test_a_size_that_was_given_stays():
    with Machine("4M") as m:
        m.load_image(elf(Load(PRINT_AND_PASS, 0x10_0000)))
        assert m.memory.size == 4 * MIB
        with pytest.raises(ImageError, match="does not fit into the guest's memory of 4M"):
            m.load_image(elf(Load(PRINT_AND_PASS, 0x100_0000), entry=0x100_0000))


def test_what_runs_in_pyvmms_own_map_has_what_payloads_have():
    with Machine() as m:
        before = m.memory.size
        m.load_image(elf(Load(PRINT_AND_PASS, 0x2_0000), entry=0x2_0000))
        assert m.memory.size == before


def test_above_four_gibibytes_memory_costs_what_is_touched():
    """A segment at 4 GiB and 16 MiB: RAM goes around the devices, and the process holds next to none of it."""
    far = (4 << 30) + 16 * MIB
    guest = code(f"mov rsi, {far:#x}\n    call say", 0x10_0000, 64, "rsi")
    image = elf(Load(guest, 0x10_0000), Load(b"far\0", far))
    with Machine() as m:
        try:
            m.load_image(image)
        except ImageError as error:
            if "this host has" in str(error) or "does not fit" in str(error):
                pytest.skip(f"{error}")
            raise
        assert m.ram[1][0] == 4 << 30
        before = resident()
        assert m.run(timeout=20).text == "far"
        assert resident() - before < 64 * MIB


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_what_lies_in_the_way_is_one_line_and_leaves_the_machine_as_it_was():
    with Machine() as m:
        before = m.ram
        m.memory.add(64 * MIB, MIB)
        slots = m.memory.slots
        with pytest.raises(ImageError, match="overlap"):
            m.load_image(elf(Load(PRINT_AND_PASS, 0x10_0000)))
        assert (m.ram, m.memory.slots) == (before, slots)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs as ELF files for debuggers: read back by pyelftools, and by readelf, objdump and gdb where there are any."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from vmm.asm import assembler
from vmm.asm.code_or_data import CODE, labels, parts
from vmm.asm.elf_out import elf
from vmm.asm.program import Line, Program
from vmm.cli import main
from vmm.errors import UsageError
from vmm.machine.images.elf import Elf
from vmm.payload.c.compiler import COMPILERS
from vmm.payload.catalog import find, shipped
from vmm.payload.guest import assemble

ADD = """; summary: adds
; param: n = 3  how often
COUNT = 5
%include "more.inc"
.macro TWICE reg
    inc   \\reg
    inc   \\reg
.endm
start:
    mov   eax, COUNT
    mov   ecx, PARAM_n
again:
    TWICE rax
    add   eax, dword ptr [counter]
    call  add
    loop  again
    mov   al, 0
    out   0xf4, al
    hlt
    .align 16
counter: .quad 7
table:   .long 1, 2, 3
msg:     .asciz "hello"
mixed:   .byte 1
         .quad 2
    .text
last:
    nop
    .byte 0x0f, 0x0b                      # UD2, by hand
    ret
"""
MORE = """; shared
.data
flag: .byte 1
.text
add:
    lea   rax, [rdi + rsi]
    ret
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "add.asm").write_text(ADD, encoding="utf-8")
    (tmp_path / "more.inc").write_text(MORE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def file(folder: Path) -> Path:
    assert main(["disasm", "add.asm", "--elf-out", "add.elf"]) == 0
    return folder / "add.elf"


def line_of(text: str, needle: str) -> int:
    return 1 + next(number for number, line in enumerate(text.splitlines()) if needle in line)


def read(data: bytes) -> Any:
    return ELFFile(io.BytesIO(data))


def rows(data: bytes) -> list[tuple[int, str, int]]:
    """(address, file, line) by address, with line 0 where a sequence ends."""
    dwarf = read(data).get_dwarf_info()
    found = []
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        names = [each.name.decode() for each in program["file_entry"]]
        for entry in program.get_entries():
            if entry.state is not None:
                state = entry.state
                found.append((state.address, names[state.file - 1], 0 if state.end_sequence else state.line))
    return found


def entries(data: bytes) -> dict[str, Any]:
    dwarf = read(data).get_dwarf_info()
    return {
        die.attributes["DW_AT_name"].value.decode(): die
        for unit in dwarf.iter_CUs()
        for die in unit.iter_DIEs()
        if "DW_AT_name" in die.attributes
    }


def test_symbols_have_sizes_and_types(file: Path) -> None:
    program = assemble(find("add.asm"))
    table = read(file.read_bytes()).get_section_by_name(".symtab")
    found = {each.name: each for each in table.iter_symbols() if each["st_info"]["type"] in ("STT_FUNC", "STT_OBJECT")}
    assert {name: each["st_value"] for name, each in found.items()} == program.symbols
    kinds = {name: each["st_info"]["type"] for name, each in found.items()}
    data = {"counter", "table", "msg", "mixed", "flag"}
    assert kinds == {name: "STT_OBJECT" if name in data else "STT_FUNC" for name in program.symbols}
    sizes = {name: each["st_size"] for name, each in found.items()}
    assert (sizes["counter"], sizes["table"], sizes["msg"], sizes["mixed"], sizes["flag"]) == (8, 12, 6, 9, 1)
    assert sizes["start"] == program.symbols["again"] - program.symbols["start"]
    assert sizes["last"] == 4, "the instruction by hand is code"
    assert {each["st_info"]["bind"] for each in found.values()} == {"STB_GLOBAL"}


def test_the_segment_is_the_program(file: Path) -> None:
    program = assemble(find("add.asm"))
    own = Elf(file.read_bytes(), "add.elf")
    (segment,) = own.segments
    assert (segment.gpa, segment.data, own.entry) == (program.base, program.code, program.entry)
    sections = {each.name: each for each in read(file.read_bytes()).iter_sections()}
    begin = sections[".text"]["sh_addr"]
    assert sections[".text"].data() + sections[".data"].data() == program.code
    assert sections[".data"]["sh_addr"] == begin + sections[".text"]["sh_size"] == program.symbols["flag"]


def test_each_statement_is_at_its_line(file: Path) -> None:
    program = assemble(find("add.asm"))
    found = rows(file.read_bytes())
    by_address = {address: (name, line) for address, name, line in found if line}
    at = program.symbols
    assert by_address[at["start"]] == ("add.asm", line_of(ADD, "mov   eax, COUNT"))
    assert by_address[at["again"]] == ("add.asm", line_of(ADD, "TWICE rax")), "a macro stands where it is used"
    assert at["again"] + 3 not in by_address, "and once"
    assert by_address[at["add"]][0].endswith("more.inc")
    assert by_address[at["add"]][1] == line_of(MORE, "lea")
    assert at["counter"] not in by_address, "data has no lines"
    ends = [address for address, _, line in found if not line]
    assert ends[-1] == at["last"] + 4
    assert Elf(file.read_bytes(), "x").source(at["start"]) == f"add.asm:{line_of(ADD, 'mov   eax, COUNT')}"


def test_labels_are_subprograms_and_variables_and_constants_are_known(file: Path) -> None:
    found = entries(file.read_bytes())
    assert found["add.asm"].tag == "DW_TAG_compile_unit"
    assert found["add.asm"].attributes["DW_AT_comp_dir"].value.decode() == str(file.parent)
    assert found["again"].tag == "DW_TAG_subprogram"
    assert found["again"].attributes["DW_AT_decl_line"].value == line_of(ADD, "TWICE rax")
    assert found["COUNT"].attributes["DW_AT_const_value"].value == 5
    assert found["PARAM_n"].attributes["DW_AT_const_value"].value == 3

    def kind(name: str) -> tuple[str, int]:
        die = found[name].get_DIE_from_attribute("DW_AT_type")
        if die.tag == "DW_TAG_base_type":
            return die.attributes["DW_AT_name"].value.decode(), 1
        (inner,) = die.iter_children()
        element = die.get_DIE_from_attribute("DW_AT_type")
        return element.attributes["DW_AT_name"].value.decode(), inner.attributes["DW_AT_count"].value

    wanted = {"counter": ("u64", 1), "table": ("u32", 3), "msg": ("char", 6), "mixed": ("u8", 9), "flag": ("u8", 1)}
    assert {name: kind(name) for name in wanted} == wanted


@pytest.mark.parametrize("name", shipped())
def test_every_payload_can_be_written_and_read(name: str) -> None:
    """Nothing of a program is lost: symbols, and for each byte of code the line that its program names."""
    program = assemble(find(name))
    data = elf(program)
    back = Elf(data, name)
    assert back.symbols == program.symbols
    (segment,) = back.segments
    assert segment.data == program.code
    begins = {part.begin: part for part in parts(program) if part.kind == CODE}
    current, end = None, 0
    for line in program.lines:
        if line.address in begins:
            end = begins[line.address].end
        if line.address < end:
            current = back.source(line.address)
            assert current == f"{line.file}:{line.line}"
    assert current


def test_sizes_never_overlap() -> None:
    for name in ("hello", "ring3", "virtio_net"):
        program = assemble(find(name))
        found = [each for each in labels(program, parts(program)) if each.size]
        for one, other in pairwise(found):
            assert one.address == other.address or one.address + one.size <= other.address


def test_compiled_code_without_its_file_has_lines_all_the_same() -> None:
    stretches = (Line(0x20000, 2, "x.c", 3, "int main(void)"), Line(0x20002, 1, "x.c", 4, "return 0;"))
    program = Program("x.c", 0x20000, b"\x31\xc0\xc3\0\0", {"main": 0x20000, "value": 0x20003}, (), stretches=stretches)
    data = elf(program)
    assert Elf(data, "x").source(0x20002) == "x.c:4"
    table = read(data).get_section_by_name(".symtab")
    kinds = {each.name: (each["st_info"]["type"], each["st_size"]) for each in table.iter_symbols()}
    assert (kinds["main"], kinds["value"]) == (("STT_FUNC", 3), ("STT_OBJECT", 2))


def test_the_compilers_own_file_is_given_on() -> None:
    assert elf(Program("x.c", 0, b"\x90", {}, (), elf=b"\x7fELF...")) == b"\x7fELF..."


def test_what_has_no_text_has_no_elf() -> None:
    with pytest.raises(UsageError, match=r"an ELF file of x\.bin: it has no text"):
        elf(Program("x.bin", 0, b"\x90", {}, ()))


def test_text_of_a_script_and_odd_names(tmp_path: Path) -> None:
    program = assembler.assemble("nop\n.loop: jmp .loop\nend:", name="a\0b/ü.asm", base=0x7C00, constants={})
    data = elf(program, folder=str(tmp_path))
    table = read(data).get_section_by_name(".symtab")
    rows = {each.name: (each["st_info"]["bind"], each["st_size"]) for each in table.iter_symbols()}
    assert rows[".loop"] == ("STB_LOCAL", 2)
    assert rows["end"] == ("STB_GLOBAL", 0)
    assert read(data).get_segment(0)["p_vaddr"] == 0x7C00


def test_a_guest_in_c_is_the_compilers_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not any(map(shutil.which, COMPILERS)):
        pytest.skip("no C compiler on this host")
    text = "#include <pyvmm.h>\n\nint main(void)\n{\n    return PASS;\n}\n"
    (folder / "guest.c").write_text(text, encoding="utf-8")
    assert main(["disasm", "guest.c", "--elf-out", "guest.elf"]) == 0
    assert "main" in capsys.readouterr().out
    own = Elf((folder / "guest.elf").read_bytes(), "guest.elf")
    lines = {line for _, _, name, line in own.rows() if name.endswith("guest.c")}
    assert line_of(text, "return") in lines


# -- the command


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") <= 2
    return captured.err


@pytest.mark.parametrize("command", ["run", "disasm"])
def test_what_the_command_refuses(
    command: str, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, before anything runs, and nothing is written."""
    before = sorted(each.name for each in file.parent.iterdir())
    capsys.readouterr()
    assert main([command, str(file), "--elf-out", "x.elf"]) == 2
    text = said(capsys)
    assert "add.elf is an image, which names itself to a debugger" in text
    assert "gdb " in text
    Path("raw.bin").write_bytes(b"\xf4")
    assert main([command, "raw.bin", "--elf-out", "x.elf"]) == 2
    assert "raw.bin is raw code" in said(capsys)
    Path("raw.bin").unlink()
    assert main([command, "add.asm", "--elf-out", "add.asm"]) == 2
    assert "would be overwritten" in said(capsys)
    assert main([command, "add.asm", "--elf-out", "missing/x.elf"]) == 2
    assert "writing 'missing/x.elf': No such file or directory" in said(capsys)
    assert sorted(each.name for each in file.parent.iterdir()) == before


def test_outputs_must_differ(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "add.asm", "--elf-out", "same", "--console", "same"]) == 2
    assert "--elf-out same: that is the file of --console, too" in said(capsys)


# -- other people's readers


def tool(name: str, *arguments: str, folder: Path) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"no {name} on this host")
    done = subprocess.run([name, *arguments], capture_output=True, text=True, timeout=60, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"[Ww]arning|[Ee]rror", done.stderr), done.stderr
    return done.stdout


def test_readelf_reads_all_of_it(file: Path) -> None:
    text = tool("readelf", "-aW", "--debug-dump=info,decodedline,abbrev", "add.elf", folder=file.parent)
    assert re.search(r"8 OBJECT  GLOBAL DEFAULT +1 counter", text)
    assert re.search(rf"add\.asm +{line_of(ADD, 'call  add')} +0x2", text)


def test_objdump_shows_source_and_data(file: Path) -> None:
    text = tool("objdump", "-dlS", "add.elf", folder=file.parent)
    assert re.search(rf"add\.asm:{line_of(ADD, 'TWICE rax')}\nagain:\n    TWICE rax\n.*inc +%rax\n.*inc +%rax\n", text)
    data = text.partition("<counter>:")[2].partition("<last>:")[0]
    assert "07 00 00 00 00 00 00 00" in data
    assert "rolb" not in data, "what is data is not decoded"


def test_gdb_knows_lines_breakpoints_and_variables(file: Path) -> None:
    at = assemble(find("add.asm")).symbols
    twice, hlt = line_of(ADD, "TWICE rax"), line_of(ADD, "    hlt")
    shared = line_of(MORE, "lea")
    commands = [
        "info line again", "list start", f"break add.asm:{twice}", "break add", f"info line more.inc:{shared}",
        "print counter", "print table", "print msg", "print COUNT", f"info line {hlt}", "info symbol &flag",
    ]  # fmt: skip
    arguments = [word for each in commands for word in ("-ex", each)]
    text = tool("gdb", "-nx", "-batch", *arguments, "add.elf", folder=file.parent)
    assert f'Line {twice} of "add.asm" starts at address {at["again"]:#x} <again>' in text
    assert f"{line_of(ADD, 'mov   eax, COUNT')}\t    mov   eax, COUNT" in text
    assert f"Breakpoint 1 at {at['again']:#x}: file add.asm, line {twice}." in text
    assert re.search(rf"Breakpoint 2 at {at['add']:#x}: file .*more\.inc, line {shared}\.", text)
    assert f"starts at address {at['add']:#x} <add>" in text
    for number, value in enumerate(("7", "{1, 2, 3}", '"hello"', "5"), 1):
        assert f"${number} = {value}\n" in text
    assert f'Line {hlt} of "add.asm" starts at' in text
    assert "flag in section .data" in text

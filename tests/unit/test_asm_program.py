# SPDX-License-Identifier: GPL-2.0-or-later
"""What surrounds assembling: Program, listing, disassembler, cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from vmm.asm import assembler, cache
from vmm.asm.assembler import Facts
from vmm.asm.disassembler import around, disassemble
from vmm.asm.listing import render
from vmm.asm.program import Program
from vmm.errors import UsageError

assemble = partial(assembler.assemble, base=0x20000)

TEXT = """msg: .ascii "hello, world"
start:
    mov   eax, 1        ; comment
    jmp   done
.macro TWICE
    inc   eax
    inc   eax
.endm
    TWICE
done:
end: hlt
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYVMM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "notice", None)
    return tmp_path / "cache"


@pytest.fixture
def program() -> Program:
    return assemble(TEXT, name="x.asm", constants={}, cache=False)


def test_symbols_and_lines(program: Program) -> None:
    assert program.entry == program.symbols["start"] == 0x2000C
    assert program.end == program.base + len(program.code)
    assert [program.symbolize(a) for a in (0x1FFFF, 0x20000, 0x20001, 0x2000C, 0x2000D, 0x20017, program.end + 1)] == [
        None, "msg", "msg+0x1", "start", "start+0x1", "done", None,
    ]  # fmt: skip
    line = program.line_at(0x2000D)
    assert line is not None
    assert (line.address, line.size, line.file, line.line, line.text) == (0x2000C, 5, "x.asm", 3, "mov   eax, 1")
    assert program.line_at(program.end) is None
    assert program.line_at(program.base - 1) is None
    assert assemble("nop", constants={}, cache=False).entry == 0x20000
    assert assemble("nop\nx:", constants={}, cache=False).symbolize(0x20000) is None


def test_a_program_carries_the_constants_of_its_text(folder: Path) -> None:
    text = "PLACE = BASE + 0x10\nSIZE = done - start\nstart: mov eax, PLACE\ndone: ret"
    for _ in range(2):  # assembled, then out of the cache
        program = assemble(text, name="x.asm", constants={"PARAM_n": 7}, facts=Facts(lambda: {"BASE": 0x100}))
        assert program.constants == {"PARAM_n": 7, "PLACE": 0x110, "SIZE": 5}
    assert program.constant("PLACE") == 0x110
    with pytest.raises(UsageError, match=r"no constant of x\.asm is called 'PLAC'; did you mean PLACE\?"):
        program.constant("PLAC")
    own = assemble("PARAM_n = 8\nret", constants={"PARAM_n": 7}, cache=False)
    assert own.constant("PARAM_n") == 8, "the text's own definition wins"


def test_dict_round_trip(program: Program) -> None:
    assert Program.from_dict(json.loads(json.dumps(program.to_dict()))) == program
    with pytest.raises(KeyError):
        Program.from_dict({})


def test_listing(program: Program) -> None:
    text = render(program)
    assert text == render(program)
    assert "0002000c  b8 01 00 00 00              mov   eax, 1" in text
    assert "x.asm:9 TWICE (x.asm:6)" in text
    assert "00020008  6f 72 6c 64\n" in text
    assert text.index("msg:") < text.index("start:") < text.index("done:") < text.index("end:")
    assert "x.asm:9" not in render(program, files=False)
    assert "68 bytes more" in render(assemble(".skip 100\nlast:", constants={}, cache=False))


def test_disassemble_loses_no_byte() -> None:
    data = bytes.fromhex("90060f0b48b8")
    rows = disassemble(data, 0x1000)
    assert b"".join(row.bytes for row in rows) == data
    assert [row.text for row in rows] == ["nop", ".byte 0x06", "ud2", ".byte 0x48", ".byte 0xb8"]
    assert [row.address for row in rows] == [0x1000, 0x1001, 0x1002, 0x1004, 0x1005]
    assert len(disassemble(b"\x90" * 9, 0, count=3)) == 3
    assert disassemble(b"\xb8\x34\x12", 0, bits=16)[0].text == "mov ax, 0x1234"
    assert disassemble(b"", 0) == []
    with pytest.raises(ValueError, match="16, 32 or 64"):
        disassemble(b"", 0, bits=8)


def test_around_uses_the_lines(program: Program) -> None:
    rip = program.symbols["start"] + 5
    rows = around(program.code, rip, base=program.base, program=program, before=2, after=1)
    assert [row.text for row in rows] == ['.ascii "hello, world"', "mov eax, 1", "jmp 0x20017", "inc eax"]
    assert rows[2].address == rip
    inside = around(program.code, rip - 2, base=program.base, program=program, before=1, after=0)
    assert "rip is inside" in inside[0].text
    assert inside[-1].address == rip - 2


def test_around_without_lines() -> None:
    data = bytes.fromhex("b801000000" "4889d8" "0f01c1" "f4")  # fmt: skip
    rows = around(data, 8, before=2, after=1)
    assert [row.text for row in rows] == ["mov eax, 1", "mov rax, rbx", "vmcall", "hlt"]
    assert around(data, 0, before=4, after=0)[0].text == "mov eax, 1"
    assert around(b"", 0x5000) == []


@pytest.mark.parametrize(
    ("symbols", "place", "rip", "said"),
    [
        # From another byte on the same bytes are other instructions, and more of them.
        ({"start": 0x1000}, None, 0x1004, ["xor ah, ah", "int 0x16"]),
        ({}, "the code+0x4", 0x1004, ["xor ah, ah", "int 0x16"]),
        ({}, "the code+0x0", 0x1000, []),
        ({}, "the code+0x1", 0x1001, ["add byte ptr [bx + si], al", "add byte ptr [bx + si], dh"]),
        ({}, "", 0x1004, ["add byte ptr [bx + si], al", "add byte ptr [bx + si], dh", "in al, 0xcd", "push ss"]),
    ],
)
def test_around_begins_where_code_does(symbols: dict[str, int], place: str | None, rip: int, said: list[str]) -> None:
    class Placed(Program):
        def place_at(self, address: int) -> str | None:
            return place

    data = bytes(3) + bytes.fromhex("30e4cd16b40e")
    program = Placed("x", 0x1000, data[3:], symbols, ())
    rows = around(data, rip, base=0x0FFD, program=program, before=4, after=0, bits=16)
    assert [row.text for row in rows if row.address < rip] == said


def test_around_believes_memory_over_the_program(program: Program) -> None:
    rip = program.symbols["start"] + 5
    patched = bytearray(program.code)
    patched[rip - 5 - program.base : rip - program.base] = bytes.fromhex("9090909090")
    rows = around(bytes(patched), rip, base=program.base, program=program, before=1, after=0)
    assert rows[0].text == "nop"
    assert around(lambda address, size: b"", rip, program=program) == []


def test_cache_hit_needs_no_keystone(folder: Path) -> None:
    script = "import sys\nfrom vmm.asm.assembler import assemble\np = assemble('nop', base=0, constants={})\n"
    script += "print(p.code.hex(), 'keystone' in sys.modules, 'vmm.asm.layout' in sys.modules)"
    root = str(Path(__file__).parents[2])
    run = [
        subprocess.run(
            [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    ]
    assert run == ["90 True True", "90 False False"]


def test_cache_gives_the_same_program(folder: Path) -> None:
    first = assemble(TEXT, name="x.asm", constants={})
    assert len(list(folder.iterdir())) == 1
    assert assemble(TEXT, name="x.asm", constants={}) == first


def test_what_facts_stand_in_is_in_the_key(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "facts.py"

    def facts() -> dict[str, int]:
        return {"PLACE": len(file.read_text())}

    for text in ("# 1", "# edited", "# 1"):
        file.write_text(text)
        assert assemble("mov al, PLACE", facts=Facts(facts, (str(file),))).code == bytes([0xB0, len(text)])


@pytest.mark.parametrize(
    "options",
    [{"constants": {"A": 2}}, {"base": 0x8000}, {"name": "y"}, {"text": "A2: mov al, A"}],
    ids=lambda options: next(iter(options)),
)
def test_everything_that_matters_is_in_the_key(folder: Path, options: dict[str, object]) -> None:
    usual: dict[str, object] = {"text": "mov al, A", "constants": {"A": 1}, "name": "x"}
    for options_now in (usual, usual | options):
        arguments = dict(options_now)
        assemble(arguments.pop("text"), **arguments)  # type: ignore[arg-type]
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"garbage", b"cut", b"flip"])
def test_damaged_entry_is_a_miss(folder: Path, damage: bytes) -> None:
    first = assemble(TEXT, constants={})
    (entry,) = folder.iterdir()
    data = entry.read_bytes()
    at = data.index(first.code)  # a byte of the guest: still good marshal, other code
    flipped = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
    entry.write_bytes({b"cut": data[:60], b"flip": flipped}.get(damage, damage))
    assert cache.load(entry.stem) is None
    assert assemble(TEXT, constants={}) == first
    assert entry.read_bytes() == data
    assert cache.notice is None


def test_unwritable_folder_costs_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("PYVMM_CACHE", str(blocker / "below"))
    heard: list[str] = []
    monkeypatch.setattr(cache, "warn", heard.append)
    assert assemble("nop", constants={}).code == assemble("nop", constants={}).code == b"\x90"
    assert len(heard) == 1
    assert heard[0] == cache.notice
    assert "PYVMM_CACHE" in heard[0]


def test_full_disk_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def full(_temporary: str, _name: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert assemble("nop", constants={}).code == b"\x90"
    assert cache.notice is not None
    assert "No space left" in cache.notice
    assert list(folder.iterdir()) == []


def test_the_oldest_entries_make_room(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(cache, "MAX_ENTRIES", 8)
    for i in range(8):
        assemble(f"mov eax, {i}", constants={})
    mine = [folder / f"{name}.asm" for name in ("hello", "a" * 63, "G" + "0" * 63)]
    for path in mine:
        path.write_text("hlt")
        os.utime(path, ns=(0, 0))
    kept = sorted((path for path in folder.glob("*.asm") if path not in mine), key=lambda path: path.stat().st_mtime_ns)
    for age, path in enumerate(reversed(kept)):
        os.utime(path, ns=(0, 10**18 - age * 10**9))
    assemble("mov eax, 8", constants={})
    assert cache.notice is None
    assert len(list(folder.glob("*.asm"))) == 6 + len(mine)
    assert all(path.exists() for path in kept[3:]), "the newest stay"
    assert all(path.exists() for path in mine), "a person's own sources are none of ours"


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PYVMM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == str(tmp_path / "pyvmm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == str(tmp_path / ".cache/pyvmm")
    assert os.environ["HOME"]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding payloads: shipped ones by name, files by path, and everything that is neither."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from vmm.errors import PayloadError, UsageError
from vmm.machine.memory.layout import REGIONS
from vmm.payload import catalog
from vmm.payload.catalog import GROUPS, MAX_SOURCE, find, shipped, whole
from vmm.payload.guest import assemble
from vmm.payload.half import half_of
from vmm.payload.images import BroughtImage
from vmm.payload.options import Options


def test_shipped_by_name() -> None:
    hello = find("hello")
    assert (hello.name, hello.group, hello.code) == ("hello", "basics", None)
    assert hello.header.summary
    assert hello.host_half() is None
    half = find("pio").host_half()
    assert half is not None
    assert (half.check.__module__, half.prove) == ("guest_payloads.basics.pio", None)


def test_names_are_unique_and_in_groups() -> None:
    files = [path for group in GROUPS for path in Path(catalog.ROOT, group).glob("*.asm")]
    assert len({path.stem for path in files}) == len(files) == len(shipped())
    assert {path.parent.name for path in shipped().values()} <= set(GROUPS)


def test_every_host_half_has_its_assembly() -> None:
    for group in GROUPS:
        halves = {path.stem for path in Path(catalog.ROOT, group).glob("*.py")} - {"__init__"}
        assert halves <= set(shipped())


def test_the_shipped_name_wins_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hello").write_bytes(b"\xf4")
    assert find("hello").group == "basics"
    assert find("./hello").code == b"\xf4"


@pytest.mark.parametrize(
    ("name", "near"),
    [("helo", "did you mean hello"), ("HELLO", "did you mean hello"), ("ring", "ring3"), ("zzzzzz", "pyvmm list"),
     ("", "no payload is called ''"), ("no\0such", "no payload is called"), ("x" * 5000, "no payload is called")],
)  # fmt: skip
def test_nearest_names_are_offered(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=near):
        find(name)


def test_assembly_by_path(tmp_path: Path) -> None:
    for name in ("mine.asm", "MINE.ASM"):
        path = tmp_path / name
        path.write_bytes(b"\xef\xbb\xbf; summary: with a byte order mark\r\nstart: hlt\r\n")
        mine = find(str(path))
        assert (mine.name, mine.group, mine.code) == (path.stem, "", None)
        assert mine.header.summary == "with a byte order mark"
        assert mine.host_half() is None
        assert assemble(mine).code == b"\xf4"


@pytest.mark.parametrize(
    "script",
    ["raise SystemExit", "", "def check():\n    pass\nraise SystemExit", "class A:\n    def check(self): pass\n1 / 0",
     "def test_check(machine): ...\n1 / 0"],
)  # fmt: skip
def test_a_script_that_has_the_name_is_no_host_half_and_is_not_run(script: str, tmp_path: Path) -> None:
    path = tmp_path / "pio.asm"
    path.write_text("start: hlt")
    (tmp_path / "pio.py").write_text(script)
    assert find(str(path)).host_half() is None


def test_the_host_half_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.asm"
    path.write_text("start: hlt")
    (tmp_path / "mine.py").write_text("def check(guest):\n    return guest + 1\n")
    module = find(str(path)).host_half()
    assert module is not None
    assert module.check(1) == 2
    with pytest.raises(PayloadError, match=r"mine.py:2: check\(\): TypeError: .*\n  return guest \+ 1"):
        module.check("x")


@pytest.mark.parametrize(
    ("script", "said"),
    [("def check(guest) 1/0", r"mine.py:1: the host half is no Python: .*\n  def check"),
     ("def check(guest): ...\n1 / 0\n", r"mine.py:2: importing the host half: ZeroDivisionError: .*\n  1 / 0"),
     ("def check(guest): ...\nraise SystemExit(3)\n", "mine.py:2: importing the host half: SystemExit: 3"),
     ("def check(guest): ...\nimport nobody_has_this", "ModuleNotFoundError"), ("\0", "no Python|null bytes")],
)  # fmt: skip
def test_a_host_half_that_cannot_be_imported_is_its_authors_error(script: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.asm"
    path.write_text("start: hlt")
    (tmp_path / "mine.py").write_text(script)
    with pytest.raises(PayloadError, match=said):
        find(str(path)).host_half()


@pytest.mark.parametrize(
    ("script", "said"),
    [("def check(guest, wanted): ...", r"mine.py: the host half: check\(\) takes 2 arguments, .* has check\(guest\)"),
     ("def check(guest): ...\nsetup = 5", r"setup is 5, and in a host half it is a function: setup\(guest\)"),
     ("def check(guest): ...\ndef drive(): ...", r"drive\(\) takes 0 arguments"),
     ("async def check(guest): ...", r"check\(\) is a coroutine or a generator, which a call does not run"),
     ("def check(guest): yield", r"check\(\) is a coroutine or a generator"),
     ("def check(guest, *, wanted): ...", r"check\(\) needs wanted by name")],
)  # fmt: skip
def test_a_host_half_of_another_shape_is_its_authors_error(script: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.asm"
    path.write_text("start: hlt")
    (tmp_path / "mine.py").write_text(script)
    with pytest.raises(PayloadError, match=said):
        find(str(path)).host_half()


@pytest.mark.parametrize("taken", ["guest", "guest, /", "guest, wanted=1", "*any", "guest, *, wanted=1"])
def test_a_function_that_can_be_called_so_is_right(taken: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.asm"
    path.write_text("start: hlt")
    (tmp_path / "mine.py").write_text(f"def check({taken}): ...")
    half = find(str(path)).host_half()
    assert half is not None
    assert (half.setup, half.check is None) == (None, False)


def test_a_proof_has_no_other_parts_and_refusals_have_a_proof() -> None:
    for parts in ({"prove", "check"}, {"refusals"}):
        with pytest.raises(ValueError, match="prove"):
            half_of(SimpleNamespace(**dict.fromkeys(parts, lambda lab: None)))


def test_only_what_comes_with_pyvmm_proves_and_only_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.asm"
    mine.write_text("; proves: STEAL_TIME\nstart: hlt")
    with pytest.raises(PayloadError, match=r"mine.asm: proves: only what comes with pyvmm"):
        find(str(mine))
    monkeypatch.setattr(catalog, "ROOT", str(tmp_path))
    (tmp_path / "pv").mkdir()
    rows = {"one": "STEAL_TIM", "two": "KVM_HC_KICK_CUP", "three": "KVM_HC_KICK_CPU", "four": "a word"}
    for name, row in rows.items():
        (tmp_path / "pv" / f"{name}.asm").write_text(f"; proves: {row}\nstart: hlt")
    for name in ("one", "two"):
        with pytest.raises(PayloadError, match="proves: no paravirtual feature is called"):
            find(name)
    assert (find("three").header.proves, find("four").header.proves) == (("KVM_HC_KICK_CPU",), ("a word",))


def test_what_has_a_proof_says_what_of() -> None:
    for name in shipped():
        payload = find(name)
        half = payload.host_half()
        assert bool(half and half.prove) == bool(payload.header.proves), name


def test_raw_by_path_and_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("code.bin", "code"):
        Path(name).write_bytes(b"\x90\xf4")
        raw = find(name)
        assert (raw.name, raw.code, raw.text) == (name, b"\x90\xf4", None)
    program = assemble(find("code"))
    assert (program.base, program.code, program.entry) == (REGIONS["code"].base, b"\x90\xf4", REGIONS["code"].base)


def test_raw_code_fills_its_region_and_no_more(tmp_path: Path) -> None:
    path, room = tmp_path / "big.bin", REGIONS["code"].size
    path.write_bytes(bytes(room))
    assert len(find(str(path)).code or b"") == room
    path.write_bytes(bytes(room + 1))
    with pytest.raises(UsageError, match=rf"too large: a raw payload has at most {room} bytes \({room >> 10} KiB\)"):
        BroughtImage(find(str(path)), Options())


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.asm"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: it takes no room, and would take for ever to read
    with pytest.raises(UsageError, match=f"at most {MAX_SOURCE} bytes"):
        find(str(path))


@pytest.mark.parametrize("name", ["gone.asm", "gone.bin", "./gone", "no/such/folder/x.asm"])
def test_missing_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"reading .*gone.*|reading no/such.*: No such file or directory"):
        find(name)


@pytest.mark.parametrize("suffix", [".asm", ".bin", ""])
def test_what_is_no_regular_file(suffix: str, tmp_path: Path) -> None:
    folder, pipe, loop = (tmp_path / f"{kind}{suffix}" for kind in ("folder", "pipe", "loop"))
    folder.mkdir()
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    for path, said in ((folder, "is a directory"), (pipe, "is a pipe"), (loop, "Too many levels of symbolic links")):
        with pytest.raises(UsageError, match=said):
            find(str(path))
    with pytest.raises(UsageError, match="is a character device"):
        find("/dev/zero")


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.asm"
    path.write_text("hlt")

    def refuse(file: str, *_: object) -> None:
        raise PermissionError(13, "Permission denied", file)

    monkeypatch.setattr(catalog, "open", refuse, raising=False)  # root may read whatever its mode says
    with pytest.raises(UsageError, match=r"reading .*secret.asm: Permission denied"):
        find(str(path))


@pytest.mark.parametrize("name", ["a/b\0c.asm", "x" * 300 + ".asm", "y/" + "x" * 5000])
def test_impossible_names(name: str) -> None:
    with pytest.raises(UsageError, match="reading "):
        find(name)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.asm"
    path.write_bytes(b"; caf\xe9\nhlt\n")
    with pytest.raises(UsageError, match=r"latin.asm: not UTF-8 text at byte 5; a raw binary needs the suffix .bin"):
        find(str(path))


def test_wrong_header_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "x.asm"
    path.write_text("; summary: x\n; ends: never\n")
    with pytest.raises(PayloadError, match=rf"{path}:2: ends: 'never' is none of"):
        find(str(path))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("empty.bin", b"", "is empty"),
        ("boot.s", b"hlt", "looks like assembly"),
        ("boot.S", b"hlt", "looks like assembly"),
        ("boot.nasm", b"hlt", "looks like assembly"),
    ],
)
def test_what_is_plainly_no_code(name: str, data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=said):
        find(str(tmp_path / name))


@pytest.mark.parametrize("text", ["", "; summary: nothing\n", "X = 5\n"])
def test_assembly_without_an_instruction(text: str, tmp_path: Path) -> None:
    path = tmp_path / "nothing.asm"
    path.write_text(text)
    with pytest.raises(PayloadError, match=r"nothing.asm: no instruction in it"):
        assemble(find(str(path)))


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"#!/bin/sh\n\xff", "is a script"), (b"!<arch>\nx\xff", "an archive"), (b"PK\x03\x04\xff", "a zip archive"),
     (b"MZ" + bytes(0x3A) + b"\x40\0\0\0PE\0\0", "a PE file")],
)  # fmt: skip
def test_files_that_are_no_raw_code(data: bytes, said: str, tmp_path: Path) -> None:
    for name in ("kernel", "kernel.bin"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UsageError, match=said):
            find(str(tmp_path / name))


@pytest.mark.parametrize("text", ["start: mov al, 1\nhlt\n", "int main(void) { return 0; }", "; caf\xe9\n\thlt\r\n"])
def test_text_without_a_suffix_is_no_machine_code(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"is text, and without the suffix \.asm .* machine code\n  try: `cp "):
        find(str(path))
    path.rename(tmp_path / "mine.bin")
    assert find(str(tmp_path / "mine.bin")).code == text.encode()  # whoever says so


@pytest.mark.parametrize("head", [b"\x7fELF", b"\x1f\x8b\x08", b"\xf4" + bytes(509) + b"\x55\xaa"])
def test_what_has_a_header_is_an_image_and_is_read_whole(head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "boot.bin"
    path.write_bytes(head + bytes(REGIONS["code"].size))
    found = find(str(path))
    assert found.image
    assert len(whole(found)) == len(head) + REGIONS["code"].size

# SPDX-License-Identifier: GPL-2.0-or-later
"""Prepared guests: the second plain run shows what the first did, without what that needed; whatever has changed, or
goes otherwise, goes the long way.
"""

from __future__ import annotations

import marshal
import os
import re
import subprocess
import sys
import time
from _imp import source_hash
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

import vmm
import vmm.cli.prepared as quick
from vmm.asm.assembler import assemble
from vmm.cli import run
from vmm.kvm.buffers import packed_u64
from vmm.kvm.prepared import unchanged
from vmm.machine.memory.layout import REGIONS
from vmm.payload import prepare
from vmm.payload.prepare import ABSENT, PATIENCE_NS, SETTLED_NS
from vmm.payload.prepared import KEY, MAGIC, load

TIMES = re.compile(r"\d+\.\d ms")
OLD = 1_000_000_000  # a time long ago
HELLO = """; summary: says it
%include "results.inc"
start:
    lea rsi, [rip + text]
    call print
    PASS
text: .asciz "{}"
%include "console.inc"
"""
HALTS = "start: mov al, 65\nout 0xe9, al\nhlt\n"
# Modules of pyvmm's that a prepared run loads; each takes as long as the guest.
LOADED = {
    "vmm", "vmm.cli", "vmm.cli.prepared", "vmm.payload", "vmm.payload.prepared", "vmm.base", "vmm.base.cache_place",
    "vmm.report", "vmm.report.closing", "vmm.report.style", "vmm.kvm", "vmm.kvm.prepared", "vmm.kvm._kvm",
    "vmm.kvm._kvm.lib",
}  # fmt: skip
WATCHED = (
    "import os, sys\nfrom vmm.cli import command\nsys.argv[0] = 'pyvmm'\nleave = os._exit\n"
    "def told(status):\n"
    "    print(*(each for each in sys.modules if each.split('.')[0] == 'vmm'), file=sys.stderr)\n"
    "    sys.stderr.flush()\n    leave(status)\n"
    "os._exit = told\ncommand()\n"
)


@pytest.fixture(scope="module", autouse=True)
def settled() -> None:
    """What has just been changed is not taken; pyvmm itself may have been, a moment ago."""
    files = [each for each in Path(vmm.__file__).parent.rglob("*") if each.suffix in (".py", ".so")]
    left = max(each.stat().st_mtime_ns for each in files) + SETTLED_NS - time.time_ns()
    time.sleep(min(max(left, 0), SETTLED_NS) / 1e9)


class Runs:
    """`pyvmm run`, with a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.cache = folder / "cache"
        self.folder = folder

    def write(self, name: str, text: str) -> str:
        file = self.folder / name
        file.write_text(text)
        os.utime(file, ns=(OLD, OLD))
        return str(file)

    def __call__(self, name: str) -> tuple[int, str, bool]:
        """(exit status, what was printed but for the times, whether it was prepared), as `command` would go."""
        out = StringIO()
        status = quick.run(name, out)
        assert (status is None) == (out.getvalue() == "")
        long = status is None
        if status is None:
            status = run.run(run.plain(name), out, quick.keeper(name))
        return status, TIMES.sub("T ms", out.getvalue()), not long

    def kept(self) -> list[Path]:
        return sorted(self.cache.glob("*.run"))

    def change(self, **parts: Any) -> None:
        """Write what is kept anew, with other parts."""
        (file,) = self.kept()
        told = marshal.dumps({**(load(str(file)) or {}), **parts}, 2)
        file.write_bytes(MAGIC + source_hash(KEY, told) + told)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setenv("PYVMM_CACHE", str(tmp_path / "cache"))
    # How long a guest takes is the scheduler's.
    monkeypatch.setattr(prepare, "QUICK", 60.0)
    monkeypatch.setattr(prepare, "PATIENCE_NS", 60_000_000_000)
    return Runs(tmp_path)


def prepared(runs: Runs, name: str) -> str:
    """What both ways show of it."""
    status, shown, quick = runs(name)
    assert (status, quick) == (0, False)
    assert runs(name) == (0, shown, True)
    return shown


def test_hello_is_shown_alike(runs: Runs) -> None:
    assert prepared(runs, "hello") == (
        "Hello from ring 0 of a virtual machine.\npass  hello  41 exits (41 PortOut), T ms\n"
    )


@pytest.mark.parametrize(
    "text", [HELLO.format("two\\nlines\\n"), HELLO.format("no end of line"), HALTS, "start: hlt\n", HALTS + "; €\n"]
)
def test_an_own_guest(runs: Runs, text: str) -> None:
    prepared(runs, runs.write("own.asm", text))


def test_by_another_way_to_say_where_it_is(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs.folder)
    runs.write("own.asm", HALTS)
    prepared(runs, "./own.asm")
    assert runs("own.asm")[2]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ('; result: a u8 one\n%include "results.inc"\nstart: mov eax, 1\nRESULT a\nPASS\n', 0),
        ("; reslut: a\nstart: hlt\n", 0),  # with a note
        ('%include "results.inc"\nstart: FAIL\n', 1),
        ("start: ud2\n", 1),
        ('; machine: ring=3\n%include "results.inc"\nstart: hlt\n', 1),
        ("; machine: timeout=0.9\nstart: hlt\n", 0),
        ("start: in al, 0x80\nhlt\n", 0),  # which nobody claims
        ("start: mov ecx, 16400\nagain: mov al, 65\nout 0xe9, al\nloop again\nhlt\n", 0),  # more than waits in C
    ],
)
def test_what_is_not_kept(runs: Runs, text: str, status: int) -> None:
    name = runs.write("own.asm", text)
    for _ in range(2):
        done = runs(name)
        assert (done[0], done[2]) == (status, False)
    assert runs.kept() == []


def test_one_with_a_note_about_the_module_beside_it_is_not_kept(runs: Runs) -> None:
    name = runs.write("own.asm", HALTS)
    runs.write("own.py", "def chekc(guest): pass\n")
    assert "note" in runs(name)[1]
    assert runs.kept() == []


def test_a_run_that_takes_long_is_not_kept(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "QUICK", 0.0)
    assert runs("hello")[0] == 0
    assert runs.kept() == []


def test_what_has_changed_just_now_is_not_kept(runs: Runs) -> None:
    name = runs.write("own.asm", HALTS)
    os.utime(name)
    assert runs(name)[0] == 0
    assert runs.kept() == []


def _edit(runs: Runs) -> None:
    runs.write("own.asm", HELLO.format("other\\n"))
    os.utime(runs.folder / "own.asm", ns=(OLD + 1, OLD + 1))


def _include(runs: Runs) -> None:
    text = (Path(vmm.__file__).parents[1] / "guest_payloads" / "inc" / "console.inc").read_text()
    more = "".join(f"    mov al, {each}\n    out DEBUG_CONSOLE, al\n" for each in b"other")
    runs.write("console.inc", text.replace("print_done:\n", f"print_done:\n{more}"))


def _host_half(runs: Runs) -> None:
    runs.write("own.py", "def check(guest):\n    guest.expect(False, 'other')\n")


@pytest.mark.parametrize("change", [_edit, _include, _host_half])
def test_whoever_changes_a_file_sees_it(runs: Runs, change: Callable[[Runs], None]) -> None:
    name = runs.write("own.asm", HELLO.format("one\\n"))
    prepared(runs, name)
    change(runs)
    done = runs(name)
    assert ("other" in done[1], done[2]) == (True, False)


def test_a_file_that_is_kept_and_damaged(runs: Runs) -> None:
    prepared(runs, "hello")
    (file,) = runs.kept()
    whole = file.read_bytes()
    for damaged in (b"", whole[:-9], whole[:-9] + b"\xff" + whole[-8:], b"pyvmm-run-0\n" + whole[len(MAGIC) :]):
        file.write_bytes(damaged)
        assert load(str(file)) is None
        assert runs("hello")[::2] == (0, False)
        assert load(str(file)), "kept anew"


def test_another_cpuid_is_asked_for_anew(runs: Runs) -> None:
    shown = prepared(runs, "hello")
    one = load(str(runs.kept()[0]))
    assert one is not None
    runs.change(offer=one["offer"][:-40] + bytes(40))
    assert runs("hello") == (0, shown, False)
    assert runs("hello") == (0, shown, True)


@pytest.mark.parametrize(
    "text",
    [
        "mov al, 66\nout 0xe9, al\nhere: jmp here",  # never ends
        "mov al, 66\nout 0xe9, al\nud2",
        "mov al, 66\nout 0xe9, al\nhlt",
        "mov al, 66\nout 0xe9, al\nmov al, 1\nout 0xf4, al",
        "mov al, 66\nout 0xe9, al\nin al, 0x80",
    ],
)
def test_one_that_goes_otherwise_than_before_is_not_seen(runs: Runs, text: str) -> None:
    """Of the guest that is kept only the code is exchanged: the long way runs what is written, from its start."""
    shown = prepared(runs, "hello")
    one = load(str(runs.kept()[0]))
    assert one is not None
    base = REGIONS["code"].base
    code = assemble(text, base=base, cache=False).code
    image = one["image"] + packed_u64((base, len(code))) + code
    size, _, cpuid_size, _, *end = one["begin"]
    runs.change(image=image, begin=(size, len(image), cpuid_size, PATIENCE_NS, *end))
    assert runs("hello") == (0, shown, False)


def test_an_image_that_cannot_be(runs: Runs) -> None:
    shown = prepared(runs, "hello")
    one = load(str(runs.kept()[0]))
    assert one is not None
    size = one["begin"][0]
    for more in (b"\0", packed_u64((size - 1, 2)) + b"ab", packed_u64((1 << 63, 1)) + b"a", packed_u64((0, 1 << 63))):
        image = one["image"] + more
        runs.change(image=image, begin=(size, len(image), *one["begin"][2:]))
        assert runs("hello") == (0, shown, False)


def test_unchanged(tmp_path: Path) -> None:
    file, none = tmp_path / "file", tmp_path / "none"
    file.write_bytes(b"abc")
    found = file.stat()
    paths = b"".join(os.fsencode(each) + b"\0" for each in (file, none))
    now = packed_u64((3, found.st_mtime_ns, *ABSENT))
    assert unchanged(paths, now)
    assert not unchanged(paths, packed_u64((4, found.st_mtime_ns, *ABSENT)))
    assert not unchanged(paths, packed_u64((3, found.st_mtime_ns + 1, *ABSENT)))
    assert not unchanged(paths, packed_u64((3, found.st_mtime_ns, 0, 0)))
    none.touch()
    assert not unchanged(paths, now)
    none.unlink()
    file.unlink()
    assert not unchanged(paths, now)


def test_the_command_loads_next_to_nothing_for_it(runs: Runs) -> None:
    shown = runs("hello")[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    command = [sys.executable, "-c", WATCHED, "run", "hello"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert TIMES.sub("T ms", done.stdout) == shown
    assert set(done.stderr.split()) == LOADED


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_it_has_its_colours(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    name = runs.write("own.asm", HELLO.format("\\x1b[2J\\n"))
    assert runs(name)[0] == 0
    both = Terminal(), Terminal()
    assert run.run(run.plain(name), both[0]) == quick.run(name, both[1]) == 0
    assert TIMES.sub("", both[0].getvalue()) == TIMES.sub("", both[1].getvalue())
    assert both[1].getvalue().startswith("\\x1b[2J\n\x1b[32mpass\x1b[0m")

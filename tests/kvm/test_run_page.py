# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm run --html` with real guests: who used which memory, the page of a run and of its replay, what is not lost."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_pages import whole
from tests.unit.test_pages_run import text_of
from vmm.cli import main
from vmm.cli.files import OutputFile
from vmm.observe.left import Left, Used
from vmm.observe.trace import End, read

HALF = (
    "def check(guest):\n    guest.machine.memory.write(0xa8000, b'x')\n    guest.machine.memory.read(0xa9000, 8192)\n"
)
GUEST = """
start:
    mov  rax, [0xa0000]
    mov  byte ptr [0xa2000], 1
    lea  rdi, [0xa4ffc]
    mov  rax, -1
    mov  [rdi], rax                 # over the end of its page
    push rax
    hlt
"""


@pytest.fixture
def guest(tmp_path: Path) -> Callable[..., str]:
    def write(text: str = GUEST, half: str = HALF) -> str:
        (tmp_path / "mine.asm").write_text(text, encoding="utf-8")
        (tmp_path / "mine.py").write_text(half, encoding="utf-8")
        return str(tmp_path / "mine.asm")

    return write


def of_kind(path: Path, kind: type[Any]) -> list[Any]:
    return [record for _, record in read(str(path)) if isinstance(record, kind)]


def pages(used: tuple[Used, ...], by: str) -> dict[int, str]:
    """What was done with each page of 4 KiB."""
    found = {}
    for each in used:
        assert each.page == 4096
        for page in range(each.base, each.base + each.size, 4096):
            if each.by == by:
                found[page] = "r" * each.read + "w" * each.wrote
    return found


def test_who_used_what(guest: Callable[..., str], tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    assert main(["run", guest(), "--trace", str(trace), "--timeout", "60"]) == 0
    (left,) = of_kind(trace, Left)
    by_guest = pages(left.used, "guest")
    assert {page: how for page, how in by_guest.items() if 0xA0000 <= page < 0xB0000} == {
        0xA0000: "r", 0xA2000: "rw", 0xA4000: "rw", 0xA5000: "rw",
    }  # fmt: skip
    assert by_guest[0x20000] == "r"
    assert by_guest[0x101000] == "rw"  # the stack
    assert pages(left.used, "host half") == {0xA8000: "w", 0xA9000: "r", 0xAA000: "r"}
    assert [each.what for each in left.walks] == [
        "the entry",
        "vCPU 0: RIP at the end",
        "vCPU 0: where the next push goes",
    ]
    assert {(each.base, each.name) for each in left.areas} >= {(0xA0000, "data"), (0x104000, "cpus[0].tss")}
    assert any(each.va == each.gpa == 0xA0000 and each.rights == "rw--" for each in left.mapped)
    assert left.notes == ()


def test_a_run_and_its_replay_have_one_page(guest: Callable[..., str], tmp_path: Path) -> None:
    trace, run, replay = (tmp_path / name for name in ("t.jsonl", "run.html", "replay.html"))
    name = guest(GUEST.replace("hlt", "out 0x7, al\n    mov [0xc0000000000], al"))
    assert main(["run", name, "--html", str(run), "--trace", str(trace), "--timeout", "60"]) == 1
    assert main(["replay", str(trace), "--quiet", "--html", str(replay)]) == 1
    texts = [text_of(each.read_text(encoding="utf-8")) for each in (run, replay)]
    for text in texts:
        assert "#PF" in text
        assert "no page:" in text
        assert "The host half" not in text  # a guest that crashed is not checked
        assert "mine.asm:9 out 0x7, al" in text

    def rest(text: str) -> str:
        begin, end = text.index("What went wrong"), text.index("Written by")  # above it are notes that a trace has not
        return re.sub(r"[\d.]+ ms", "", text[begin:end])

    assert rest(texts[0]).split() == rest(texts[1]).split()
    (end,) = of_kind(trace, End)
    assert end.postmortem is not None
    assert end.postmortem.fault.name.startswith("#PF")


def test_statistics_and_each_vcpu_are_on_the_page(tmp_path: Path) -> None:
    file = tmp_path / "x.html"
    assert main(["run", "smp", "--stats", "--html", str(file), "--timeout", "60"]) == 0
    text = file.read_text(encoding="utf-8")
    whole(text)
    assert text.count('<figure class="lane">') == 2
    assert "KVM's own statistics" in text or "KVM&#39;s own statistics" in text


def test_a_page_that_cannot_be_written_loses_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: OutputFile) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(OutputFile, "keep", full)
    assert main(["run", "hello", "--html", str(tmp_path / "x.html"), "--timeout", "60"]) == 0
    out, err = capsys.readouterr()
    assert "Hello from ring 0" in out
    assert "pass" in out
    assert "No space left on device (ENOSPC); the run is told all the same" in err
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_is_said_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("-", str(tmp_path / "no/x.html"), str(tmp_path)):
        assert main(["run", "hello", "--html", name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("pyvmm: ") == 3


def test_memory_is_only_watched_where_somebody_asks(guest: Callable[..., str], tmp_path: Path) -> None:
    half = (
        "def check(guest):\n    import pathlib\n"
        "    name = type(guest.machine.memory).__name__\n"
        "    pathlib.Path(__file__).with_suffix('.txt').write_text(name)\n"
    )
    name = guest(half=half)
    for options, expected in (([], "GuestMemory"), (["--html", str(tmp_path / "a.html")], "WatchedMemory")):
        assert main(["run", name, "--timeout", "60", *options]) == 0
        assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == expected

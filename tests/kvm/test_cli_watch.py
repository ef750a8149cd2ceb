# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm run --watch` as somebody with an editor meets it: saves, mistakes, a file that is gone, ^C."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vmm.cli import main
from vmm.payload.sources import sources

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60.0  # seconds for one answer on a loaded machine
HELLO = """\
%include "results.inc"
start:
    lea   rsi, [rip + text]
    call  print
    PASS
text: .asciz "{}\\n"
%include "console.inc"
%include "mine.inc"
"""


class Watching:
    """The command at work, and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.text = process, ""

    def until(self, *words: str) -> str:
        """What is printed up to all of the words, and from there on not again."""
        assert self.process.stdout is not None
        end = time.monotonic() + LIMIT
        while not all(word in self.text for word in words):
            assert time.monotonic() < end, f"{words} did not come: {self.text}"
            if select.select([self.process.stdout], [], [], 1)[0]:
                data = os.read(self.process.stdout.fileno(), 65536)
                assert data, f"it ended: {self.text}"
                self.text += data.decode()
        told, self.text = self.text, ""
        return told


@contextmanager
def watching(folder: Path, *words: str) -> Iterator[Watching]:
    with subprocess.Popen(
        [sys.executable, "-m", "vmm", "run", "--watch", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            yield Watching(process)
        finally:
            process.kill()


def test_it_runs_again_at_each_save_and_ends_by_interrupt(tmp_path: Path) -> None:
    asm, include, half = tmp_path / "a.asm", tmp_path / "mine.inc", tmp_path / "a.py"
    include.write_text("")
    asm.write_text(HELLO.format("first"))
    with watching(tmp_path, "a.asm") as seen:
        assert "first\n" in seen.until("pass  a", "waits for a save of a.asm")
        asm.write_text(HELLO.format("second"))
        assert "second\n" in seen.until("--- run 2: a.asm saved ---", "pass  a", "waits for")
        include.write_text("bogus rax\n")  # it does not assemble, and the next save mends it
        assert "mine.inc:1:1: unknown instruction" in seen.until("--- run 3: mine.inc saved ---", "waits for")
        include.write_text("; well\n")
        seen.until("--- run 4: mine.inc saved ---", "pass  a", "waits for")
        half.write_text("def check(guest):\n    guest.expect(False, 'not so')\n")  # new beside it
        assert "failed: not so" in seen.until("--- run 5: a.py saved ---", "fail  a", "waits for")
        half.write_text("def check(guest):\n    guest.expect(True, 'not so')\n ")  # as long, in the same second
        seen.until("--- run 6: a.py saved ---", "pass  a", "waits for")
        other = tmp_path / "a.asm.swp"
        other.write_text(HELLO.format("renamed"))
        other.replace(asm)
        assert "renamed\n" in seen.until("--- run 7: a.asm saved ---", "pass  a", "waits for")
        asm.unlink()
        assert "No such file" in seen.until("--- run 8: a.asm gone ---", "waits for")
        asm.write_text(HELLO.format("again"))
        assert "again\n" in seen.until("--- run 9: a.asm saved ---", "pass  a", "waits for")
        seen.process.send_signal(signal.SIGINT)
        assert seen.process.wait(LIMIT) == 130


def test_a_reader_that_goes_away_ends_it(tmp_path: Path) -> None:
    (tmp_path / "mine.inc").write_text("")
    (tmp_path / "a.asm").write_text(HELLO.format("first"))
    with watching(tmp_path, "a.asm", "--json") as seen:
        told = seen.until("waits for")
        document: dict[str, Any] = json.loads(told[: told.rindex("}") + 1])  # what is said aside is after it
        assert document["outcome"] == "pass"
        assert seen.process.stdout is not None
        seen.process.stdout.close()
        assert seen.process.wait(LIMIT) == 141


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.asm"], "No such file"),
        (["nothing"], "nothing"),
        (["hello", "--gdb"], "a debugger stays at one run"),
        (["hello", "--cpus", "0"], "give at least 1"),
        ([], "required: PAYLOAD"),
    ],
)
def test_what_no_save_can_mend_is_an_error(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--watch", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_guest_in_c_is_made_of_its_headers_too(tmp_path: Path) -> None:
    main_c, header, inner = (tmp_path / each for each in ("a.c", "b.h", "c.h"))
    main_c.write_text('#include <pyvmm.h>\n#include "b.h"\n # include "late.h"\nint main(void) { return PASS; }\n')
    header.write_text('#include "c.h"\n#include "b.h"\n')
    inner.write_text("")
    found = sources(str(main_c), ["-O0", "-Isub", "other.c"])
    late = [str(tmp_path / "late.h"), "sub/late.h"]  # wherever it may be written
    assert set(found) == {*map(str, (main_c, header, inner)), str(tmp_path / "other.c"), *late, str(tmp_path / "a.py")}


def test_an_include_that_would_win_if_it_were_there_is_a_source_too(tmp_path: Path) -> None:
    text = tmp_path / "a.asm"
    text.write_text('%include \'console.inc\' ; shipped\n%include "a.asm"\n%include\n%include ""\n; %include "no"\n')
    assert sources(str(text))[:2] == (str(text), str(tmp_path / "console.inc"))
    assert sources(str(text))[-1] == str(tmp_path / "a.py")
    assert not [each for each in sources(str(text)) if "no" in Path(each).stem.split("_")]
    assert sources("a.bin") == ("a.bin",)
    assert sources("missing.asm") == ("missing.asm", "missing.py")

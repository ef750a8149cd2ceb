# SPDX-License-Identifier: GPL-2.0-or-later
"""Work in a child that can touch nothing: what comes back, and how each thing that goes wrong ends, in words."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.left_behind import children, files_before, open_files
from vmm.asm import keystone_engine
from vmm.asm.assembler import assemble
from vmm.asm.program import Program
from vmm.errors import HostError, PayloadError, UsageError
from vmm.kvm import confine
from vmm.payload import apart
from vmm.payload.catalog import find
from vmm.payload.guest import assemble as assemble_payload
from vmm.sandbox import child

LANDLOCK = pytest.mark.skipif(not confine.landlock_abi(), reason="this kernel has no landlock")
SECCOMP = pytest.mark.skipif(not confine.has_filters(0x80000000), reason="this kernel has no seccomp filters")


def test_bytes_come_back_whole():
    assert child.apart(lambda: b"x" * 3_000_000, "counting") == b"x" * 3_000_000
    assert child.apart(lambda: b"", "counting") == b""


def test_nothing_is_left_behind():
    before, born = files_before(), children()
    for _ in range(3):
        child.apart(lambda: b"a", "counting")
        with pytest.raises(PayloadError):
            child.apart(os.abort, "counting")
    assert open_files() == before
    assert children() == born


def refused(work: object) -> str:
    with pytest.raises(PayloadError) as caught:
        child.apart(work, "reading it", cpu=1, memory=64 << 20, file="x.asm")  # type: ignore[arg-type]
    assert caught.value.hint == "`pyvmm docs sandbox#children`"
    return caught.value.text


def _loop() -> bytes:
    while True:
        pass


def _sleep() -> bytes:
    time.sleep(60)
    return b""


def test_what_takes_the_cpu_ends_by_its_limit():
    assert refused(_loop) == "x.asm: reading it: not done after 1 s of CPU time, and ended"


def test_what_sleeps_ends_too(monkeypatch: pytest.MonkeyPatch):
    clock = iter((0.0, 1.0, 100.0, 200.0))
    monkeypatch.setattr(child.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(child.select, "select", lambda *_: ([], [], []))
    assert "not done after 1 s" in refused(_sleep)


def test_what_takes_memory_ends_by_its_limit():
    assert refused(lambda: bytes(1 << 30)) == "x.asm: reading it: it needs more than 64 MiB of memory"


def test_a_crash_is_told_by_its_signal():
    assert refused(os.abort) == "x.asm: reading it: it ended the process that did it, by SIGABRT"
    assert "failed (status 4)" in refused(lambda: 1 / 0)


def test_more_than_anybody_needs_is_not_taken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(child, "MAX_RESULT", 1000)
    assert "ended" in refused(lambda: b"x" * 1001)
    assert child.apart(lambda: b"x" * 1000, "counting") == b"x" * 1000


def test_an_interrupt_takes_the_child_along(monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(child.select, "select", interrupted)
    before, born = files_before(), children()
    with pytest.raises(KeyboardInterrupt):
        child.apart(_sleep, "counting")
    assert open_files() == before
    assert children() == born


def test_no_child_to_be_had_is_the_hosts_error(monkeypatch: pytest.MonkeyPatch):
    def full() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(child.os, "fork", full)
    before = files_before()
    with pytest.raises(HostError, match=r"counting: fork: .*\(EAGAIN\)"):
        child.apart(lambda: b"", "counting")
    assert open_files() == before


def tried(what: object) -> str:
    """The error's name of what a child tries; `done` if it could."""

    def work() -> bytes:
        try:
            what()  # type: ignore[operator]
        except OSError as error:
            return type(error).__name__.encode()
        return b"done"

    return child.apart(work, "trying").decode()


@LANDLOCK
def test_the_child_reads_no_file_but_modules():
    assert tried(lambda: Path("/etc/passwd").read_bytes()) == "PermissionError"
    assert tried(lambda: list(Path("/etc").iterdir())) == "PermissionError"
    assert tried(lambda: Path(os.__file__).read_bytes()) == "done"


@SECCOMP
def test_the_child_has_no_file_process_or_socket(tmp_path: Path):
    assert tried(lambda: (tmp_path / "new").write_bytes(b"")) == "PermissionError"
    assert tried(os.fork) == "PermissionError"
    assert tried(lambda: os.kill(os.getppid(), 0)) == "PermissionError"
    assert tried(socket.socket) == "PermissionError"
    assert tried((tmp_path / "new").mkdir) == "PermissionError"
    assert not list(tmp_path.iterdir())
    assert "SIGSYS" in refused(lambda: os.execv("/bin/true", ["true"]))


def test_the_child_has_none_of_our_descriptors():
    reader, writer = os.pipe()
    try:
        # 0 to 2 go nowhere, 3 is the pipe to us.
        data = child.apart(lambda: bytes(n for n in range(64) if _is_open(n)), "counting")
        assert data == bytes((0, 1, 2, 3))
    finally:
        os.close(reader)
        os.close(writer)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def test_a_thread_elsewhere_is_no_hindrance():
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    try:
        assert child.apart(lambda: b"a", "counting") == b"a"
    finally:
        ended.set()
        thread.join()


# Assembling ---------------------------------------------------------------------------------------------------------

TEXT = """
%include "results"
value = 5
start: mov eax, value
.macro twice what
    \\what
    \\what
.endm
    twice nop
    mov ebx, offset start
    hlt
"""


def test_a_program_made_apart_is_the_one_made_here():
    here = assemble(TEXT, base=0x20000, cache=False, name="x.asm")
    there = assemble(TEXT, base=0x20000, cache=False, name="x.asm", apart=lambda make: apart.assembled(make, "x.asm"))
    assert there == here
    assert list(there.symbols) == list(here.symbols)


def test_an_error_comes_back_with_its_place():
    errors = []
    for how in (None, lambda make: apart.assembled(make, "x.asm")):
        with pytest.raises(PayloadError) as caught:
            assemble("start:\n  mov eax, nothing\n", base=0x20000, cache=False, name="x.asm", apart=how)
        errors.append(caught.value)
    here, there = errors
    assert (str(there), there.file, there.line, there.column, there.row) == (
        str(here), here.file, here.line, here.column, here.row,
    )  # fmt: skip
    assert there.line == 2


def test_another_error_keeps_its_kind():
    def wrong() -> Program:
        raise UsageError("no such thing", hint="another")

    with pytest.raises(UsageError, match="no such thing") as caught:
        apart.assembled(wrong, "x.asm")
    assert caught.value.hint == "another"


def test_an_instruction_that_hangs_keystone_ends_by_the_limit(monkeypatch: pytest.MonkeyPatch):
    """`1e` sends keystone 0.9.2 into an endless loop, deaf to ^C; keystone_engine.py lets no such text pass."""
    monkeypatch.setattr(apart, "ASSEMBLING", 1)

    def hangs() -> Program:
        keystone_engine._engine(64).asm(b"1e")
        raise AssertionError("it came back")

    begin = time.monotonic()
    with pytest.raises(PayloadError, match=r"x\.asm: assembling it: not done after 1 s of CPU time, and ended"):
        apart.assembled(hangs, "x.asm")
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"made": 5}', b'{"made": {"name": "x"}}', b'{"error": "X"}'])
def test_what_is_no_program_is_refused(data: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(apart, "apart", lambda *_, **__: data)
    with pytest.raises(PayloadError, match="gave nothing of use"):
        apart.assembled(lambda: Program("x", 0, b"", {}, ()), "x.asm")


def test_a_payload_is_assembled_in_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYVMM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.asm").write_text("; summary: x\nstart: hlt\n")
    payload, seen = find(str(tmp_path / "a.asm")), []
    inside = apart.apart
    monkeypatch.setattr(apart, "apart", lambda *args, **named: seen.append(args[1]) or inside(*args, **named))
    assert assemble_payload(payload).code == b"\xf4"
    assert seen == ["assembling it"]
    assert assemble_payload(payload).code == b"\xf4"
    assert seen == ["assembling it"], "the cache had it"


def test_a_child_ends_by_no_handler_of_ours():
    """A handler of Python's would run in the child, on what it left behind."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        assert "SIGUSR1" in refused(_raise)
    finally:
        signal.signal(signal.SIGUSR1, before)


def _raise() -> bytes:
    os.kill(os.getpid(), signal.SIGUSR1)
    return b""
